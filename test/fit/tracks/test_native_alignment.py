"""Patches aligned in C++, against the same in NumPy and against known motions."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import patch_reference
import pytest
from fit_builders import texture
from numpy.typing import NDArray

from motion4d_ros.fit.tracks.native_alignment import Aligned, Patches, Picture, align_patches, fit_surfaces
from motion4d_ros.types import FloatArray

HEIGHT, WIDTH = 96, 128
WARP = np.array([[0.94, 0.08, 0.004, -0.003, 0.002], [-0.06, 1.05, 0.001, 0.003, -0.004]])
MIDDLE, THERE = np.array([60.0, 50.0]), np.array([66.3, 47.6])


def warped(uv: FloatArray) -> FloatArray:
    """Where pixels (N, 2) of the source are in the target: to second order about `MIDDLE`, whose curvature fades."""
    step = uv - MIDDLE
    return THERE + patch_reference.terms(step)[:, :2] @ WARP[:, :2].T + 12.0 * np.sin(step / 12.0) ** 2 * 0.3


def slopes(uv: FloatArray) -> FloatArray:
    """(N, 2, 5) the warp about pixels, by differences."""
    h = 2.0
    right, left, below, above, far, near = (
        warped(uv + h * np.array(k)) for k in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1))
    )
    here = warped(uv)
    xx, yy = (right + left - 2 * here) / (2 * h * h), (below + above - 2 * here) / (2 * h * h)
    xy = (far + near - 2 * here) / (2 * h * h) - xx - yy
    return np.stack([(right - left) / (2 * h), (below - above) / (2 * h), xx, xy, yy], -1)


def pictures(seed: int = 3, gain: float = 0.7) -> tuple[Picture, Picture, FloatArray]:
    """A texture, the same warped and in other light, and pixels (N, 2) of the first."""
    source = cv2.GaussianBlur(texture(HEIGHT, WIDTH, seed=seed, blur=1.5), (0, 0), 1.0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    back = np.stack([x, y], -1).reshape(-1, 2).astype(float)
    wanted = back.copy()
    for _ in range(30):  # the inverse of the warp, pixel by pixel
        back = back + 0.7 * (wanted - warped(back))
    there = cv2.remap(source, back.reshape(HEIGHT, WIDTH, 2).astype(np.float32), None, cv2.INTER_CUBIC)
    lit = np.clip(np.rint(gain * there + 0.3 * x + 10), 0, 255).astype(np.uint8)
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    labels[:, 100:] = 1
    columns, rows = (k.ravel() for k in np.meshgrid(np.arange(24, 88, 6), np.arange(20, 78, 6)))
    return Picture(source, np.zeros_like(labels)), Picture(lit, labels), np.stack([columns, rows], 1).astype(float)


def patches(uv: FloatArray, guess: FloatArray) -> Patches:
    count = len(uv)
    return Patches(np.zeros(count, int), np.ones(count, int), np.zeros(count, int), uv, guess, slopes(uv))


def found_in(pair: tuple[Picture, Picture, FloatArray], off: float = 1.0, **options: int) -> tuple[Aligned, FloatArray]:
    """What is found from guesses that are `off` px wrong, and the truth."""
    first, second, uv = pair
    truth = warped(uv)
    aside = np.random.default_rng(1).normal(size=uv.shape)
    guess = truth + off * aside / np.linalg.norm(aside, axis=1, keepdims=True)
    return align_patches([first, second], patches(uv, guess), **options), truth


def test_values_are_those_of_the_reference() -> None:
    first, second, uv = pictures()
    truth = warped(uv)
    guess = truth + np.random.default_rng(2).uniform(-1, 1, uv.shape)
    asked = patches(uv, guess)
    ours = align_patches([first, second], asked, levels=1)
    compared = 0
    for n in range(len(uv)):
        labels = (first.labels, second.labels)
        gray = (first.levels[0].astype(float), second.levels[0].astype(float))
        wanted = patch_reference.align(*gray, labels, 0, uv[n], np.float32(guess[n]), np.float32(asked.warp[n]))
        if wanted is None:
            assert np.isnan(ours.uv_px[n]).all()
        elif np.isfinite(ours.uv_px[n]).all() and wanted[1] > 0.9:
            place, likeness, sigma = wanted
            assert np.linalg.norm(ours.uv_px[n] - place) < 0.01
            assert ours.likeness[n] == pytest.approx(likeness, abs=2e-3)
            assert ours.sigma_px[n] == pytest.approx(sigma, rel=0.02)
            compared += 1
    assert compared > 0.7 * len(uv)


@pytest.mark.parametrize("off", [0.0, 1.0, 3.0])
def test_places_are_found_in_other_light(off: float) -> None:
    ours, truth = found_in(pictures(), off)
    inside = truth[:, 0] < 92  # beyond, pixels have another label
    good = ours.returned_px < 0.5
    assert good[inside].mean() > (0.95 if off < 2 else 0.7)
    error = np.linalg.norm(ours.uv_px - truth, axis=1)[good & inside]
    assert np.median(error) < 0.05
    assert np.quantile(error, 0.95) < 0.25


def test_a_warp_of_first_order_is_not_enough_on_a_curved_surface() -> None:
    """The curvature of the warp moves the middle of a patch: what is left out shows as a shift."""
    first, second, uv = pictures()
    truth = warped(uv)
    asked = patches(uv, truth)
    flat = asked.warp.copy()
    flat[..., 2:] = 0
    errors = []
    for warp in (asked.warp, flat):
        ours = align_patches([first, second], replace(asked, warp=warp))
        good = (ours.returned_px < 0.5) & (truth[:, 0] < 92)
        errors.append(np.abs(np.mean(ours.uv_px[good] - truth[good], axis=0)).max())
    assert errors[0] < 0.02
    assert errors[1] > 4 * errors[0]


def test_pixels_of_other_labels_have_no_say() -> None:
    """What stands before the patch, and is labelled, changes nothing but how sure the place is."""
    first, second, uv = pictures()
    truth = warped(uv)
    hidden = second.levels[0].copy()
    hidden[:, 60:] = texture(HEIGHT, WIDTH - 60, seed=8)
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    labels[:, 60:] = 1
    near = (truth[:, 0] > 56) & (truth[:, 0] < 59)
    assert near.sum() >= 4
    asked = patches(uv[near], truth[near])
    for known, least, most in ((labels, 0.0, 0.15), (np.zeros_like(labels), 0.15, 10.0)):
        target = Picture(hidden.astype(np.uint8), known)
        ours = align_patches([first, target], asked, levels=1)
        error = np.linalg.norm(ours.uv_px - truth[near], axis=1)
        assert least <= np.nanmedian(error) < most


def test_results_are_the_same_for_any_number_of_threads() -> None:
    one, _ = found_in(pictures(), 2.0, threads=1)
    for threads in (2, 3, 8, 0):
        other, _ = found_in(pictures(), 2.0, threads=threads)
        for name in ("uv_px", "returned_px", "likeness", "sigma_px"):
            assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)


def test_every_instruction_set_finds_the_same_places(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; sys.path[:0] = sys.argv[2:]\n"
        "from test_native_alignment import found_in, pictures\n"
        "np.save(sys.argv[1], found_in(pictures(), 1.0, levels=1)[0].uv_px)\n"
    )
    places = []
    for isa in ("baseline", "avx2", "avx512"):
        path = tmp_path / f"{isa}.npy"
        folders = [str(Path(__file__).parent), *[entry for entry in sys.path if entry]]
        environment = {**os.environ, "MOTION4D_RASTER_ISA": isa}
        subprocess.run([sys.executable, "-c", code, str(path), *folders], env=environment, check=True, timeout=120)
        places.append(np.load(path))
    for other in places[1:]:
        apart = np.linalg.norm(other - places[0], axis=1)
        assert np.nanquantile(apart, 0.9) < 0.01


def test_texture_of_one_direction_is_uncertain_and_none_is_not_found() -> None:
    stripes = np.tile(texture(1, WIDTH, seed=4, blur=2.0).reshape(1, WIDTH), (HEIGHT, 1))
    flat = np.full((HEIGHT, WIDTH), 90, np.uint8)
    uv = np.array([[50.0, 40.0]])
    same = np.zeros((1, 2, 5))
    same[0, 0, 0] = same[0, 1, 1] = 1
    for image in (stripes, flat):
        picture = Picture(image.astype(np.uint8), np.zeros((HEIGHT, WIDTH), np.int32))
        ours = align_patches([picture], Patches(np.zeros(1, int), np.zeros(1, int), np.zeros(1, int), uv, uv, same))
        assert np.isnan(ours.sigma_px[0]) or ours.sigma_px[0] > 1.0


def test_what_cannot_be_is_not_found_or_refused() -> None:
    first, second, uv = pictures()
    asked = patches(uv[:4], warped(uv[:4]))
    asked.uv_guess[0] = np.nan
    asked.uv_guess[1] = [-300.0, 1e9]
    asked.warp[2] = np.nan
    ours = align_patches([first, second], asked)
    assert np.isnan(ours.uv_px[:3]).all() and np.isfinite(ours.uv_px[3]).all()
    with pytest.raises(ValueError, match="out of range"):
        align_patches([first], asked)
    with pytest.raises(ValueError, match="4 levels"):
        align_patches([first, second], asked, levels=4)
    nothing = align_patches([first, second], patches(np.zeros((0, 2)), np.zeros((0, 2))))
    assert nothing.uv_px.shape == (0, 2)


# -- surfaces ----------------------------------------------------------------------------------------------------------


def depth_image() -> tuple[FloatArray, NDArray[np.int32]]:
    """A curved surface before a wall, which has another label; a hole in it."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    inverse = 0.5 + 2e-3 * (x - 60) - 1e-3 * (y - 50) + 4e-5 * (x - 60) ** 2 - 2e-5 * (x - 60) * (y - 50)
    labels = (x < 70).astype(np.int32)
    depth = np.where(labels == 1, 1 / inverse, 4.0)
    depth[30:34, 30:34] = np.nan
    return depth, labels


def test_surfaces_are_polynomials_of_inverse_depth() -> None:
    depth, labels = depth_image()
    uv = np.array([[50.0, 50.0], [68.0, 40.0], [36.0, 36.0], [2.0, 3.0]])
    found = fit_surfaces(depth, labels, uv, reach=4, tolerance=0.2)
    for at, ours in zip(uv, found, strict=True):
        x, y = at - np.array([60.0, 50.0])
        value = 0.5 + 2e-3 * x - 1e-3 * y + 4e-5 * x**2 - 2e-5 * x * y
        wanted = [value, 2e-3 + 8e-5 * x - 2e-5 * y, -1e-3 - 2e-5 * x, 4e-5, -2e-5, 0.0]
        assert ours == pytest.approx(wanted, abs=2e-6)


def test_surfaces_with_too_few_pixels_are_flat_and_without_depth_unknown() -> None:
    depth, labels = depth_image()
    labels = np.zeros_like(labels)
    labels[60, 20:23] = 5  # three pixels
    labels[70:76, 20:23] = 6  # eighteen: a plane
    found = fit_surfaces(depth, labels, np.array([[21.0, 60.0], [21.0, 73.0], [31.0, 31.0], [-3.0, 5.0]]), 4, 0.2)
    assert found[0] == pytest.approx([1 / depth[60, 21], 0, 0, 0, 0, 0])
    assert (found[1, 3:] == 0).all() and abs(found[1, 1]) > 1e-4
    assert np.isnan(found[2:]).all()
