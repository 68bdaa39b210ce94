"""Measuring points again, straight from a keyframe, with the scene as the first guess.

Chained flow drifts by a tenth of a pixel and more per frame. Here a keyframe is warped into another frame with the
scene's own geometry and motion, and dense flow between that warp and the real image measures what is left: one short
step instead of a chain, and it finds points again behind an occlusion. The result is a measurement of images: where
the warp was off, the flow takes it back, so it stays valid when the scene is refined.

Dense flow takes back too little, though, and the same error in every frame ends as a wrong rate of turning. So the
warp of an object is corrected by the rigid motion that is still missing (`photometric_alignment`), and measured again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.motion.object_motion import Bending, Step, back, moved
from motion4d_ros.fit.tracks.photometric_alignment import FEWEST_PIXELS, align_photometrically, moved_px
from motion4d_ros.geometry.image_warping import sample
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.priors.flow.optical_flow import consistency, dis_flow
from motion4d_ros.types import BACKGROUND, BoolArray, Camera, FloatArray, IntArray

NOISE_PX = 0.2  # of a link, one standard deviation
MAX_DISAGREEMENT_PX = 0.8  # forward-backward
MAX_RESIDUAL_PX = 8.0  # a larger correction is more likely a mistake
MIN_CORRELATION = 0.6  # of the patches, normalised
DEPTH_TOLERANCE = 0.06  # relative: farther behind means hidden
PATCH_PX = 3  # half width
STATIC_FINEST_SCALE = 1  # of the flow of what stands still: its warp is good, and half the resolution costs a quarter
SHOWN_SHARE = 0.5  # of an object: of the rest, too many pixels are its occluder's where masks are rough
CORRECTED_PX = 0.1  # median shift below which a warp is not corrected any further
EDGE_SIGMA_PX = 0.6  # of points at an object's edge, in addition
MARGIN_PX = 16  # around an object; flow needs surroundings
CORRECTION_PIXELS = 400  # pixels from which a correction is found
NOWHERE_PX = -1e4


@dataclass
class View:
    """What one frame contributes: the image, its labels and its depth, at working size."""

    gray: NDArray[np.uint8]  # (H, W)
    labels: IntArray  # (H, W)
    depth_m: FloatArray  # (H, W), NaN = unknown
    T_map_cam: FloatArray  # (4, 4)


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


def labels_at(labels: IntArray, uv_px: FloatArray) -> IntArray:
    """(N,) labels (H, W) at pixels (N, 2)."""
    column, row = np.rint(uv_px).astype(int).T
    return labels[row, column]


def expected(source: View, target: View, motions: dict[int, Step], uv_source: FloatArray, camera: Camera) -> FloatArray:
    """(N, 2) where the scene expects points `uv_source` (N, 2) of `source` in `target`; far outside: nowhere.

    `motions` as for :func:`correspondence`.
    """
    labels = labels_at(source.labels, uv_source)
    depth = source.depth_m[tuple(np.rint(uv_source).astype(int).T[::-1])]
    xyz_cam = camera.unproject(uv_source.astype(np.float64), depth.astype(np.float64))
    where = np.full((len(labels), 2), np.nan)
    T_target_map = np.linalg.inv(target.T_map_cam)
    for label, motion in motions.items():
        chosen = labels == label
        there = moved(back(motion), transform_points(source.T_map_cam, xyz_cam[chosen]))
        where[chosen] = camera.project(transform_points(T_target_map, there))
    return np.nan_to_num(where, nan=NOWHERE_PX)


def correspondence(
    source: View, target: View, motions: dict[int, Step], camera: Camera, target_camera: Camera | None = None
) -> tuple[NDArray[np.float32], BoolArray]:
    """For every pixel of `target`: where the scene says it was in `source` (H, W, 2), and whether it was seen there.

    `motions[label]` is how the object moves, map frame, from the target's time to the source's; labels without an
    entry are invalid. `target_camera` is that of a target cut out of its picture.
    """
    seen_by = target_camera or camera
    where = np.full((*target.labels.shape, 2), np.nan, np.float32)
    ok = np.zeros(target.labels.shape, bool)
    T_source_map = np.linalg.inv(source.T_map_cam)
    for label, motion in motions.items():
        row, column = np.nonzero((target.labels == label) & (target.depth_m > 0))
        xyz_cam = seen_by.unproject(np.stack([column, row], 1).astype(np.float64), target.depth_m[row, column])
        before = transform_points(T_source_map, moved(motion, transform_points(target.T_map_cam, xyz_cam)))
        uv = camera.project(before)
        inside = np.isfinite(uv).all(1) & (uv >= 0).all(1)
        inside &= (uv[:, 0] <= camera.width - 1) & (uv[:, 1] <= camera.height - 1)
        at = np.where(inside[:, None], uv, 0.0)
        there = sample(source.depth_m, at)
        near = np.abs(there - before[:, 2]) < DEPTH_TOLERANCE * np.maximum(there, 1e-3)  # not so where depth is unknown
        where[row, column] = uv
        ok[row, column] = inside & near & (sample(source.labels, at, nearest=True) == label)
    return where, ok


def measure(
    source: View,
    target: View,
    motions: dict[int, Step],
    uv_source: FloatArray,
    camera: Camera,
) -> Measured:
    """Where the points `uv_source` (N, 2) of the keyframe `source` are in `target`; `motions` as for
    :func:`correspondence`.
    """
    result = Measured.nowhere(expected(source, target, motions, uv_source, camera))
    labels = labels_at(source.labels, uv_source)
    for label in np.unique(labels[labels >= BACKGROUND]).tolist():
        rows = np.flatnonzero(labels == label)
        if label == BACKGROUND:
            warp = _Warp(source, target, motions, camera, camera, finest_scale=STATIC_FINEST_SCALE)
            result.put(rows, warp.measure(uv_source[rows], result.warped_px[rows]))
        else:
            result.put(rows, measure_object(source, target, label, motions, uv_source[rows], camera))
    return result


def measure_object(
    source: View,
    target: View,
    label: int,
    motions: dict[int, Step],
    uv_source: FloatArray,
    camera: Camera,
) -> Measured:
    """The same for points of one object alone: its warp is corrected, unless it bends, and measured again."""
    guess = expected(source, target, motions, uv_source, camera)
    if label not in motions or not (target.labels == label).any() or len(uv_source) == 0:
        return Measured.nowhere(guess)
    corner, part, part_camera = _cut_out(target, label, camera)
    step = motions[label]
    motion = {label: step}
    warp = _Warp(source, part, motion, camera, part_camera)
    shown = int((source.labels == label).sum())
    if not isinstance(step, Bending):  # no rigid motion is missing there
        correction = warp.correction(label, max(FEWEST_PIXELS, SHOWN_SHARE * shown))
        if correction is not None:
            motion[label] = step @ correction
            warp = _Warp(source, part, motion, camera, part_camera)
    guess = expected(source, target, motion, uv_source, camera)
    result = warp.measure(uv_source, guess - corner, EDGE_SIGMA_PX)
    result.uv_px += corner
    result.warped_px += corner
    return result


def _cut_out(view: View, label: int, camera: Camera) -> tuple[NDArray[np.float32], View, Camera]:
    """The part of a view that shows an object, its upper left corner (x, y) and its camera."""
    rows, columns = (np.flatnonzero((view.labels == label).any(axis)) for axis in (1, 0))
    top, bottom = max(0, int(rows[0]) - MARGIN_PX), int(rows[-1]) + MARGIN_PX + 1
    left, right = max(0, int(columns[0]) - MARGIN_PX), int(columns[-1]) + MARGIN_PX + 1
    box = np.s_[top:bottom, left:right]
    part = View(view.gray[box], view.labels[box], view.depth_m[box], view.T_map_cam)
    height, width = part.gray.shape
    lens = replace(camera, cx=camera.cx - left, cy=camera.cy - top, width=width, height=height)
    return np.array([left, top], np.float32), part, lens


class _Warp:
    """A keyframe as the scene says it looks in another frame."""

    def __init__(
        self,
        source: View,
        target: View,
        motions: dict[int, Step],
        camera: Camera,
        target_camera: Camera,
        finest_scale: int = 0,
    ) -> None:
        self.target = target
        self.camera = target_camera
        self.finest_scale = finest_scale
        self.where, self.ok = correspondence(source, target, motions, camera, target_camera)
        warped = cv2.remap(
            source.gray, self.where[..., 0], self.where[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        self.image = np.where(self.ok, warped, target.gray).astype(np.uint8)
        self.backward = dis_flow(target.gray, self.image, finest_scale=finest_scale)

    def correction(self, label: int, fewest: float) -> FloatArray | None:
        """(4, 4) in the map, by which an object's motion is to be preceded so that the warp is where the image is;
        None where fewer than `fewest` pixels say so, or the warp is there already.
        """
        small = np.linalg.norm(self.backward, axis=-1) < MAX_RESIDUAL_PX
        row, column = np.nonzero(self.ok & (self.target.labels == label) & small)
        if len(row) < fewest:
            return None
        chosen = np.linspace(0, len(row) - 1, min(len(row), CORRECTION_PIXELS)).astype(int)
        row, column = row[chosen], column[chosen]
        uv = np.stack([column, row], 1).astype(np.float64)
        xyz_cam = self.camera.unproject(uv, self.target.depth_m[row, column].astype(np.float64))
        T = align_photometrically(self.image, self.target.gray, self.backward, self.ok, uv, xyz_cam, self.camera)
        shift = np.linalg.norm(moved_px(T, xyz_cam, self.camera) - uv, axis=1)
        if not CORRECTED_PX < np.median(shift) < MAX_RESIDUAL_PX:
            return None
        T_map_cam = self.target.T_map_cam
        return np.asarray(T_map_cam @ T @ np.linalg.inv(T_map_cam))

    def measure(self, uv_source: FloatArray, uv_guess: FloatArray, edge_sigma_px: float = np.inf) -> Measured:
        """Where points `uv_source` (N, 2) of the keyframe are, that the warp has about at `uv_guess` (N, 2).

        At the edge of what is warped other things have a say: positions there are uncertain by `edge_sigma_px` more.
        """
        if not self.ok.any() or len(uv_source) == 0:
            return Measured.nowhere(uv_guess)
        forward = dis_flow(self.image, self.target.gray, finest_scale=self.finest_scale)
        disagreement = consistency(forward, self.backward)
        height, width = self.ok.shape
        place = _invert(self.where, self.ok, uv_source, uv_guess)
        found = np.isfinite(place).all(1) & (place >= 0).all(1)
        found &= (place[:, 0] <= width - 1) & (place[:, 1] <= height - 1)
        at = np.where(found[:, None], place, 0.0)
        residual = sample(forward, at)
        error = sample(np.minimum(disagreement, 1e3), at)
        core = cv2.erode(self.ok.astype(np.uint8), np.ones((3, 3), np.uint8))
        doubt = np.where(sample(core, at, nearest=True) > 0, 0.0, edge_sigma_px)
        found &= (sample(self.ok, at, nearest=True) > 0) & np.isfinite(doubt)
        found &= (error < MAX_DISAGREEMENT_PX) & (np.linalg.norm(residual, axis=1) < MAX_RESIDUAL_PX)
        result = at + residual
        found &= _correlation(self.image, at, self.target.gray, result) > MIN_CORRELATION
        sigma = np.sqrt(NOISE_PX**2 + doubt**2 + (0.5 * error) ** 2 + (0.1 * np.linalg.norm(residual, axis=1)) ** 2)
        sigma = np.where(found, sigma, np.inf).astype(np.float32)
        return Measured(result.astype(np.float32), found, sigma, uv_guess.astype(np.float32))


def _invert(where: NDArray[np.float32], ok: BoolArray, uv_source: FloatArray, uv_guess: FloatArray) -> FloatArray:
    """The pixels p of the target with where(p) = uv_source, by Newton steps from `uv_guess`; NaN where there is
    none.
    """
    filled = np.where(ok[..., None], where, np.nan).astype(np.float32)
    by_x = 0.5 * (np.roll(filled, -1, 1) - np.roll(filled, 1, 1))
    by_y = 0.5 * (np.roll(filled, -1, 0) - np.roll(filled, 1, 0))
    place = uv_guess.astype(np.float64).copy()
    error = np.full(len(place), np.inf)
    for _ in range(4):
        miss = sample(filled, place) - uv_source
        error = np.linalg.norm(miss, axis=1)
        jx, jy = sample(by_x, place), sample(by_y, place)
        determinant = jx[:, 0] * jy[:, 1] - jx[:, 1] * jy[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            step_x = (jy[:, 1] * miss[:, 0] - jy[:, 0] * miss[:, 1]) / determinant
            step_y = (-jx[:, 1] * miss[:, 0] + jx[:, 0] * miss[:, 1]) / determinant
        step = np.stack([step_x, step_y], 1)
        size = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1.0, 5.0 / np.maximum(size, 1e-9))
        place = place - np.where(np.isfinite(step), step, 0.0)
    final = np.linalg.norm(sample(filled, place) - uv_source, axis=1)
    return np.where((np.minimum(final, error) < 0.3)[:, None], place, np.nan)


def _correlation(a: NDArray[np.uint8], uv_a: FloatArray, b: NDArray[np.uint8], uv_b: FloatArray) -> FloatArray:
    """(N,) normalised correlation of square patches; patches without texture count as matched."""
    span = np.arange(-PATCH_PX, PATCH_PX + 1)
    offsets = np.stack(np.meshgrid(span, span), -1).reshape(-1, 2)
    patches = []
    for image, uv in ((a, uv_a), (b, uv_b)):
        values = sample(image, (uv[:, None] + offsets).reshape(-1, 2)).reshape(len(uv), -1).astype(np.float64)
        patches.append(values - values.mean(1, keepdims=True))
    squares = [np.einsum("nk,nk->n", patch, patch) for patch in patches]
    flat = np.minimum(*squares) < len(offsets) * 2.5**2
    norm = np.sqrt(squares[0] * squares[1])
    return np.where(flat, 1.0, np.einsum("nk,nk->n", *patches) / np.maximum(norm, 1e-9))
