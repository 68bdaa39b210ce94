"""Which pixels move as one rigid body? Flow over several frames, explained by factorisation.

Dense flow is chained from one frame to a few before and after it, so that every pixel is a short trajectory. The image
of a rigid body under an affine camera spans few dimensions (Tomasi and Kanade, "Shape and Motion from Image Streams
under Orthography", IJCV 1992): all displacements of a body's pixels p to frame f are

    d_f(p) = A_f (1, x, y) + b_f z(p)

with six numbers and a parallax per frame, and one relief z per pixel. So a thing that spins and one in front of it are
told apart although flow between two frames tells neither. What stands still obeys more: see `static_scene`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.image_warping import length, pixel_grid, remap
from motion4d_ros.priors.flow.optical_flow import FlowCache, chain
from motion4d_ros.priors.masks.discovery.native_body import FitOptions, body_misfit, fit_motion
from motion4d_ros.types import BoolArray, FloatArray

Image = NDArray[np.float32]  # (h, w) unless said otherwise

SPAN = 4  # frames to either side
CLOSED = 0.8  # px that forward and backward flow may differ on every link
NOISE, DRIFT = 0.3, 0.08  # px of a flow between neighbours, and more for every further frame
CAP = 4.0  # standard deviations, beyond which a misfit grows no more
TYPICAL = 1.2  # standard deviations: what a pixel that nothing is known of counts as, with the weight of one frame
UNIT = 50.0  # px, unit of x and y in a body's model
RELIEF = 3.0  # standard deviations of the relief that a pixel may lie off its body's plane
SAMPLES = 1500  # pixels that a body is fitted to at most
TIGHT, LOOSE = 2.0, 2.0  # misfit at which a pixel counts a quarter: standard deviations, or times the median misfit
AFFINE_ROUNDS = 4
SLACKS = (1.0, 3.0)  # what two regions together may leave unexplained at first, times as much: two starts
ENOUGH = 200  # observations that a fit needs
SEAM = 8  # px to either side, where two regions touch
JUMP, SMOOTH = 0.25, 1.0  # weight of a jump of the relief along a seam, and how much of it there always is


@dataclass
class Trajectories:
    """Where the pixels of frame `index` are in the frames around it."""

    index: int
    offsets: list[int]  # (F,) frames before (negative) or after
    flow: NDArray[np.float32]  # (F, h, w, 2) px
    valid: BoolArray  # (F, h, w) every link of the chain closes
    sigma: NDArray[np.float32]  # (F,) px, one standard deviation

    @property
    def seen(self) -> NDArray[np.int64]:
        """(h, w) in how many frames a pixel could be followed."""
        return np.asarray(self.valid.sum(0))


def trajectories(cache: FlowCache, index: int, newest: int, span: int = SPAN) -> Trajectories | None:
    """Trajectories of frame `index` through the frames held, `newest` at most; None when there are no others."""
    height, width = cache.size
    grid = pixel_grid(height, width)
    offsets, flows, valid = [], [], []
    for sign in (1, -1):
        flow: Image | None = None
        closed: BoolArray = np.ones((height, width), bool)
        for step in range(1, span + 1):
            start, end = index + sign * (step - 1), index + sign * step
            if not cache.has(end) or end > newest:
                break
            error = cache.error(start, end)
            link = cache.between(start, end)
            closed = closed & ((error if flow is None else remap(error, grid + flow)) < CLOSED)
            flow = link if flow is None else chain(flow, link)
            offsets.append(sign * step)
            flows.append(flow)
            valid.append(closed)
    if not offsets:
        return None
    sigma = np.array([NOISE + DRIFT * abs(offset) for offset in offsets], np.float32)
    return Trajectories(index, offsets, np.stack(flows), np.stack(valid), sigma)


# ---- bodies ---------------------------------------------------------------------------------------------------------


@dataclass
class Body:
    """How the pixels of a rigid body move: `d_f = affine_f (1, x, y) + parallax_f z`, x and y in units of `UNIT` px."""

    affine: NDArray[np.float32]  # (F, 2, 3) px
    parallax: NDArray[np.float32]  # (F, 2) px per standard deviation of the relief


def fit_body(
    tracks: Trajectories, where: BoolArray, weight: Image | None = None, rounds: int = 8, slack: float = 1.0
) -> Body | None:
    """The body that explains the pixels `where` (h, w) best; None when there are too few.

    Alternating least squares over the motion and the relief, robust: a pixel's weight falls with what the body leaves
    unexplained of it, compared with what it leaves of most. The relief is looked for where the affine motion nearly
    fits: a few pixels of another thing would be its first component, and be explained by it.
    `weight` (h, w): what each pixel counts; `slack`: how many times as much is believed at first.
    """
    pixels = np.flatnonzero(where)
    if len(pixels) > SAMPLES:
        pixels = pixels[np.linspace(0, len(pixels) - 1, SAMPLES).astype(int)]
    counted = None if weight is None else weight.reshape(-1)[pixels]
    options = FitOptions(AFFINE_ROUNDS, rounds, ENOUGH, UNIT, TIGHT, LOOSE, slack, RELIEF)
    found = fit_motion(tracks.flow, tracks.valid, tracks.sigma, pixels, counted, options)
    return None if found is None else Body(*found)


def misfit(tracks: Trajectories, body: Body, where: BoolArray) -> Image:
    """(h, w) mean misfit of the pixels `where` under a body, standard deviations of flow; `CAP` elsewhere."""
    return body_misfit(
        tracks.flow, tracks.valid, tracks.sigma, body.affine, body.parallax, where, (UNIT, CAP, TYPICAL, RELIEF)
    )


def apartness(tracks: Trajectories, a: BoolArray, b: BoolArray) -> float | None:
    """How much speaks against two regions (h, w) that touch being one body, standard deviations; None: no telling.

    By how much one body explains that region worse which suffers more, and by how much its relief jumps along the
    seam. Each alone may deceive: two things that only drift past each other are one with a step in it, to the affine
    camera, while the relief of one thing is continuous where its parts touch. Both regions have the same say, whatever
    their size.
    """
    weight = np.zeros(a.shape, np.float32)
    for region in (a, b):
        weight[region] = 0.5 * (a.sum() + b.sum()) / max(1, int(region.sum()))
    alone = []
    for region in (a, b):
        own = fit_body(tracks, region)
        if own is None:
            return None
        alone.append(float(misfit(tracks, own, region)[region].mean()))
    told = []
    for slack in SLACKS:
        joint = fit_body(tracks, a | b, weight, rounds=16, slack=slack)
        if joint is None:
            return None
        together = [float(misfit(tracks, joint, region)[region].mean()) for region in (a, b)]
        worst = max(0.0, together[0] - alone[0], together[1] - alone[1])
        told.append(worst + JUMP * max(0.0, _jump(tracks, joint, a, b) - SMOOTH))
    return min(told)


def _jump(tracks: Trajectories, joint: Body, a: BoolArray, b: BoolArray) -> float:
    """Standard deviations of flow by which the relief of two regions differs along their seam; 0 without one."""
    sides = []
    kernel = np.ones((2 * SEAM + 1,) * 2, np.uint8)
    for region, other in ((a, b), (b, a)):
        ys, xs = np.nonzero(region & (cv2.dilate(other.astype(np.uint8), kernel) > 0))
        if len(ys) < SEAM:
            return 0.0
        left = tracks.flow[:, ys, xs].transpose(0, 2, 1) - joint.affine @ _basis(ys, xs, a.shape)
        weight = tracks.valid[:, ys, xs] / tracks.sigma[:, None] ** 2
        sides.append(float(np.median(_relief(left, joint.parallax, weight, 1.0))))
    shift = abs(sides[0] - sides[1]) * length(joint.parallax)
    return float(np.minimum(shift / tracks.sigma, CAP).mean())


def _basis(ys: NDArray[np.int64], xs: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """(3, N) of 1, x, y."""
    height, width = shape
    return np.stack([np.ones(len(ys)), (xs - width / 2) / UNIT, (ys - height / 2) / UNIT]).astype(np.float32)


def _relief(left: FloatArray, parallax: FloatArray, weight: FloatArray, prior: float) -> FloatArray:
    """(N,) the relief that explains what the affine motion has left (F, 2, N), with a normal prior."""
    along = left[:, 0] * parallax[:, :1] + left[:, 1] * parallax[:, 1:]
    return (weight * along).sum(0) / ((parallax**2).sum(-1) @ weight + prior)
