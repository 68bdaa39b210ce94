"""The parameter `rerun`: a node in the viewer, over real DDS; a viewer that is missing or goes away costs a line."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Harness, labels
from sensor_msgs.msg import Image

from motion4d_ros.ros.outputs import viewer_show
from motion4d_ros.types import Motion4DError

SECOND = 10**9
ENTITIES = {
    "/world/static", "/world/camera", "/world/camera/image", "/world/camera/image/masks", "/world/moving",
    "/world/tracks", "/world/trails", "/world/camera/image/tracks", "/world/boxes", "/world/velocities",
    "/world/uncertainty", "/speed/1", "/speed/2", "/latency/live", "/health/dropped", "/findings",
}  # fmt: skip


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines that the show writes to the node's log."""
    said: list[str] = []
    real = viewer_show.ViewerShow.__init__

    def listening(self: Any, target: str, name: str, note: Callable[[str], None]) -> None:
        real(self, target, name, said.append)

    monkeypatch.setattr(viewer_show.ViewerShow, "__init__", listening)
    return said


def run(h: Harness, frames: int = 8) -> None:
    """Frames with two objects, all processed."""
    h.connect()
    h.publisher("masks", Image)
    for k in range(frames):
        h.send((k + 1) * SECOND)
        h.publisher("masks", Image).publish(labels((k + 1) * SECOND))
    counts = h.settled(frames)
    assert counts.processed == frames


def content(path: Path) -> dict[str, dict[Any, dict[str, Any]]]:
    """Entity -> frame number ("static" without one) -> component -> value."""
    from rerun.chunk import RrdReader

    found: dict[str, dict[Any, dict[str, Any]]] = {}
    for chunk in RrdReader(path).stream():
        batch = chunk.to_record_batch()
        kept = [name for name in batch.schema.names if ":" in name or name == "frame"]
        for row in batch.select(kept).to_pylist():
            values = {k: v for k, v in row.items() if ":" in k}
            found.setdefault(chunk.entity_path, {}).setdefault(row.get("frame", "static"), {}).update(values)
    return found


SETTINGS = {"masks.source": "topic", "window.length": 4, "status_period": 0.05}


def test_a_file_holds_what_the_node_said(harness: Callable[..., Harness], tmp_path: Path, notes: list[str]) -> None:
    pytest.importorskip("rerun")
    path = tmp_path / "node.rrd"
    h = harness(parameters={**SETTINGS, "rerun": str(path)})
    run(h)
    shown = h.node.outputs._show
    assert h.until(lambda: not shown._waiting and shown._windows == 8, 30.0)
    told = threading.Event()

    def look() -> bool:
        shown._put(lambda account: told.set() if account.said else None)
        return told.is_set()

    assert h.until(look, 30.0), "the diagnostics find that the camera is silent, and that is shown"
    h.node.take_down()
    assert notes == []
    found = content(path)
    assert set(found) >= ENTITIES
    boxes = found["/world/boxes"]
    assert set(boxes) == set(range(8)) and boxes[7]["Boxes3D:labels"] == ["1", "2"]
    assert bytes(found["/world/camera/image"][3]["EncodedImage:blob"][0])[:2] == b"\xff\xd8"
    trails = found["/world/trails"][5]["LineStrips3D:strips"]
    assert [len(path) for path in trails] == [6, 6], "two points that were seen in six frames"


def test_a_viewer_that_is_not_there_costs_one_line(
    harness: Callable[..., Harness], notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rerun")
    monkeypatch.setattr(viewer_show, "AGAIN_S", 0.05)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    h = harness(parameters={**SETTINGS, "rerun": f"rerun+http://127.0.0.1:{port}/proxy"})
    run(h)
    assert h.until(lambda: notes)
    time.sleep(0.3)  # it is looked for several times
    assert len(notes) == 1 and "no viewer answers there" in notes[0] and "\n" not in notes[0]
    assert "the node goes on; it is looked for again" in notes[0]


def test_a_viewer_that_goes_away_costs_one_line(
    harness: Callable[..., Harness], notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rerun")
    monkeypatch.setattr(viewer_show, "AGAIN_S", 0.1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = f"import rerun, time; r = rerun.RecordingStream('t'); r.serve_grpc(grpc_port={port}); time.sleep(600)"
    viewer = subprocess.Popen([sys.executable, "-c", serve])
    try:
        assert Harness.until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 60.0)
        h = harness(parameters={**SETTINGS, "rerun": f"rerun+http://127.0.0.1:{port}/proxy"})
        run(h)
        assert h.until(lambda: h.node.outputs._show._telling, 30.0), notes
    finally:
        viewer.kill()
        viewer.wait()
    assert h.until(lambda: notes, 30.0)
    assert h.until(lambda: not h.node.outputs._show._telling)
    h.stream(3, start_ns=20 * SECOND)
    assert h.settled(11).received == 11 and len(notes) == 1 and "no viewer answers there" in notes[0]


def test_without_the_package_it_is_one_line(
    harness: Callable[..., Harness], tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    h = harness(parameters={**SETTINGS, "rerun": str(tmp_path / "node.rrd")})
    run(h)
    assert h.until(lambda: notes)
    assert len(notes) == 1 and "rerun-sdk" in notes[0] and notes[0].endswith("the node goes on")


def test_a_viewer_that_hangs_holds_up_nobody(
    harness: Callable[..., Harness], tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rerun")
    hanging = threading.Event()
    monkeypatch.setattr(viewer_show._Account, "estimate", lambda *_: hanging.wait(60.0))
    monkeypatch.setattr(viewer_show, "CLOSE_S", 0.1)
    h = harness(parameters={**SETTINGS, "rerun": str(tmp_path / "node.rrd"), "budget.queue_size": 200})
    run(h, 60)
    show = h.node.outputs._show
    assert len(show._waiting) <= viewer_show.WAITING and len(notes) == 1 and "left out" in notes[0]
    h.node.take_down()
    hanging.set()


def test_a_broken_viewer_is_given_up(
    harness: Callable[..., Harness], tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rerun")

    def fail(*_: Any) -> None:
        raise RuntimeError("the viewer broke")

    monkeypatch.setattr(viewer_show._Account, "estimate", fail)
    h = harness(parameters={**SETTINGS, "rerun": str(tmp_path / "node.rrd")})
    run(h)
    assert h.until(lambda: h.node.outputs._show._given_up)
    assert notes == ["nothing is shown (RuntimeError the viewer broke); the node goes on"]


@pytest.mark.parametrize("target", ["x.mp4", "http://127.0.0.1:9876/proxy", "rerun+http://"])
def test_what_is_no_target_is_refused(harness: Callable[..., Harness], target: str) -> None:
    with pytest.raises(Motion4DError, match=r"rerun='.*': expected FILE\.rrd, spawn, or rerun\+http"):
        harness(parameters={"rerun": target}, start=False)
