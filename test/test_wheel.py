"""From the sources to a user without ROS: sdist, wheel, an empty environment in another folder, an analysis there."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from pathlib import Path

import cv2
import numpy as np
import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rosbags.highlevel import AnyReader

from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.offline.results.workspace import PRODUCTS
from motion4d_ros.scene.storage import SCENE_FILE, load_scene

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

FRAMES = 9  # a window of 8 and an unfinished one
SHARED = {"msg": ("*.msg", 4), "srv": ("*.srv", 1), "config": ("*.*", 10), "launch": ("*.py", 3)}
TODAY = {  # releases of 2026 that users' machines bring
    "numpy": ("1.26.4", "2.3.4", "2.5.5"),
    "scipy": ("1.18.1",),
    "torch": ("2.13.0", "2.15.0"),
    "opencv-python-headless": ("4.14.0.94", "5.0.0.93"),
    "onnxruntime": ("1.31.1",),
}


def run(words: Sequence[str | Path], cwd: Path, *, status: int | None = 0) -> str:
    """Runs a command as a user without ROS would, away from every checkout; its output. `status`: None for any."""
    ours = ("PYTHONPATH", "AMENT_PREFIX_PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "MOTION4D_INSTALLED")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert status is None or done.returncode == status, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def sdist(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source archive, made from a copy of the checkout without what was built in it."""
    folder = tmp_path_factory.mktemp("sources")
    built = [line.rstrip("/") for line in (repository / ".gitignore").read_text().splitlines() if line]
    copy = shutil.copytree(repository, folder / "checkout", ignore=shutil.ignore_patterns(".git", ".venv*", *built))
    run([sys.executable, "-c", f"from setuptools import build_meta as b; b.build_sdist({str(folder)!r})"], copy)
    shutil.rmtree(copy)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel built by pip from the archive alone, in an environment of pip's own."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, sdist], folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Metadata:
    """The wheel's metadata; raises if a field breaks the standard."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Metadata.from_email(archive.read(name), validate=True)


def make_environment(folder: Path, interpreter: Path | str, *, system_packages: bool = False) -> Path:
    """An empty virtual environment; its folder of commands."""
    run([interpreter, "-m", "venv", *["--system-site-packages"] * system_packages, folder], folder.parent)
    return folder / "bin"


def install(commands: Path, repository: Path, *what: str | Path) -> None:
    """Installs with the versions that tests use."""
    pins = repository / "requirements" / "constraints.txt"
    run([commands / "python", "-m", "pip", "install", "--quiet", "-c", pins, *what], commands.parent)


def test_metadata(metadata: Metadata, sdist: Path, repository: Path) -> None:
    manifest = (repository / "package.xml").read_text()
    assert metadata.name == "motion4d_ros" and f"<version>{metadata.version}</version>" in manifest
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.description == (repository / "README.md").read_text(encoding="utf-8")
    assert metadata.description_content_type == "text/markdown"
    assert isinstance(metadata.requires_python, SpecifierSet) and metadata.classifiers
    for minor in range(10, 15):
        assert metadata.requires_python.contains(f"3.{minor}.1")
        assert f"Programming Language :: Python :: 3.{minor}" in metadata.classifiers
    assert not metadata.requires_python.contains("3.9.18")
    assert {"gpu", "models", "sam2", "view"} <= set(metadata.provides_extra or [])
    with tarfile.open(sdist) as archive:
        (name,) = (name for name in archive.getnames() if name.count("/") == 1 and name.endswith("/PKG-INFO"))
        content = archive.extractfile(name)
        assert content is not None
        of_sdist = message_from_bytes(content.read())
    assert sorted(of_sdist.get_all("Requires-Dist", [])) == sorted(map(str, metadata.requires_dist or []))


@pytest.mark.parametrize("name", TODAY)
def test_releases_of_today_are_admitted(metadata: Metadata, name: str) -> None:
    required: list[Requirement] = [r for r in metadata.requires_dist or [] if r.name == name]
    assert required
    for requirement in required:
        assert [v for v in TODAY[name] if not requirement.specifier.contains(v)] == []


def test_wheel_holds_modules_library_and_shared_files(wheel: Path, repository: Path) -> None:
    source = repository / "motion4d_ros"
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    modules = {f"motion4d_ros/{path.relative_to(source)}": path for path in source.rglob("*.py")}
    share = {"motion4d_ros/share/package.xml": repository / "package.xml"}
    for folder, (pattern, least) in SHARED.items():
        found = {f"motion4d_ros/share/{folder}/{path.name}": path for path in (repository / folder).glob(pattern)}
        assert len(found) >= least
        share |= found
    assert {name for name in held if name.startswith("motion4d_ros/share/")} == set(share)
    assert {name for name in held if name.endswith(".py")} - set(share) == set(modules)
    assert [name for name, path in (modules | share).items() if held[name] != path.read_bytes()] == []
    library = "motion4d_ros/render/libmotion4d_raster.so"
    assert [name for name in held if name.endswith(".so")] == [library] and held[library].startswith(b"\x7fELF")


def test_an_analysis_in_an_empty_environment(wheel: Path, repository: Path, tmp_path: Path) -> None:
    """Every file of the contract, readable, and with what was to be found."""
    torch = os.environ.get("TORCH") or f"torch=={importlib.metadata.version('torch')}"  # the Makefile's
    commands = make_environment(tmp_path / "environment", sys.executable, system_packages=torch == "system")
    install(commands, repository, wheel, *([torch] if torch != "system" else []))
    away = tmp_path / "away"
    away.mkdir()
    number = Metadata.from_email(_metadata_of(wheel), validate=False).version
    assert run([commands / "motion4d", "--version"], away) == f"motion4d_ros {number}\n"
    assert run([commands / "motion4d", "version"], away).startswith(f"motion4d_ros {number}\n  python ")
    assert "choose one of cpu_small, fast," in run(
        [commands / "motion4d", "analyze", ".", "--out", "out", "--preset", "quick"], away, status=2
    )
    doctor = json.JSONDecoder().raw_decode(run([commands / "motion4d", "doctor", "--json"], away, status=None))[0]
    states = {row["name"]: row["state"] for row in doctor["rows"]}
    assert states["message files"] == states["raster library"] == states["PyTorch"] == "ok"
    labels = _write_clip(away)
    words = ["--preset", "fast", "--depth", "depth", "--prompt-mask", "first.png", "--fps", "10"]
    run([commands / "motion4d", "analyze", "images", "--out", "out", *words], away)
    check_results(away / "out", labels, str(number))
    run([commands / "python", "-m", "pip", "uninstall", "--quiet", "--yes", "motion4d_ros"], away)
    assert list((tmp_path / "environment").rglob("*motion4d*")) == []
    shutil.rmtree(tmp_path / "environment")  # a gigabyte, which pytest would keep


def test_the_oldest_python(wheel: Path, repository: Path, metadata: Metadata, tmp_path: Path) -> None:
    """Imports, presets and messages on Python 3.10. PyTorch is left out: for other Pythons it may be gigabytes."""
    interpreter = _python310()
    commands = make_environment(tmp_path / "environment", interpreter)
    wanted = [str(r) for r in metadata.requires_dist or [] if r.name != "torch" and r.marker is None]
    assert len(wanted) > 10
    install(commands, repository, *wanted)
    run([commands / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel], tmp_path)
    assert run([commands / "motion4d", "--version"], tmp_path) == f"motion4d_ros {metadata.version}\n"
    code = (
        "from motion4d_ros.config import Config; from motion4d_ros.offline.results.bag_output import own_typestore;"
        "from motion4d_ros.offline.resources import preset; c = Config(); c.update_from_yaml(preset('fast'));"
        "print(c.as_dict() != Config().as_dict(), 'motion4d_ros/msg/TrackedObjectArray' in own_typestore().types)"
    )
    assert run([commands / "python", "-c", code], tmp_path) == "True True\n"
    run([commands / "python", "-m", "compileall", "-q", "-f", tmp_path / "environment" / "lib"], tmp_path)


def check_results(out: Path, labels: np.ndarray, version: str) -> None:
    """The contract's table: each file is there, can be read, and agrees with `labels` (T, H, W), the true ids."""
    count, height, width = labels.shape
    assert {path.name for path in out.iterdir()} == set(PRODUCTS)
    for folder in (out / "masks", out / "online" / "masks"):
        files = sorted(folder.iterdir())
        assert [path.name for path in files] == [f"{k:06d}.png" for k in range(count)]
        found = np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in files])
        assert found.dtype == np.uint16 and found.shape == labels.shape
    for value in np.unique(labels[0])[1:]:
        both = ((found == value) & (labels == value)).sum()
        assert both / ((found == value) | (labels == value)).sum() > 0.6, f"object {value}"
    for name in ("tracks.npz", "online/tracks.npz"):
        with np.load(out / name, allow_pickle=False) as content:
            tracks = dict(content)
        queries = len(tracks["query_points"])
        assert queries > 3 and tracks["tracks"].shape == (queries, count, 2)
        assert tracks["tracks_xyz"].shape == (queries, count, 3) and len(tracks["stamps_ns"]) == count
        assert tracks["occluded"].shape == tracks["confidence"].shape == (queries, count)
    with (out / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {int(row["id"]) for row in rows} >= set(np.unique(labels[0])[1:])
    poses = np.loadtxt(out / "trajectory.tum")
    assert poses.shape == (count, 8) and np.allclose(np.linalg.norm(poses[:, 4:], axis=1), 1)
    with AnyReader([out / "output.mcap"]) as reader:
        kinds = {c.topic: c.msgtype for c in reader.connections}
        assert kinds["/motion4d/tracked_objects"] == "motion4d_ros/msg/TrackedObjectArray"
        assert kinds["/motion4d/status"] == "motion4d_ros/msg/PipelineStatus"
        told = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages() if "objects" in c.topic]
    assert len(told) == count and told[-1].objects
    scene, _ = load_scene(out / "scene" / SCENE_FILE)
    assert scene.count and set(scene.objects()) <= {int(row["id"]) for row in rows}
    assert (out / "scene.ply").read_bytes().startswith(b"ply\n")
    assert "</html>" in (out / "report.html").read_text(encoding="utf-8")
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["motion4d"]["version"] == version and metrics["counts"]["frames"] == count
    assert metrics["input"]["width"] == width and metrics["input"]["height"] == height


def _write_clip(folder: Path) -> np.ndarray:
    """`images/`, `depth/` and `first.png` of a made-up scene; the true ids (T, H, W)."""
    scene = make_scene("stop_and_go", seed=1, frames=FRAMES, size=(120, 160))
    for name in ("images", "depth"):
        (folder / name).mkdir()
    for index, (rgb, depth_m) in enumerate(zip(scene.images, scene.depth_m)):
        cv2.imwrite(str(folder / "images" / f"{index:04d}.png"), rgb[..., ::-1])
        cv2.imwrite(str(folder / "depth" / f"{index:04d}.png"), np.round(1000 * depth_m).astype(np.uint16))
    cv2.imwrite(str(folder / "first.png"), scene.masks[0])
    return scene.masks


def _metadata_of(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")))


def _python310() -> Path:
    """A Python 3.10 of this machine that works; the test is skipped where there is none."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = shutil.which("python3.10")
    candidates = [*([Path(found)] if found else []), *sorted(versions.glob("3.10.*/bin/python3.10"))]
    for candidate in candidates:
        done = subprocess.run([candidate, "-c", "import ensurepip, venv"], capture_output=True)
        if done.returncode == 0:  # a shim of pyenv may lie in the PATH without a version behind it
            return candidate
    pytest.skip("no working python3.10 with venv on this machine: install one, or have pyenv install it")
