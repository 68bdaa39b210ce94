"""Which object is it, pixel by pixel, given several raters who err? How far to believe each of them is estimated, too.

The model is that of Dawid and Skene (1979), which Warfield et al. (STAPLE, 2004) brought to images. A rater r says the
label j where the truth is k with probability theta_r[k, j]: its confusion matrix. With independent raters

    log p(k | said) = sum_r w_r sum_j m_r[j] log theta_r[k, j] + const,

where m_r[j] is what r says (soft where a mask was warped), and w_r in [0, 1] says how much its word is about this pixel
(flow that returns to where it began, the same colour). EM alternates this posterior with the confusion matrices counted
from it. The matrices explain what masks of networks do: a frame that misses an object says "background" whatever the
truth is, and thereby nothing; a frame that has swapped two objects is understood all the same.

Raters are not as independent as the model has it: a network that misses an arm misses it in many frames. So

- no label is more probable beforehand. A prior counted from the posterior agrees with whatever the posterior has come
  to, and drives all that is disputed to one side (.06 J on a clip whose network misses a limb for many frames);
- whatever was counted, a rater says anything at all with probability `CONTAMINATION`: no rater outvotes all others;
- confusion is counted only where raters disagree or see an object: over whole images the background is so common that
  every false alarm would look impossible;
- what a mask says d frames away is weighted by the share of information that is left in it,
  I(truth; said at lag d) / I(truth; said at lag 0), measured over all frames;
- the scene is no mask: it has seen the object from everywhere, or renders it badly, in some frames or in all. Its
  confusion, per frame, is counted on disputed pixels only, against what the masks say without it. How much its word
  weighs beside one of a mask is measured: by what predicts best what a frame's own mask says, from the masks of other
  frames and from the scene. Where it is rendered well that makes it worth all masks together; where it is not, about
  one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from motion4d_ros.fit.semantics.native_opinions import summed
from motion4d_ros.types import BoolArray, FloatArray

ROUNDS = 3  # of EM; the third changes less than .001 J
PRIOR_PIXELS = 100.0  # pixels' worth of trust in the pooled confusion when a frame's own is counted
START_DECAY = 0.85  # worth of a neighbour per frame of distance before any information was measured
CERTAIN = 0.98  # share of the raters from which a pixel is not disputed
MOST_PIXELS = 20000  # from which the weight of the scene is measured: more change nothing
IMPOSSIBLE = -1e3  # log-likelihood of a label that nobody says
CONTAMINATION = 0.05  # least probability of saying any label
CONCLUDED = -2  # rater: what was concluded about a frame that has been fitted


@dataclass(frozen=True)
class Opinion:
    """What one rater says about n pixels."""

    rater: int  # index of the frame whose mask it is, or CONCLUDED
    lag: int  # frames between that frame and the one that is judged; 0 is the frame's own mask
    said: NDArray[np.float32]  # (n, K) weight times share of each label; all 0 where nothing is said
    agreed: NDArray[np.float64] | None = None  # (K, K) what it says, by label, of other pixels: not disputed ones


@dataclass(frozen=True)
class Evidence:
    """All that is said about n pixels of one frame."""

    opinions: list[Opinion]
    rendered: NDArray[np.float32] | None = None  # (n, K) labels of the scene, in [0, 1]

    @property
    def frame(self) -> int:
        """Index of the frame, as its own mask has it."""
        return next((opinion.rater for opinion in self.opinions if opinion.lag == 0), CONCLUDED)

    def shares(self, labels: int) -> NDArray[np.float32]:
        """(n, K) of what is said, shares of each of K labels: where EM starts."""
        return self.shares_and_largest(labels)[0]

    def shares_and_largest(self, labels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As :meth:`shares`, and the (n,) largest share of every pixel; background where nobody says anything."""
        said = [opinion.said for opinion in self.opinions]
        return summed(said, [START_DECAY**opinion.lag for opinion in self.opinions], self.rendered)

    def unaided(self) -> Evidence:
        """The same without the scene."""
        return Evidence(self.opinions)

    def split(self, shares: NDArray[np.float32], largest: NDArray[np.float32]) -> tuple[Evidence, BoolArray]:
        """What is said about the disputed ones of the pixels, and (n,) which these are, by the `shares` (n, K) and the
        `largest` (n,) of each; of the others that are no background, every rater's words are counted.
        """
        is_disputed = largest < CERTAIN
        disputed, agreed = np.flatnonzero(is_disputed), np.flatnonzero(~is_disputed & (shares[:, 0] <= 1 - CERTAIN))
        truth = np.eye(shares.shape[1], dtype=np.float32)[shares[agreed].argmax(1)].T
        opinions = [
            Opinion(one.rater, one.lag, one.said[disputed], (truth @ one.said[agreed]).astype(np.float64))
            for one in self.opinions
        ]
        return Evidence(opinions, None if self.rendered is None else self.rendered[disputed]), is_disputed


@dataclass
class Reliability:
    """What is known of the raters: log-likelihoods (K, K), rows are the truth."""

    frames: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    pooled: NDArray[np.float32] | None = None  # of a frame about which nothing is known
    rendered: NDArray[np.float32] | None = None  # of the scene in a frame about which nothing is known
    scenes: dict[int, NDArray[np.float32]] = field(default_factory=dict)  # of the scene as rendered in a frame
    lags: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))  # worth of a mask by its distance in frames
    scene_weight: float = 1.0  # of a word of the scene, beside one of a frame's own mask

    def of(self, rater: int) -> NDArray[np.float32]:
        """The log-likelihoods of a frame's mask, or of what was concluded about a frame (`CONCLUDED`)."""
        assert self.pooled is not None
        if rater == CONCLUDED and self.rendered is not None:
            return self.rendered
        return self.frames.get(rater, self.pooled)

    def of_scene(self, evidence: Evidence) -> NDArray[np.float32]:
        """The log-likelihoods of the scene as rendered in the frame that the evidence is about."""
        assert self.rendered is not None
        return self.scenes.get(evidence.frame, self.rendered)

    def worths(self, opinions: Sequence[Opinion]) -> NDArray[np.float32]:
        """What each of some opinions is worth by its distance in frames."""
        last = len(self.lags) - 1
        return np.array([self.lags[min(opinion.lag, last)] for opinion in opinions], np.float32)

    def relabelled(self, before: Sequence[int], now: Sequence[int]) -> Reliability:
        """The same for other labels; of new ones, raters are believed as of those that are known, on average."""
        if self.pooled is None:
            return Reliability()
        if list(before) == list(now):
            return self
        order = [before.index(name) if name in before else -1 for name in now]

        def extended(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
            old = np.exp(matrix)
            right = float(np.diag(old)[1:].mean()) if len(old) > 1 else 0.5
            new = np.full((len(now), len(now)), (1 - right) / max(1, len(now) - 1))
            np.fill_diagonal(new, right)
            for i, a in enumerate(order):
                for j, b in enumerate(order):
                    if a >= 0 and b >= 0:
                        new[i, j] = old[a, b]
            return _log(_rows(new))

        return Reliability(
            {rater: extended(matrix) for rater, matrix in self.frames.items()},
            extended(self.pooled),
            None if self.rendered is None else extended(self.rendered),
            {index: extended(matrix) for index, matrix in self.scenes.items()},
            self.lags,
            self.scene_weight,
        )


def estimate(
    evidence: Mapping[int, Evidence], labels: int, rounds: int = ROUNDS
) -> tuple[dict[int, NDArray[np.float32]], Reliability]:
    """Posterior (n, K) of every frame by its index, and what the raters proved to be worth; K = `labels`.

    A label that nobody says about a pixel has no share in it.
    """
    posterior = {index: one.shares(labels) for index, one in evidence.items()}
    possible = {index: shares > 0 for index, shares in posterior.items()}
    counted = {index: _counts(shares) for index, shares in posterior.items()}
    reliability = Reliability()
    for _ in range(rounds):
        unaided = _unaided(evidence, reliability, posterior)
        reliability = _reliability(evidence, posterior, unaided, counted, labels)
        reliability.scene_weight = _scene_weight(evidence, reliability, possible, counted)
        posterior = {index: judge(one, reliability, possible[index]) for index, one in evidence.items()}
    return posterior, reliability


def judge(evidence: Evidence, reliability: Reliability, possible: BoolArray | None = None) -> NDArray[np.float32]:
    """(n, K) posterior of one frame's pixels by raters of known `reliability`; `possible` (n, K) labels only."""
    assert reliability.pooled is not None
    labels = len(reliability.pooled)
    if possible is None:
        possible = evidence.shares(labels) > 0
    total = np.zeros(possible.shape, np.float32)
    for opinion, worth in zip(evidence.opinions, reliability.worths(evidence.opinions), strict=True):
        total += (worth * opinion.said) @ reliability.of(opinion.rater).T
    if evidence.rendered is not None and reliability.rendered is not None:
        total += np.float32(reliability.scene_weight) * (evidence.rendered @ reliability.of_scene(evidence).T)
    total[~possible] = -np.inf
    total -= _largest(total)[:, None]
    np.exp(total, out=total)
    return total / _row_sums(total)[:, None]


def _scene_weight(
    evidence: Mapping[int, Evidence],
    reliability: Reliability,
    possible: Mapping[int, BoolArray],
    counted: Mapping[int, BoolArray],
) -> float:
    """How much the scene's word weighs beside one of a mask, at most as all masks together: the ratio of the weights
    with which the masks of other frames and the scene predict best what a frame's own mask says (logistic regression).
    """
    if reliability.rendered is None:
        return 1.0
    step = max(1, sum(int(counted[index].sum()) for index in evidence) // MOST_PIXELS)
    features, said, open_to = [], [], []  # (n, K, 2) log-likelihoods by masks and scene, (n, K), (n, K)
    everybody = [1.0]  # worth of all masks of a frame
    for index, one in evidence.items():
        own = next((opinion for opinion in one.opinions if opinion.lag == 0), None)
        if one.rendered is None or own is None:
            continue
        rows = np.flatnonzero(counted[index])[::step]
        worths = reliability.worths(one.opinions)
        masks = np.zeros((len(rows), len(reliability.rendered)), np.float32)
        for opinion, worth in zip(one.opinions, worths, strict=True):
            if opinion.lag > 0:
                masks += (worth * opinion.said[rows]) @ reliability.of(opinion.rater).T
        features.append(np.stack([masks, one.rendered[rows] @ reliability.of_scene(one).T], -1))
        said.append(own.said[rows])
        open_to.append(possible[index][rows])
        everybody.append(float(worths.sum()))
    if not sum(map(len, said)):
        return 1.0
    by_masks, by_scene = _weights(np.concatenate(features), np.concatenate(said), np.concatenate(open_to))
    most = max(everybody)
    return by_scene / by_masks if by_scene < most * by_masks else most


def _weights(features: NDArray[np.float32], said: NDArray[np.float32], possible: BoolArray) -> FloatArray:
    """(F,) weights, none negative, of `features` (n, K, F) with which their sum, as logits, predicts best which of the
    K labels is `said` (n, K); `possible` (n, K) ones only.
    """
    # a row for each label: NumPy is several times slower at sums over a few neighbours
    parts = [np.ascontiguousarray(features[..., f].T, np.float64) for f in range(features.shape[-1])]
    heard, closed = np.ascontiguousarray(said.T, np.float64), np.ascontiguousarray(~possible.T)
    total = heard.sum(0)

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        logits = np.zeros_like(heard)
        for weight, part in zip(weights, parts, strict=True):
            logits += weight * part
        logits[closed] = IMPOSSIBLE
        logits -= logits.max(0)
        share = np.exp(logits)
        norm = share.sum(0)
        likelihood = np.vdot(heard, logits) - np.vdot(total, np.log(norm))
        share *= total / norm
        share -= heard
        return -float(likelihood) / len(said), np.array([np.vdot(share, part) for part in parts]) / len(said)

    count = features.shape[-1]
    found = minimize(loss, np.full(count, 0.3), jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * count)
    return np.asarray(found.x, float)


def _unaided(
    evidence: Mapping[int, Evidence], reliability: Reliability, posterior: Mapping[int, NDArray[np.float32]]
) -> Mapping[int, NDArray[np.float32]]:
    """What the masks say without the scene: the scene is not to be judged by what it has said itself."""
    if reliability.pooled is None:
        return posterior
    return {index: judge(one.unaided(), reliability) for index, one in evidence.items() if one.rendered is not None}


def _counts(shares: NDArray[np.float32]) -> BoolArray:
    """(n,) pixels on which confusion is counted: those that are disputed or seen as an object."""
    return (_largest(shares) < CERTAIN) | (shares.argmax(1) > 0)


def _reliability(
    evidence: Mapping[int, Evidence],
    posterior: Mapping[int, NDArray[np.float32]],
    unaided: Mapping[int, NDArray[np.float32]],
    counted: Mapping[int, BoolArray],
    labels: int,
) -> Reliability:
    """The M step: confusion and the worth of distance, from the (n,) pixels `counted` and those that are agreed."""
    longest = max((o.lag for one in evidence.values() for o in one.opinions), default=0)
    own: dict[int, NDArray[np.float64]] = {}
    by_lag = np.zeros((longest + 1, labels, labels))
    scenes: dict[int, NDArray[np.float64]] = {}
    for index, one in evidence.items():
        here = slice(None) if counted[index].all() else counted[index]
        truth = posterior[index][here].T
        for opinion in one.opinions:
            counts = (truth @ opinion.said[here]).astype(np.float64)
            if opinion.agreed is not None:
                counts += opinion.agreed
            by_lag[opinion.lag] += counts
            if opinion.lag == 0:
                own[opinion.rater] = counts
        if one.rendered is not None:
            scenes[one.frame] = (unaided[index][here].T @ one.rendered[here]).astype(np.float64)
    pooled = _rows(by_lag[0] + np.eye(labels))
    rendered = _rows(sum(scenes.values(), PRIOR_PIXELS * np.eye(labels)))
    left = np.array([information(counts) for counts in by_lag])
    lags: NDArray[np.float64] = START_DECAY ** np.arange(longest + 1, dtype=np.float64)
    if left[0] > 0:
        lags = np.clip(left / left[0], 0.0, 1.0)
    return Reliability(
        {rater: _shrunk(counts, pooled) for rater, counts in own.items()},
        _log(pooled),
        _log(rendered) if scenes else None,
        {index: _shrunk(counts, rendered) for index, counts in scenes.items()},
        lags,
    )


def _shrunk(counts: NDArray[np.float64], pooled: NDArray[np.float64]) -> NDArray[np.float32]:
    """Log-likelihoods (K, K) of one frame from its counts, which those of all frames stand beside."""
    return _log((counts + PRIOR_PIXELS * pooled) / (counts.sum(1, keepdims=True) + PRIOR_PIXELS))


def information(counts: NDArray[np.float64]) -> float:
    """Mutual information, nats, of truth (rows) and what was said (columns), from their joint (K, K) counts."""
    total = counts.sum()
    if total <= 0:
        return 0.0
    joint = counts / total
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum())


def _row_sums(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) sums of (n, K) values, K small: column by column NumPy is five times faster than row by row."""
    result = values[:, 0].copy()
    for k in range(1, values.shape[1]):
        result += values[:, k]
    return result


def _largest(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) the largest of every row of (n, K) values; see `_row_sums`."""
    result = values[:, 0].copy()
    for k in range(1, values.shape[1]):
        np.maximum(result, values[:, k], out=result)
    return result


def _rows(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return counts / counts.sum(1, keepdims=True)


def _log(probability: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.log(np.maximum(probability, CONTAMINATION)).astype(np.float32)
