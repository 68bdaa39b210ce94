"""The cache folder: where a model's files lie, and whether they are still what was fetched.

Each model has a folder of its name with its files and `manifest.json`: what was fetched, from where, and the size and
SHA-256 of every file. What `huggingface_hub` has in a cache of its own is used from there.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motion4d_ros.models.registry import DEFAULTS, HUGGING_FACE, MODELS, Model, ModelFile, find
from motion4d_ros.types import Motion4DError

MANIFEST = "manifest.json"
CHUNK = 1 << 20


class FileState(enum.Enum):
    """What became of a file of the cache."""

    OK = "ok"
    MISSING = "missing"
    ALTERED = "altered"


@dataclass(frozen=True)
class Located:
    """Weights ready to be loaded: those of a known model, or files the user pointed at."""

    model: Model | None
    paths: tuple[Path, ...]  # in the order of `model.files`; else the one path given


def default_folder() -> Path:
    """$XDG_CACHE_HOME/motion4d, usually ~/.cache/motion4d."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "motion4d"


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class ModelStore:
    """The models that lie in `folder` (text or path; empty = the default)."""

    def __init__(self, folder: str | Path = "") -> None:
        self.folder = Path(folder).expanduser() if str(folder) else default_folder()

    def folder_of(self, model: Model) -> Path:
        """Where the files of `model` lie."""
        return self.folder / model.name

    def state(self, model: Model) -> dict[str, FileState]:
        """State of every file of `model`, by path. Reads all of them."""
        recorded = self._recorded(model)
        return {item.path: self._file_state(model, item, recorded.get(item.path, "")) for item in model.files}

    def is_here(self, model: Model) -> bool:
        """Whether all files exist (without reading them)."""
        return all(self._place(model, item).is_file() for item in model.files)

    def record(self, model: Model, origin: str) -> None:
        """Writes down size and checksum of the files just fetched from `origin`; from now on they are demanded.

        Raises `Motion4DError` when a file contradicts the checksum in the registry.
        """
        files: dict[str, dict[str, Any]] = {}
        for item in model.files:
            path = self.folder_of(model) / item.path
            digest = sha256_of(path)
            if item.sha256 and digest != item.sha256:
                path.unlink()
                raise Motion4DError(
                    f"{model.name}: {item.path} from {origin} is not the file it should be (SHA-256 {digest[:12]}…, "
                    f"expected {item.sha256[:12]}…): it was deleted; fetch again or tell the project"
                )
            files[item.path] = {"sha256": digest, "bytes": path.stat().st_size, "pinned": bool(item.sha256)}
        content = {"name": model.name, "origin": origin, "licence": model.licence, "files": files}
        _write_atomically(self.folder_of(model) / MANIFEST, json.dumps(content, indent=2) + "\n")

    def locate(self, model: Model) -> Located:
        """The verified files of `model`. Raises `Motion4DError` when one is missing or altered, and says what to do."""
        for path, state in self.state(model).items():
            if state is FileState.MISSING:
                raise Motion4DError(
                    f"model {model.name!r} is not in {self.folder}: run `motion4d models fetch {model.name}` once "
                    f"with internet ({model.megabytes:.0f} MB, {model.licence}), or copy the folder from elsewhere"
                )
            if state is FileState.ALTERED:
                raise Motion4DError(
                    f"{self.folder_of(model) / path}, or its copy in the hub's cache, is not what was fetched (damaged "
                    f"or altered): run `motion4d models fetch --force {model.name}`"
                )
        return Located(model, tuple(self._place(model, item) for item in model.files))

    def resolve(self, value: str, source: str, loaders: Collection[str], setting: str) -> Located:
        """What a `*.model` setting means: `auto`, a model's name, or a path.

        `source` is the key of `DEFAULTS`, `loaders` what the caller can read, `setting` the name for messages.
        """
        if value in ("", "auto"):
            return self.locate(find(DEFAULTS[source]))
        path = Path(value).expanduser()
        if path.exists():
            return Located(None, (path,))
        if value not in {model.name for model in MODELS} and ("/" in value or path.suffix):
            raise Motion4DError(f"{setting}={value}: no such file or folder")
        model = find(value)
        if model.loader not in loaders:
            usable = ", ".join(other.name for other in MODELS if other.loader in loaders)
            raise Motion4DError(f"{setting}={value}: made for {model.task} ({model.loader}); choose one of {usable}")
        return self.locate(model)

    def _place(self, model: Model, item: ModelFile) -> Path:
        """Where a file lies: in our cache, or in that of `huggingface_hub` where all of the model does."""
        own = self.folder_of(model) / item.path
        if own.is_file() or model.source != HUGGING_FACE:
            return own
        try:
            from huggingface_hub import try_to_load_from_cache
        except ModuleNotFoundError:
            return own
        known = [try_to_load_from_cache(model.repository, each.path, revision=model.revision) for each in model.files]
        paths = [Path(each) for each in known if isinstance(each, str)]
        return paths[model.files.index(item)] if len(paths) == len(model.files) else own

    def _recorded(self, model: Model) -> dict[str, str]:
        """Path -> SHA-256 as written at the fetch; empty where there is no readable manifest."""
        try:
            content = json.loads((self.folder_of(model) / MANIFEST).read_text(encoding="utf-8"))
            return {str(path): str(entry["sha256"]) for path, entry in content["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _file_state(self, model: Model, item: ModelFile, recorded: str) -> FileState:
        path = self._place(model, item)
        if not path.is_file():
            return FileState.MISSING
        if path != self.folder_of(model) / item.path:  # the hub's client calls large files by their SHA-256
            blob = path.resolve().name
            return (
                FileState.OK
                if len(blob) != 2 * hashlib.sha256().digest_size or sha256_of(path) == blob
                else FileState.ALTERED
            )
        expected = item.sha256 or recorded
        if not expected:  # nobody ever wrote down what it should be: as good as not fetched
            return FileState.MISSING
        return FileState.OK if sha256_of(path) == expected else FileState.ALTERED


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
