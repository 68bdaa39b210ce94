"""Prompts: from messages to rectified pixels, refused when they make no sense; on their topics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Point, PointStamped
from harness import HEIGHT, WIDTH, Harness, camera_info, labels
from hypothesis import given, settings
from hypothesis import strategies as st
from motion4d_ros.msg import ObjectPrompt

from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.imagery.validation import Rejection
from motion4d_ros.ros.inputs.prompts import prompt_from_click, prompt_from_message

RECTIFIER = Rectifier(camera_info(1))
NAN = float("nan")


def read(message: Any) -> Any:
    return prompt_from_message(message, RECTIFIER, 42)


def test_points_box_and_mask() -> None:
    points = [Point(x=5.0, y=6.0), Point(x=7.0, y=8.0)]
    message = ObjectPrompt(object_id=3, points=points, positive=[True, False], name="cup")
    message.box = [1.0, 2.0, 30.0, 40.0]
    message.mask = labels(1, ids=(9,))
    prompt = read(message)
    assert prompt.stamp_ns == 42 and prompt.object_id == 3 and prompt.name == "cup"
    assert np.array_equal(prompt.points_px, [[5, 6], [7, 8]]) and prompt.positive.tolist() == [True, False]
    assert np.array_equal(prompt.box_px, [1, 2, 30, 40]) and prompt.mask.sum() == 100
    message.header.stamp.sec = 7
    assert read(message).stamp_ns == 7 * 10**9
    assert read(ObjectPrompt(points=[Point(x=1.0)])).positive.tolist() == [True]
    assert read(ObjectPrompt(object_id=4, remove=True)).delete


@pytest.mark.parametrize(
    "message",
    [
        ObjectPrompt(),
        ObjectPrompt(remove=True),
        ObjectPrompt(name="x"),
        ObjectPrompt(object_id=1, name="x" * 100),
        ObjectPrompt(points=[Point(x=NAN)]),
        ObjectPrompt(points=[Point(x=-3.0)]),
        ObjectPrompt(points=[Point(x=float(WIDTH))]),
        ObjectPrompt(points=[Point()], positive=[True, True]),
        ObjectPrompt(box=[1.0, 2.0]),
        ObjectPrompt(box=[5.0, 5.0, 5.0, 9.0]),
        ObjectPrompt(box=[NAN, 5.0, 6.0, 9.0]),
        ObjectPrompt(box=[500.0, 500.0, 600.0, 600.0]),
        ObjectPrompt(mask=labels(1, width=80)),
        ObjectPrompt(mask=labels(1, ids=())),
    ],
)
def test_nonsense_is_refused(message: ObjectPrompt) -> None:
    with pytest.raises(Rejection):
        read(message)


def test_clicks() -> None:
    assert prompt_from_click([1, 2, 3], 9).xyz_map.tolist() == [1, 2, 3]
    for bad in ([NAN, 0, 0], [1e9, 0, 0]):
        with pytest.raises(Rejection):
            prompt_from_click(bad, 9)


@settings(max_examples=200, deadline=None)
@given(
    points=st.lists(st.tuples(st.floats(width=32), st.floats(width=32)), max_size=4),
    box=st.lists(st.floats(width=32), max_size=4),
    positive=st.lists(st.booleans(), max_size=4),
    nanosec=st.integers(0, 2**32 - 1),
)
def test_whatever_comes_is_read_or_rejected(points: Any, box: Any, positive: Any, nanosec: int) -> None:
    message = ObjectPrompt(points=[Point(x=float(x), y=float(y)) for x, y in points], box=box, positive=positive)
    message.header.stamp.nanosec = nanosec
    try:
        prompt = read(message)
    except Rejection:
        return
    for array in (prompt.points_px, prompt.box_px):
        assert array is None or (np.isfinite(array).all() and (array <= max(WIDTH, HEIGHT)).all())


def test_over_their_topics(harness: Callable[..., Harness]) -> None:
    h = harness()
    h.connect()
    prompts = h.publisher("prompt", ObjectPrompt)
    clicks = h.publisher("clicked_point", PointStamped)
    prompts.publish(ObjectPrompt(points=[Point(x=5.0, y=5.0)]))
    assert h.until(lambda: "no image" in h.node.snapshot().prompt_problem)
    stamps = h.stream(3)
    h.settled(3)
    prompts.publish(ObjectPrompt(points=[Point(x=5.0, y=5.0)]))
    assert h.until(lambda: len(h.engine.prompts) == 1)
    assert h.engine.prompts[0].stamp_ns == stamps[-1]
    click = PointStamped()
    click.header.frame_id, click.point.z = "map", 2.0
    clicks.publish(click)
    assert h.until(lambda: len(h.engine.prompts) == 2)
    assert h.engine.prompts[1].xyz_map.tolist() == [0.0, 0.0, 2.0]
    click.header.frame_id = "camera"
    clicks.publish(click)
    assert h.until(lambda: len(h.engine.prompts) == 3)
    click.header.frame_id = "elsewhere"
    clicks.publish(click)
    assert h.until(lambda: "fixed frame" in h.node.snapshot().prompt_problem)
    assert len(h.engine.prompts) == 3
