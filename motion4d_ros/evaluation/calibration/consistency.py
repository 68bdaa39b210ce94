"""Squared errors in units of stated variances (NEES), by quantity, stage and state of the object.

A body's canonical frame is nobody's to know, so errors are those of one point that is fixed on the body, the middle of
the true query points, and of the rotation: what is constant between our frame and the true one is no error. It is one
frame for a whole run: that an object which was hidden comes back in another one is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from motion4d_ros.evaluation.calibration.recording import Recording
from motion4d_ros.evaluation.score import Truth
from motion4d_ros.evaluation.synthetic.scene import FRAME_PERIOD_NS
from motion4d_ros.geometry.pose_covariance import lever
from motion4d_ros.geometry.rigid import fit_rigid
from motion4d_ros.types import FloatArray, ObjectPhase, ObjectState, Stage

QUANTITIES = ("position", "rotation", "velocity", "rate")
SEEN = 0.3  # share of an object's query points that must be visible while it counts as tracked
FEWEST = 3  # frames of an object in a state
MATCHED = 0.2  # overlap of masks, over the run, from which an id is a true object


@dataclass(frozen=True)
class Row:
    """One object in one stage and state."""

    scene: str
    object_id: int
    stage: str
    state: str  # tracked, occluded or returned
    frames: int
    error: dict[str, float]  # root mean square: m, rad, m/s, rad/s
    stated: dict[str, float]  # root mean square of one standard deviation
    nees: dict[str, float]  # mean over frames and axes; 1 is honest
    coverage: dict[str, float]  # share of errors within the 95 % interval of their axis


@dataclass(frozen=True)
class TrueMotion:
    """How the middle of an object's query points moves."""

    center: FloatArray  # (T, 3) m
    rotation: FloatArray  # (T, 3, 3) since the first frame
    velocity: FloatArray  # (T, 3) m/s
    rate: FloatArray  # (T, 3) rad/s
    visible: FloatArray  # (T,) share of its points


def true_motion(truth: Truth, object_id: int) -> TrueMotion:
    """The motion of one object of a ``gt.npz``."""
    mine = truth["query_object"] == object_id
    points = truth["tracks_xyz"][mine].astype(float)
    period, length = FRAME_PERIOD_NS * 1e-9, points.shape[1]
    rotation = np.stack([fit_rigid(points[:, 0], points[:, k], 1.0)[:3, :3] for k in range(length)])
    before, after = np.maximum(np.arange(length) - 1, 0), np.minimum(np.arange(length) + 1, length - 1)
    turn = Rotation.from_matrix(rotation[after] @ rotation[before].transpose(0, 2, 1)).as_rotvec()
    return TrueMotion(
        points.mean(0),
        rotation,
        np.gradient(points.mean(0), period, axis=0),
        turn / ((after - before)[:, None] * period),
        truth["visible"][mine].mean(0),
    )


def match(truth: Truth, recording: Recording) -> dict[int, int]:
    """True object -> the id that overlaps it most over the run, where one does."""
    frames = sorted(recording.masks)
    ours = np.stack([recording.masks[k] for k in frames])
    theirs = truth["masks"][frames]
    result = {}
    for true_id in [int(value) for value in np.unique(truth["query_object"]) if value > 0]:
        of_object = theirs == true_id
        overlap = {
            int(found): float((of_object & (ours == found)).sum() / max(1, (of_object | (ours == found)).sum()))
            for found in np.unique(ours)
            if found > 0
        }
        if overlap and max(overlap.values()) > MATCHED:
            result[true_id] = max(overlap, key=lambda found: overlap[found])
    return result


def consistency(scene: str, truth: Truth, recording: Recording) -> list[Row]:
    """The rows of one scene."""
    rows = []
    for true_id, found in match(truth, recording).items():
        motion = true_motion(truth, true_id)
        for stage, by_frame in recording.objects.items():
            states: dict[str, list[tuple[int, ObjectState]]] = {}
            hidden = False
            for k in sorted(by_frame):
                told = next((each for each in by_frame[k] if each.object_id == found), None)
                if told is None or k < 0:
                    continue
                if told.phase in (ObjectPhase.OCCLUDED, ObjectPhase.LOST):
                    hidden = True
                    states.setdefault("occluded", []).append((k, told))
                elif motion.visible[k] > SEEN:
                    states.setdefault("returned" if hidden else "tracked", []).append((k, told))
            seen = [each for state, frames in states.items() if state != "occluded" for each in frames]
            if not seen:
                continue
            fixed = _fixed(seen, motion)
            for state, frames in states.items():
                if len(frames) >= FEWEST:
                    rows.append(_row(scene, true_id, stage, state, _errors(frames, motion, fixed)))
    return rows


@dataclass(frozen=True)
class _Fixed:
    """What is constant on a body, in the frame that we gave it."""

    point: FloatArray  # (3,) m, the middle of the true query points
    rotation: FloatArray  # (3, 3) of the true frame


def _bodies(frames: list[tuple[int, ObjectState]]) -> FloatArray:
    """(K, 4, 4) motions of the body, canonical -> map."""
    boxes = np.stack([told.T_map_object for _, told in frames])
    return np.asarray(boxes @ np.linalg.inv(np.stack([told.T_body_object for _, told in frames])))


def _fixed(frames: list[tuple[int, ObjectState]], motion: TrueMotion) -> _Fixed:
    index, poses = np.array([k for k, _ in frames]), _bodies(frames)
    R, t = poses[:, :3, :3], poses[:, :3, 3]
    point = np.median(np.einsum("kji,kj->ki", R, motion.center[index] - t), axis=0)
    rotation = Rotation.from_matrix(R.transpose(0, 2, 1) @ motion.rotation[index]).mean().as_matrix()
    return _Fixed(point, rotation)


def _errors(
    frames: list[tuple[int, ObjectState]], motion: TrueMotion, fixed: _Fixed
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """By quantity, (K, 3) errors and (K, 3) variances that were stated of them."""
    index = np.array([k for k, _ in frames])
    centers = np.stack([told.T_map_object[:3, 3] for _, told in frames])
    poses = _bodies(frames)
    R, t = poses[:, :3, :3], poses[:, :3, 3]
    place = R @ fixed.point + t
    moved = lever(place - centers)
    pose = moved @ np.stack([told.pose_covariance for _, told in frames]) @ moved.transpose(0, 2, 1)
    twist = moved @ np.stack([told.twist_covariance for _, told in frames]) @ moved.transpose(0, 2, 1)
    rates = np.stack([told.twist for _, told in frames])
    rates[:, :3] += np.cross(rates[:, 3:], place - centers)
    turned = Rotation.from_matrix(R @ fixed.rotation @ motion.rotation[index].transpose(0, 2, 1)).as_rotvec()
    return {
        "position": (place - motion.center[index], np.einsum("kii->ki", pose[:, :3, :3])),
        "rotation": (turned, np.einsum("kii->ki", pose[:, 3:, 3:])),
        "velocity": (rates[:, :3] - motion.velocity[index], np.einsum("kii->ki", twist[:, :3, :3])),
        "rate": (rates[:, 3:] - motion.rate[index], np.einsum("kii->ki", twist[:, 3:, 3:])),
    }


def _row(scene: str, object_id: int, stage: Stage, state: str, errors: dict[str, tuple[FloatArray, FloatArray]]) -> Row:
    limit = float(chi2.ppf(0.95, 1))
    squared = {name: error**2 / variance for name, (error, variance) in errors.items()}
    return Row(
        scene,
        object_id,
        stage.name.lower(),
        state,
        len(errors["position"][0]),
        {name: float(np.sqrt((error**2).mean())) for name, (error, _) in errors.items()},
        {name: float(np.sqrt(variance.mean())) for name, (_, variance) in errors.items()},
        {name: float(each.mean()) for name, each in squared.items()},
        {name: float((each < limit).mean()) for name, each in squared.items()},
    )


def geometric_mean(rows: list[Row], name: str) -> float:
    """Of the NEES of a quantity over rows."""
    return float(np.exp(np.mean([np.log(max(row.nees[name], 1e-6)) for row in rows])))


def band(rows: list[Row]) -> tuple[float, float]:
    """Between what 95 % of mean NEES lie if all is honest, were frames independent: over the frames of the rows."""
    degrees = 3 * sum(row.frames for row in rows)
    low, high = (float(chi2.ppf(q, degrees)) / degrees for q in (0.025, 0.975))
    return low, high
