"""Bundle adjustment in C++ against NumPy: costs, normal equations and whole solutions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fit_builders import CAMERA, observe, pose, turning_body

from motion4d_ros.fit.motion.bundle_adjustment import (
    Body,
    BundleOptions,
    Observations,
    _cost,
    _normal_equations,
    linearise,
    native_sums,
    solve,
)


def rough() -> tuple[Body, Observations]:
    """A turning body, roughly known; points hidden, without depth, far off, and one behind the camera."""
    body = turning_body()
    cameras = np.stack([pose((0.0, 0.01 * k, 0.0), (0.02 * k, 0.0, 0.0)) for k in range(len(body.t))])
    seen = observe(body.at_frames(body.points), CAMERA, cameras, 0.3)
    random = np.random.default_rng(5)
    seen.visible &= random.random(seen.visible.shape) < 0.8
    seen.inverse_depth[random.random(seen.visible.shape) < 0.3] = np.nan
    seen.uv_px[random.random(seen.visible.shape) < 0.1] += 20.0
    seen.sigma_px[~seen.visible] = np.inf
    seen.uv_px = seen.uv_px.astype(np.float32)  # as points are kept
    body.points += 0.02 * random.standard_normal(body.points.shape)
    body.points[3, 2] = -5.0
    body.t = body.t + 0.01 * random.standard_normal(body.t.shape)
    body.depth_scale, body.depth_offset = 0.05 * random.standard_normal((2, len(body.t)))
    return body, seen


@pytest.mark.parametrize("poses", [True, False])
@pytest.mark.parametrize("offset", [True, False])
def test_sums_are_those_of_numpy(poses: bool, offset: bool) -> None:
    (body, seen), options = rough(), BundleOptions(free_poses=poses, free_offset=offset)
    native = native_sums(seen, options)
    assert native is not None
    assert _cost(body, seen, options, native) == pytest.approx(_cost(body, seen, options), rel=1e-12)
    found, wanted = _normal_equations(body, seen, options, native), _normal_equations(body, seen, options)
    for name, ours, theirs in zip(wanted._fields, found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9 * float(np.abs(theirs).max()), err_msg=name)


def test_depth_that_nobody_knows_has_no_say() -> None:
    body, seen = rough()
    options = BundleOptions(free_offset=True)
    seen.inverse_depth[:] = np.nan
    assert not linearise(body, seen, options).weight[..., 2].any()
    native = native_sums(seen, options)
    assert native is not None
    found, wanted = (_normal_equations(body, seen, options, sums) for sums in (native, None))
    np.testing.assert_allclose(found.H_ff, wanted.H_ff, rtol=1e-9, atol=1e-6)


def test_the_same_solution() -> None:
    body, seen = rough()
    other = replace(body)
    options = BundleOptions()
    cost, expected = solve(body, seen, options), solve(other, seen, options, native=False)
    assert cost == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(body.t, other.t, atol=1e-6)
    np.testing.assert_allclose(body.R, other.R, atol=1e-6)
    assert (body.inliers == other.inliers).mean() > 0.99
