"""Depth errors as in Eigen et al. (NeurIPS 2014)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motion4d_ros.types import BoolArray, FloatArray


@dataclass(frozen=True)
class DepthErrors:
    """Over all pixels whose true and estimated depth are known; NaN where there is none."""

    abs_rel: float  # mean |d - d*| / d*
    rmse_m: float
    rmse_log: float  # root mean square of ln d - ln d*
    delta1: float  # share with max(d/d*, d*/d) < 1.25
    coverage: float  # share of the pixels of known truth that have an estimate


def depth_errors(depth_m: FloatArray, truth_m: FloatArray, align: str = "none") -> DepthErrors:
    """Errors of depth images of equal shape, m; 0, NaN and inf mean unknown.

    `align`: "none"; "median", one scale for all pixels given; "disparity", scale and shift of 1/depth by least squares.
    """
    estimate, truth = np.asarray(depth_m, float), np.asarray(truth_m, float)
    wanted = _known(truth)
    both = wanted & _known(estimate)
    if not both.any():
        nan = float("nan")
        return DepthErrors(nan, nan, nan, nan, 0.0)
    d, t = _aligned(estimate[both], truth[both], align), truth[both]
    ratio = np.maximum(d / t, t / d)
    return DepthErrors(
        abs_rel=float(np.mean(np.abs(d - t) / t)),
        rmse_m=float(np.sqrt(np.mean((d - t) ** 2))),
        rmse_log=float(np.sqrt(np.mean((np.log(d) - np.log(t)) ** 2))),
        delta1=float(np.mean(ratio < 1.25)),
        coverage=float(both.sum() / wanted.sum()),
    )


def _known(depth: FloatArray) -> BoolArray:
    return np.isfinite(depth) & (depth > 0)


def _aligned(depth: FloatArray, truth: FloatArray, align: str) -> FloatArray:
    if align == "none":
        return depth
    if align == "median":
        return depth * (np.median(truth) / np.median(depth))
    if align == "disparity":
        system = np.stack([1 / depth, np.ones_like(depth)], -1)
        (scale, shift), *_ = np.linalg.lstsq(system, 1 / truth, rcond=None)
        return np.asarray(1 / np.maximum(scale / depth + shift, 1e-3))
    raise ValueError(f"align {align!r}: choose none, median or disparity")
