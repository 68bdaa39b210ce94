"""Boxes of detectors: what is kept, what is left out and counted, and where they lie in rectified images."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.imagery.detections import MOST, RawBox, boxes_of, class_name, clean, rectified, told
from motion4d_ros.types import Camera, Detection

SIZE = (48, 64)
NAN, INF = math.nan, math.inf


def raw(x: float = 10, y: float = 12, width: float = 20, height: float = 8, label: str = "cup", score: float = 0.5):  # type: ignore[no-untyped-def]
    return RawBox(x, y, width, height, label, score)


def test_a_box_covers_the_pixels_whose_edges_it_names() -> None:
    left_out: Counter[str] = Counter()
    (found,) = clean([raw(0, 0, 1, 1)], SIZE, left_out)
    assert found.box_px == (0.0, 0.0, 0.0, 0.0)  # the top-left pixel, by its centre
    (found,) = clean([raw(0, 0, 64, 48)], SIZE, left_out)
    assert found.box_px == (0.0, 0.0, 63.0, 47.0) and not left_out


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (raw(x=NAN), "not a number"),
        (raw(height=INF), "not a number"),
        (raw(width=-5), "without a width or height"),
        (raw(height=0), "without a width or height"),
        (raw(score=NAN), "with a score outside 0 .. 1"),
        (raw(score=57.0), "with a score outside 0 .. 1"),
        (raw(score=-0.1), "with a score outside 0 .. 1"),
        (raw(label="  "), "without a class"),
        (raw(x=64), "outside the image"),
        (raw(x=-1e12), "outside the image"),
        (raw(y=-8), "outside the image"),
        (raw(x=63.5), "smaller than a pixel in the image"),
        (raw(width=0.2, height=0.2), "smaller than a pixel in the image"),
    ],
)
def test_what_cannot_be_used_is_left_out_and_counted(box: RawBox, reason: str) -> None:
    left_out: Counter[str] = Counter()
    kept = clean([box, raw(), box], SIZE, left_out)
    assert [each.label for each in kept] == ["cup"] and left_out == {reason: 2}
    assert told(left_out) == [f"boxes {reason} were left out"]


def test_a_box_that_reaches_beyond_the_image_is_clipped_and_counted() -> None:
    left_out: Counter[str] = Counter()
    (found,) = clean([raw(-10, 30, 30, 1e6)], SIZE, left_out)
    assert found.box_px == (0.0, 30.0, 19.0, 47.0) and left_out == {"clipped to the image": 1}
    clean([raw(-0.4, 0, 20.4, 20)], SIZE, left_out)
    assert left_out == {"clipped to the image": 1}, "rounding is no clipping"


def test_of_a_flood_the_best_are_kept() -> None:
    scores = np.random.default_rng(0).uniform(0, 1, 10_000)
    left_out: Counter[str] = Counter()
    kept = clean([raw(score=float(score)) for score in scores], SIZE, left_out)
    assert [each.score for each in kept] == sorted(scores, reverse=True)[:MOST]
    assert left_out == {f"beyond the best {MOST} of an image": 10_000 - MOST}
    assert clean([], SIZE, left_out) == ()


def message(*boxes: Any) -> Any:
    return SimpleNamespace(detections=list(boxes))


def box4(x: float, y: float, w: float, h: float, *classes: tuple[Any, float], theta: float = 0.0) -> Any:
    """As vision_msgs 4 (Humble and later) has it."""
    results = [SimpleNamespace(hypothesis=SimpleNamespace(class_id=c, score=s)) for c, s in classes]
    centre = SimpleNamespace(position=SimpleNamespace(x=x, y=y), theta=theta)
    return SimpleNamespace(results=results, bbox=SimpleNamespace(center=centre, size_x=w, size_y=h), id="7")


def box2(x: float, y: float, w: float, h: float, *classes: tuple[Any, float]) -> Any:
    """As vision_msgs of Foxy and of ROS 1 has it."""
    results = [SimpleNamespace(id=c, score=s) for c, s in classes]
    return SimpleNamespace(
        results=results, bbox=SimpleNamespace(center=SimpleNamespace(x=x, y=y, theta=0.0), size_x=w, size_y=h)
    )


@pytest.mark.parametrize("make", [box4, box2])
def test_messages_of_all_releases(make: Any) -> None:
    (found,) = boxes_of(message(make(20.0, 16.0, 20.0, 8.0, ("dog", 0.2), ("cat", 0.7), ("cow", NAN))))
    assert (found.x, found.y, found.width, found.height, found.label, found.score) == (10, 12, 20, 8, "cat", 0.7)


def test_odd_messages() -> None:
    left_out: Counter[str] = Counter()
    nothing = box4(20, 16, 20, 8)
    (first, second) = boxes_of(message(nothing, box4(20, 16, 20, 8, (3, NAN))))
    assert clean([first, second], SIZE, left_out) == ()
    assert sum(left_out.values()) == 2
    (turned,) = boxes_of(message(box4(20, 16, 20, 8, ("cat", 1.0), theta=math.pi / 2)))
    assert (turned.x, turned.y, turned.width, turned.height) == pytest.approx((16, 6, 8, 20))
    (negative,) = boxes_of(message(box4(20, 16, -20, 8, ("cat", 1.0), theta=0.3)))
    assert clean([negative], SIZE, left_out) == ()


def test_names_of_classes() -> None:
    assert class_name(3) == class_name("3") == "class 3"
    assert class_name(" traffic\n light\x00") == "traffic light"


def info(d: list[float]) -> Any:
    whole = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    K = [60.0, 0, 31.5, 0, 60.0, 23.5, 0, 0, 1]
    return SimpleNamespace(
        width=64, height=48, distortion_model="plumb_bob", d=d, k=K, r=[],
        p=[60.0, 0, 31.5, 0, 0, 60.0, 23.5, 0, 0, 0, 1, 0], binning_x=0, binning_y=0, roi=whole,
    )  # fmt: skip


def test_boxes_follow_the_lens() -> None:
    """The rectified box holds the rectified pixels of the raw one, and hardly more."""
    rectifier = Rectifier(info([-0.3, 0.05, 0.0, 0.0, 0.0]))
    raw_mask = np.zeros(SIZE, np.int32)
    raw_mask[5:20, 3:25] = 1
    straight = rectifier.rectify(raw_mask, nearest=True) > 0
    ys, xs = np.nonzero(straight)
    (found,) = rectified((Detection((3.0, 5.0, 24.0, 19.0), "cup", 0.5),), rectifier)
    expected = (xs.min(), ys.min(), xs.max(), ys.max())
    assert np.abs(np.subtract(found.box_px, expected)).max() <= 1.0
    pinhole = Rectifier.of_pinhole(Camera(60.0, 60.0, 31.5, 23.5, 64, 48))
    same = (Detection((3.0, 5.0, 24.0, 19.0), "cup", 0.5),)
    assert rectified(same, pinhole) is same


def test_boxes_scale_with_their_image() -> None:
    half = Detection((0.0, 0.0, 63.0, 47.0), "cup", 0.5).scaled(0.5, 0.5)
    assert half.box_px == (-0.25, -0.25, 31.25, 23.25)  # the same area: edges at -0.5 and 31.5
