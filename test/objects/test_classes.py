"""Classes of objects from detections: assignment by overlap, evidence over time, noise that a detector makes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from motion4d_ros.geometry.overlap import RIGHT as RIGHT_PAIR
from motion4d_ros.geometry.overlap import WRONG, fit_of, overlaps
from motion4d_ros.objects import classes
from motion4d_ros.objects.classes import MOST_CLASSES, ClassBook
from motion4d_ros.types import Detection

SIZE = (120, 160)


def labels(**boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Filled ellipses x0, y0, x1, y1, by id (`o3` is object 3): masks fill their boxes as real ones do."""
    out = np.zeros(SIZE, np.int32)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for name, (x0, y0, x1, y1) in boxes.items():
        inside = ((2 * x - x0 - x1) / (x1 - x0 + 1)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0 + 1)) ** 2 <= 1
        out[inside] = int(name[1:])
    return out


def box(label: str, x0: float, y0: float, x1: float, y1: float, score: float = 0.8) -> Detection:
    return Detection((x0, y0, x1, y1), label, score)


LEFT, RIGHT = (10, 20, 49, 99), (90, 30, 139, 79)


def test_overlap_is_that_of_pixels() -> None:
    first = np.array([[0, 0, 9, 9], [0, 0, 0, 0]], float)
    second = np.array([[5, 0, 14, 9], [0, 0, 9, 9], [20, 20, 30, 30]], float)
    np.testing.assert_allclose(overlaps(first, second), [[50 / 150, 1.0, 0.0], [0.0, 1 / 100, 0.0]])


def test_the_likelihood_of_a_pair_grows_with_its_overlap() -> None:
    at = np.array([0.2, 0.5, 0.9])
    np.testing.assert_allclose(fit_of(at), beta.logpdf(at, *RIGHT_PAIR) - beta.logpdf(at, *WRONG))
    fit = fit_of(np.linspace(0, 1, 101))
    assert (np.diff(fit[1:99]) > 0).all() and fit[20] < 0 < fit[50]


def test_two_things_keep_their_names_though_one_is_missed_and_one_is_invented() -> None:
    rng = np.random.default_rng(0)
    book = ClassBook()
    for k in range(40):
        found = []
        if rng.uniform() < 0.6:  # missed in 40 % of the frames
            found.append(box("person", *(np.array(LEFT) + rng.normal(0, 4, 4)), score=rng.uniform(0.4, 0.9)))
        if rng.uniform() < 0.6:
            wrong = rng.uniform() < 0.25
            label = "horse" if wrong else "car"
            found.append(box(label, *(np.array(RIGHT) + rng.normal(0, 4, 4)), score=rng.uniform(0.4, 0.9)))
        for _ in range(3):  # false alarms of any size anywhere
            x, y = rng.uniform(0, 120), rng.uniform(0, 90)
            found.append(box("dog", x, y, x + rng.uniform(5, 60), y + rng.uniform(5, 60), score=rng.uniform(0.1, 0.9)))
        book.observe(k, labels(o1=LEFT, o2=RIGHT), found)
    assert book.best(1)[0] == "person" and book.best(2)[0] == "car"
    assert book.best(1)[1] > 0.9 and book.best(2)[1] > 0.5


def test_evidence_adds_up_and_can_turn() -> None:
    book = ClassBook()
    assert book.best(1) == ("", 0.0)
    scores = []
    for k in range(8):
        book.observe(k, labels(o1=LEFT), [box("cat", *LEFT)])
        scores.append(book.best(1)[1])
    assert all(np.diff(scores) > 0) and scores[0] < 0.75 and scores[-1] > 0.9
    for k in range(8, 40):
        book.observe(k, labels(o1=LEFT), [box("dog", *LEFT)])
    assert book.best(1)[0] == "dog"


def test_a_frame_counts_once_however_often_it_is_reported() -> None:
    book = ClassBook()
    for _ in range(5):
        book.observe(7, labels(o1=LEFT), [box("cat", *LEFT)])
    once = ClassBook()
    once.observe(7, labels(o1=LEFT), [box("cat", *LEFT)])
    assert book.best(1) == once.best(1)
    late = ClassBook()
    late.observe(7, labels(o1=LEFT), None)  # nobody has looked yet
    late.observe(7, labels(o1=LEFT), [box("cat", *LEFT)])
    assert late.best(1) == once.best(1)


def test_rider_and_bike_overlap_and_are_told_apart() -> None:
    """Each box overlaps both objects; one assignment of all gives each its own."""
    rider, bike = (60, 10, 89, 79), (40, 50, 119, 109)
    book = ClassBook()
    scene = labels(o2=bike, o1=rider)
    pairs = book.pairs(scene, [box("bicycle", *bike), box("person", *rider)])
    assert {(object_id, position) for object_id, position, _ in pairs} == {(1, 1), (2, 0)}
    assert all(sure > 0.8 for *_, sure in pairs)


def test_what_an_object_is_known_to_be_decides_between_two_boxes_alike() -> None:
    book = ClassBook()
    for k in range(10):
        book.observe(k, labels(o1=LEFT), [box("person", *LEFT)])
    near = np.array(LEFT) + np.array([3, 0, 3, 0])
    first, second = box("chair", *near), box("person", *(np.array(LEFT) - [3, 0, 3, 0]))
    ((object_id, position, _),) = book.pairs(labels(o1=LEFT), [first, second])
    assert (object_id, position) == (1, 1)


def test_a_box_somewhere_else_says_nothing() -> None:
    book = ClassBook()
    for k in range(20):
        book.observe(k, labels(o1=LEFT), [box("cat", *RIGHT), box("dog", 0, 0, 159, 119)])
    assert book.best(1) == ("", 0.0)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_extreme_scores_are_no_extreme_evidence(score: float) -> None:
    book = ClassBook()
    for k in range(3):
        book.observe(k, labels(o1=LEFT), [box("cat", *LEFT, score=score)])
    label, probability = book.best(1)
    assert (label == "cat") == (score == 1.0) and np.isfinite(probability)


def test_nothing_grows_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "MOST_OBJECTS", 20)
    book = ClassBook()
    for k in range(200):
        book.observe(k, labels(o1=LEFT), [box(f"class {k}-{n}", *LEFT, score=0.9) for n in range(50)])
    assert len(book._evidence[1]) <= MOST_CLASSES
    one = labels(o1=LEFT)
    for object_id in range(40):
        book.observe(1000 + object_id, np.where(one > 0, object_id + 1, 0), [box("cat", *LEFT)])
    assert len(book._evidence) <= 20
    book.observe(9999, np.zeros(SIZE, np.int32), [box("cat", *LEFT)])
    book.observe(9998, one, [])
    book.forget(40)
    assert book.best(40) == ("", 0.0)


def test_ever_new_classes_are_counted_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector, or somebody who pretends to be one, may name a hundred new ones in every frame, for days."""
    monkeypatch.setattr(classes, "MOST_NAMES", 50)
    book = ClassBook()
    for index in range(20):
        book.observe(index, np.zeros((8, 8), np.int32), [box(f"{index}_{n}", 0, 0, 4, 4) for n in range(10)])
    assert len(book._classes) == 50
