"""Measuring points again, straight from a keyframe, with the scene as the first guess.

Chained flow drifts by a tenth of a pixel and more per frame. Here the patch about a point of a keyframe is warped as
the scene's own geometry and motion say it looks in another frame, and aligned there by its grey values
(`native_alignment`): one short step instead of a chain, and it finds points again behind an occlusion. The result is a
measurement of images: where the scene was off, the alignment takes it back, so it stays valid when the scene is
refined.

A patch that was warped wrongly is found less well. So the motion of an object is corrected by the rigid motion that its
points say is still missing, and measured again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.motion.object_motion import Bending, Step, back, moved
from motion4d_ros.fit.tracks.native_alignment import Aligned, Patches, Picture, align_patches, fit_surfaces
from motion4d_ros.geometry.bundle import refine_pose
from motion4d_ros.geometry.label_images import labels_in
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.types import BACKGROUND, BoolArray, Camera, FloatArray, IntArray

NOISE_PX = 0.2  # of a link, one standard deviation
MAX_DISAGREEMENT_PX = 1.5  # forward-backward; half of it counts as uncertainty
MAX_RESIDUAL_PX = 8.0  # a larger correction is more likely a mistake
MAX_SIGMA_PX = 1.0  # by noise: a patch with less texture, or with edges of one direction alone, is not found
MIN_CORRELATION = 0.6  # of the patches, normalised
DEPTH_TOLERANCE = 0.06  # relative: farther behind means hidden
SURFACE_PX = 5  # half width of the windows in which inverse depth is taken for a polynomial of second order
MOST_RELIEF = 0.3  # by which depth may change within them, relative
STEP_PX = 4.0  # aside, where surfaces are projected to learn how patches are warped
STEPS = STEP_PX * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1]])
SHOWN_SHARE = 0.5  # of an object's points: of the rest, too many are its occluder's where masks are rough
FEWEST_POINTS = 12  # from which an object's motion is corrected
CORRECTED_PX = 0.5  # median shift below which a warp is not corrected any further
POSE_STEPS = 6  # of Gauss-Newton
RIM_PX = 1  # about an object, whose edges are its own
MOST_RIM = 0.15  # share of an object's area: half of a rim shows what is behind, which would lead a small thing astray
PLAIN = 4.0  # standard deviation of grey values, below which a thing has one colour: about the noise of a camera
EDGE_SIGMA_PX = 0.6  # of points at an object's edge, in addition
TOGETHER = 8_000  # points that are aligned in one go, about .1 s: a pause may be put off by as much
NOWHERE_PX = -1e4


def _with_rims(labels: IntArray, gray: NDArray[np.uint8]) -> IntArray:
    """(H, W) labels in which objects are wider by `RIM_PX`: their outline moves with them. Of small things, only those
    of one colour: they have nothing else that can be followed.
    """
    square = np.ones((2 * RIM_PX + 1, 2 * RIM_PX + 1), np.uint8)
    result = labels.copy()
    names = labels_in(labels)
    for label in names[names > BACKGROUND].tolist():
        own = labels == label
        rim = (cv2.dilate(own.astype(np.uint8), square) > 0) & (labels == BACKGROUND)
        if rim.sum() < MOST_RIM * own.sum() or gray[own].std() < PLAIN:
            result[rim] = label
    return result


@dataclass
class View:
    """What one frame contributes: the image, its labels and its depth, at working size."""

    gray: NDArray[np.uint8]  # (H, W)
    labels: IntArray  # (H, W)
    depth_m: FloatArray  # (H, W), NaN = unknown
    T_map_cam: FloatArray  # (4, 4)

    @cached_property
    def picture(self) -> Picture:
        """The image from fine to coarse, and its labels, with rims."""
        return Picture(self.gray, _with_rims(self.labels, self.gray))

    @cached_property
    def core(self) -> BoolArray:
        """(H, W) whether all pixels around have the same label."""
        labels = self.labels.astype(np.float32)
        square = np.ones((3, 3), np.uint8)
        return np.asarray(cv2.erode(labels, square) == cv2.dilate(labels, square), bool)


@dataclass
class Measured:
    """Where N points of a keyframe are in another frame."""

    uv_px: NDArray[np.float32]  # (N, 2)
    found: BoolArray  # (N,)
    sigma_px: NDArray[np.float32]  # (N,) standard deviation; inf where not found
    warped_px: NDArray[np.float32]  # (N, 2) where the warp that was measured from had them; far outside: nowhere

    def forget(self, rows: NDArray[np.intp]) -> None:
        """The points `rows` count as never looked for."""
        self.found[rows], self.sigma_px[rows], self.warped_px[rows] = False, np.inf, NOWHERE_PX

    def put(self, rows: NDArray[np.intp], other: Measured) -> None:
        """`other` becomes the measurement of the points `rows`."""
        self.uv_px[rows], self.found[rows], self.sigma_px[rows] = other.uv_px, other.found, other.sigma_px
        self.warped_px[rows] = other.warped_px

    def select(self, rows: NDArray[np.intp]) -> Measured:
        """Only these points."""
        return Measured(self.uv_px[rows], self.found[rows], self.sigma_px[rows], self.warped_px[rows])

    @staticmethod
    def nowhere(warped_px: FloatArray) -> Measured:
        """Points that were not found."""
        count = len(warped_px)
        warped = warped_px.astype(np.float32)
        return Measured(warped.copy(), np.zeros(count, bool), np.full(count, np.inf, np.float32), warped)


@dataclass
class Request:
    """N points of a keyframe that are to be measured in another frame."""

    source: View
    target: View
    motions: dict[int, Step]  # by label: how the object moves, map frame, from the target's time to the source's
    uv_source: FloatArray  # (N, 2) px

    @cached_property
    def labels(self) -> IntArray:
        """(N,) labels of the points."""
        return labels_at(self.source.labels, self.uv_source)


@dataclass
class _Expected:
    """Where the scene has N points in the target's camera, and how their surroundings look there."""

    xyz_cam: FloatArray  # (N, 3) m; NaN: nowhere
    uv_px: FloatArray  # (N, 2); NaN: nowhere
    warp: FloatArray  # (N, 2, 5) where a step in the source goes in the target: see `native_alignment.Patches`


def labels_at(labels: IntArray, uv_px: FloatArray) -> IntArray:
    """(N,) labels (H, W) at pixels (N, 2)."""
    column, row = np.rint(uv_px).astype(int).T
    return labels[row, column]


def expected(source: View, target: View, motions: dict[int, Step], uv_source: FloatArray, camera: Camera) -> FloatArray:
    """(N, 2) where the scene expects points `uv_source` (N, 2) of `source` in `target`; far outside: nowhere.

    `motions` as for :class:`Request`.
    """
    labels = labels_at(source.labels, uv_source)
    depth = source.depth_m[tuple(np.rint(uv_source).astype(int).T[::-1])]
    xyz_cam = camera.unproject(uv_source.astype(np.float64), depth.astype(np.float64))
    uv = camera.project(_carried(source, target, motions, labels, xyz_cam))
    return np.nan_to_num(uv, nan=NOWHERE_PX)


def measure(source: View, target: View, motions: dict[int, Step], uv_source: FloatArray, camera: Camera) -> Measured:
    """Where the points `uv_source` (N, 2) of the keyframe `source` are in `target`; `motions` as for
    :class:`Request`.
    """
    return measure_all([Request(source, target, motions, uv_source)], camera)[0]


def measure_all(
    requests: Sequence[Request], camera: Camera, threads: int = 1, between: Callable[[], None] = lambda: None
) -> list[Measured]:
    """What each of some requests measures; `between` runs now and then. The same for any number of `threads`."""
    results: list[Measured] = []
    some: list[Request] = []
    for k, request in enumerate(requests):
        some.append(request)
        if sum(len(one.uv_source) for one in some) >= TOGETHER or k == len(requests) - 1:
            between()
            results += _measure_some(some, camera, threads)
            some = []
    return results


def _measure_some(requests: Sequence[Request], camera: Camera, threads: int) -> list[Measured]:
    surfaces = [_surface(request, camera) for request in requests]
    guesses = [_expect(request, surface, camera) for request, surface in zip(requests, surfaces, strict=True)]
    aligned = _align(requests, guesses, threads)
    measured = [_checked(*one) for one in zip(requests, guesses, aligned, strict=True)]
    again: list[tuple[int, NDArray[np.intp], Request, _Expected]] = []
    for k, request in enumerate(requests):
        motions = {**request.motions, **_corrections(request, guesses[k], measured[k], camera)}
        changed = [label for label, step in motions.items() if step is not request.motions[label]]
        rows = np.flatnonzero(np.isin(request.labels, changed))
        if len(rows):
            part = Request(request.source, request.target, motions, request.uv_source[rows])
            again.append((k, rows, part, _expect(part, surfaces[k][rows], camera)))
    aligned = _align([part for _, _, part, _ in again], [guess for *_, guess in again], threads)
    for (k, rows, part, guess), found in zip(again, aligned, strict=True):
        measured[k].put(rows, _checked(part, guess, found))
    return measured


def _surface(request: Request, camera: Camera) -> FloatArray:
    """(N, 7, 3) camera points of the keyframe: the points, and where their surface is `STEPS` pixels aside; NaN where
    depth is unknown.
    """
    view, uv = request.source, request.uv_source.astype(np.float64)
    inverse = fit_surfaces(view.depth_m, view.picture.labels, uv, SURFACE_PX, DEPTH_TOLERANCE).astype(np.float64)
    x, y = STEPS.T
    shape = (inverse / inverse[:, :1]) @ np.stack([np.ones(len(STEPS)), x, y, x * x, x * y, y * y])
    there = inverse[:, :1] * np.clip(shape, 1 - MOST_RELIEF, 1 + MOST_RELIEF)
    return camera.unproject(uv[:, None] + STEPS, 1.0 / there)


def _carried(source: View, target: View, motions: dict[int, Step], labels: IntArray, xyz_cam: FloatArray) -> FloatArray:
    """(..., 3) points of the source's camera in the target's; the first axis is that of `labels`. NaN: nowhere."""
    there = np.full(xyz_cam.shape, np.nan)
    T_target_map = np.linalg.inv(target.T_map_cam)
    for label, motion in motions.items():
        chosen = labels == label
        if chosen.any():
            flat = transform_points(source.T_map_cam, xyz_cam[chosen]).reshape(-1, 3)
            there[chosen] = transform_points(T_target_map, moved(back(motion), flat)).reshape(xyz_cam[chosen].shape)
    return there


def _expect(request: Request, surface: FloatArray, camera: Camera) -> _Expected:
    """Where the scene has points of a keyframe on their `surface` (N, 7, 3)."""
    xyz = _carried(request.source, request.target, request.motions, request.labels, surface)
    uv = camera.project(xyz)
    return _Expected(xyz[:, 0], uv[:, 0], _second_order(uv))


def _second_order(uv: FloatArray) -> FloatArray:
    """(N, 2, 5) coefficients of x, y, x², x y, y² of where steps go; the `STEPS` bring points to `uv` (N, 7, 2)."""
    middle, right, left, below, above, far, near = np.moveaxis(uv, 1, 0)
    h = STEP_PX
    by_xx, by_yy = (right + left - 2 * middle) / (2 * h * h), (below + above - 2 * middle) / (2 * h * h)
    by_xy = (far + near - 2 * middle) / (2 * h * h) - by_xx - by_yy
    return np.stack([(right - left) / (2 * h), (below - above) / (2 * h), by_xx, by_xy, by_yy], -1)


def _align(requests: Sequence[Request], guesses: Sequence[_Expected], threads: int) -> list[Aligned]:
    """Finds the points of all requests at once."""
    if not requests:
        return []
    views = list({id(view): view for request in requests for view in (request.source, request.target)}.values())
    number = {id(view): k for k, view in enumerate(views)}
    counts = [len(request.uv_source) for request in requests]
    patches = Patches(
        np.repeat([number[id(request.source)] for request in requests], counts),
        np.repeat([number[id(request.target)] for request in requests], counts),
        np.concatenate([request.labels for request in requests]),
        np.concatenate([request.uv_source for request in requests]),
        np.concatenate([guess.uv_px for guess in guesses]),
        np.concatenate([guess.warp for guess in guesses]),
    )
    found = align_patches([view.picture for view in views], patches, threads)
    bounds = np.cumsum([0, *counts])
    parts = (slice(first, last) for first, last in itertools.pairwise(bounds.tolist()))
    return [
        Aligned(found.uv_px[part], found.returned_px[part], found.likeness[part], found.sigma_px[part])
        for part in parts
    ]


def _checked(request: Request, guess: _Expected, aligned: Aligned) -> Measured:
    """What was found, where it is plausible: the target shows the same object there, about as far away."""
    result = Measured.nowhere(np.nan_to_num(guess.uv_px, nan=NOWHERE_PX))
    target = request.target
    height, width = target.labels.shape
    residual = np.linalg.norm(aligned.uv_px - guess.uv_px, axis=1)
    found = (residual < MAX_RESIDUAL_PX) & (aligned.returned_px < MAX_DISAGREEMENT_PX)
    found &= (aligned.likeness > MIN_CORRELATION) & (aligned.sigma_px < MAX_SIGMA_PX)
    found &= (aligned.uv_px >= 0).all(1) & (aligned.uv_px[:, 0] <= width - 1) & (aligned.uv_px[:, 1] <= height - 1)
    rows = np.flatnonzero(found)
    uv = aligned.uv_px[rows]
    column, row = np.rint(uv).astype(int).T
    depth = guess.xyz_cam[rows, 2]
    shown = target.labels[row, column] == request.labels[rows]
    shown &= np.abs(target.depth_m[row, column] - depth) < DEPTH_TOLERANCE * depth  # not so where depth is unknown
    rows, uv, column, row = rows[shown], uv[shown], column[shown], row[shown]
    core = target.core[row, column] & (labels_at(request.source.core.astype(np.uint8), request.uv_source[rows]) > 0)
    doubt = np.where(core, 0.0, np.where(request.labels[rows] == BACKGROUND, np.inf, EDGE_SIGMA_PX))
    returned, sigma = aligned.returned_px[rows], aligned.sigma_px[rows]
    spread = np.sqrt(NOISE_PX**2 + doubt**2 + (0.5 * returned) ** 2 + sigma**2 + (0.1 * residual[rows]) ** 2)
    result.uv_px[rows], result.sigma_px[rows], result.found[rows] = uv, spread, np.isfinite(spread)
    return result


def _corrections(request: Request, guess: _Expected, measured: Measured, camera: Camera) -> dict[int, Step]:
    """By label, the motions of rigid objects that have to be others for their points to be where they were found."""
    result: dict[int, Step] = {}
    for label in np.unique(request.labels[request.labels > BACKGROUND]).tolist():
        step, mine = request.motions.get(label), request.labels == label
        rows = np.flatnonzero(mine & measured.found)
        if step is None or isinstance(step, Bending) or len(rows) < max(FEWEST_POINTS, SHOWN_SHARE * mine.sum()):
            continue
        xyz = guess.xyz_cam[rows]
        rays = camera.unproject(measured.uv_px[rows].astype(np.float64), np.ones(len(rows)))[:, :2]
        T, _, _ = refine_pose(np.eye(4), xyz, rays, measured.sigma_px[rows] / camera.fx, POSE_STEPS)
        shift = np.linalg.norm(camera.project(transform_points(T, xyz)) - guess.uv_px[rows], axis=1)
        if CORRECTED_PX < np.median(shift) < MAX_RESIDUAL_PX:
            T_map_cam = request.target.T_map_cam
            result[label] = step @ (T_map_cam @ np.linalg.inv(T) @ np.linalg.inv(T_map_cam))
    return result
