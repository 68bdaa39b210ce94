"""How an object looks, and what speaks for its being at a pose.

What older keyframes saw of an object are points with grey values, each with the side from which it was seen. Rendered
at a pose, they say what a frame should show. The evidence of a frame is the logarithm of a likelihood ratio, in nats:
how much better that explains its pixels than the same mask does with nothing known of how the object is turned. What
something nearer hides says nothing. Evidence of several frames adds up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.relocalisation.mask_middle import DEEP
from motion4d_ros.fit.relocalisation.native_evidence import frame_evidence
from motion4d_ros.fit.semantics.mask_fusion import SURE
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.geometry.rigid import inverse_pose, transform_points
from motion4d_ros.geometry.robust import median_radius
from motion4d_ros.types import FloatArray, IntArray

POINTS = 150  # of an object, per keyframe
BLUR_PX = 1.0  # at which pictures are compared: the points' places are no more exact
FACING = 0.35  # cosine between the directions from which a point was and would be seen
NOISE = 0.1  # share of the variance of grey values that light, sampling and shape change from frame to frame
BEHIND = 0.94  # something of another label nearer than this share of a point's depth hides it
STEPS_PX = (3.0, 1.5, 0.75, 0.3)  # of ascent, at the object's outline
OFF_MASK = math.log((1 - SURE) / SURE)  # evidence of a pixel of the object where a sure label says something else
STEP_PX = 3  # of the grid of shifts
REACH_PX = 12  # of shifts from frame to frame


@dataclass(frozen=True)
class Appearance:
    """What keyframes saw of an object."""

    xyz: FloatArray  # (N, 3) m, canonical
    gray: FloatArray  # (N,)
    side: FloatArray  # (N, 3) unit vectors from the points to the camera that saw them, canonical
    middle: FloatArray  # (3,) about the middle of the object, m, canonical
    radius: float  # m, about that of its outline
    detail: float  # independent grey values per pixel


@dataclass(frozen=True)
class Look:
    """A frame in which an object is looked for."""

    state: FrameState
    gray: NDArray[np.float32]  # (H, W) blurred
    mask: NDArray[np.bool_]  # (H, W) the object, a little wider
    cover: NDArray[np.float32]  # (H, W) depth of what is not the object, m; infinite where unknown
    surface: NDArray[np.float32]  # (H, W) depth of the object, m; NaN elsewhere and where unknown
    middle: FloatArray  # (3,) m, map: of what the mask shows
    pixels: int  # of the mask
    sigma: float  # of its mean depth, relative


def appearance_of(views: Sequence[tuple[FrameState, FloatArray]], label: int) -> Appearance | None:
    """How object `label` looks in frames, by its motions (4, 4), canonical -> map, there; None where none shows it."""
    parts, details = [], []
    for state, motion in views:
        mask = ((state.labels == label) & np.isfinite(state.depth_m)).astype(np.uint8)
        row, column = np.nonzero(cv2.erode(mask, np.ones((3, 3), np.uint8)))
        if len(row) == 0:
            continue
        gray = _blurred(state)
        details.append(_detail(gray, row, column))
        chosen = np.unique(np.linspace(0, len(row) - 1, POINTS).astype(int))
        row, column = row[chosen], column[chosen]
        uv = np.stack([column, row], 1).astype(float)
        xyz_cam = state.frame.camera.unproject(uv, state.depth_m[row, column].astype(float))
        T = inverse_pose(motion) @ state.T_map_cam
        to_camera = -xyz_cam / np.linalg.norm(xyz_cam, axis=1, keepdims=True)
        parts.append((transform_points(T, xyz_cam), gray[row, column], to_camera @ T[:3, :3].T))
    if not parts:
        return None
    xyz, gray, side = (np.concatenate(arrays).astype(float) for arrays in zip(*parts, strict=True))
    radius = math.sqrt(2) * float(np.median([median_radius(points) for points, _, _ in parts]))  # half of a disc
    behind = [np.median(points, axis=0) - DEEP * radius * sides.mean(0) for points, _, sides in parts]
    return Appearance(xyz, gray, side, np.mean(behind, axis=0), radius, float(np.mean(details)))


def _detail(gray: NDArray[np.float32], row: IntArray, column: IntArray) -> float:
    """Independent values per pixel of a picture at some pixels: as of white noise after the Gaussian filter that leaves
    so steep a picture, 1 / (4 pi sigma^2) with sigma^2 = variance / mean squared gradient.
    """
    dy, dx = np.gradient(gray)
    steep = float((dx[row, column] ** 2 + dy[row, column] ** 2).mean())
    return steep / (4 * math.pi * max(float(gray[row, column].var()), 1.0))


def look(appearance: Appearance, state: FrameState, label: int, sigma_scale: float) -> Look | None:
    """A frame in which object `label` is looked for, with the error of its depth; None where no pixel has any."""
    own = state.labels == label
    inner = own & np.isfinite(state.depth_m)
    if not inner.any():
        return None
    row, column = np.nonzero(inner)
    depth, sigma = (float(np.median(image[inner])) for image in (state.depth_m, state.depth_sigma))
    front = state.frame.camera.unproject(np.array([[np.median(column), np.median(row)]]), np.array([depth]))[0]
    middle = front * (1 + DEEP * appearance.radius / float(np.linalg.norm(front)))
    wide = cv2.dilate(own.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    cover = np.where(own | ~np.isfinite(state.depth_m), np.inf, state.depth_m).astype(np.float32)
    surface = np.where(own, state.depth_m, np.nan).astype(np.float32)
    error = math.hypot(sigma_scale, sigma / math.sqrt(1 + appearance.detail * len(row)))
    middle = transform_points(state.T_map_cam, middle[None])[0]
    return Look(state, _blurred(state), wide, cover, surface, middle, len(row), error)


def _blurred(state: FrameState) -> NDArray[np.float32]:
    gray = cv2.cvtColor(state.image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.GaussianBlur(gray, (0, 0), BLUR_PX), np.float32)


def evidence(appearance: Appearance, where: Look, motion: FloatArray) -> float:
    """What speaks for the `motion` (4, 4), canonical -> map, of an object in a frame, nats; below 0: against it."""
    return float(evidence_of(appearance, where, (where.state.T_cam_map @ motion)[None], np.zeros((1, 2)))[0, 0])


def improved(appearance: Appearance, where: Look, motion: FloatArray) -> tuple[FloatArray, float]:
    """The `motion` (4, 4), canonical -> map, after coordinate ascent of its evidence, and that: turns about the middle
    of the object and shifts, each as far as its outline moves by some pixels.
    """
    T: FloatArray = np.asarray(where.state.T_cam_map @ motion, float)
    best = evidence(appearance, where, motion)
    for px in STEPS_PX:
        for _ in range(3):
            middle = transform_points(T, appearance.middle[None])[0]
            step = px * max(float(middle[2]), 0.0) / where.state.frame.camera.fx
            trials = [_turned(appearance, T, R) for R in _both_ways(step / appearance.radius)]
            for shift in step * np.concatenate([np.eye(3), -np.eye(3)]):
                trials.append(np.asarray(T.copy(), float))
                trials[-1][:3, 3] += shift
            values = evidence_of(appearance, where, np.stack(trials), np.zeros((1, 2)))[:, 0]
            if values.max() <= best:
                break
            T, best = trials[int(values.argmax())], float(values.max())
    return np.asarray(where.state.T_map_cam @ T), best


def shifted(appearance: Appearance, where: Look, motion: FloatArray) -> FloatArray:
    """The `motion` (4, 4), canonical -> map, with the shift in the image, within reach, that most speaks for."""
    T = np.asarray(where.state.T_cam_map @ motion)
    shifts = _grid(REACH_PX)
    best = int(evidence_of(appearance, where, T[None], shifts)[0].argmax())
    return np.asarray(where.state.T_map_cam @ _moved(where, T, shifts[best]))


def centred(appearance: Appearance, where: Look, motion: FloatArray) -> FloatArray:
    """`motion` (4, 4), shifted so that the middle of the object lies behind its mask."""
    result = motion.copy()
    result[:3, 3] += where.middle - transform_points(motion, appearance.middle[None])[0]
    return result


def _turned(appearance: Appearance, T: FloatArray, R: FloatArray) -> FloatArray:
    """`T` (4, 4), then turned by `R` (3, 3) about the middle of the object."""
    middle = transform_points(T, appearance.middle[None])[0]
    result = T.copy()
    result[:3, :3] = R @ T[:3, :3]
    result[:3, 3] = R @ (T[:3, 3] - middle) + middle
    return result


def _moved(where: Look, T: FloatArray, shift_px: FloatArray) -> FloatArray:
    """`T` (4, 4), canonical -> camera, shifted by some pixels at its depth."""
    camera = where.state.frame.camera
    result = T.copy()
    result[:2, 3] += shift_px * T[2, 3] / np.array([camera.fx, camera.fy])
    return result


def _grid(reach_px: int) -> FloatArray:
    """(S, 2) shifts, px."""
    steps = np.arange(-reach_px, reach_px + 1, STEP_PX, dtype=float)
    return np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)


def _both_ways(angle: float) -> FloatArray:
    """(6, 3, 3) turns by an angle, rad, both ways about every axis."""
    return np.asarray(Rotation.from_rotvec(angle * np.concatenate([np.eye(3), -np.eye(3)])).as_matrix())


def evidence_of(appearance: Appearance, where: Look, poses: FloatArray, shifts_px: FloatArray) -> FloatArray:
    """(K, S) evidence of every pose (K, 4, 4), canonical -> camera, for every shift (S, 2) of its image.

    Grey values: the likelihood ratio of their correlation, with gain and offset of the light profiled out. Labels: on
    the mask nothing is learnt, beside it the mask must be wrong. Depth: one error common to the object.
    """
    points = {"xyz": appearance.xyz, "side": appearance.side, "gray": appearance.gray}
    frame = {"image": where.gray, "mask": where.mask, "cover": where.cover, "surface": where.surface}
    constants = {
        "facing": FACING,
        "behind": BEHIND,
        "values": appearance.detail * where.pixels / POINTS,  # independent ones, per point of a view
        "most": POINTS,
        "noise": NOISE,
        "off_mask": OFF_MASK,
        "sigma": where.sigma,
    }
    return frame_evidence(points, frame, where.state.frame.camera, poses, shifts_px, constants)
