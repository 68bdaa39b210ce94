"""The README's picture: given masks on the left, the scene's on the right, with boxes where they are in 3D."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from motion4d_ros.evaluation.picture import draw, write_gif
from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.types import (
    Estimate,
    Frame,
    ObjectPhase,
    ObjectState,
    PoseStatus,
    Scale,
    Stage,
    TrackedPoints,
)
from motion4d_ros.viewer import palette


def scene_and_estimate() -> tuple[Frame, Estimate]:
    """A frame without given masks, and an estimate with a cube of .2 m, 2 m before the camera's middle."""
    frame = make_scene("bounce", seed=1, frames=2, size=(240, 320)).frames()[0]
    frame = replace(frame, masks=np.zeros(frame.camera.size, np.int32))
    T = np.eye(4)
    T[2, 3] = 2.0
    state = ObjectState(2, "", ObjectPhase.TRACKED, 0.9, T, np.eye(6), np.zeros(6), np.eye(6), np.full(3, 0.2), 9, 0, 0)
    masks = np.zeros(frame.camera.size, np.uint16)
    estimate = Estimate(
        0, 0, "cam", Stage.GLOBAL, frame.camera, np.eye(4), PoseStatus.OK, Scale.METRIC, masks,
        TrackedPoints.empty(), [state],
    )  # fmt: skip
    return frame, estimate


def test_boxes_stand_where_their_corners_project() -> None:
    frame, estimate = scene_and_estimate()
    page = draw(frame, estimate)
    assert page.shape == (240, 644, 3)
    colour = np.array(palette.rgb(2), int)
    near = np.abs(page.astype(int) - colour).max(-1) < 60
    assert not near[:, :320].any(), "nothing was given"
    camera = estimate.camera
    for x in (-0.1, 0.1):
        for z in (1.9, 2.1):
            u, v = camera.fx * x / z + camera.cx, camera.fy * 0.1 / z + camera.cy
            spot = near[round(v) - 1 : round(v) + 2, 324 + round(u) - 1 : 324 + round(u) + 2]
            assert spot.any(), (x, z)


def test_gif_shows_every_page() -> None:
    pages = [np.full((20, 30, 3), 40 * k, np.uint8) for k in range(4)]
    stream = io.BytesIO()
    write_gif(stream, pages)
    with Image.open(stream) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"]) == (4, (30, 20), 0)
        for k, page in enumerate(pages):
            gif.seek(k)
            assert np.abs(np.array(gif.convert("RGB")).astype(int) - page).max() < 8
