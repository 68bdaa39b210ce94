"""Detections of a detector node: early, late, never matching, in floods; by a double of the message and the real one.

`vision_msgs` has no wheel: the last tests need a workspace that holds it, and are skipped elsewhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from engine_double import DoubleEngine
from harness import STATIC_QOS, Harness, labels
from sensor_msgs.msg import Image

from motion4d_ros.ros.inputs.detections import KEPT, Waiting, demand_messages, message_type
from motion4d_ros.ros.outputs import messages
from motion4d_ros.types import Motion4DError

SECOND = 10**9


def double(stamp_ns: int, *boxes: tuple[float, float, float, float, str, float]) -> Any:
    """As `vision_msgs/Detection2DArray` of Humble and later."""
    items = []
    for x, y, wide, high, label, score in boxes:
        centre = SimpleNamespace(position=SimpleNamespace(x=x, y=y), theta=0.0)
        hypothesis = SimpleNamespace(hypothesis=SimpleNamespace(class_id=label, score=score))
        box = SimpleNamespace(center=centre, size_x=wide, size_y=high)
        items.append(SimpleNamespace(results=[hypothesis], bbox=box, id=""))
    return SimpleNamespace(header=messages.header(stamp_ns, "camera"), detections=items)


CUP = (20.0, 16.0, 20.0, 8.0, "cup", 0.5)


def seen(h: Harness) -> dict[int, list[str]]:
    """Stamp -> classes detected in it, of the engine's frames."""
    return {f.stamp_ns: [d.label for d in f.detections] for f in h.engine.frames if f.detections is not None}


def test_what_comes_before_and_after_its_image(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"window.length": 4})
    hear = h.node.inputs.detecting.on_message
    h.connect()
    hear(double(SECOND, CUP))  # before the image has arrived
    h.send(SECOND)
    assert h.until(lambda: SECOND in seen(h))
    h.send(2 * SECOND)
    h.settled(2)
    hear(double(2 * SECOND + 5_000_000, CUP, (5.0, 5.0, -3.0, 4.0, "cup", 0.5)))  # after it, and a little off
    assert h.until(lambda: h.node.builder.misfits.get("detections"))
    assert h.until(lambda: "detect" in h.engine.calls)
    assert seen(h)[SECOND] == ["cup"]
    assert "without a width or height were left out" in h.node.builder.misfits["detections"]
    assert any(f.rule.code == "misfit" for f in findings(h))


def findings(h: Harness) -> Any:
    from motion4d_ros.ros.diagnostics import assess

    return assess(h.node.snapshot())


def test_late_detections_reach_the_frame_they_are_of(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"window.length": 4})
    h.connect()
    stamps = h.stream(3)
    h.settled(3)
    h.node.inputs.detecting.on_message(double(stamps[1], CUP))
    assert h.until(lambda: stamps[1] in seen(h)) and set(seen(h)) == {stamps[1]}


def test_stamps_that_match_nothing_and_messages_that_are_none(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"window.length": 4})
    h.connect()
    h.stream(3)
    h.settled(3)
    hear = h.node.inputs.detecting.on_message
    hear(double(SECOND + 50_000_000, CUP))  # between two images
    hear(double(0, CUP))
    assert "stamp is zero" in h.node.inputs.last_rejection
    assert h.until(lambda: "of stamps that no fitted image has" in h.node.builder.misfits.get("detections", ""))
    hear(SimpleNamespace(header=messages.header(4 * SECOND, "camera"), detections=[7]))
    h.send(4 * SECOND)
    assert h.settled(4).rejected_total == 0, "a bad message about an image is no reason to lose the image"
    assert "not a Detection2DArray" in h.node.builder.misfits["detections"] or h.node.builder.detections.left_out


def test_floods_of_messages_and_of_boxes_stay_bounded(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"window.length": 4})
    h.connect()
    h.send(SECOND)
    h.settled(1)
    hear = h.node.inputs.detecting.on_message
    flood = double(2 * SECOND, *[(20.0, 16.0, 20.0, 8.0, f"c{k}", k / 10_000) for k in range(10_000)])
    for k in range(1000):
        hear(double(10 * SECOND + k, CUP))  # of a future that never comes
    hear(flood)
    assert len(h.node.builder.detections._by_stamp) <= KEPT
    h.send(2 * SECOND)
    assert h.until(lambda: 2 * SECOND in seen(h))
    assert seen(h)[2 * SECOND][0] == "c9999" and len(seen(h)[2 * SECOND]) == 100
    assert "beyond the best 100" in h.node.builder.misfits["detections"]


def test_a_detector_does_not_hold_up_images(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"window.length": 4})
    h.connect()
    h.stream(10)
    counts = h.settled(10)
    assert counts.processed == 10 and counts.dropped_total == 0


def test_waiting_is_by_the_nearest_stamp() -> None:
    waiting = Waiting(slop_s=0.01)
    for k in (0, 4, 30):
        waiting.put(SECOND + k * 1_000_000, k)
    assert waiting.take(SECOND + 5_000_000) == 4 and waiting.take(SECOND + 15_000_000) is None
    assert waiting.take_until(SECOND + 15_000_000) == [(SECOND, 0)]
    assert waiting.take_until(SECOND + 20_000_000) == [(SECOND + 30_000_000, 30)]


def test_without_the_package_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", None)
    monkeypatch.setitem(sys.modules, "vision_msgs", None)
    with pytest.raises(Motion4DError, match=r"apt install ros-\S+-vision-msgs") as caught:
        demand_messages()
    assert "\n" not in str(caught.value)


def test_a_node_that_is_to_find_by_detections_says_what_it_lacks(
    harness: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", None)
    monkeypatch.setitem(sys.modules, "vision_msgs", None)
    with pytest.raises(Motion4DError, match="vision_msgs is not installed"):
        harness(parameters={"masks.discovery": "detections"}, start=False)
    given = harness(parameters={"masks.discovery": "detections", "masks.source": "topic"})  # nothing is to be found
    assert given.node.config.finder == "none"


# ---- the real message -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(message_type() is None, reason="vision_msgs is not installed (apt, or a workspace that holds it)")
def test_the_real_message_over_dds(harness: Callable[..., Harness]) -> None:
    from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray, ObjectHypothesis, ObjectHypothesisWithPose

    def message(stamp_ns: int) -> Any:
        box = BoundingBox2D(size_x=20.0, size_y=8.0)
        box.center.position.x, box.center.position.y = 20.0, 16.0
        results = [ObjectHypothesisWithPose(hypothesis=ObjectHypothesis(class_id="cup", score=0.5))]
        head = messages.header(stamp_ns, "camera")
        return Detection2DArray(header=head, detections=[Detection2D(header=head, results=results, bbox=box)])

    h = harness(parameters={"window.length": 4})
    h.connect()
    publisher = h.publisher("detections", Detection2DArray)
    for k in range(4):
        h.send((k + 1) * SECOND)
        time.sleep(0.05 * (k % 2))
        publisher.publish(message((k + 1) * SECOND))
    assert h.until(lambda: len(seen(h)) == 4), seen(h)
    (found,) = h.engine.frames[0].detections
    assert found.box_px == (10.0, 12.0, 29.0, 19.0) and found.label == "cup" and found.score == 0.5


@pytest.mark.skipif(message_type() is None, reason="vision_msgs is not installed (apt, or a workspace that holds it)")
def test_names_of_objects_are_told_to_late_comers(harness: Callable[..., Harness]) -> None:
    from vision_msgs.msg import LabelInfo

    class Naming(DoubleEngine):
        def _object(self, object_id: int, *rest: Any) -> Any:  # type: ignore[override]
            return replace(DoubleEngine._object(object_id, *rest), label=f"kind {object_id}", label_score=0.7)

    h = harness(engine=Naming, parameters={"window.length": 4, "masks.source": "topic"})
    h.connect()
    h.publisher("masks", Image)
    h.send(SECOND)
    h.publisher("masks", Image).publish(labels(SECOND))
    h.settled(1)
    heard: list[Any] = []
    h.tester.create_subscription(LabelInfo, h.topic("label_info"), heard.append, STATIC_QOS)
    assert h.until(lambda: heard)
    assert [(item.class_id, item.class_name) for item in heard[0].class_map] == [(1, "kind 1"), (2, "kind 2")]
