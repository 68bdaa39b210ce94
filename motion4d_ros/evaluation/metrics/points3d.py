"""Points in 3D: end-point error and the share of points within 5 and 10 cm (Wang et al., Shape of Motion, sec. 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motion4d_ros.types import BoolArray, FloatArray

CAP_M = 1.0  # one lost point costs no more than this


@dataclass(frozen=True)
class PointErrors:
    """Over all judged points and frames; NaN where there is none."""

    epe_m: float  # mean distance, capped at `CAP_M`
    d05: float  # share within 5 cm
    d10: float  # share within 10 cm


def point_errors(xyz: FloatArray, true_xyz: FloatArray, judged: BoolArray) -> PointErrors:
    """Errors of (Q, T, 3) points against the truth, m, where `judged` (Q, T). Not finite counts as `CAP_M`."""
    distance = np.linalg.norm(np.asarray(xyz, float) - true_xyz, axis=-1)[np.asarray(judged, bool)]
    distance = np.minimum(np.where(np.isfinite(distance), distance, CAP_M), CAP_M)
    if not len(distance):
        return PointErrors(float("nan"), float("nan"), float("nan"))
    return PointErrors(float(distance.mean()), float((distance < 0.05).mean()), float((distance < 0.10).mean()))
