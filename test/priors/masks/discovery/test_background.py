"""The picture of the static scene, on synthetic input whose truth is exact."""

import cv2
import numpy as np
import pytest

from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior
from motion4d_ros.priors.masks.discovery.background import StaticBackground, View, recut, shaded, view_of
from motion4d_ros.types import Camera, Frame, PoseStatus, Scale

HEIGHT, WIDTH = 96, 128
CAMERA = Camera(100.0, 100.0, (WIDTH - 1) / 2, (HEIGHT - 1) / 2, WIDTH, HEIGHT)
FRAMES = 16


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """(height, width, 3) smooth random colours."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 20, 235, cv2.NORM_MINMAX)


def scene(shift_px: int = 0) -> tuple[FlowCache, list[np.ndarray]]:
    """A square that crosses a wall, in a picture that shifts by `shift_px` a frame: cache and masks of the square."""
    wall, thing = texture(1, HEIGHT, WIDTH + FRAMES * shift_px), texture(2, 20, 20)
    flow, masks = FlowCache(keep=FRAMES), []
    for k in range(FRAMES):
        image = wall[:, k * shift_px : k * shift_px + WIDTH].copy()
        x = 5 + 6 * k
        image[40:60, x : x + 20] = thing
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[40:60, x : x + 20] = True
        flow.push(Frame(k, image, CAMERA, index=k))
        masks.append(mask)
    return flow, masks


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("shift_px", [0, 2])
def test_a_moving_thing_differs_and_the_wall_looks_the_same(shift_px):
    flow, masks = scene(shift_px)
    background = StaticBackground(flow)
    homography = np.array([[1.0, 0, shift_px], [0, 1, 0], [0, 0, 1]])
    for k in range(FRAMES):
        background.link(k, k - 1 if k else None, homography if k else None)
        background.occupy(k, masks[k])
    told = background.compare(8, masks[8])
    assert overlap(told > 0, masks[8]) > 0.85
    assert (told[:30, 40:90] < -0.5).mean() > 0.9


def test_poses_and_depth_serve_as_homographies_do():
    flow, masks = scene(2)
    background = StaticBackground(flow)
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    for k in range(FRAMES):
        T = np.eye(4)
        T[0, 3] = 2 * k * 2.0 / CAMERA.fx  # two pixels a frame, at a depth of two
        background.look(k, View(CAMERA, T, depth, np.full_like(depth, 0.05)))
        background.occupy(k, masks[k])
    assert overlap(background.compare(8, masks[8]) > 0, masks[8]) > 0.85


def test_nothing_is_said_of_a_camera_whose_motion_is_wrong_or_that_is_cut_off():
    flow, _ = scene(2)
    wrong, cut = StaticBackground(flow), StaticBackground(flow)
    for k in range(FRAMES):
        wrong.link(k, k - 1 if k else None, np.array([[1.0, 0, -3], [0, 1, 0], [0, 0, 1]]) if k else None)
        cut.link(k, k - 1 if k else None, None)
    assert wrong.compare(8) is None
    assert cut.compare(8) is None


def test_only_pose_and_depth_of_one_scale_make_a_view():
    frame = Frame(0, texture(1, HEIGHT, WIDTH), CAMERA)
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    depth[0, 0] = 0.0
    pose = PosePrior(np.eye(4), PoseStatus.OK, Scale.RELATIVE)
    relative = DepthPrior(depth, depth, Scale.RELATIVE, affine=False)
    view = view_of(frame, pose, relative, (HEIGHT // 2, WIDTH // 2))
    assert view.depth.shape == view.camera.size == (HEIGHT // 2, WIDTH // 2)
    assert np.isnan(view.depth[0, 0]) and view.depth[5, 5] == 2.0
    assert view_of(frame, pose, None, (HEIGHT, WIDTH)) is None
    assert view_of(frame, pose, DepthPrior(depth, depth, Scale.UNKNOWN, affine=False), (HEIGHT, WIDTH)) is None
    lost = PosePrior(np.eye(4), PoseStatus.LOST, Scale.RELATIVE)
    assert view_of(frame, lost, relative, (HEIGHT, WIDTH)) is None


def test_a_cast_shadow_is_no_thing():
    wall = texture(1, HEIGHT, WIDTH).astype(np.float32)
    picture = wall.copy()
    picture[30:60, 30:60] *= 0.6
    picture[30:60, 80:110] = texture(3, 30, 30)
    found = shaded(picture, wall)
    assert found[36:54, 36:54].mean() > 0.95
    assert found[30:60, 80:110].mean() < 0.3
    assert not found[:20].any()


def test_outlines_lose_what_is_static_and_win_what_is_not():
    labels = np.zeros((40, 60), np.int32)
    labels[10:20, 10:20], labels[10:20, 30:40] = 4, 7
    told = np.zeros((40, 60), np.float32)
    told[10:20, 10:12] = -1.0
    told[20:24, 30:40] = 1.0
    told[0:3, 50:60] = 1.0  # far from everything
    better = recut(labels, told)
    assert (better[10:20, 10:12] == 0).all() and (better[10:20, 12:20] == 4).all()
    assert (better[20:24, 30:40] == 7).all()
    assert (better[0:3, 50:60] == 0).all()


def test_a_thing_that_stood_there_unnoticed_keeps_its_outline():
    labels = np.zeros((40, 60), np.int32)
    labels[10:20, 10:20] = 4
    told = np.where(labels > 0, -1.0, 0.0).astype(np.float32)
    assert (recut(labels, told) == labels).all()
