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
- where an object is, raters name it more often than not: without that the model can't tell an object that is mostly
  missed from background with false alarms. Where less was counted of most labels, as with networks that have many ids,
  no frame's counts of these are believed: raters are taken to treat them as they treat the other labels;
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
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from motion4d_ros.fit.semantics.native_opinions import counted, judged, shares
from motion4d_ros.fit.semantics.sparse_labels import LabelValues, Said
from motion4d_ros.types import BoolArray, FloatArray, IntArray

ROUNDS = 3  # of EM; the third changes less than .001 J
PRIOR_PIXELS = 100.0  # pixels' worth of trust in the pooled confusion when a frame's own is counted
START_DECAY = 0.85  # worth of a neighbour per frame of distance before any information was measured
CERTAIN = 0.98  # share of the raters from which a pixel is not disputed
MOST_PIXELS = 20000  # from which the weight of the scene is measured: more change nothing
IMPOSSIBLE = -1e3  # log-likelihood of a label that nobody says
CONTAMINATION = 0.05  # least probability of saying any label
BETTER_THAN_CHANCE = 0.5  # share of an object's pixels from which raters name it more often than not
CONCLUDED = -2  # rater: what was concluded about a frame that has been fitted


@dataclass(frozen=True)
class Rater:
    """A mask that is asked about the pixels of a frame."""

    index: int  # of the frame whose mask it is, or CONCLUDED
    lag: int  # frames between that frame and the one that is judged; 0 is the frame's own mask


@dataclass(frozen=True)
class Agreed:
    """What is said of other pixels, which are not disputed: weight of each combination, (m,) each."""

    rater: NDArray[np.intp]
    truth: NDArray[np.intp]
    said: NDArray[np.intp]
    weight: NDArray[np.float64]

    def add_to(self, counts: Mapping[int, NDArray[np.float64]]) -> None:
        """Adds to counts (K, K) of raters, by number."""
        for rater, matrix in counts.items():
            here = self.rater == rater
            matrix[self.truth[here], self.said[here]] += self.weight[here]


@dataclass(frozen=True)
class Evidence:
    """All that is said about n pixels of one frame."""

    raters: Sequence[Rater]  # by number
    said: Said  # by the raters; and by the scene, whose number is the one after theirs, if it `is_shown`
    is_shown: bool = False
    agreed: Agreed | None = None

    @property
    def frame(self) -> int:
        """Index of the frame, as its own mask has it."""
        return next((rater.index for rater in self.raters if rater.lag == 0), CONCLUDED)

    @property
    def scene(self) -> int:
        """The number of the scene."""
        return len(self.raters)

    def shares(self) -> LabelValues:
        """Shares of the labels in what is said: where EM starts; background where nobody says anything."""
        return shares(self.said, [*(START_DECAY**rater.lag for rater in self.raters), *[1.0] * self.is_shown])

    def split(self, told: LabelValues) -> tuple[Evidence, BoolArray]:
        """What is said about the disputed ones of the pixels, and (n,) which these are, by the shares that are `told`;
        of the others that are no background, every rater's words are counted.
        """
        is_disputed = told.largest() < CERTAIN
        is_agreed = ~is_disputed & (told.background() <= 1 - CERTAIN)
        agreed = self.said.take(is_agreed)
        truth = told.best()[is_agreed].astype(np.intp)[agreed.pixel_of()]
        counts = _combined(agreed.rater.astype(np.intp), truth, agreed.named.astype(np.intp), agreed.weight)
        return Evidence(self.raters, self.said.take(is_disputed), self.is_shown, counts), is_disputed


def _combined(
    rater: NDArray[np.intp], truth: NDArray[np.intp], said: NDArray[np.intp], weight: NDArray[np.float32]
) -> Agreed:
    """Sums of the weights (m,) of the same rater, truth and word."""
    shape = [int(each.max(initial=0)) + 1 for each in (rater, truth, said)]
    place = np.ravel_multi_index((rater, truth, said), shape)
    total: NDArray[np.float64] = np.bincount(place, weight).astype(np.float64)
    found = np.flatnonzero(total)
    of_rater, of_truth, of_said = np.unravel_index(found, shape)
    return Agreed(of_rater, of_truth, of_said, total[found])


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
        assert self.pooled is not None
        return self.scenes.get(evidence.frame, self.pooled if self.rendered is None else self.rendered)

    def worths(self, raters: Sequence[Rater]) -> list[float]:
        """What each of some raters is worth by its distance in frames."""
        last = len(self.lags) - 1
        return [float(self.lags[min(rater.lag, last)]) for rater in raters]

    def relabelled(self, before: Sequence[int], now: Sequence[int]) -> Reliability:
        """The same for other labels; of new ones, raters are believed as of those that are known, on average."""
        if self.pooled is None:
            return Reliability()
        if list(before) == list(now):
            return self
        kept = [name for name in now if name in before]
        old_at, new_at = [before.index(name) for name in kept], [now.index(name) for name in kept]

        def extended(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
            old = np.exp(matrix)
            right = float(np.diag(old)[1:].mean()) if len(old) > 1 else 0.5
            new = np.full((len(now), len(now)), (1 - right) / max(1, len(now) - 1))
            np.fill_diagonal(new, right)
            new[np.ix_(new_at, new_at)] = old[np.ix_(old_at, old_at)]
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
) -> tuple[dict[int, LabelValues], Reliability]:
    """Posterior of every frame's pixels by its index, and what the raters proved to be worth; there are K = `labels`.

    A label that nobody says about a pixel has no share in it.
    """
    posterior = {index: one.shares() for index, one in evidence.items()}
    reliability = Reliability()
    for _ in range(rounds):
        reliability = _reliability(evidence, posterior, reliability, labels)
        reliability.scene_weight = _scene_weight(evidence, posterior, reliability)
        posterior = {index: judge(one, reliability, posterior[index]) for index, one in evidence.items()}
    return posterior, reliability


def judge(evidence: Evidence, reliability: Reliability, possible: LabelValues | None = None) -> LabelValues:
    """Posterior of one frame's pixels by raters of known `reliability`; `possible` labels, if these are known."""
    words = [*reliability.worths(evidence.raters), *[reliability.scene_weight] * evidence.is_shown]
    return judged(evidence.said, possible or evidence.shares(), words, _likelihoods(evidence, reliability))


def _unaided(evidence: Evidence, reliability: Reliability, possible: LabelValues) -> LabelValues:
    """What the masks say without the scene: the scene is not to be judged by what it has said itself."""
    words = [*reliability.worths(evidence.raters), *[0.0] * evidence.is_shown]
    likelihoods = _likelihoods(evidence, reliability)
    return judged(evidence.said, possible, words, likelihoods, unheard=evidence.scene)


def _likelihoods(evidence: Evidence, reliability: Reliability) -> list[NDArray[np.float32]]:
    """Log-likelihoods of all raters, and of the scene where it is shown, by number."""
    masks = [reliability.of(rater.index) for rater in evidence.raters]
    return [*masks, *[reliability.of_scene(evidence)] * evidence.is_shown]


def _scene_weight(
    evidence: Mapping[int, Evidence], possible: Mapping[int, LabelValues], reliability: Reliability
) -> float:
    """How much the scene's word weighs beside one of a mask, at most as all masks together: the ratio of the weights
    with which the masks of other frames and the scene predict best what a frame's own mask says (logistic regression).
    """
    asked = {i: one for i, one in evidence.items() if one.is_shown and any(not rater.lag for rater in one.raters)}
    if reliability.rendered is None or not asked:
        return 1.0
    step = max(1, sum(one.said.pixels for one in evidence.values()) // MOST_PIXELS)
    rows = [_predicted(one, reliability, possible[index], step) for index, one in asked.items()]
    if not sum(len(features) for features, _, _ in rows):
        return 1.0
    slots = max(features.shape[1] for features, _, _ in rows)
    by_masks, by_scene = _weights(*(np.concatenate([_padded(one[k], slots) for one in rows]) for k in range(3)))
    most = max([1.0, *(sum(reliability.worths(one.raters)) for one in asked.values())])  # worth of all masks of a frame
    return by_scene / by_masks if by_scene < most * by_masks else most


def _predicted(
    evidence: Evidence, reliability: Reliability, possible: LabelValues, step: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], BoolArray]:
    """Of every `step`th pixel, for each of its possible labels: log-likelihoods by the masks of other frames and by the
    scene (n, S, 2), whether the frame's own mask says it, whether anybody does, (n, S) both.
    """
    chosen = np.arange(evidence.said.pixels) % step == 0
    said, labels = evidence.said.take(chosen), possible.take(chosen)
    others = [
        worth if rater.lag else 0.0
        for worth, rater in zip(reliability.worths(evidence.raters), evidence.raters, strict=True)
    ]
    likelihoods = _likelihoods(evidence, reliability)
    pixel = labels.pixel_of()
    slot = np.arange(len(pixel)) - labels.first[pixel]
    shape = (said.pixels, int(np.diff(labels.first).max(initial=0)))
    features, own, is_open = np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32), np.zeros(shape, bool)
    for k, words in enumerate([[*others, 0.0], [0.0] * len(others) + [1.0]]):
        features[pixel, slot, k] = judged(said, labels, words, likelihoods, normalised=False).value
    is_own = said.rater == next(number for number, rater in enumerate(evidence.raters) if rater.lag == 0)
    called: IntArray = np.full(said.pixels, -1)
    called[said.pixel_of()[is_own]] = said.named[is_own]
    own[pixel, slot] = labels.possible == called[pixel]
    is_open[pixel, slot] = shares(said, [1.0] * said.raters).value > 0
    return features, own, is_open


def _padded(rows: NDArray[Any], slots: int) -> NDArray[Any]:
    """(n, slots, ...) of (n, S, ...): zeros after the S that there are."""
    return np.pad(rows, [(0, 0), (0, slots - rows.shape[1]), *[(0, 0)] * (rows.ndim - 2)])


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


def _reliability(
    evidence: Mapping[int, Evidence], posterior: Mapping[int, LabelValues], before: Reliability, labels: int
) -> Reliability:
    """The M step: confusion and the worth of distance. The scene is compared with what masks say without it, with what
    was known `before`.
    """
    longest = max((rater.lag for one in evidence.values() for rater in one.raters), default=0)
    own: dict[int, NDArray[np.float64]] = {}
    by_lag = np.zeros((longest + 1, labels, labels))
    scenes: dict[int, NDArray[np.float64]] = {}
    for index, one in evidence.items():
        by_number = counted(one.said, posterior[index], [True] * len(one.raters) + [False] * one.is_shown)
        if one.agreed is not None:
            one.agreed.add_to(by_number)
        for number, rater in enumerate(one.raters):
            by_lag[rater.lag] += by_number[number]
            if rater.lag == 0:
                own[rater.index] = by_number[number]
        if one.is_shown:
            alone = posterior[index] if before.pooled is None else _unaided(one, before, posterior[index])
            scenes[one.frame] = counted(one.said, alone, [False] * len(one.raters) + [True])[one.scene]
    pooled, doubtful = _mended(by_lag[0])
    rendered = _rows(sum(scenes.values(), PRIOR_PIXELS * np.eye(labels)))
    left = np.array([information(counts) for counts in by_lag])
    lags: NDArray[np.float64] = START_DECAY ** np.arange(longest + 1, dtype=np.float64)
    if left[0] > 0:
        lags = np.clip(left / left[0], 0.0, 1.0)
    return Reliability(
        {rater: _shrunk(np.where(doubtful[:, None], 0.0, counts), pooled) for rater, counts in own.items()},
        _log(pooled),
        _log(rendered) if scenes else None,
        {index: _shrunk(counts, rendered) for index, counts in scenes.items()},
        lags,
    )


def _mended(counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], BoolArray]:
    """Confusion (K, K) from the counts of all frames, rows are the truth, and (K,) which objects are doubtful: raters
    name them less often than not. Their rows are those of the others, on average. Only if most objects are doubtful, as
    with networks whose ids are mostly false: a single one is an object that is missed for long.
    """
    labels = len(counts)
    pooled = _rows(counts + np.eye(labels))
    doubtful = np.diag(pooled) < BETTER_THAN_CHANCE
    usual = ~doubtful & (np.diag(counts) > 0)
    doubtful[0] = usual[0] = False
    if not (doubtful.sum() > usual.sum() > 0):  # else it is an object that is missed for long, as a rider
        return pooled, np.zeros(labels, bool)
    known = np.flatnonzero(usual)
    named, missed = counts[known, known].sum(), counts[known, 0].sum()
    row = np.full((labels, labels), (counts[known].sum() - named - missed) / (labels - 2))
    row[:, 0] = missed
    np.fill_diagonal(row, named)
    return np.where(doubtful[:, None], _rows(row), pooled), doubtful


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


def _rows(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return counts / counts.sum(1, keepdims=True)


def _log(probability: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.log(np.maximum(probability, CONTAMINATION)).astype(np.float32)
