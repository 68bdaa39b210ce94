"""Depth on the node: laid on the image where that can be done, never used as if it were; extrinsics that stay."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.imagery.backends import RosbagsBackend
from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.imagery.validation import Rejection
from motion4d_ros.ros.inputs.frames import Calibrations, FrameBuilder, ImageGroup
from motion4d_ros.ros.inputs.transforms import MOST_LINKS, NEWEST, Extrinsics
from motion4d_ros.types import Camera

W, H = 64, 48


def header(frame, stamp_ns=10**9):
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return SimpleNamespace(stamp=stamp, frame_id=frame)


def info(frame, focal=60.0, stamp_ns=10**9, width=W, height=H):
    K = [focal, 0, (width - 1) / 2, 0, focal, (height - 1) / 2, 0, 0, 1]
    P = [focal, 0, (width - 1) / 2, 0, 0, focal, (height - 1) / 2, 0, 0, 0, 1, 0]
    whole = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)
    return SimpleNamespace(
        header=header(frame, stamp_ns), width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5, k=K,
        r=[1, 0, 0, 0, 1, 0, 0, 0, 1], p=P, binning_x=0, binning_y=0, roi=whole,
    )  # fmt: skip


def image(array, encoding, frame, stamp_ns=10**9):
    array = np.ascontiguousarray(array)
    return SimpleNamespace(
        header=header(frame, stamp_ns), height=array.shape[0], width=array.shape[1], encoding=encoding, is_bigendian=0,
        step=array.nbytes // len(array), data=array.tobytes(),
    )  # fmt: skip


def builder(*, lookup=None, depth_info=None, settings=()):
    config = Config()
    config.set("depth.source", "topic")
    for path, value in settings:
        config.set(path, value)
    colour, depth = Calibrations(), Calibrations()
    colour.add(info("color"))
    if depth_info is not None:
        depth.add(depth_info)
    made = FrameBuilder(config, colour, RosbagsBackend(), lookup=lookup, depth_calibrations=depth)
    made.start()
    return made


def build(made, depth, frame):
    colour = image(np.zeros((H, W, 3), np.uint8), "rgb8", "color")
    built, _ = made.build(ImageGroup(colour, depth=image(depth, "16UC1", frame)))
    return built


WALL = np.full((H, W), 2000, np.uint16)


def beside(target, source, stamp_ns, timeout_s, give_up):
    """TF of a depth camera 0.1 m to the right of the colour camera."""
    assert (target, source) == ("color", "depth")
    T = np.eye(4)
    T[0, 3] = 0.1
    return T


def test_depth_of_another_camera_is_aligned_and_said():
    depth = WALL.copy()
    depth[:, 30:34] = 1000
    made = builder(lookup=beside, depth_info=info("depth"))
    frame = build(made, depth, "depth")
    near = np.nonzero(frame.depth_m[24] == 1.0)[0]
    assert near.mean() == pytest.approx(31.5 + 60.0 * 0.1 / 1.0)  # what is near moves by f b / z
    assert "aligned to the image in 'color'" in made.misfits["depth"]


@pytest.mark.parametrize("lacks", ["tf", "calibration", "link"])
def test_depth_of_another_camera_that_cannot_be_aligned_is_not_used(lacks):
    def broken(*_):
        raise Rejection("tf", "TF: frame 'depth' is not published")

    lookup = {"tf": None, "calibration": beside, "link": broken}[lacks]
    made = builder(lookup=lookup, depth_info=None if lacks == "calibration" else info("depth"))
    assert build(made, WALL, "depth").depth_m is None
    reason = {"tf": "TF is not available", "calibration": "no camera_info", "link": "not published"}[lacks]
    text = made.misfits["depth"]
    assert "depth is not used: its frame is 'depth', the image's is 'color'" in text and reason in text
    assert "set depth.frame to color" in text


def test_the_user_says_that_depth_is_registered_whatever_its_header_says():
    made = builder(settings=[("depth.frame", "color")])
    assert np.allclose(build(made, WALL, "depth").depth_m, 2.0) and not made.misfits.get("depth")


def test_depth_has_one_unit_for_good():
    made = builder(settings=[("depth.units_per_metre", "500")])
    assert np.allclose(build(made, WALL, "color").depth_m, 4.0)
    made = builder()
    metres = np.linspace(1500.0, 4000.0, W * H, dtype=np.float32).reshape(H, W)
    colour = image(np.zeros((H, W, 3), np.uint8), "rgb8", "color")
    frame, _ = made.build(ImageGroup(colour, depth=image(metres, "32FC1", "color")))
    assert np.allclose(frame.depth_m, metres * 1e-3) and "read as mm" in made.misfits["depth"]


def test_high_bit_images_are_shown_in_one_range():
    made = builder()
    grey = np.tile(np.linspace(7200, 7700, W), (H, 1)).astype(np.uint16)
    first, _ = made.build(ImageGroup(image(grey, "mono16", "color")))
    part = np.clip(grey, 7300, 7400)
    second, _ = made.build(ImageGroup(image(part, "mono16", "color")))
    inside = (grey >= 7300) & (grey <= 7400)
    assert np.array_equal(first.image[inside], second.image[inside]) and np.ptp(first.image) > 200


class Tf:
    """Knows a link only within `known_ns`, and its newest value at any time."""

    def __init__(self, known_ns, value=0.5):
        self.known_ns, self.value, self.waited = known_ns, value, 0.0

    def __call__(self, target, source, stamp_ns, timeout_s, give_up):
        T = np.eye(4)
        T[2, 3] = self.value
        if stamp_ns == NEWEST and self.known_ns is not None:
            return T
        if self.known_ns is None or not self.known_ns[0] <= stamp_ns <= self.known_ns[1]:
            self.waited += timeout_s
            raise Rejection("tf", "extrapolation")
        return T


def test_an_extrinsic_said_once_holds_before_and_after():
    tf = Tf((5, 5))
    extrinsics = Extrinsics(tf)
    for stamp in (5, 1, 9, 10**10):
        assert extrinsics.find("base", "camera", stamp, 1.0, lambda: False)[2, 3] == 0.5
    assert tf.waited == 0.0  # nobody waits for what never changes
    tf.known_ns = None  # the buffer was cleared
    assert extrinsics.find("base", "camera", 11, 1.0, lambda: False)[2, 3] == 0.5


def test_an_extrinsic_that_was_seen_to_move_must_be_known_at_its_time():
    tf = Tf((0, 10))
    extrinsics = Extrinsics(tf)
    extrinsics.find("base", "camera", 5, 1.0, lambda: False)
    tf.value = 0.6
    assert extrinsics.find("base", "camera", 6, 1.0, lambda: False)[2, 3] == 0.6
    with pytest.raises(Rejection, match="extrapolation"):
        extrinsics.find("base", "camera", 11, 1.0, lambda: False)


def test_few_links_are_remembered_however_many_bodies_odometry_names():
    extrinsics = Extrinsics(Tf((0, 10**9)))
    for number in range(10 * MOST_LINKS):
        extrinsics.find("base", "camera", number, 1.0, lambda: False)
        extrinsics.find(f"body {number}", "camera", number, 1.0, lambda: False)
    assert len(extrinsics._known) <= MOST_LINKS and ("base", "camera") in extrinsics._known


def test_an_extrinsic_that_nobody_knows_is_refused():
    with pytest.raises(Rejection, match="extrapolation"):
        Extrinsics(Tf(None)).find("base", "camera", 5, 0.0, lambda: False)


def test_the_rectifier_of_a_pinhole_has_no_rotation():
    assert np.array_equal(Rectifier.of_pinhole(Camera(60.0, 60.0, 31.5, 23.5, W, H)).rotation, np.eye(3))
