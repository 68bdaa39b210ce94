"""Frames that are told while the worker is deaf: in order, counted, and with nothing left to the timing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from harness import Harness
from rclpy.lifecycle import TransitionCallbackReturn

from motion4d_ros.ros.inputs.frames import FrameContext
from motion4d_ros.types import CAMERA_CHANGED, CLOCK_JUMPED

OK = TransitionCallbackReturn.SUCCESS
SHORT = {"window.length": 4, "window.horizon": 12, "masks.source": "none", "depth.source": "none"}
SECOND = 10**9


@pytest.fixture
def deaf(harness: Callable[..., Harness]) -> Iterator[Harness]:
    """A node whose engine is in a window that hears nobody, and ends when `engine.window_s` says so."""
    h = harness(parameters={**SHORT, "budget.queue_size": 100})
    h.connect()
    h.engine.window_s, h.engine.deaf = 60.0, True
    h.stream(4)
    assert h.until(lambda: "process_window" in h.engine.calls)
    h.settled(4)
    h.engine.views = True
    yield h


def live_stamps(h: Harness) -> list[int]:
    return [m.header.stamp.sec * SECOND + m.header.stamp.nanosec for m in h.heard["tracked_objects"]]


def test_every_frame_is_told_while_a_window_hears_nobody(deaf: Harness) -> None:
    h = deaf
    h.listen("tracked_objects")
    stamps = h.stream(20, start_ns=2 * SECOND)
    assert h.settled(24).processed == 24 and h.engine.windows == 0
    assert h.until(lambda: live_stamps(h) == stamps), "in order, and once each"
    h.engine.window_s = 0.0
    assert h.until(lambda: h.engine.windows == 2), "those that were kept become a window of their own"
    assert [frame.stamp_ns for frame in h.engine.frames[4:]] == stamps[1:8:2], "every second, as long as there is room"
    assert h.until(lambda: h.engine.looks == 16)


def test_what_nobody_reads_is_not_computed(deaf: Harness) -> None:
    h = deaf
    asked: list[Any] = []
    wanted = h.node.outputs.wanted
    assert not wanted().labels and not wanted().points
    deliver = h.node.worker._deliver

    def listen(estimate: Any, context: FrameContext | None) -> None:
        asked.append((estimate.masks.size > 0, len(estimate.points.point_id)))
        deliver(estimate, context)

    h.node.worker._deliver = listen
    h.send(2 * SECOND)
    h.settled(5)
    h.listen("semantic_mask", "tracked_points")
    assert wanted().labels and wanted().points
    h.send(3 * SECOND)
    h.settled(6)
    assert h.until(lambda: [size for size, _ in asked] == [False, True])
    assert h.until(lambda: len(h.heard["semantic_mask"]) == 1)
    assert np.prod([h.heard["semantic_mask"][0].height, h.heard["semantic_mask"][0].width]) == 64 * 48


@pytest.mark.parametrize("why", [CAMERA_CHANGED, CLOCK_JUMPED])
def test_what_begins_a_new_scene_is_left_to_the_worker(harness: Callable[..., Harness], why: str) -> None:
    h = harness(parameters={**SHORT, "budget.queue_size": 100})
    h.connect()
    h.engine.window_s, h.engine.views = 60.0, True  # it pauses, and hears
    h.stream(10, start_ns=5 * SECOND)
    assert h.until(lambda: "process_window" in h.engine.calls)
    h.settled(10)
    if why == CAMERA_CHANGED:
        h.send(7 * SECOND, width=32, height=24)
    else:
        h.send(1 * SECOND)
    assert h.settled(11).processed == 11
    assert h.until(lambda: why in h.node.worker.report.reset_at)
    assert h.until(lambda: len(h.engine.frames) == 1 and not h.node.worker._live.kept), "a new scene of one frame"


def test_a_frame_that_cannot_be_told_is_counted(deaf: Harness) -> None:
    h = deaf
    h.engine.fail["look"] = RuntimeError("no")
    h.stream(3, start_ns=2 * SECOND)
    counts = h.settled(7)
    assert counts.processed == 6 and counts.rejected == {"exception": 1}
    h.send(2 * SECOND)
    assert h.settled(8).dropped == {"out of order": 1}


def test_it_ends_with_the_worker(deaf: Harness) -> None:
    h = deaf
    h.stream(3, start_ns=2 * SECOND)
    worker = h.node.worker
    assert h.node.trigger_deactivate() == OK
    assert worker._live._thread is not None and not worker._live._thread.is_alive()
    assert h.counts().queued == 0


def test_a_worker_that_dies_leaves_no_frame_uncounted(deaf: Harness) -> None:
    h = deaf
    first = h.node.worker
    h.engine.fail["process_window"] = SystemExit("died")
    h.engine.window_s = 0.0
    h.stream(12, start_ns=2 * SECOND)
    assert h.until(lambda: h.node.worker is not first, 20.0), "another takes its place"
    h.stream(3, start_ns=9 * SECOND)
    assert h.settled(19).received == 19
