"""The saved scene as one camera sees it at one time, as numbers and as something to look at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from motion4d_ros.geometry.rigid import inverse_pose
from motion4d_ros.offline.novel_views.paths import Step
from motion4d_ros.offline.novel_views.saved_scene import SavedScene
from motion4d_ros.render import render
from motion4d_ros.types import Camera, FloatArray
from motion4d_ros.viewer import palette

RGB, DEPTH, LABELS = "rgb", "depth", "labels"
KINDS = (RGB, DEPTH, LABELS)
EMPTY_ALPHA = 0.3  # less than this: nothing is there
_EMPTY_GREY = 30  # shown where there is no depth
_RANGE_STEPS = 9  # pictures of a path by which the range of shown depths is chosen


def sized(camera: Camera, size: tuple[int, int]) -> Camera:
    """The camera with pictures of (width, height) that show all it saw: larger where the shape differs."""
    width, height = size
    factor = min(width / camera.width, height / camera.height)
    cx = (width - 1) / 2 + (camera.cx - (camera.width - 1) / 2) * factor
    cy = (height - 1) / 2 + (camera.cy - (camera.height - 1) / 2) * factor
    return Camera(camera.fx * factor, camera.fy * factor, cx, cy, width, height)


class Photographer:
    """Takes pictures of one saved scene with one camera, which need not be the one that filmed it. (H, W) is its size.

    Times outside of `SavedScene.frames` continue the motion at constant velocity; `SavedScene.check_time` refuses them.
    """

    def __init__(self, saved: SavedScene, camera: Camera) -> None:
        self._saved, self._camera = saved, camera

    @torch.no_grad()
    def rgb(self, step: Step) -> NDArray[np.uint8]:
        """(H, W, 3) red, green, blue; black where nothing is."""
        image = self._render(step, self._saved.scene.params["colors"])[0]
        return np.asarray((image.clip(0, 1) * 255).round(), np.uint8)

    @torch.no_grad()
    def depth(self, step: Step) -> NDArray[np.float32]:
        """(H, W) depth along the view, m (or the map's unit); NaN where nothing is."""
        _, depth, alpha = self._render(step, self._saved.scene.params["colors"][:, :0])
        return np.where(alpha > EMPTY_ALPHA, depth, np.nan).astype(np.float32)

    @torch.no_grad()
    def labels(self, step: Step) -> NDArray[np.uint16]:
        """(H, W) ids of the objects; 0 is background."""
        shares, _, alpha = self._render(step, self._saved.scene.params["semantics"].softmax(-1))
        shares = np.concatenate([shares[..., :1] + (1 - alpha)[..., None], shares[..., 1:]], -1)
        return self._saved.names.astype(np.uint16)[shares.argmax(-1)]

    def depth_range(self, steps: Sequence[Step]) -> tuple[float, float]:
        """Nearest and farthest depth worth a colour of its own, the same for a whole path: else a video flickers."""
        chosen = np.unique(np.linspace(0, len(steps) - 1, min(_RANGE_STEPS, len(steps))).round().astype(int))
        depths = np.concatenate([self.depth(steps[k]).ravel() for k in chosen])
        depths = depths[np.isfinite(depths)]
        if not len(depths):
            return 0.0, 1.0
        near, far = np.percentile(depths, [2, 98])
        return float(near), float(max(far, near + 1e-9))

    def _render(self, step: Step, features: torch.Tensor) -> tuple[FloatArray, FloatArray, FloatArray]:
        scene = self._saved.scene
        T_cam_map = torch.as_tensor(inverse_pose(step.T_map_cam), dtype=scene.dtype, device=scene.device)
        output = render(scene.at(step.time), self._camera, T_cam_map, features)
        return output.features.cpu().numpy(), output.depth.cpu().numpy(), output.alpha.cpu().numpy()


def shown_depth(depth_m: NDArray[np.float32], near: float, far: float) -> NDArray[np.uint8]:
    """(H, W) depth -> (H, W, 3) colours, near ones warm; dark where there is none."""
    valid = np.isfinite(depth_m)
    share = np.clip((np.where(valid, depth_m, far) - near) / (far - near), 0, 1)
    bgr = cv2.applyColorMap((255 * (1 - share)).astype(np.uint8), cv2.COLORMAP_TURBO)
    bgr[~valid] = _EMPTY_GREY
    return np.asarray(bgr[..., ::-1], np.uint8)


def shown_labels(labels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """(H, W) ids -> (H, W, 3) the colours that objects have everywhere; background is black."""
    rgb = np.zeros((*labels.shape, 3), np.uint8)
    for object_id in np.unique(labels[labels > 0]).tolist():
        rgb[labels == object_id] = palette.rgb(object_id)
    return rgb
