"""The picture of the static scene, on synthetic input whose truth is exact."""

import cv2
import numpy as np
import pytest

from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.masks.background import StaticBackground, shaded
from motion4d_ros.types import Camera, Frame

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


def background_of(flow: FlowCache, masks: list[np.ndarray], shift_px: float, linked: bool = True) -> StaticBackground:
    background = StaticBackground(flow)
    homography = np.array([[1.0, 0, shift_px], [0, 1, 0], [0, 0, 1]])
    for k in range(FRAMES):
        background.link(k, k - 1 if k else None, homography if k and linked else None)
        background.occupy(k, masks[k])
    return background


@pytest.mark.parametrize("shift_px", [0, 2])
def test_a_moving_thing_differs_and_the_wall_looks_the_same(shift_px):
    flow, masks = scene(shift_px)
    background = background_of(flow, masks, shift_px)
    others = [0, 2, 4, 12, 14]
    assert overlap(background.changed(8, others), masks[8]) > 0.85
    unchanged = background.unchanged(8, others)
    assert (unchanged[:30, 40:90] > 0.5).mean() > 0.9 and unchanged[masks[8]].mean() < 0.05


def test_what_stands_is_told_from_what_has_just_come():
    flow, masks = scene()
    background = background_of(flow, masks, 0)
    stands = background.standing(8, [2, 4, 6])
    assert (stands[:30, 40:90] > 0.5).mean() > 0.9 and stands[masks[8]].mean() < 0.05


def test_nothing_is_said_of_a_camera_whose_motion_is_not_known():
    flow, masks = scene(2)
    cut = background_of(flow, masks, 2, linked=False)
    assert cut.changed(8, [0, 4, 12]) is None and cut.unchanged(8, [0, 4, 12]) is None


def test_a_cast_shadow_is_no_thing():
    wall = texture(1, HEIGHT, WIDTH).astype(np.float32)
    picture = wall.copy()
    picture[30:60, 30:60] *= 0.6
    picture[30:60, 80:110] = texture(3, 30, 30)
    found = shaded(picture, wall)
    assert found[36:54, 36:54].mean() > 0.95
    assert found[30:60, 80:110].mean() < 0.3
    assert not found[:20].any()
