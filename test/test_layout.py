"""The layout shows the method: small folders that say what they are for; imports go one way, without circles."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = "motion4d_ros"
MOST_FILES = 15  # in one folder
ORDER = (
    {"errors", "children", "remedies", "logs", "files", "threads"},
    {"types", "failures", "options"},
    {"raster_library"},
    {"tunables", "geometry", "imagery"},
    {"config", "viewer"},
    {"scene", "models"},
    {"render", "objects", "priors"},
    {"fit"},
    {"pipeline"},
    {"offline", "ros"},
    {"batch"},
    {"evaluation", "doctor", "cli"},
    {"ros_tools"},
)
"""Files and folders of the package, the lowest first: each imports its own and lower ones, never one beside it."""
KNOWN_CIRCLES = {frozenset({"render.gpu", "render.gsplat_cuda", "render.reference_picture", "render.render"})}
"""Imports within functions: the renderer on the GPU is tried out by the renderer before it is used."""
ROS = re.compile(
    r"^\s*(?:from|import)\s+(?:rclpy|launch|tf2_\w+|\w+_msgs|std_srvs|builtin_interfaces|motion4d_ros\.(?:msg|srv|ros|ros_tools))\b",
    re.MULTILINE,
)


@pytest.fixture(scope="module")
def source(repository: Path) -> Path:
    return repository / PACKAGE


@pytest.fixture(scope="module")
def modules(source: Path) -> dict[str, Path]:
    """Dotted name within the package -> file."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@pytest.fixture(scope="module")
def imported(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports anywhere: within functions and for types, too."""
    return {name: set(_imports(path, modules)) - {name} for name, path in modules.items()}


def _imports(path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            own = name.removeprefix(f"{PACKAGE}.")
            own = own if own in modules else own.rpartition(".")[0]
            if own in modules and name.startswith(f"{PACKAGE}."):  # not the generated messages
                yield own


def test_a_folder_holds_few_files_and_says_what_it_is_for(source: Path) -> None:
    for init in source.rglob("__init__.py"):
        if init.parent == source:
            continue  # the message generator's (see test_installed.py)
        files = list(init.parent.glob("*.py"))
        assert len(files) <= MOST_FILES, f"{init.parent}: {len(files)} files; divide it by ideas"
        text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        assert text and len(text.splitlines()[0]) <= 120, f"{init}: one line that says what the folder is for"


def test_every_folder_is_a_package(source: Path) -> None:
    folders = {path.parent for path in source.rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_imports_go_one_way(imported: dict[str, set[str]]) -> None:
    rank = {name: level for level, names in enumerate(ORDER) for name in names}
    for module, others in imported.items():
        top = module.split(".")[0]
        if not top:
            continue
        assert top in rank, f"{top}: say in `ORDER` what it may import"
        for other in others:
            below = other.split(".")[0]
            assert below == top or rank[below] < rank[top], f"{module} imports {other}"


def test_no_circles(imported: dict[str, set[str]]) -> None:
    graph = {name: {other for other in others if other in imported} for name, others in imported.items()}
    for circle in KNOWN_CIRCLES:
        for name in circle:
            graph[name] -= circle
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_only_the_ros_folders_import_ros(source: Path) -> None:
    offenders = [
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if path.relative_to(source).parts[0] not in ("ros", "ros_tools") and ROS.search(path.read_text("utf-8"))
    ]
    assert offenders == []


def test_the_node_does_not_know_its_tools(imported: dict[str, set[str]]) -> None:
    assert not [name for name, others in imported.items() if name.startswith("ros.") and "ros_tools" in str(others)]


def test_tests_mirror_the_package(repository: Path, source: Path) -> None:
    """A test of a folder lies in the folder of the same name."""
    for path in (repository / "test").rglob("test_*.py"):
        folder = path.parent.relative_to(repository / "test")
        assert (source / folder).is_dir(), f"{path}: there is no {source.name}/{folder}"
