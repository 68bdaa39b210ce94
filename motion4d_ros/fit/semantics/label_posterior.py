"""Which object is it, pixel by pixel, given several raters who err? How far to believe each of them is estimated, too.

The model is that of Dawid and Skene (1979), which Warfield et al. (STAPLE, 2004) brought to images. A rater r says the
label j where the truth is k with probability theta_r[k, j]: its confusion matrix. With prior pi and independent raters

    log p(k | said) = log pi[k] + sum_r w_r sum_j m_r[j] log theta_r[k, j] + const,

where m_r[j] is what r says (soft where a mask was warped), and w_r in [0, 1] says how much its word is about this pixel
(flow that returns to where it began, the same colour). EM alternates this posterior with the confusion matrices counted
from it. The matrices explain what masks of networks do: a frame that misses an object says "background" whatever the
truth is, and thereby nothing; a frame that has swapped two objects is understood all the same.

Two things keep EM honest. Confusion is counted only where raters disagree or see an object, and the prior only where
they disagree: over whole images the background is so common that every false alarm would look impossible. And the
frame's neighbours are no independent raters of equal worth: what a mask says d frames away is weighted by the share of
information that is left in it, I(truth; said at lag d) / I(truth; said at lag 0), measured over all frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import BoolArray

ROUNDS = 3  # of EM; the third changes less than .001 J
PRIOR_PIXELS = 100.0  # pixels' worth of trust in the pooled confusion when a frame's own is counted
START_DECAY = 0.85  # worth of a neighbour per frame of distance before any information was measured
CERTAIN = 0.98  # share of the raters from which a pixel is not disputed
LEAST = 1e-3  # no confusion is less probable: one rater never outvotes all others


@dataclass(frozen=True)
class Opinion:
    """What one rater says about n pixels."""

    rater: int  # index of the frame whose mask it is
    lag: int  # frames between that frame and the one that is judged; 0 is the frame's own mask
    said: NDArray[np.float32]  # (n, K) weight times share of each label; all 0 where nothing is said


@dataclass(frozen=True)
class Evidence:
    """All that is said about n pixels of one frame."""

    opinions: list[Opinion]
    rendered: NDArray[np.float32] | None = None  # (n, K) labels of the scene, in [0, 1]


@dataclass
class Reliability:
    """What is known of the raters: log-likelihoods (K, K), rows are the truth."""

    frames: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    pooled: NDArray[np.float32] | None = None  # of a frame about which nothing is known
    rendered: NDArray[np.float32] | None = None
    prior: NDArray[np.float32] | None = None  # (K,) log share of each label
    lags: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))  # worth of a mask by its distance in frames

    def of(self, rater: int) -> NDArray[np.float32]:
        """The log-likelihoods of a frame's mask."""
        assert self.pooled is not None
        return self.frames.get(rater, self.pooled)


def estimate(
    evidence: Mapping[int, Evidence], labels: int, rounds: int = ROUNDS
) -> tuple[dict[int, NDArray[np.float32]], Reliability]:
    """Posterior (n, K) of every frame by its index, and what the raters proved to be worth; K = `labels`.

    A label that nobody says about a pixel has no share in it.
    """
    posterior = {index: _pooled(one, labels) for index, one in evidence.items()}
    possible = {index: shares > 0 for index, shares in posterior.items()}
    disputed = {index: shares.max(1) < CERTAIN for index, shares in posterior.items()}
    judged = {index: disputed[index] | (shares.argmax(1) > 0) for index, shares in posterior.items()}
    reliability = Reliability()
    for _ in range(rounds):
        reliability = _reliability(evidence, posterior, judged, disputed, labels)
        posterior = {index: judge(one, reliability, possible[index]) for index, one in evidence.items()}
    return posterior, reliability


def judge(evidence: Evidence, reliability: Reliability, possible: BoolArray | None = None) -> NDArray[np.float32]:
    """(n, K) posterior of one frame's pixels by raters of known `reliability`; `possible` (n, K) labels only."""
    assert reliability.prior is not None
    if possible is None:
        possible = _pooled(evidence, len(reliability.prior)) > 0
    total = np.tile(reliability.prior, (len(possible), 1))
    for opinion in evidence.opinions:
        worth = np.float32(reliability.lags[min(opinion.lag, len(reliability.lags) - 1)])
        total += (worth * opinion.said) @ reliability.of(opinion.rater).T
    if evidence.rendered is not None and reliability.rendered is not None:
        total += evidence.rendered @ reliability.rendered.T
    total[~possible] = -np.inf
    total -= total.max(1, keepdims=True)
    np.exp(total, out=total)
    return total / total.sum(1, keepdims=True)


def _pooled(evidence: Evidence, labels: int) -> NDArray[np.float32]:
    """(n, K) shares of what is said: where EM starts."""
    parts = [np.float32(START_DECAY**opinion.lag) * opinion.said for opinion in evidence.opinions]
    if evidence.rendered is not None:
        parts.append(evidence.rendered)
    total: NDArray[np.float32] = np.sum(parts, 0, dtype=np.float32)
    silent = total.sum(1) <= 0
    total[silent, 0] = 1.0  # nobody says anything: background
    return total / total.sum(1, keepdims=True)


def _reliability(
    evidence: Mapping[int, Evidence],
    posterior: Mapping[int, NDArray[np.float32]],
    judged: Mapping[int, BoolArray],
    disputed: Mapping[int, BoolArray],
    labels: int,
) -> Reliability:
    """The M step. Confusion and the worth of distance are counted on the (n,) pixels `judged`, the prior on those that
    are `disputed`: the others need none.
    """
    longest = max((o.lag for one in evidence.values() for o in one.opinions), default=0)
    own: dict[int, NDArray[np.float64]] = {}
    by_lag = np.zeros((longest + 1, labels, labels))
    rendered = np.zeros((labels, labels))
    share = np.full(labels, 1.0)
    for index, one in evidence.items():
        here = judged[index]
        truth = posterior[index][here].T
        share += posterior[index][disputed[index]].sum(0)
        for opinion in one.opinions:
            counts = (truth @ opinion.said[here]).astype(np.float64)
            by_lag[opinion.lag] += counts
            if opinion.lag == 0:
                own[opinion.rater] = counts
        if one.rendered is not None:
            rendered += truth @ one.rendered[here]
    pooled = _rows(by_lag[0] + np.eye(labels))
    frames = {
        rater: _log((counts + PRIOR_PIXELS * pooled) / (counts.sum(1, keepdims=True) + PRIOR_PIXELS))
        for rater, counts in own.items()
    }
    left = np.array([information(counts) for counts in by_lag])
    lags: NDArray[np.float64] = START_DECAY ** np.arange(longest + 1, dtype=np.float64)
    if left[0] > 0:
        lags = np.clip(left / left[0], 0.0, 1.0)
    return Reliability(
        frames,
        _log(pooled),
        _log(_rows(rendered + PRIOR_PIXELS * np.eye(labels))) if rendered.any() else None,
        np.log(share / share.sum()).astype(np.float32),
        lags,
    )


def information(counts: NDArray[np.float64]) -> float:
    """Mutual information, nats, of truth (rows) and what was said (columns), from their joint (K, K) counts."""
    total = counts.sum()
    if total <= 0:
        return 0.0
    joint = counts / total
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum())


def _rows(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return counts / counts.sum(1, keepdims=True)


def _log(probability: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.log(np.maximum(probability, LEAST)).astype(np.float32)
