"""Docker, the devcontainer, the workflow and the citation: what they name is there. No image is built here."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml

RELEASES = ("jazzy", "lyrical")


@pytest.fixture(scope="module")
def dockerfile(repository: Path) -> str:
    return (repository / "docker" / "Dockerfile").read_text(encoding="utf-8")


def test_what_the_dockerfile_copies_and_runs_is_there(repository: Path, dockerfile: str) -> None:
    for names in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE):
        assert all((repository / name).exists() for name in names.split()), names
    for name in re.findall(r"-r (requirements/\S+)", dockerfile):
        assert (repository / name).is_file(), name
    entrypoint = repository / "docker" / "entrypoint.sh"
    assert os.access(entrypoint, os.X_OK) and 'exec "$@"' in entrypoint.read_text(encoding="utf-8")
    assert (repository / "launch" / "motion4d.launch.py").is_file() and "motion4d.launch.py" in dockerfile
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", dockerfile, re.MULTILINE)
    assert [name for _, name in stages] == ["dependencies", "development", "runtime"]
    assert stages[0][0] == "ros:${ROS_DISTRO}-ros-base"


def test_versions_are_those_of_the_package(repository: Path, dockerfile: str) -> None:
    runtime = (repository / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    assert set(re.findall(r'"(torch[^"]+)"', dockerfile)) == set(re.findall(r"^torch\S+", runtime, re.MULTILINE))
    extras = (repository / "pyproject.toml").read_text(encoding="utf-8")
    (gsplat,) = set(re.findall(r"gsplat==[\d.]+", dockerfile))
    assert f'"{gsplat}"' in extras


def test_the_devcontainer_builds_the_stage_for_it(repository: Path, dockerfile: str) -> None:
    folder = repository / ".devcontainer"
    content = json.loads((folder / "devcontainer.json").read_text(encoding="utf-8"))
    build = content["build"]
    assert (folder / build["dockerfile"]).resolve() == repository / "docker" / "Dockerfile"
    assert (folder / build["context"]).resolve() == repository
    assert f" AS {build['target']}\n" in dockerfile
    assert set(build["args"]) <= set(re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE))
    assert build["args"]["ROS_DISTRO"] in RELEASES and content["postCreateCommand"].endswith("make build")
    assert "\nbuild: " in (repository / "Makefile").read_text(encoding="utf-8")


def test_the_workflow_runs_what_ci_runs(repository: Path) -> None:
    path = repository / ".github" / "workflows" / "ci.yml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content[True].keys() == {"push", "pull_request"}  # YAML reads `on` as a truth value
    (job,) = content["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands[-1] == "bash .ci/run" and (repository / ".ci" / "run").is_file()
    assert any("actions/checkout@" in step.get("uses", "") for step in job["steps"])
    assert job["env"]["TORCH"] == "torch==2.13.0+cpu"
    setup = (repository / "tools" / "setup_venv.sh").read_text(encoding="utf-8")
    assert "torch=${TORCH:-" in setup, "the variable that the workflow sets"


def test_the_citation_says_what_the_package_is(repository: Path) -> None:
    content = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(content)  # what the format demands
    (version,) = re.findall(r"<version>(.+)</version>", (repository / "package.xml").read_text(encoding="utf-8"))
    assert content["version"] == version and content["license"] == "Apache-2.0" and content["type"] == "software"
    papers = {entry["identifiers"][0]["value"]: entry for entry in content["references"]}
    assert set(papers) == {"arXiv:2512.03601", "arXiv:2407.13764"}
    assert all(author.get("name") or author.get("family-names") for author in content["authors"])
