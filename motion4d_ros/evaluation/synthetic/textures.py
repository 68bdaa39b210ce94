"""Tileable procedural textures with the contrast and the clutter of photographs.

A texture is baked once as a pyramid of images and then looked up by surface coordinates in metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import FloatArray

SIZE = 256  # texels per side of a baked tile
LEVELS = 6  # pyramid levels, each half the size of the one before


@dataclass
class Texture:
    """A tile of `extent_m` by `extent_m` metres, repeated without seams."""

    pyramid: list[NDArray[np.float32]]  # (S, S, 3) in [0, 1], S halves from level to level
    extent_m: float

    def sample(self, uv_m: FloatArray, footprint_m: FloatArray) -> NDArray[np.float32]:
        """Colours (N, 3) in [0, 1] at surface coordinates (N, 2) m; `footprint_m` (N,) is a pixel's width there."""
        texel_m = self.extent_m / SIZE
        level = np.log2(np.maximum(footprint_m / texel_m, 1.0))
        level = np.clip(np.round(level), 0, len(self.pyramid) - 1).astype(int)
        colours = np.empty((len(uv_m), 3), np.float32)
        for k in np.unique(level):
            chosen = level == k
            colours[chosen] = _bilinear(self.pyramid[k], uv_m[chosen] / self.extent_m)
        return colours


def _bilinear(image: NDArray[np.float32], uv: FloatArray) -> NDArray[np.float32]:
    """(N, 3) colours at (N, 2) tile coordinates, wrapped around."""
    size = len(image)
    x, y = uv[:, 0] * size - 0.5, uv[:, 1] * size - 0.5
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = (x - x0)[:, None].astype(np.float32), (y - y0)[:, None].astype(np.float32)
    i0, j0 = x0.astype(np.int64) % size, y0.astype(np.int64) % size
    i1, j1 = (i0 + 1) % size, (j0 + 1) % size
    flat = image.reshape(-1, 3)
    top = flat[j0 * size + i0] * (1 - fx) + flat[j0 * size + i1] * fx
    low = flat[j1 * size + i0] * (1 - fx) + flat[j1 * size + i1] * fx
    return top * (1 - fy) + low * fy


def make_texture(kind: str, seed: int, extent_m: float = 1.0) -> Texture:
    """Bakes one of `KINDS`. The same kind and seed give the same texture. Raises `KeyError` on an unknown kind."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    image = np.clip(KINDS[kind](rng), 0.02, 0.98).astype(np.float32)
    pyramid = [image]
    for _ in range(LEVELS - 1):
        size = len(pyramid[-1]) // 2
        pyramid.append(cv2.resize(pyramid[-1], (size, size), interpolation=cv2.INTER_AREA))
    return Texture(pyramid, extent_m)


def fractal_noise(rng: np.random.Generator, exponent: float = 1.1, stretch: float = 1.0) -> FloatArray:
    """(S, S) periodic noise with power spectrum 1/f^(2*exponent), zero mean, unit variance (natural images: ~1).

    `stretch` > 1 draws it out along x, as grain is.
    """
    size = SIZE
    fy, fx = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    frequency = np.hypot(fx * stretch, fy)
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.standard_normal((size, size))) / frequency**exponent
    noise = np.real(np.fft.ifft2(spectrum))
    return (noise - noise.mean()) / noise.std()


def _palette(rng: np.random.Generator, count: int, spread: float = 0.28) -> FloatArray:
    """(count, 3) colours around one random hue, from dark to light."""
    grey = rng.uniform(0.3, 0.7)
    base = np.clip(grey + rng.uniform(-0.22, 0.22, 3), 0.1, 0.9)  # muted, as most things are
    steps = np.linspace(-1, 1, count)[:, None] * rng.uniform(0.7, 1.0, 3) * spread
    return np.clip(base + steps + rng.normal(0, 0.06, (count, 3)), 0.03, 0.97)


def _grain(rng: np.random.Generator, amount: float = 0.04) -> FloatArray:
    """(S, S, 1) fine texture on top, so that no patch is flat."""
    return amount * fractal_noise(rng, 0.5)[..., None]


def _colourise(values: FloatArray, colours: FloatArray) -> FloatArray:
    """(S, S) values in [0, 1] -> (S, S, 3) by linear interpolation in a palette (C, 3)."""
    knots = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(values, knots, colours[:, c]) for c in range(3)], -1)


def _marble(rng: np.random.Generator) -> FloatArray:
    values = 0.5 + 0.5 * np.tanh(0.8 * fractal_noise(rng, 1.3))
    return _colourise(values, _palette(rng, 5, 0.35)) + _grain(rng)


def _wood(rng: np.random.Generator) -> FloatArray:
    across = np.linspace(0, 2 * np.pi, SIZE, endpoint=False)[:, None]
    rings = np.sin(6 * across + 1.5 * fractal_noise(rng, 1.6, 4.0)) * 0.5 + 0.5
    values = np.clip(0.45 * rings + 0.28 + 0.16 * fractal_noise(rng, 0.9, 10.0), 0, 1)
    base = np.array([[0.26, 0.14, 0.06], [0.52, 0.33, 0.17], [0.80, 0.60, 0.38]]) * rng.uniform(0.8, 1.15)
    planks = 0.12 * np.repeat(rng.uniform(-1, 1, 4), SIZE // 4)[:, None, None]
    spots = -0.25 * (fractal_noise(rng, 1.4) > 1.9)[..., None]  # knots and scratches
    return _colourise(values, base) + planks + spots + _grain(rng, 0.06)


def _checker(rng: np.random.Generator) -> FloatArray:
    cells = 8
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    warp = 2.0 * fractal_noise(rng, 1.6)
    parity = (((x + warp) * cells // SIZE + y * cells // SIZE) % 2).astype(int)
    tint = np.kron(rng.normal(0, 0.08, (cells, cells, 3)), np.ones((SIZE // cells, SIZE // cells, 1)))
    return _palette(rng, 2, 0.3)[parity] + tint + _grain(rng, 0.05)


def _stripes(rng: np.random.Generator) -> FloatArray:
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    bands = rng.integers(0, 6, 24)
    position = (x + 2 * y + 10 * fractal_noise(rng, 1.5)) % SIZE
    index = bands[(position * len(bands) / SIZE).astype(int) % len(bands)]
    shade = 0.08 * fractal_noise(rng, 1.2)[..., None]
    return _palette(rng, 6, 0.32)[index] + shade + _grain(rng)


def _voronoi(rng: np.random.Generator) -> FloatArray:
    count = 70
    seeds = rng.uniform(0, SIZE, (count, 2)).astype(np.float32)
    x, y = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    gap = np.abs(np.stack([x, y], -1).astype(np.float32)[:, :, None] - seeds)
    distance = np.linalg.norm(np.minimum(gap, SIZE - gap), axis=-1)  # (S, S, count), wrapped around
    nearest = np.partition(distance, 1, axis=-1)
    colours = _palette(rng, 7, 0.3)[rng.integers(0, 7, count)]
    image = colours[distance.argmin(-1)]
    seam = np.clip((nearest[..., 1:2] - nearest[..., :1]) / 5.0, 0, 1)
    return image * (0.35 + 0.65 * seam) + 0.05 * fractal_noise(rng, 1.1)[..., None] + _grain(rng)


def _leaves(rng: np.random.Generator) -> FloatArray:
    """Dead leaves: overlapping discs with power-law radii, the standard stand-in for image statistics."""
    image = np.ascontiguousarray(_marble(rng), np.float32)
    colours = np.concatenate([_palette(rng, 5, 0.4) for _ in range(4)])
    radii = np.minimum(3.0 * rng.uniform(1e-3, 1.0, 1500) ** -0.5, 40.0)
    for radius in radii:  # in random order: the last one lies on top
        centre, colour = rng.uniform(0, SIZE, 2), colours[rng.integers(len(colours))] + rng.normal(0, 0.04, 3)
        axes = (max(1, round(radius)), max(1, round(radius * rng.uniform(0.35, 1.0))))
        turn = rng.uniform(0, 180)
        for dx in (-SIZE, 0, SIZE):
            for dy in (-SIZE, 0, SIZE):
                at = (int(centre[0] + dx), int(centre[1] + dy))
                cv2.ellipse(image, at, axes, turn, 0, 360, tuple(map(float, colour)), -1, cv2.LINE_AA)
    return image + 0.07 * fractal_noise(rng, 1.0)[..., None] + _grain(rng)


KINDS: dict[str, Callable[[np.random.Generator], FloatArray]] = {
    "marble": _marble,
    "wood": _wood,
    "checker": _checker,
    "stripes": _stripes,
    "voronoi": _voronoi,
    "leaves": _leaves,
}
