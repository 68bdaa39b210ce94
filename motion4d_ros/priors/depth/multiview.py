"""Depth from the camera's own motion (`depth.source: geometry`).

Every frame is paired with a few earlier ones from which the camera has moved far enough. Dense flow between them is
triangulated with the known poses; what leaves its epipolar line is no static thing and is left out. The result is fused
with the previous frame's depth, carried over by the camera's motion, and filled along image edges. Things that move
stand on what is just below them: their depth is that of the static scene at their contact line.

Without parallax (a fixed or turning camera) nothing can be measured: a smooth, plausible depth with a large sigma and
`Scale.UNKNOWN` is returned, and it stays the same over time.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.geometry.dense_depth import (
    aperture_noise,
    densify,
    fill_smoothly,
    fuse,
    inverse_depth_from_flow,
    splat,
)
from motion4d_ros.geometry.rigid import inverse_pose, rotation_angle
from motion4d_ros.priors.flow.optical_flow import FlowCache, consistency, dis_flow, working_size
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior, SceneHint
from motion4d_ros.priors.masks.discovery.motion_evidence import rigid_flow
from motion4d_ros.types import UNSCALED_DISTANCE, Camera, FloatArray, Frame, IntArray, PoseStatus, Scale

MAX_SIDE = 320  # px; depth is smooth, and filling it is what takes time
PARTNERS = 3  # earlier frames that a frame is triangulated with
BEST_PARALLAX = 12.0  # px between the views of a pair, aimed at
LEAST_PARALLAX = 1.5  # px, below this a pair is useless
FLOW_NOISE = 0.25  # px
DEFAULT_SIGMA = 0.8
LEAST_MEASURED = 0.05  # share of the picture that has to be measured
CONTACT_SIGMA = 0.15  # relative, of the depth of a moving thing


@dataclass
class _View:
    """A frame that later ones can be paired with."""

    index: int
    T_map_cam: FloatArray
    usable: bool = True  # whether its pose is in the units of the map


class GeometricDepth:
    """A `DepthSource` that triangulates. Keeps the last frames of a shared `FlowCache`."""

    def __init__(self, config: Config, flow: FlowCache | None = None) -> None:
        self._config = config
        self._flow = flow or FlowCache(keep=config.window.horizon)
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._views: list[_View] = []
        self._w: NDArray[np.float32] | None = None  # measured inverse depth of the newest frame, NaN = unknown
        self._sigma: NDArray[np.float32] | None = None
        self._last_pose: FloatArray | None = None
        self._object_depth: dict[int, float] = {}
        self._size: tuple[int, int] | None = None

    def revise(self, T_map_cams: dict[int, FloatArray]) -> None:
        """Takes better poses of earlier frames (see `VisualPose.revised_poses`); measured depth starts over."""
        for view in self._views:
            if view.index in T_map_cams:
                view.T_map_cam, view.usable = T_map_cams[view.index], True
        self._w = self._sigma = None
        self._object_depth.clear()  # in the units of a guess

    def again(self, frame: Frame, T_map_cam: FloatArray, scale: Scale, labels: IntArray) -> DepthPrior | None:
        """Depth of an earlier frame whose pose has become known only since, with (H, W) `labels` of what moves: from
        pairs with all frames that are held. None where nothing can be measured.
        """
        if not self._flow.has(frame.index):
            return None
        height, width = working_size(*self._flow.size, MAX_SIDE)
        camera = _at_size(frame.camera, height, width)
        small = _resized(labels, height, width)
        w, sigma = self._fused(frame.index, camera, T_map_cam)
        _forget_moving(w, sigma, small)
        if np.isfinite(w).mean() <= LEAST_MEASURED:
            return None
        w, sigma = self._densified(frame.index, w, sigma)
        for object_id in np.unique(small[small > 0]):
            mask = small == object_id
            contact = contact_inverse_depth(mask, small > 0, w)
            if contact is not None:
                w[mask], sigma[mask] = contact, CONTACT_SIGMA * contact
        return self._prior(w, sigma, frame.camera, scale)

    def depth(self, frame: Frame, pose: PosePrior, hint: SceneHint | None) -> DepthPrior | None:
        """Depth of the next frame, (H, W), in map units; never None."""
        if self._size is not None and self._size != frame.camera.size:
            self.reset()
        self._size = frame.camera.size
        self._flow.push(frame)
        height, width = working_size(*self._flow.size, MAX_SIDE)
        camera = _at_size(frame.camera, height, width)
        labels = _labels(frame, hint, height, width)
        usable = pose.status is not PoseStatus.LOST and pose.scale is not Scale.UNKNOWN
        if usable:
            self._measure(frame.index, camera, pose.T_map_cam, labels, hint)
        else:
            self._w = self._sigma = None
            self._views.append(_View(frame.index, pose.T_map_cam, usable=False))
        w, sigma, known = self._complete(frame.index, hint, labels, height, width)
        return self._prior(w, sigma, frame.camera, pose.scale if known else Scale.UNKNOWN)

    def _prior(self, w: FloatArray, sigma: FloatArray, camera: Camera, scale: Scale) -> DepthPrior:
        """The prior of a frame, at its size, from inverse depth and its sigma (h, w)."""
        depth = 1.0 / np.maximum(w, 1e-6)
        relative = np.clip(sigma / np.maximum(w, 1e-6), 0.005, 2.0)
        low, high = self._config.depth.minimum, self._config.depth.maximum
        size = camera.size[::-1]
        return DepthPrior(
            np.asarray(cv2.resize(np.clip(depth, low, high).astype(np.float32), size), np.float32),
            np.asarray(cv2.resize(relative.astype(np.float32), size), np.float32),
            scale,
            affine=False,
        )

    # ---- measuring --------------------------------------------------------------------------------------------------

    def _measure(
        self, index: int, camera: Camera, T_map_cam: FloatArray, labels: IntArray | None, hint: SceneHint | None
    ) -> None:
        """Updates the measured inverse depth with the pairs that frame `index` makes."""
        w, sigma = self._fused(index, camera, T_map_cam)
        if labels is not None:
            _forget_moving(w, sigma, labels)
        self._w, self._sigma, self._last_pose = w, sigma, T_map_cam
        self._views.append(_View(index, T_map_cam))

    def _fused(
        self, index: int, camera: Camera, T_map_cam: FloatArray
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Inverse depth and sigma (h, w) of frame `index` from the pairs that it makes and from what was measured last,
        carried over by the camera's motion; NaN where nothing is trusted.
        """
        carried: NDArray[np.float32] | None = None
        carried_sigma: NDArray[np.float32] | None = None
        if self._w is not None and self._sigma is not None and self._last_pose is not None:
            carried, carried_sigma = splat(self._w, self._sigma, camera, inverse_pose(T_map_cam) @ self._last_pose)
            carried_sigma = (1.1 * np.hypot(carried_sigma, 0.01 * carried)).astype(np.float32)
        self._views = [view for view in self._views if self._flow.has(view.index)]
        typical = 1.0 / float(np.nanmedian(carried)) if carried is not None and np.isfinite(carried).any() else None
        w: NDArray[np.float32] = np.full(camera.size, np.nan, np.float32)
        sigma: NDArray[np.float32] = w.copy()
        guess = None if carried is None or np.isfinite(carried).mean() < 0.3 else fill_smoothly(carried)
        for view in self._partners(T_map_cam, camera, typical):
            T_other_cam = inverse_pose(view.T_map_cam) @ T_map_cam
            new, new_sigma = self._pair(index, view.index, camera, T_other_cam, guess)
            w, sigma = fuse(w, sigma, new, new_sigma)
        if carried is not None and carried_sigma is not None:
            w, sigma = fuse(w, sigma, carried, carried_sigma)
        return w, sigma

    def _partners(self, T_map_cam: FloatArray, camera: Camera, typical: float | None) -> list[_View]:
        """Views with a useful baseline, best first."""
        scored = []
        for view in self._views:
            if not view.usable:
                continue
            T = inverse_pose(view.T_map_cam) @ T_map_cam
            turn = rotation_angle(T[:3, :3])
            parallax = camera.fx * float(np.linalg.norm(T[:3, 3])) / (typical or UNSCALED_DISTANCE)
            if parallax < LEAST_PARALLAX or turn > np.radians(25) or parallax > 0.25 * camera.width:
                continue
            scored.append((abs(np.log(parallax / BEST_PARALLAX)) + 2.0 * turn, view))
        scored.sort(key=lambda item: item[0])
        return [view for _, view in scored[:PARTNERS]]

    def _pair(
        self, index: int, other: int, camera: Camera, T_other_cam: FloatArray, guess: FloatArray | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Inverse depth and sigma (h, w) from one pair, NaN where it can't be trusted."""
        size = camera.width, camera.height
        a, b = (cv2.resize(self._flow.gray(i), size, interpolation=cv2.INTER_AREA) for i in (index, other))
        start = back_start = None
        if guess is not None:
            start = np.nan_to_num(rigid_flow(1.0 / np.maximum(guess, 1e-3), camera, T_other_cam))
            back_start = -start
        forward = dis_flow(a, b, finest_scale=1, initial=start)
        backward = dis_flow(b, a, finest_scale=1, initial=back_start)
        error = consistency(forward, backward)
        noise = np.hypot(FLOW_NOISE + 0.5 * np.minimum(error, 10.0), aperture_noise(a, camera, T_other_cam))
        w, sigma, across = inverse_depth_from_flow(forward, camera, T_other_cam, noise)
        bad = (error > 1.0) | (across > 1.5) | (w < 1e-4) | (sigma > 0.5 * np.abs(w))
        w[bad] = sigma[bad] = np.nan
        return w, sigma

    # ---- completing -------------------------------------------------------------------------------------------------

    def _complete(
        self, index: int, hint: SceneHint | None, labels: IntArray | None, height: int, width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], bool]:
        """Inverse depth and sigma everywhere, and whether anything was measured at all."""
        measured = self._w is not None and bool(np.isfinite(self._w).mean() > LEAST_MEASURED)
        if measured:
            assert self._w is not None and self._sigma is not None
            w, sigma = self._densified(index, self._w, self._sigma)
        else:
            w = plausible_inverse_depth(height, width)
            sigma = DEFAULT_SIGMA * w
            if hint is not None and hint.depth_m is not None:
                seen = cv2.resize(hint.depth_m.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
                valid = np.isfinite(seen) & (seen > 0)
                w = np.where(valid, 1.0 / np.maximum(seen, 1e-6), w).astype(np.float32)
        if labels is not None:
            for object_id in np.unique(labels[labels > 0]):
                self._place_object(int(object_id), labels == object_id, labels, w, sigma, measured)
        return w, sigma, measured

    def _densified(
        self, index: int, w: NDArray[np.float32], sigma: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Measured inverse depth and sigma (h, w), filled along the edges of the picture."""
        picture = cv2.resize(self._flow.rgb(index), w.shape[::-1], interpolation=cv2.INTER_AREA)
        return densify(w, sigma, np.asarray(picture, np.uint8))

    def _place_object(
        self,
        object_id: int,
        mask: NDArray[np.bool_],
        labels: IntArray,
        w: FloatArray,
        sigma: FloatArray,
        measured: bool,
    ) -> None:
        """Writes the depth of a moving thing: what it stands on, continued over time, and known no better."""
        contact = contact_inverse_depth(mask, labels > 0, w)
        before = self._object_depth.get(object_id)
        if contact is None and before is None:
            return
        value = before if contact is None else contact
        assert value is not None
        if before is not None and contact is not None:  # continuity, in the logarithm
            value = float(np.exp(0.7 * np.log(before) + 0.3 * np.log(contact)))
        self._object_depth[object_id] = value
        w[mask], sigma[mask] = value, (CONTACT_SIGMA if measured else DEFAULT_SIGMA) * value


def _forget_moving(w: FloatArray, sigma: FloatArray, labels: IntArray) -> None:
    """Forgets (h, w) what is measured on and beside things that move: `labels` above 0."""
    moving = cv2.dilate((labels > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    w[moving] = sigma[moving] = np.nan


def contact_inverse_depth(mask: NDArray[np.bool_], moving: NDArray[np.bool_], w: FloatArray) -> float | None:
    """Inverse depth of the static scene (`w`, (h, w)) where an object's `mask` meets it from above; None if hidden.

    Looks a few pixels below the lowest part of the mask. An object that flies is nearer than this says.
    """
    columns = np.flatnonzero(mask.any(0))
    if len(columns) == 0:
        return None
    height = mask.shape[0]
    bottom = height - 1 - mask[::-1, columns].argmax(0)
    tall = bottom.max() - np.flatnonzero(mask.any(1))[0] + 1
    low = bottom >= bottom.max() - max(2, 0.12 * tall)
    rows, cols = bottom[low] + 3, columns[low]
    inside = rows < height
    rows, cols = rows[inside], cols[inside]
    free = ~moving[rows, cols]
    if free.sum() < 3:
        return None
    return float(np.median(w[rows[free], cols[free]]))


def plausible_inverse_depth(height: int, width: int) -> NDArray[np.float32]:
    """(h, w) the depth of a room or street nobody has measured: near at the bottom, far at the top."""
    ramp = np.linspace(0.5, 1.5, height, dtype=np.float32)[:, None] / UNSCALED_DISTANCE
    return np.repeat(ramp, width, 1)


def _at_size(camera: Camera, height: int, width: int) -> Camera:
    sx, sy = width / camera.width, height / camera.height
    cx, cy = (camera.cx + 0.5) * sx - 0.5, (camera.cy + 0.5) * sy - 0.5
    return Camera(camera.fx * sx, camera.fy * sy, cx, cy, width, height)


def _labels(frame: Frame, hint: SceneHint | None, height: int, width: int) -> IntArray | None:
    labels = hint.masks if hint is not None and hint.masks is not None else frame.masks
    if labels is None:
        return None
    return _resized(labels, height, width)


def _resized(labels: IntArray, height: int, width: int) -> IntArray:
    return np.asarray(cv2.resize(labels.astype(np.int32), (width, height), interpolation=cv2.INTER_NEAREST))
