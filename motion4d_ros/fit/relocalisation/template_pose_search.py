"""Finding the pose of an object again by how it looks, when its points are lost.

What older keyframes saw of the object is a template: points with grey values, and the side from which each was seen.
Turned and shifted in many ways it is laid over the new frame; where it correlates best and covers the mask, there the
object is. Unlike features (see `feature_pose_search`) this needs no corners and works on objects of thirty pixels, but
it searches only around a pose that was predicted.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.geometry.rigid import rotation_angle, transform_points
from motion4d_ros.geometry.robust import median_radius
from motion4d_ros.types import BoolArray, FloatArray, IntArray

POINTS = 150  # of a template, per keyframe
BLUR_PX = 1.0
OUTLINE = 1.4  # radius of an outline, in median distances of its points from their middle
DEEP = 0.7  # radii from the visible side to the middle
TURN_STEP_DEG = 18.0
MOST_TURN_DEG = 90.0
NEAR_TURN_DEG = 36.0
SHIFT_PX = (-6, -3, 0, 3, 6)
WIDE_SHIFTS = np.stack(np.meshgrid(*2 * [np.arange(-12.0, 13.0, 2.0)]), -1).reshape(-1, 2)  # px
ALIKE = 0.02  # scores that differ by less
FACING = 0.35  # cosine between the directions from which a point was and would be seen
BEHIND = 0.94  # something of another label nearer than this share of a point's depth hides it
MIN_VISIBLE = 40  # points that have to be seen at a pose
MIN_SHARE = 0.25  # of those that face the camera
PLENTY = 0.5 * POINTS  # fewer on the mask correlate by chance, and count for less
FAR_SIGMAS = 4.0  # an error of depth beyond this many standard deviations counts no more
NOWHERE_PX = -1e4
NOTHING_TO_SEE = -1.0  # score where hardly any point of the template shows
LEAST_SCORE = 0.65  # correlation times coverage, for a pose to be believed
SURPRISE = 0.3  # by how much a pose must look better when it is turned that far from all predictions
TURN_PENALTY = 0.1  # score that the largest turn must win
REFINEMENTS = ((8.0, 2.0, 0.03), (4.0, 1.0, 0.015), (2.0, 0.5, 0.007), (1.0, 0.2, 0.003))  # degrees, px, of depth


@dataclass
class Template:
    """What keyframes saw of an object."""

    xyz: FloatArray  # (N, 3) m, canonical
    gray: FloatArray  # (N,)
    side: FloatArray  # (N, 3) unit vectors from the points to the camera that saw them, canonical
    middle: FloatArray  # (3,) about the middle of the object, m, canonical
    radius: float  # m, about that of its outline

    @property
    def count(self) -> int:
        """Number of points N."""
        return len(self.gray)


@dataclass
class _Scene:
    """A frame in which a template is sought."""

    state: FrameState
    gray: NDArray[np.float32]  # (H, W) blurred
    mask: NDArray[np.bool_]  # (H, W) the object, a little wider
    cover: NDArray[np.float32]  # (H, W) depth of what is not the object, m; infinite where unknown
    surface: NDArray[np.float32]  # (H, W) depth of the object, m; NaN elsewhere and where unknown
    center_px: FloatArray  # (2,) median of the mask
    depth_m: float  # median on the mask
    sigma: float  # of that depth, relative


def make_template(views: Sequence[tuple[FrameState, FloatArray]], label: int) -> Template | None:
    """The template of object `label` from frames and its motions (4, 4), canonical -> map, there; None without any."""
    parts = []
    for state, motion in views:
        mask = ((state.labels == label) & np.isfinite(state.depth_m)).astype(np.uint8)
        row, column = np.nonzero(cv2.erode(mask, np.ones((3, 3), np.uint8)))
        if len(row) == 0:
            continue
        chosen = np.unique(np.linspace(0, len(row) - 1, POINTS).astype(int))
        row, column = row[chosen], column[chosen]
        uv = np.stack([column, row], 1).astype(float)
        xyz_cam = state.frame.camera.unproject(uv, state.depth_m[row, column].astype(float))
        T = np.linalg.inv(motion) @ state.T_map_cam
        to_camera = -xyz_cam / np.linalg.norm(xyz_cam, axis=1, keepdims=True)
        parts.append((transform_points(T, xyz_cam), _blurred(state)[row, column], to_camera @ T[:3, :3].T))
    if not parts:
        return None
    xyz, gray, side = (np.concatenate(arrays).astype(float) for arrays in zip(*parts, strict=True))
    radius = OUTLINE * float(np.median([median_radius(points) for points, _, _ in parts]))
    behind = [np.median(points, axis=0) - DEEP * radius * sides.mean(0) for points, _, sides in parts]
    return Template(xyz, gray, side, np.mean(behind, axis=0), radius)


def search_template_pose(
    template: Template, state: FrameState, label: int, predicted: FloatArray, others: Sequence[FloatArray] = ()
) -> tuple[FloatArray, float, float] | None:
    """The motion (4, 4), canonical -> map, of object `label` in frame `state`, sought around `predicted` and `others`,
    its score and that of `predicted` (`NOTHING_TO_SEE`: its known side is out of view); None where nothing fits.
    """
    scene = _scene(state, label)
    if scene is None or template.count < MIN_VISIBLE:
        return None
    start: FloatArray = np.asarray(state.T_cam_map @ predicted, float)  # canonical -> camera
    reference = _score(template, scene, start)
    places = [start, *(_centred(template, scene, state.T_cam_map @ motion) for motion in (predicted, *others))]
    for most_deg in (NEAR_TURN_DEG, MOST_TURN_DEG):  # near what was predicted first: elsewhere much looks like it
        best, score = _refined(template, scene, _searched(template, scene, places, most_deg))
        if score >= needed_score(best, places):
            return np.asarray(state.T_map_cam @ best), score, reference
    return None


def needed_score(pose: FloatArray, expected: Sequence[FloatArray]) -> float:
    """The score from which a `pose` (4, 4) is believed: the higher, the farther it is turned from all `expected`."""
    turned = min(rotation_angle(pose[:3, :3].T @ other[:3, :3]) for other in expected)
    return LEAST_SCORE + SURPRISE * turned / np.radians(MOST_TURN_DEG)


def _searched(template: Template, scene: _Scene, places: Sequence[FloatArray], most_deg: float) -> FloatArray:
    """The best pose (4, 4), canonical -> camera, on a grid of turns and shifts about each of `places`."""
    shifts = np.array([(x, y) for x in SHIFT_PX for y in SHIFT_PX], float)
    best, best_score = places[0], -np.inf
    for place in places:
        for turn, R in _turns(most_deg):
            T = _turned(template, place, R)
            doubt = TURN_PENALTY * np.linalg.norm(turn) / np.radians(MOST_TURN_DEG)
            scores = _scores(template, scene, T[None], shifts)[0] - doubt
            k = int(scores.argmax())
            if scores[k] > best_score:
                best, best_score = _shifted(template, scene, T, shifts[k]), float(scores[k])
    return best


def score_of(template: Template, state: FrameState, label: int, motion: FloatArray) -> float:
    """How well the object looks as it should in frame `state` if it is moved by `motion` (4, 4)."""
    scene = _scene(state, label)
    if scene is None or template.count < MIN_VISIBLE:
        return NOTHING_TO_SEE
    return _score(template, scene, state.T_cam_map @ motion)


def placed(template: Template, state: FrameState, label: int, motion: FloatArray) -> FloatArray | None:
    """`motion` (4, 4), shifted so that the middle of the object lies behind its mask in frame `state`."""
    scene = _scene(state, label)
    return None if scene is None else np.asarray(state.T_map_cam @ _centred(template, scene, state.T_cam_map @ motion))


def polish(
    template: Template, state: FrameState, label: int, candidates: Sequence[FloatArray]
) -> tuple[FloatArray, float]:
    """The best of some motions (4, 4) in frame `state` after a few small steps, and its score."""
    scene = _scene(state, label)
    if scene is None or template.count < MIN_VISIBLE:
        return candidates[0], NOTHING_TO_SEE
    found = [_refined(template, scene, state.T_cam_map @ motion) for motion in candidates]
    T, score = max(found, key=lambda pair: pair[1])
    return np.asarray(state.T_map_cam @ T), score


def sought(
    template: Template, state: FrameState, label: int, candidates: Sequence[FloatArray]
) -> tuple[FloatArray, float]:
    """The best of some motions (4, 4) in frame `state` after shifts within reach in the image and a few small steps,
    and its score; the earlier of two that look alike.
    """
    scene = _scene(state, label)
    best, best_score = candidates[0], NOTHING_TO_SEE
    if scene is None or template.count < MIN_VISIBLE:
        return best, best_score
    for motion in candidates:
        T: FloatArray = np.asarray(state.T_cam_map @ motion, float)
        scores = _scores(template, scene, T[None], WIDE_SHIFTS)[0]
        T, score = _refined(template, scene, _shifted(template, scene, T, WIDE_SHIFTS[int(scores.argmax())]))
        if score > best_score + ALIKE:
            best, best_score = np.asarray(state.T_map_cam @ T), score
    return best, best_score


def _scene(state: FrameState, label: int) -> _Scene | None:
    own = state.labels == label
    inner = own & np.isfinite(state.depth_m)
    if not inner.any():
        return None
    row, column = np.nonzero(inner)
    wide = cv2.dilate(own.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    cover = np.where(own | ~np.isfinite(state.depth_m), np.inf, state.depth_m).astype(np.float32)
    center = np.array([np.median(column), np.median(row)])
    depth, sigma = (float(np.median(image[inner])) for image in (state.depth_m, state.depth_sigma))
    surface = np.where(own, state.depth_m, np.nan).astype(np.float32)
    return _Scene(state, _blurred(state), wide, cover, surface, center, depth, sigma)


def _blurred(state: FrameState) -> NDArray[np.float32]:
    gray = cv2.cvtColor(state.image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.GaussianBlur(gray, (0, 0), BLUR_PX), np.float32)


@functools.lru_cache(maxsize=2)
def _turns(most_deg: float) -> list[tuple[FloatArray, FloatArray]]:
    """Rotation vectors (3,) on a grid, none larger than `most_deg`, rad, and their matrices (3, 3)."""
    steps = TURN_STEP_DEG * np.arange(-int(most_deg / TURN_STEP_DEG), int(most_deg / TURN_STEP_DEG) + 1)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    turns = np.radians(grid[np.linalg.norm(grid, axis=1) <= most_deg + 1e-6])
    return list(zip(turns, Rotation.from_rotvec(turns).as_matrix(), strict=True))


@functools.lru_cache(maxsize=len(REFINEMENTS))
def _small_turns(degrees: float) -> FloatArray:
    """(6, 3, 3) turns both ways about every axis."""
    vectors = [np.radians(degrees) * sign * axis for axis in np.eye(3) for sign in (1, -1)]
    return np.asarray(Rotation.from_rotvec(np.stack(vectors)).as_matrix())


def _turned(template: Template, T: FloatArray, R: FloatArray) -> FloatArray:
    """`T` (4, 4) canonical -> camera, then turned by `R` (3, 3) about the middle of the object."""
    middle = T[:3, :3] @ template.middle + T[:3, 3]
    result = T.copy()
    result[:3, :3] = R @ T[:3, :3]
    result[:3, 3] = R @ (T[:3, 3] - middle) + middle
    return result


def _centred(template: Template, scene: _Scene, T: FloatArray) -> FloatArray:
    """`T`, shifted so that the middle of the object lies behind the middle of the mask."""
    front = scene.state.frame.camera.unproject(scene.center_px[None], np.array([scene.depth_m]))[0]
    wanted = front * (1 + DEEP * template.radius / float(np.linalg.norm(front)))
    result = T.copy()
    result[:3, 3] += wanted - (T[:3, :3] @ template.middle + T[:3, 3])
    return result


def _seen(template: Template, poses: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """(K, N, 3) camera points at every pose (K, 4, 4), and which of them show the side that the template knows."""
    turns = poses[:, :3, :3].swapaxes(1, 2)
    xyz = template.xyz @ turns + poses[:, None, :3, 3]
    towards = -xyz / np.maximum(np.linalg.norm(xyz, axis=-1, keepdims=True), 1e-9)
    return xyz, ((template.side @ turns) * towards).sum(-1) > FACING


def _shifted(
    template: Template, scene: _Scene, T: FloatArray, shift_px: FloatArray, stretch: float = 0.0
) -> FloatArray:
    """`T`, moved by some pixels at its depth and by a share `stretch` of it away from the camera."""
    depth = float((template.xyz @ T[2, :3] + T[2, 3]).mean())
    camera = scene.state.frame.camera
    result = T.copy()
    result[:2, 3] += shift_px * depth / np.array([camera.fx, camera.fy])
    result[:3, 3] *= 1 + stretch
    return result


def _score(template: Template, scene: _Scene, T: FloatArray) -> float:
    """The score of one pose (4, 4), canonical -> camera."""
    return float(_scores(template, scene, T[None], np.zeros((1, 2)))[0, 0])


def _scores(template: Template, scene: _Scene, poses: FloatArray, shifts_px: FloatArray) -> FloatArray:
    """(K, S) correlation times the share of the points on the mask at every pose (K, 4, 4), for every shift (S, 2) of
    its image; less where the object is nearer or farther than the depth seen there by more than that is uncertain.
    """
    xyz, facing = _seen(template, poses)
    some = facing.any(0)  # what no pose shows is left out
    xyz, facing, wanted = xyz[:, some], facing[:, some], template.gray[some]
    z, known = xyz[..., 2], facing.sum(1)
    possible = (known >= MIN_VISIBLE) & ~(facing & (z <= 0)).any(1)
    if not possible.any():
        return np.full((len(poses), len(shifts_px)), NOTHING_TO_SEE)
    projected = np.nan_to_num(scene.state.frame.camera.project(xyz), nan=NOWHERE_PX)
    uv = (projected[:, None] + shifts_px[:, None]).astype(np.float32)  # (K, S, N, 2)
    gray = _read(scene.gray, uv)
    height, width = scene.gray.shape
    pixel = np.rint(uv).astype(int)
    inside = (pixel >= 0).all(-1) & (pixel[..., 0] < width) & (pixel[..., 1] < height)
    column, row = np.clip(pixel[..., 0], 0, width - 1), np.clip(pixel[..., 1], 0, height - 1)
    visible = facing[:, None] & inside & (scene.cover[row, column] > BEHIND * z[:, None])
    on = visible & scene.mask[row, column]
    count, fitting = visible.sum(-1), on.sum(-1)
    total = np.maximum(count, 1)
    a = np.where(visible, gray - ((gray * visible).sum(-1) / total)[..., None], 0.0)
    b = np.where(visible, wanted - ((wanted * visible).sum(-1) / total)[..., None], 0.0)
    correlation = (a * b).sum(-1) / np.maximum(np.sqrt((a**2).sum(-1) * (b**2).sum(-1)), 1e-6)
    error = _depth_error(scene, on, z[:, None], row, column)
    correlation = correlation * np.minimum(1.0, scene.sigma / np.maximum(error, 1e-9))
    enough = (fitting >= MIN_VISIBLE) & (count >= MIN_SHARE * known[:, None]) & possible[:, None]
    return np.where(enough, correlation * fitting / total * np.minimum(1.0, fitting / PLENTY), NOTHING_TO_SEE)


def _read(image: NDArray[np.float32], uv_px: NDArray[np.float32]) -> NDArray[np.float32]:
    """(...) values of `image` (H, W) at pixels (..., 2); the border is repeated outside."""
    flat = uv_px.reshape(-1, uv_px.shape[-2], 2)
    values = cv2.remap(image, flat[..., 0], flat[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(values).reshape(uv_px.shape[:-1])


def _depth_error(scene: _Scene, on: BoolArray, z: FloatArray, row: IntArray, column: IntArray) -> FloatArray:
    """(K, S) by how much, relative, the points on the mask (K, S, N), at depths `z` (K, 1, N) m, are nearer or farther
    than what is seen there.
    """
    seen = scene.surface[row, column]
    known = on & np.isfinite(seen)
    farther = np.where(known, np.log(np.where(known, z / np.where(known, seen, 1.0), 1.0)), 0.0)
    far = FAR_SIGMAS * scene.sigma  # at a limb a pixel's error is a large one of depth
    return np.abs(np.clip(farther, -far, far).sum(-1)) / np.maximum(known.sum(-1), 1)


def _refined(template: Template, scene: _Scene, T: FloatArray) -> tuple[FloatArray, float]:
    """Coordinate ascent with shrinking steps: turns, shifts in the image, distance."""
    score = _score(template, scene, T)
    for degrees, px, share in REFINEMENTS:
        for _ in range(3):
            before = score
            trials = [_turned(template, T, R) for R in _small_turns(degrees)]
            trials += [_shifted(template, scene, T, px * sign * axis) for axis in np.eye(2) for sign in (1, -1)]
            trials += [_shifted(template, scene, T, np.zeros(2), share * sign) for sign in (1, -1)]
            scores = _scores(template, scene, np.stack(trials), np.zeros((1, 2)))[:, 0]
            best = int(scores.argmax())
            if scores[best] <= before:
                break
            T, score = trials[best], float(scores[best])
    return T, score
