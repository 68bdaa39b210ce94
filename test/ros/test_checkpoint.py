"""`run.checkpoint` on real DDS: a node that is killed goes on with its scene and its ids, if the camera shows it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness import Harness
from node_process import Process

from motion4d_ros.fit.checkpoint.saved import RESERVED_POINTS, read_checkpoint
from motion4d_ros.ros.save_root import SaveRoot
from motion4d_ros.ros.work.checkpoints import Checkpoints
from motion4d_ros.ros_tools.soak.world import World
from motion4d_ros.types import Motion4DError

FINE = {
    "run.checkpoint": 1.0, "window.length": 4, "window.horizon": 8, "fit.motion_iterations": 10,
    "budget.max_static": 1500, "budget.max_dynamic": 500,
}  # fmt: skip


def ids_heard(node: Process) -> set[int]:
    """Ids of the points that were published since they were last asked for."""
    ids: set[int] = set()
    for cloud in node.points:
        if cloud.width:
            offset = next(field.offset for field in cloud.fields if field.name == "point_id")
            rows = np.frombuffer(cloud.data, np.uint8).reshape(cloud.width, cloud.point_step)
            ids |= set(rows[:, offset : offset + 4].copy().view(np.uint32).ravel().tolist())
    node.points.clear()
    return ids


@pytest.mark.slow
def test_a_node_that_is_killed_goes_on_with_its_scene_if_the_camera_shows_it(
    harness: Callable[..., Harness], tmp_path: Path
) -> None:
    """SIGKILL, and the same command again, as `respawn:=true` does; then again, before another wall."""
    root = tmp_path / "scenes"
    node = Process(harness(start=False), tmp_path, save_root=str(root), **FINE)

    def kept() -> int:
        files = list(root.glob(".checkpoint-*")) if root.is_dir() else []
        return read_checkpoint(files[0], 10**8).count if files else 0

    process = node.start()
    try:
        node.feed_until(lambda: kept() > 600 and node.statuses[-1].windows >= 4)
        node.pace_s = 0.0  # the world stands still: who knows how long a busy machine takes to start a node
        windows, since = node.statuses[-1].windows, time.time()
        node.feed_until(lambda: node.statuses[-1].windows >= windows + 2)
        node.feed_until(lambda: any(file.stat().st_mtime > since + 2 for file in root.glob(".checkpoint-*")))
        node.points.clear()
        node.feed_until(lambda: any(cloud.width for cloud in node.points))
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        before, saved = ids_heard(node), read_checkpoint(next(root.glob(".checkpoint-*")), 10**8)
        assert len(list(root.iterdir())) <= 2, "one file, and what a kill in mid-save may leave until the next"

        process = node.start()
        node.feed_until(lambda: "went on from the saved scene" in node.log)
        node.feed_until(lambda: any(cloud.width for cloud in node.points))
        node.feed_until(lambda: kept() > 600)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        after = ids_heard(node)
        old = set(saved.ids.tolist())
        assert after & before & old, "points that move are there again under their ids"
        assert all(point in old or point >= saved.next_point_id for point in after), "no id is given twice"
        again = read_checkpoint(next(root.glob(".checkpoint-*")), 10**8)
        assert len(old & set(again.ids.tolist())) > 0.4 * len(old), "the scene is back"

        node.world = World(77)  # the robot was carried elsewhere
        process = node.start()
        node.feed_until(lambda: "refused the saved scene: it is not what the camera sees" in node.log)
        node.feed_until(lambda: any(cloud.width for cloud in node.points))
        assert min(ids_heard(node)) >= again.next_point_id - RESERVED_POINTS, "ids go on all the same"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not list(root.iterdir()), "an orderly end leaves nothing to go on from"
    finally:
        process.kill()
    assert "Traceback" not in node.log


def test_no_place_to_write_is_refused_at_the_start() -> None:
    with pytest.raises(Motion4DError, match=r"run\.checkpoint=5 needs a place to write: start the node with"):
        Checkpoints(5.0, SaveRoot("", 10), "/motion4d", lambda text: None)


class Worn:
    """An engine that has been asked for checkpoints."""

    ids_given = (1, 0)

    def __init__(self, problem: str = "") -> None:
        self.problem, self.resumed = problem, ""

    def resume(self, path: str, most_bytes: int) -> None:
        if self.problem:
            raise Motion4DError(self.problem)
        self.resumed = Path(path).read_text()

    def save_checkpoint(self, path: str) -> None:
        Path(path).write_text("ids only")


def test_a_scene_that_was_read_is_not_read_again(tmp_path: Path) -> None:
    """Should it be what ends the process, the next one begins without it."""
    said: list[str] = []
    file = tmp_path / ".checkpoint-robot.motion4d"
    file.write_text("scene")
    for expected in ("scene", "ids only"):
        engine = Worn()
        Checkpoints(1.0, SaveRoot(str(tmp_path), 10), "/robot/motion4d", said.append).resume(engine)
        assert engine.resumed == expected
    assert not said


@pytest.mark.parametrize("taken_up", [True, False])
def test_an_orderly_end_removes_a_file_once_it_was_taken_up(tmp_path: Path, taken_up: bool) -> None:
    """Even right after the start, before this process has kept a scene; not what it never came to read."""
    file = tmp_path / ".checkpoint-motion4d"
    file.write_text("scene")
    checkpoints = Checkpoints(1.0, SaveRoot(str(tmp_path), 10), "/motion4d", lambda text: None)
    checkpoints.resume(Worn() if taken_up else None)
    checkpoints.end()
    assert file.exists() == (not taken_up)


def test_a_damaged_one_is_named_and_removed(tmp_path: Path) -> None:
    said: list[str] = []
    file = tmp_path / ".checkpoint-motion4d"
    file.write_text("scene")
    Checkpoints(1.0, SaveRoot(str(tmp_path), 10), "/motion4d", said.append).resume(Worn("x: damaged checkpoint"))
    assert said == ["x: damaged checkpoint: a new scene begins, ids begin anew"] and not file.exists()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    root = tmp_path / "root"
    root.mkdir()
    (root / ".checkpoint-motion4d").symlink_to(outside)
    saves, engine = SaveRoot(str(root), 10), Worn()
    Checkpoints(1.0, saves, "/motion4d", lambda text: None).resume(engine)
    assert not engine.resumed
    saves.keep(".checkpoint-motion4d", engine.save_checkpoint)
    assert outside.read_text() == "precious" and (root / ".checkpoint-motion4d").read_text() == "ids only"


def test_no_caller_reaches_it_and_it_counts_for_the_room(tmp_path: Path) -> None:
    saves = SaveRoot(str(tmp_path), 1)
    with pytest.raises(Motion4DError, match="name of a folder below save_root"):
        saves.folder(".checkpoint-motion4d")

    def large(path: str) -> None:
        Path(path).write_bytes(b"x" * 2**21)

    with pytest.raises(Motion4DError, match="save_room is 1"):
        saves.keep(".checkpoint-motion4d", large)
    assert not list(tmp_path.iterdir())
