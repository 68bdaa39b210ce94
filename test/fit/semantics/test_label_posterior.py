"""The posterior of labels against raters whose errors are known."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from motion4d_ros.fit.semantics import label_posterior
from motion4d_ros.fit.semantics.label_posterior import (
    Evidence,
    Rater,
    Reliability,
    information,
    judge,
)
from motion4d_ros.fit.semantics.label_posterior import estimate as estimate_disputed
from motion4d_ros.fit.semantics.sparse_labels import LabelValues, Said

SIDE = 40
LABELS = 3
TRUTH: NDArray[np.int64] = np.zeros((SIDE, SIDE), np.int64)
TRUTH[5:18, 5:18] = 1
TRUTH[20:36, 20:36] = 2


Words = tuple[Rater, NDArray[np.float32]]  # of a rater about all pixels, (n, K)


def opinion(rater: int, lag: int, said: NDArray[np.int64], weight: float = 1.0) -> Words:
    return Rater(rater, lag), (weight * np.eye(LABELS)[said.ravel()]).astype(np.float32)


def evidence_of(words: list[Words], rendered: NDArray[np.float32] | None = None) -> Evidence:
    """Of all pixels that are disputed or belong to an object."""
    dense = np.stack([said for _, said in words] + ([] if rendered is None else [rendered]), 1)
    pixel, rater, named = np.nonzero(dense)
    start = np.searchsorted(pixel, np.arange(len(dense) + 1)).astype(np.int64)
    weight = dense[pixel, rater, named]
    said = Said(dense.shape[1], LABELS, start, rater.astype(np.uint8), named.astype(np.uint16), weight)
    return Evidence([one for one, _ in words], said, rendered is not None)


def with_scene(evidence: dict[int, list[Words]], rendered: NDArray[np.float32]) -> dict[int, Evidence]:
    return {t: evidence_of(words, rendered) for t, words in evidence.items()}


def words_of(masks: list[NDArray[np.int64]], reach: int = 3) -> dict[int, list[Words]]:
    """Frames of a world that stands still: every frame's mask is an opinion about each of its neighbours."""
    return {
        t: [opinion(s, abs(s - t), masks[s]) for s in range(max(0, t - reach), min(len(masks), t + reach + 1))]
        for t in range(len(masks))
    }


def still_scene(masks: list[NDArray[np.int64]], reach: int = 3) -> dict[int, Evidence]:
    return {t: evidence_of(words) for t, words in words_of(masks, reach).items()}


def estimate(evidence: dict[int, Evidence], labels: int) -> tuple[dict[int, LabelValues], Reliability]:
    """Of all pixels: agreed background is not counted, and what else is agreed is counted without being kept."""
    told = {t: one.shares() for t, one in evidence.items()}
    parts = {t: one.split(told[t]) for t, one in evidence.items()}
    posterior, reliability = estimate_disputed({t: part for t, (part, _) in parts.items()}, labels)
    return {t: told[t].replaced(parts[t][1], posterior[t]) for t in told}, reliability


def seen(evidence: Evidence) -> Evidence:
    """About the pixels that are disputed or seen as an object: agreed background is not counted."""
    told = evidence.shares()
    chosen = evidence.split(told)[1] | (told.best() > 0)
    return Evidence(evidence.raters, evidence.said.take(chosen), evidence.is_shown)


def full(posterior: LabelValues) -> NDArray[np.float32]:
    """(n, K)."""
    found = np.zeros((posterior.pixels, LABELS), np.float32)
    found[posterior.pixel_of(), posterior.possible] = posterior.value
    return found


def right(posterior: LabelValues) -> float:
    """Share of the pixels of objects, and just beside them, that are called what they are."""
    called = posterior.best().reshape(SIDE, SIDE)
    return float((called == TRUTH)[3:38, 3:38].mean())


def noisy(seed: int, share: float = 0.15) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(TRUTH.shape) < share, rng.integers(0, LABELS, TRUTH.shape), TRUTH)


def test_raters_that_err_at_random_are_outvoted():
    posterior, reliability = estimate(still_scene([noisy(k) for k in range(7)]), LABELS)
    assert right(posterior[3]) > 0.995
    assert np.diag(np.exp(reliability.pooled)).min() > 0.75
    assert reliability.lags == pytest.approx(np.ones(4), abs=0.15), "nothing moves: no distance makes a mask worth less"


def test_a_frame_that_has_swapped_two_objects_is_understood():
    masks = [noisy(k) for k in range(7)]
    swapped = masks[3].copy()
    masks[3] = np.array([0, 2, 1])[swapped]
    posterior, reliability = estimate(still_scene(masks), LABELS)
    assert right(posterior[3]) > 0.99
    assert np.exp(reliability.frames[3])[1].argmax() == 2 and np.exp(reliability.frames[3])[2].argmax() == 1


def test_a_frame_that_misses_an_object_says_nothing_about_it():
    masks = [noisy(k, 0.05) for k in range(7)]
    for k in (2, 3, 4):
        masks[k] = np.where(masks[k] == 1, 0, masks[k])  # three in a row: a majority of the nearest
    posterior, reliability = estimate(still_scene(masks), LABELS)
    assert right(posterior[3]) > 0.98
    missed = np.exp(reliability.frames[3])
    usual = np.exp(reliability.pooled)
    assert missed[1, 0] > 0.7 > 1.3 * usual[1, 0], "object 1 is called background there, and that is known of the frame"


def test_a_mask_that_its_neighbours_do_not_confirm_goes():
    masks = [noisy(k, 0.05) for k in range(7)]
    masks[3] = masks[3].copy()
    masks[3][28:38, 2:12] = 2  # a leak
    posterior, _ = estimate(still_scene(masks), LABELS)
    assert (posterior[3].best().reshape(SIDE, SIDE)[28:38, 2:12] == 0).mean() > 0.98


def flickering() -> list[NDArray[np.int64]]:
    """One object; two other ids are false alarms for a few frames each, as with networks that have many."""
    masks = [np.where(noisy(k, 0.05) == 1, 1, 0) for k in range(18)]
    for name, frames, place in ((2, range(3, 7), np.s_[24:34, 4:20]), (3, range(10, 14), np.s_[22:36, 24:36])):
        for k in frames:
            masks[k][place] = name
    return masks


def test_an_id_that_most_frames_do_not_confirm_is_not_spread_to_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules[__name__], "LABELS", 4)

    def false_share() -> float:
        posterior, _ = estimate(still_scene(flickering(), 8), LABELS)
        return float(np.mean([(posterior[t].best() >= 2).mean() for t in posterior]))

    given = float(np.mean([(mask >= 2).mean() for mask in flickering()]))
    assert false_share() < 0.3 * given
    monkeypatch.setattr(label_posterior, "BETTER_THAN_CHANCE", 0.0)
    assert false_share() > given, "as if most frames had missed it"


def test_an_object_beside_another_that_is_mostly_missed_is_believed(monkeypatch: pytest.MonkeyPatch):
    masks = [noisy(k, 0.05) for k in range(18)]
    masks = [np.where((mask == 2) & (k % 5 > 1), 0, mask) for k, mask in enumerate(masks)]
    believed = [estimate(still_scene(masks, 8), LABELS)[0][t].best() for t in (4, 9)]
    monkeypatch.setattr(label_posterior, "BETTER_THAN_CHANCE", 0.0)
    for t, labels in zip((4, 9), believed, strict=True):
        assert (estimate(still_scene(masks, 8), LABELS)[0][t].best() == labels).all(), "as where nobody is doubted"


def test_an_object_alone_that_is_mostly_missed_is_believed():
    """With nothing to compare it with, an object that half of the frames miss is no false alarm."""
    masks = [np.where(noisy(k, 0.02) == 1, 1, 0) for k in range(9)]
    for k in (0, 2, 4, 6, 8):
        masks[k][:] = 0
    posterior, _ = estimate(still_scene(masks, 8), LABELS)
    assert (posterior[3].best().reshape(SIDE, SIDE)[7:16, 7:16] == 1).mean() > 0.95


def test_masks_that_are_carried_badly_lose_their_worth_with_distance():
    """Every step shifts the mask by two pixels that flow has missed."""
    frames = {}
    for t in range(9):
        near = range(max(0, t - 4), min(9, t + 5))
        frames[t] = evidence_of([opinion(s, abs(s - t), np.roll(TRUTH, 2 * (s - t), 1)) for s in near])
    posterior, reliability = estimate(frames, LABELS)
    assert (np.diff(reliability.lags) < 0).all() and reliability.lags[4] < 0.6
    assert right(posterior[4]) > 0.95


def test_the_scene_is_a_rater_whose_poor_rendering_is_noticed():
    masks = [noisy(k, 0.05) for k in range(5)]
    elsewhere = np.eye(LABELS)[np.roll(TRUTH, 9, 0).ravel()].astype(np.float32)
    evidence = with_scene(words_of(masks), elsewhere)
    posterior, reliability = estimate(evidence, LABELS)
    assert right(posterior[2]) > 0.99
    exact = np.eye(LABELS)[TRUTH.ravel()].astype(np.float32)
    trusted = estimate(with_scene(words_of(masks), exact), LABELS)[1]
    assert np.diag(np.exp(trusted.rendered)).min() > 0.95
    assert np.diag(np.exp(reliability.rendered))[1:].max() < 0.6


def test_a_frame_in_which_the_scene_is_elsewhere_does_not_count_like_the_others():
    """An object that was lost for a while is rendered where it is not, in some frames only."""
    masks = [noisy(k, 0.3) for k in range(9)]
    exact = np.eye(LABELS)[TRUTH.ravel()].astype(np.float32)
    elsewhere = np.eye(LABELS)[np.roll(TRUTH, 6, 0).ravel()].astype(np.float32)
    evidence = {t: evidence_of(one, elsewhere if t == 4 else exact) for t, one in words_of(masks, 2).items()}
    posterior, reliability = estimate(evidence, LABELS)
    reliability = estimate_disputed({t: seen(one) for t, one in evidence.items()}, LABELS)[1]
    there, usual = (np.diag(np.exp(reliability.of_scene(evidence[t])))[1:] for t in (4, 3))
    assert there.max() < 0.65 < 0.75 < usual.min()
    as_usual = judge(evidence[4], replace(reliability, scenes={}))
    assert right(posterior[4]) > right(as_usual) + 0.05


def coarse_scene(masks: list[NDArray[np.int64]]) -> dict[int, Evidence]:
    """What masks say beside a scene whose objects are three pixels too large on two sides."""
    grown = np.where(TRUTH > 0, TRUTH, np.maximum(np.roll(TRUTH, 3, 0), np.roll(TRUTH, -3, 1)))
    rendered = np.eye(LABELS)[grown.ravel()].astype(np.float32)
    return with_scene(words_of(masks, 6), rendered)


def test_a_coarse_scene_does_not_spoil_what_many_masks_say_together():
    masks = [noisy(k, 0.4) for k in range(13)]
    alone, _ = estimate(still_scene(masks, 6), LABELS)
    posterior, _ = estimate(coarse_scene(masks), LABELS)
    assert right(posterior[6]) > right(alone[6])


def test_the_scene_weighs_what_it_tells_of_masks_beside_those_of_other_frames():
    """Where flow fails, an exact scene is worth many masks that are carried; beside good ones a coarse scene is not."""
    carried = {
        t: [opinion(s, abs(s - t), np.roll(noisy(s, 0.1), 2 * (s - t), 1)) for s in range(max(0, t - 4), min(9, t + 5))]
        for t in range(9)
    }
    exact = np.eye(LABELS)[TRUTH.ravel()].astype(np.float32)
    _, trusted = estimate(with_scene(carried, exact), LABELS)
    _, doubted = estimate(coarse_scene([noisy(k, 0.3) for k in range(13)]), LABELS)
    assert trusted.scene_weight > 3 > doubted.scene_weight


def test_a_scene_that_no_mask_can_be_compared_with_is_a_rater_like_others():
    exact = np.eye(LABELS)[TRUTH.ravel()].astype(np.float32)
    silent = evidence_of([(Rater(0, 0), np.zeros((SIDE * SIDE, LABELS), np.float32))], exact)
    posterior, reliability = estimate({0: silent}, LABELS)
    assert np.isfinite(reliability.scene_weight) and np.isfinite(posterior[0].value).all()


def test_the_scene_decides_what_masks_leave_open():
    half = [np.where((np.arange(SIDE) % 2 == k % 2)[:, None] & (TRUTH == 1), 0, TRUTH) for k in range(2)]
    exact = np.eye(LABELS)[TRUTH.ravel()].astype(np.float32)
    posterior, _ = estimate(with_scene(words_of(half), exact), LABELS)
    assert right(posterior[0]) > 0.99


def test_a_newest_frame_is_judged_by_what_raters_were_worth():
    masks = [noisy(k) for k in range(6)]
    _, reliability = estimate(still_scene(masks), LABELS)
    newest = evidence_of([opinion(9, 0, noisy(9, 0.3)), *(opinion(k, 6 - k, masks[k]) for k in range(3, 6))])
    assert right(judge(newest, reliability)) > 0.96


def test_nobody_who_says_anything_means_background():
    silent = evidence_of([(Rater(0, 0), np.zeros((5, LABELS), np.float32))])
    posterior, _ = estimate({0: silent}, LABELS)
    assert (posterior[0].best() == 0).all() and np.isfinite(posterior[0].value).all()


def test_posteriors_are_probabilities_and_keep_to_what_somebody_says():
    masks = [np.where(TRUTH == 2, 0, TRUTH)] * 3
    posterior, _ = estimate(still_scene(masks), LABELS)
    assert full(posterior[1]).sum(1) == pytest.approx(np.ones(SIDE * SIDE), abs=1e-5)
    assert full(posterior[1])[:, 2].max() == 0.0


def test_raters_are_known_by_the_names_of_labels():
    _, reliability = estimate(still_scene([noisy(k) for k in range(5)]), LABELS)
    moved = reliability.relabelled([0, 4, 7], [0, 7, 8])
    before, after = np.exp(reliability.pooled), np.exp(moved.pooled)
    assert after[1, 1] == pytest.approx(before[2, 2], abs=0.05)
    assert after[2, 2] == pytest.approx(np.diag(before)[1:].mean(), abs=0.05), "a new object is believed as the others"
    assert after.sum(1) == pytest.approx(np.ones(3))
    assert reliability.relabelled([0, 4, 7], [0, 4, 7]) is reliability
    assert Reliability().relabelled([0], [0, 1]).pooled is None


def test_information_is_that_of_shannon():
    assert information(np.diag([1.0, 1.0])) == pytest.approx(np.log(2))
    assert information(np.ones((2, 2))) == pytest.approx(0.0)
    assert information(np.zeros((2, 2))) == 0.0


def test_pixels_on_which_all_agree_are_counted_without_being_kept():
    frames = still_scene([noisy(k, 0.02) for k in range(5)])
    whole, condensed = {}, {}
    for t, one in frames.items():
        less, disputed = one.split(one.shares())
        whole[t], condensed[t] = seen(one), less
        assert 0 < disputed.sum() < len(disputed) / 2
        assert less.said.pixels == disputed.sum()
    every, short = estimate_disputed(whole, LABELS)[1], estimate_disputed(condensed, LABELS)[1]
    assert np.exp(short.pooled) == pytest.approx(np.exp(every.pooled), abs=0.01)
