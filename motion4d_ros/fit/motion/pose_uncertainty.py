"""How well the poses of a body are known after bundle adjustment.

The covariance is *marginal*: over the points, over the other poses, and over what the depth prior gets wrong. A body's
canonical frame is a matter of choice (turning it, all poses change and no image does), so it is fixed by a convention,
the one by which it is carried from window to window: the errors of the points shift and turn them by nothing on
average (inner constraint; Triggs et al., "Bundle Adjustment - A Modern Synthesis", sec. 9.3). Covariances are those of
the motion of a frame that is fixed on the body's points. While few views have been seen, the shape of the points is
uncertain, and so is what later views will call the same orientation; a convention about the poses would hide that.

Neighbouring points do not err independently: flow is smooth, and so are its errors. If they counted as independent,
hundreds of points would promise a tenth of the true error. Every frame therefore has an unknown field of errors of
flow, a quadratic polynomial over the body's image whose coefficients have `sigma_flow_field` (px) as their prior. It is
marginalised like everything else. In the same way, depth errs in part alike in all frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from motion4d_ros.fit.motion.articulation import select
from motion4d_ros.fit.motion.bundle_adjustment import PER_FRAME, Body, BundleOptions, Observations, add_prior, linearise
from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.types import BoolArray, FloatArray

FRAME_POINTS = 30
"""Points of a frame that are used where there are more: as errors are correlated, others say nothing new."""

REACH = 2  # frames over which jitter is measured: nearer ones share most of their error
DRIFT_REACH = 8  # frames before and after, between which the slow part of the errors is taken for motion
POSE = 6
COMMON_SHARE = 0.4  # of the error of depth that is expected in one frame: as much is common to all of them
SCALE = 6  # place of the log scale error of a frame's depth among its unknowns
TRANSLATION_FIRST = [3, 4, 5, 0, 1, 2]  # as ROS has it


class Adjusted:
    """An adjustment that was made, and how well it knows the poses: computed when asked for the first time."""

    def __init__(
        self,
        body: Body,
        seen: Observations,
        options: BundleOptions,
        indices: Sequence[int],
        sigma_flow_field: float,
        least: int,
    ) -> None:
        """The solution `body` at the frames `indices` (T); it must not change any more. `sigma_flow_field`, px: see
        above. Frames with fewer than `least` inliers do not fix the canonical frame.
        """
        self._body, self._seen, self._options, self._indices = body, seen, options, indices
        self._sigma_flow_field, self._least = sigma_flow_field, least

    @cached_property
    def covariances(self) -> dict[int, PoseCovariance]:
        """Frame index -> of the motion of the body's centre."""
        joint = self._joint_covariance()
        places, every = self._body.center + self._body.t, np.arange(len(self._body.t))
        drift = _drift(joint, self._seen.seconds)
        rows = zip(self._indices, places, joint[every, :, every], _jitter(joint), drift, strict=True)
        return {index: PoseCovariance(*each) for index, *each in rows}

    def _joint_covariance(self) -> FloatArray:
        """(T, 6, T, 6) of all poses: positions of the centre, m, and rotations, rad, about the map's axes."""
        body = self._body
        length, support = len(body.t), body.inliers.sum(0)
        rows = _enough(body.inliers)
        some = Body(body.center, body.R, body.t, body.points[rows], body.depth_scale, body.depth_offset)
        system = _reduced_system(some, select(self._seen, rows), self._options, self._sigma_flow_field)
        per_frame = len(system.information) // length
        gauge = _gauge(body, per_frame)
        measured = gauge * np.repeat(support >= self._least, per_frame)[:, None]
        stiffness = np.trace(system.information) / len(system.information)  # whatever it is: see `change` below
        system.information[:] += stiffness / max(1.0, float((support >= self._least).sum())) * measured @ measured.T
        system = _with_common_scale(system, per_frame, self._options.sigma_scale)
        turned, of_points = _turn_of_points(some, system)
        pose = np.flatnonzero(np.tile(np.arange(per_frame) < POSE, length))
        change = gauge[pose] @ turned  # of the poses, as the canonical frame is turned back to where the points were
        change[np.arange(len(pose)), pose] += 1.0
        factor: Any = linalg.cho_factor(system.information, lower=True, overwrite_a=True, check_finite=False)
        solved = change @ linalg.cho_solve(factor, change.T, check_finite=False)
        solved += gauge[pose] @ of_points @ gauge[pose].T
        joint: FloatArray = ((solved + solved.T) / 2).reshape(length, 6, length, 6)
        return joint[:, TRANSLATION_FIRST][:, :, :, TRANSLATION_FIRST]


def _enough(inliers: BoolArray) -> NDArray[np.intp]:
    """Rows of points by which every frame keeps `FRAME_POINTS`, or all that it has."""
    chosen = np.zeros(len(inliers), bool)
    for column in np.argsort(inliers.sum(0), kind="stable"):
        rest = np.flatnonzero(inliers[:, column] & ~chosen)
        missing = min(len(rest), FRAME_POINTS - int((inliers[:, column] & chosen).sum()))
        if missing > 0:
            chosen[rest[np.linspace(0, len(rest) - 1, missing).astype(int)]] = True
    return np.flatnonzero(chosen)


@dataclass(frozen=True)
class _ReducedSystem:
    """Normal equations with the points marginalised."""

    information: FloatArray  # (U, U) on poses, depth nuisances and flow fields: P unknowns for each of T frames
    coupling: FloatArray  # (N, U, 3) of these unknowns and the points
    of_points: FloatArray  # (N, 3, 3) information on the points, all else known


def _reduced_system(body: Body, seen: Observations, options: BundleOptions, sigma_flow_field: float) -> _ReducedSystem:
    lin = linearise(body, seen, options)
    count, length = seen.visible.shape
    fields = _fields(seen, lin.weight[..., 0]) * (sigma_flow_field / seen.sigma_px)[..., None]
    terms = fields.shape[-1]
    size = PER_FRAME + 2 * terms
    J = np.zeros((count, length, 3, size))
    J[..., :PER_FRAME] = lin.J_frame
    J[..., 0, PER_FRAME : PER_FRAME + terms] = fields
    J[..., 1, PER_FRAME + terms :] = fields
    weighted = J * lin.weight[..., None]
    H = np.zeros((length, size, length, size))
    every = np.arange(length)
    by_frame = (array.swapaxes(0, 1).reshape(length, 3 * count, size) for array in (weighted, J))
    H[every, :, every, :] = next(by_frame).swapaxes(1, 2) @ next(by_frame)
    H[:, range(size), :, range(size)] += 1e-6 * np.eye(length)  # what nothing is known about stays finite
    for coefficient in range(PER_FRAME, size):
        H[every, coefficient, every, coefficient] += 1.0  # their prior
    if not options.free_offset:
        H[every, PER_FRAME - 1, every, PER_FRAME - 1] += 1.0  # nothing depends on it
    add_prior(H, np.zeros((length, size)), body, seen, options)
    J_point = lin.J_point.reshape(count, 3 * length, 3)
    H_pp = (lin.J_point * lin.weight[..., None]).reshape(count, 3 * length, 3).swapaxes(1, 2) @ J_point
    H_pp += (1e-6 * np.trace(H_pp, axis1=1, axis2=2) / 3 + 1e-6)[:, None, None] * np.eye(3)
    W = (weighted.swapaxes(-1, -2) @ lin.J_point).reshape(count, length * size, 3)
    root = np.linalg.inv(np.linalg.cholesky(H_pp)).swapaxes(1, 2)  # H_pp^-1 = root root^T
    flat = (W @ root).transpose(1, 0, 2).reshape(length * size, 3 * count)
    return _ReducedSystem(H.reshape(length * size, -1) - flat @ flat.T, W, H_pp)


def _with_common_scale(system: _ReducedSystem, per_frame: int, sigma: float) -> _ReducedSystem:
    """With one unknown more: what the depth of the body is wrong by in all frames alike, beside what it is in each,
    which is expected to be `sigma`.
    """
    information = system.information
    scale = np.arange(len(information)) % per_frame == SCALE
    column = information[:, scale].sum(1) - scale / sigma**2  # each frame's own prior says nothing of it
    common = column[scale].sum() + 1 / (COMMON_SHARE * sigma) ** 2
    coupling = np.concatenate([system.coupling, system.coupling[:, scale].sum(1, keepdims=True)], 1)
    return _ReducedSystem(
        np.block([[information, column[:, None]], [column[None], common]]), coupling, system.of_points
    )


def _turn_of_points(body: Body, system: _ReducedSystem) -> tuple[FloatArray, FloatArray]:
    """By how much the errors of the points turn and shift the canonical frame that is fitted to them.

    (6, U) how that depends on the errors of the other unknowns, and (6, 6) its covariance were they known.
    """
    count = len(body.points)
    x, y, z = (body.points - body.center).T
    change = np.zeros((count, 3, POSE))  # of the points, as the frame turns by w and shifts by s: -(w x X + s)
    change[:, 0, 1], change[:, 0, 2] = -z, y
    change[:, 1, 0], change[:, 1, 2] = z, -x
    change[:, 2, 0], change[:, 2, 1] = -y, x
    change[:, range(3), range(3, POSE)] = -1.0
    normal = np.einsum("nij,nik->jk", change, change)
    inverse = np.linalg.pinv(normal, rcond=1e-9, hermitian=True)  # a line of points turns about itself unseen
    fitted = np.einsum("jk,nik->nji", inverse, change)
    through = fitted @ np.linalg.inv(system.of_points)
    by_unknowns = np.einsum("njk,nuk->ju", through, system.coupling, optimize=True)
    return by_unknowns, np.einsum("njk,nlk->jl", through, fitted)


def _fields(seen: Observations, weight: FloatArray) -> FloatArray:
    """(N, T, 6) the terms of a quadratic polynomial at the points, of unit size over the body's image in each frame."""
    shown = (weight > 0)[..., None]
    count = np.maximum(shown.sum(0), 1)
    offset = np.where(shown, seen.uv_px - np.where(shown, seen.uv_px, 0.0).sum(0) / count, 0.0)
    spread = np.sqrt((offset**2).sum(0) / count)
    x, y = np.moveaxis(offset / np.maximum(spread, 1.0), -1, 0)
    terms = [np.ones_like(x), x, y, (x**2 - 1) / np.sqrt(2), x * y, (y**2 - 1) / np.sqrt(2)]
    return np.asarray(np.stack(terms, -1) * shown)


def _gauge(body: Body, per_frame: int) -> FloatArray:
    """(T P, 6) how a turn and a shift of the canonical frame change the poses."""
    change = np.zeros((len(body.t), per_frame, POSE))
    change[:, 0:3, 0:3] = change[:, 3:6, 3:6] = body.R
    return change.reshape(-1, POSE)


def _drift(joint: FloatArray, seconds: FloatArray) -> FloatArray:
    """(T, 6, 6) of velocity and rate: what the errors change by over `DRIFT_REACH` frames before and after, by the
    time between. A filter that takes errors as independent follows them as if they were motion.
    """
    place = np.arange(len(joint))
    first, last = np.maximum(place - DRIFT_REACH, 0), np.minimum(place + DRIFT_REACH, len(joint) - 1)
    difference = joint[first, :, first] + joint[last, :, last] - joint[first, :, last] - joint[last, :, first]
    between = np.maximum(seconds[last] - seconds[first], 1e-3)
    return np.asarray(difference / between[:, None, None] ** 2)


def _jitter(joint: FloatArray) -> FloatArray:
    """(T, 6, 6) half the covariance of the difference to the frames `REACH` before and after; `joint` (T, 6, T, 6)."""
    length = len(joint)
    total, count = np.zeros((length, 6, 6)), np.zeros(length)
    reach = min(REACH, length - 1)
    first, second = np.arange(length - reach), np.arange(reach, length)
    difference = joint[first, :, first] + joint[second, :, second] - joint[first, :, second] - joint[second, :, first]
    for ends in (first, second):
        total[ends] += difference / 2
        count[ends] += 1
    return np.asarray(total / np.maximum(count, 1)[:, None, None])
