"""package.xml, requirements/ and what the code imports must tell the same."""

from __future__ import annotations

import ast
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from packaging.requirements import Requirement

KEYS = {
    "PIL": "python3-pil", "cv2": "python3-opencv", "jinja2": "python3-jinja2", "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy", "packaging": "python3-packaging", "psutil": "python3-psutil",
    "rich": "python3-rich", "scipy": "python3-scipy",
    "torch": "python3-torch", "yaml": "python3-yaml", "tf2_ros": "tf2_ros_py",
}  # fmt: skip
"""Module -> rosdep key, where they differ."""
WITHOUT_KEY = {"imageio_ffmpeg": "imageio-ffmpeg", "rosbags": "rosbags", "safetensors": "safetensors"}
"""Module -> name on PyPI of what rosdep does not know."""
OPTIONAL = {
    "fsspec", "gsplat", "huggingface_hub", "hydra", "omegaconf", "onnxruntime", "pyarrow", "ray", "rerun", "sam2",
    "submitit", "tapnet", "transformers",
}  # fmt: skip
"""GPU, 2D networks, the viewer and Ray, installed where they are wanted (pyproject.toml, docs/how-to/models.md)."""
NOT_IMPORTED = {"rosidl_default_runtime", "ros2bag", "vision_msgs"}
"""Used all the same: by the generated messages, and as a command in a launch file."""

"""Used all the same: by the generated messages, as a command in a launch file, and by name where it is there."""


def imports(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports, without Python's own and ours."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"motion4d_ros"}


@pytest.fixture(scope="module")
def sources(repository: Path) -> list[Path]:
    files = [*(repository / "motion4d_ros").rglob("*.py"), *(repository / "launch").glob("*.py")]
    return [*files, *(path for path in (repository / "scripts").iterdir() if "python" in path.read_text()[:40])]


@pytest.fixture(scope="module")
def declared(repository: Path) -> set[str]:
    tree = ElementTree.parse(repository / "package.xml")
    return {str(item.text) for kind in ("depend", "exec_depend") for item in tree.iter(kind)}


def lines_of(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {Requirement(line).name.lower(): line for line in lines}


def test_all_that_is_imported_is_declared(repository: Path, sources: list[Path], declared: set[str]) -> None:
    without_key = lines_of(repository / "requirements" / "no-rosdep-key.txt")
    for path in sources:
        for name in imports(path) - OPTIONAL:
            if name in WITHOUT_KEY:
                assert WITHOUT_KEY[name] in without_key, f"{path}: {name}"
            else:
                assert KEYS.get(name, name) in declared, f"{path}: {name} is not in package.xml"


def test_all_that_is_declared_is_used(sources: list[Path], declared: set[str]) -> None:
    imported = set().union(*map(imports, sources))
    used = {KEYS.get(name, name) for name in imported} | NOT_IMPORTED
    assert declared - used == set()


def test_a_robot_and_pip_get_the_same(repository: Path, declared: set[str]) -> None:
    runtime = lines_of(repository / "requirements" / "runtime.txt")
    without_key = lines_of(repository / "requirements" / "no-rosdep-key.txt")
    for name, line in without_key.items():
        assert runtime[name] == line
    names = {"opencv-python-headless": "opencv", "pillow": "pil", "pyyaml": "yaml"}
    with_key = {f"python3-{names.get(name, name)}" for name in set(runtime) - set(without_key)}
    assert with_key == {key for key in declared if key.startswith("python3-")}
