"""Bodies fitted to flow, and their misfit, in C++ against the same in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from motion4d_ros.priors.masks.discovery.native_body import FitOptions, body_misfit, fit_motion

FRAMES, HEIGHT, WIDTH = 5, 23, 31
UNIT, CAP, TYPICAL, RELIEF = 50.0, 4.0, 1.2, 3.0


def reference(flow, valid, sigma, affine, parallax, where):
    """All pixels at once, in double precision."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    basis = np.stack([np.ones((HEIGHT, WIDTH)), (x - WIDTH / 2) / UNIT, (y - HEIGHT / 2) / UNIT])
    left = flow.astype(float) - np.einsum("fcb,bhw->fhwc", affine, basis)
    weight = valid / sigma[:, None, None] ** 2
    along = (weight * np.einsum("fhwc,fc->fhw", left, parallax)).sum(0)
    relief = along / (np.einsum("fhw,f->hw", weight, (parallax**2).sum(-1)) + 1.0)
    left -= np.clip(relief, -RELIEF, RELIEF)[None, ..., None] * parallax[:, None, None]
    off = np.minimum(np.linalg.norm(left, axis=-1) / sigma[:, None, None], CAP)
    return np.where(where, ((off * valid).sum(0) + TYPICAL) / (valid.sum(0) + 1.0), CAP)


def test_misfits_are_those_of_the_reference() -> None:
    random = np.random.default_rng(4)
    affine = random.normal(0, 1, (FRAMES, 2, 3)).astype(np.float32)
    parallax = random.normal(0, 0.7, (FRAMES, 2)).astype(np.float32)
    flow = random.normal(0, 1.5, (FRAMES, HEIGHT, WIDTH, 2)).astype(np.float32)
    valid = random.uniform(size=(FRAMES, HEIGHT, WIDTH)) < 0.7
    valid[:, 3, 4] = False  # a pixel that was never followed
    sigma = np.linspace(0.4, 0.9, FRAMES).astype(np.float32)
    where = random.uniform(size=(HEIGHT, WIDTH)) < 0.6
    where[3, 4] = True
    ours = body_misfit(flow, valid, sigma, affine, parallax, where, (UNIT, CAP, TYPICAL, RELIEF))
    wanted = reference(flow, valid, sigma, affine, parallax, where)
    assert ours == pytest.approx(wanted, abs=1e-4)
    assert ours[3, 4] == pytest.approx(TYPICAL)
    assert np.ptp(ours[where]) > 1.0  # not all at a bound
    with pytest.raises(ValueError, match="flow of"):
        body_misfit(flow[1:], valid, sigma, affine, parallax, where, (UNIT, CAP, TYPICAL, RELIEF))


OPTIONS = FitOptions(4, 8, 200, UNIT, 2.0, 2.0, 1.0, RELIEF)


def fitted(flow, valid, sigma, pixels, weight, options):
    """The same fit in double precision: the affine motion (F, 2, 3) and the relief's part (F, 2)."""
    ys, xs = np.divmod(pixels, WIDTH)
    u, seen = flow.astype(float)[:, ys, xs].transpose(0, 2, 1), valid[:, ys, xs]
    basis = np.stack([np.ones(len(ys)), (xs - WIDTH / 2) / UNIT, (ys - HEIGHT / 2) / UNIT])
    base = seen / sigma[:, None] ** 2 * weight
    shares = seen / sigma[:, None] / np.maximum(seen.sum(0), 1)
    followed = seen.any(0)

    def motion(columns, robust):
        normal = np.einsum("fn,an,bn->fab", robust, columns, columns) + 1e-3 * np.eye(len(columns))
        return np.linalg.solve(normal, np.einsum("fn,fcn,an->fac", robust, u, columns)).transpose(0, 2, 1)

    def trust(left, slack):
        off = (np.linalg.norm(left, axis=1) * shares).sum(0)
        scale = slack * max(options.scale, options.times * np.median(off[followed]))
        return base / (1 + (off / scale) ** 2) ** 2

    affine = motion(basis, base)
    for _ in range(options.affine_rounds):
        affine = motion(basis, trust(u - affine @ basis, options.slack))
    robust = trust(u - affine @ basis, options.slack)
    scaled = ((u - affine @ basis) * np.sqrt(robust)[:, None]).reshape(2 * len(u), -1)
    parallax = np.linalg.svd(scaled @ scaled.T)[0][:, 0].reshape(-1, 2)
    for k in range(options.rounds):
        along = np.einsum("fcn,fc->fn", u - affine @ basis, parallax)
        relief = (robust * along).sum(0) / ((parallax**2).sum(-1) @ robust + 1e-3)
        relief /= np.sqrt((relief**2 * robust.sum(0)).sum() / robust.sum() + 1e-9)
        columns = np.vstack([basis, np.clip(relief, -options.relief, options.relief)])
        both = motion(columns, robust)
        affine, parallax = both[..., :3], both[..., 3]
        robust = trust(u - both @ columns, max(1.0, options.slack * (1 - 2 * k / options.rounds)))
    return affine, parallax


@pytest.mark.parametrize(("slack", "rounds"), [(1.0, 8), (3.0, 16)])
def test_bodies_are_those_of_the_reference(slack: float, rounds: int) -> None:
    random = np.random.default_rng(8)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    bulge = np.exp(-((x - 14.0) ** 2 + (y - 11.0) ** 2) / 60.0)
    steps = np.array([-2, -1, 1, 2, 3])
    flow = np.stack([np.dstack([k * (1 + 0.02 * y + 0.8 * bulge), k * (0.5 - 0.03 * x)]) for k in steps])
    flow[:, :, 25:] += 3.0 * steps[:, None, None, None]  # another thing
    flow = (flow + random.normal(0, 0.1, flow.shape)).astype(np.float32)
    valid = random.uniform(size=(FRAMES, HEIGHT, WIDTH)) < 0.8
    valid[:, 5, 6] = False  # a pixel that was never followed
    sigma = np.linspace(0.3, 0.6, FRAMES).astype(np.float32)
    pixels = np.flatnonzero(random.uniform(size=HEIGHT * WIDTH) < 0.8)
    weight = random.uniform(0.5, 2.0, len(pixels)).astype(np.float32)
    options = FitOptions(4, rounds, 200, UNIT, 2.0, 2.0, slack, RELIEF)
    found = fit_motion(flow, valid, sigma, pixels, weight, options)
    assert found is not None
    affine, parallax = fitted(flow, valid, sigma, pixels, weight, options)
    assert found[0] == pytest.approx(affine, abs=2e-3)
    sign = np.sign((found[1] * parallax).sum())  # of an eigenvector, and of the relief
    assert sign * found[1] == pytest.approx(parallax, abs=2e-3)
    assert np.abs(parallax).max() > 0.1


def test_too_few_observations_fit_nothing() -> None:
    flow, valid = np.zeros((FRAMES, HEIGHT, WIDTH, 2), np.float32), np.ones((FRAMES, HEIGHT, WIDTH), bool)
    sigma = np.ones(FRAMES, np.float32)
    assert fit_motion(flow, valid, sigma, np.arange(39), None, OPTIONS) is None  # 195 observations
    found = fit_motion(flow, valid, sigma, np.arange(40), None, OPTIONS)
    assert found is not None
    assert np.abs(found[0]).max() < 1e-6
    with pytest.raises(ValueError, match="flow of"):
        fit_motion(flow[1:], valid, sigma, np.arange(40), None, OPTIONS)
