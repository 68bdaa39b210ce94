"""What the documents say holds: links and mentions lead somewhere, and examples run on small inputs.

Each page's examples run in order in one folder of their own, beside small inputs with the names that the pages use
(`clip.mp4`, `bag/`, `images/`, `first.png`, …). Blocks of Python that follow one another share their variables.
A block that is not run says why, in a comment on the line before: ``<!-- not run: it needs a camera -->``; one comment
speaks for a whole page: ``<!-- nothing on this page is run: … -->``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from motion4d_ros.evaluation.synthetic import make_scene, write_bag

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ("text", "yaml", "json", "xml", "ini", "diff", "bibtex")  # languages of what nobody executes
RUN = ("bash", "python")
FAST = ("README.md", "docs/tutorials/python.md")  # pages whose examples take seconds
FENCE = re.compile(
    r"(?P<before>(?:^[^\n]*\n)?)^ *```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^ *```$", re.DOTALL | re.MULTILINE
)
REASON = re.compile(r"<!-- not run: (.+?) -->")
PAGE_REASON = re.compile(r"<!-- nothing on this page is run: (.+?) -->")


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    line: int
    language: str
    code: str
    reason: str  # why it is not run; empty: it is


def pages() -> list[Path]:
    """What readers read."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def in_place(page: Path) -> Path:
    """Skips the test of a page that lies beside the folders: it has no place in the navigation yet."""
    if page.parent == ROOT / "docs" and page.name not in ("index.md", "research_log.md"):
        pytest.skip(f"docs/{page.name} lies outside the folders: git mv it into one of them")
    return page


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Its fenced blocks, in order."""
    text = page.read_text(encoding="utf-8")
    whole = PAGE_REASON.search(text)
    found = []
    for match in FENCE.finditer(text):
        reason = whole or REASON.search(match["before"])
        line = text.count("\n", 0, match.start("code"))
        found.append(Block(line, match["language"], match["code"], reason[1] if reason else ""))
    return found


# -- what every page must keep ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks(in_place(page)):
        assert block.language in RUN + TEXTS, (
            f"{page}:{block.line}: ```{block.language}: name one of {', '.join(RUN + TEXTS)}; what is bash or python "
            "is run, or has <!-- not run: REASON --> on the line before"
        )
    assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page)), f"{page}: a block does not end"


def links(page: Path) -> Iterator[tuple[str, str]]:
    """(Path, anchor) of every link to another file."""
    text = re.sub(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            path, _, anchor = target.partition("#")
            yield path, anchor


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    for path, _ in links(in_place(page)):
        assert not path or (page.parent / path).exists(), f"{page}: there is no {path}"


def test_pages_that_are_mentioned_exist() -> None:
    """In code, configuration and texts: `docs/how-to/models.md`, say."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a checkout of git")
    lost = []
    for name in listed.stdout.split():
        path = ROOT / name
        if name == "CHANGELOG.md":  # tells of former places, too
            continue
        if path.suffix not in (".py", ".md", ".toml", ".yaml", ".txt", ".sh", ".bash", "") or not path.is_file():
            continue
        for page in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text(encoding="utf-8", errors="replace")):
            if not (ROOT / page).is_file():
                lost.append(f"{name}: {page}")
    assert not lost, "\n".join(lost)


# -- examples --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small recording in every shape, under the names that the pages use."""
    folder = tmp_path_factory.mktemp("inputs")
    scene = make_scene("stop_and_go", frames=10, size=(120, 160))
    write_bag(scene, folder / "bag")
    scene.save_npz(folder / "truth" / "gt.npz")
    for name in ("images", "depth", "masks", "true_masks", "my_masks"):
        (folder / name).mkdir()
    video = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (160, 120))
    poses = []
    for t, image in enumerate(scene.images):
        video.write(image[..., ::-1])
        cv2.imwrite(str(folder / "images" / f"{t:06d}.png"), image[..., ::-1])
        cv2.imwrite(str(folder / "depth" / f"{t:06d}.png"), np.nan_to_num(1e3 * scene.in_depth_m[t]).astype(np.uint16))
        cv2.imwrite(str(folder / "masks" / f"{t:06d}.png"), scene.in_masks[t].astype(np.uint16))
        for name in ("true_masks", "my_masks"):
            cv2.imwrite(str(folder / name / f"{t:06d}.png"), scene.masks[t].astype(np.uint16))
        x, y, z = scene.T_map_cam[t][:3, 3]
        turned = " ".join(map(str, quaternion(scene.T_map_cam[t])))
        poses.append(f"{1e-9 * scene.stamps_ns[t]:.6f} {x} {y} {z} {turned}")
    video.release()
    (folder / "path.tum").write_text("\n".join(poses) + "\n")
    np.save(folder / "queries.npy", scene.queries[:20])
    camera = scene.camera
    shutil.copy(ROOT / "docs" / "examples" / "fuse_tracks.py", folder)
    (folder / "camera.txt").write_text(f"{camera.fx} {camera.fy} {camera.cx} {camera.cy}\n")
    cv2.imwrite(str(folder / "first.png"), scene.masks[0].astype(np.uint8))
    x, y, width, height = cv2.boundingRect((scene.masks[0] == 1).astype(np.uint8))
    box = {"image_id": 0, "category_name": "box", "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}
    (folder / "boxes.json").write_text(json.dumps([dict(box, image_id=t) for t in range(len(scene.images))]))
    return folder


def quaternion(T: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(T[:3, :3]).as_quat()


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With a command `motion4d`, and Python, that find the installed package from any folder."""
    commands = tmp_path_factory.mktemp("bin")
    for name, start in (("motion4d", "-m motion4d_ros.cli"), ("python", ""), ("python3", "")):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {start} "$@"\n')
        (commands / name).chmod(0o755)
    settings = {"PATH": f"{commands}:{os.environ['PATH']}", "MOTION4D_LOG": str(commands), "MPLBACKEND": "Agg"}
    return {**os.environ, **settings, "NO_COLOR": "1", "XDG_CACHE_HOME": str(commands / "cache")}


@pytest.fixture(scope="session")
def result(inputs: Path, environment: dict[str, str]) -> Path:
    """`out`: an analysis of the bag."""
    command = "motion4d analyze bag --depth /camera/depth --masks /camera/mask --odometry /odom --preset fast --out out"
    done = subprocess.run(["bash", "-c", command], cwd=inputs, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return inputs / "out"


def runnable(page: Path) -> list[tuple[int, str, str]]:
    """(Line, language, code) of what is run: blocks of Python that follow one another are one."""
    joined: list[tuple[int, str, str]] = []
    for block in blocks(page):
        if block.reason or block.language not in RUN:
            continue
        if block.language == "python" and joined and joined[-1][1] == "python":
            line, language, code = joined[-1]
            joined[-1] = (line, language, f"{code}\n{block.code}")
        else:
            joined.append((block.line, block.language, block.code))
    return joined


def run_examples(page: Path, folder: Path, environment: dict[str, str]) -> None:
    for line, language, code in runnable(page):
        command = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else ["python", "-c", code]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=580)
        assert done.returncode == 0, f"{page}:{line}: status {done.returncode}\n{code}\n{done.stdout}\n{done.stderr}"


WITH_EXAMPLES = [page for page in pages() if runnable(page)]


@pytest.mark.parametrize("page", [page for page in WITH_EXAMPLES if name_of(page) in FAST], ids=name_of)
def test_quick_examples_run(page: Path, inputs: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "page"
    shutil.copytree(inputs, folder, ignore=shutil.ignore_patterns("out"))
    run_examples(page, folder, environment)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in WITH_EXAMPLES if name_of(page) not in FAST], ids=name_of)
def test_examples_run(page: Path, result: Path, inputs: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "page"
    shutil.copytree(inputs, folder)
    run_examples(page, folder, environment)
