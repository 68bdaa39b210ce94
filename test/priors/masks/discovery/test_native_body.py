"""The misfit of a body in C++ against the same in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from motion4d_ros.priors.masks.discovery.native_misfit import body_misfit

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
