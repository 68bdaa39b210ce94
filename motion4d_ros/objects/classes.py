"""What class of thing is each object? Detections are assigned to objects, and what they say adds up over the frames.

In every frame one assignment (Hungarian method) matches detections with objects. How well a box fits an object is a
likelihood ratio of their IoU under two stated densities, that of a right pair and that of two things that happen to
overlap; there is no other threshold. A class that the object is believed to be counts in favour of a pair.

Each object holds one log-odds per class against "something else". A detection of class c with score s says: c with
probability s, each of the other K - 1 classes with (1 - s) / (K - 1) of the rest, were it surely this object's; as far
as the pair is doubtful, it says nothing. Neighbouring frames err alike, so a frame counts for a part of a look.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from motion4d_ros.geometry.overlap import boxes_of, fit_of, overlaps
from motion4d_ros.types import Detection, IntArray

FRAMES_PER_LOOK = 4.0  # neighbouring frames that are as good as one independent look: detectors err alike in them
MOST_CLASSES = 32  # remembered per object, the best ones
MOST_NAMES = 4096  # of classes, that are counted; LVIS has 1203
MOST_OBJECTS = 1024  # remembered, the newest ones
REMEMBERED = 4096  # frames of which it is known that they have counted


class ClassBook:
    """The classes of all objects, by what detectors have said of them so far."""

    def __init__(self) -> None:
        self._evidence: OrderedDict[int, dict[str, float]] = OrderedDict()  # object -> class -> log-odds
        self._classes: set[str] = set()  # ever heard of
        self._counted: OrderedDict[int, None] = OrderedDict()  # frames

    def observe(self, index: int, labels: IntArray, detections: Sequence[Detection] | None) -> None:
        """Takes what was detected in frame `index`, in pixels of its (H, W) object ids. Each frame counts once."""
        if detections is None or index in self._counted:
            return
        self._counted[index] = None
        while len(self._counted) > REMEMBERED:
            self._counted.popitem(last=False)
        for each in detections[:MOST_OBJECTS]:
            if len(self._classes) < MOST_NAMES:  # who names ever new ones has none: the number of classes is K at most
                self._classes.add(each.label)
        for object_id, position, sure in self.pairs(labels, detections):
            self._learn(object_id, detections[position], sure)

    def pairs(self, labels: IntArray, detections: Sequence[Detection]) -> list[tuple[int, int, float]]:
        """(object id, position in `detections`, probability that they are the same) of one frame's assignment."""
        ids, boxes = boxes_of(labels)
        if not ids or not detections:
            return []
        fit = fit_of(overlaps(boxes, np.array([each.box_px for each in detections])))
        for row, object_id in enumerate(ids):
            fit[row] += [self._agreement(object_id, each.label) for each in detections]
        gain = np.maximum(fit, 0.0)  # no pair at all is worth 0
        rows, columns = linear_sum_assignment(gain, maximize=True)
        alone = np.zeros((len(ids), 1))
        total = logsumexp(np.concatenate([fit, alone], 1), axis=1)
        return [
            (ids[row], int(column), float(np.exp(fit[row, column] - total[row])))
            for row, column in zip(rows, columns, strict=True)
            if gain[row, column] > 0
        ]

    def best(self, object_id: int) -> tuple[str, float]:
        """The likeliest class of an object and its probability; ("", 0) while "something else" is likelier."""
        evidence = self._evidence.get(object_id)
        if not evidence:
            return "", 0.0
        label = max(evidence, key=lambda name: evidence[name])
        probability = self._probability(evidence, label)
        others = math.exp(-evidence[label]) * probability  # of each class that nobody has named
        return (label, probability) if probability > others else ("", 0.0)

    def forget(self, object_id: int) -> None:
        """An object was deleted."""
        self._evidence.pop(object_id, None)

    @property
    def _count(self) -> int:
        """K: the classes heard of, and "something else"."""
        return len(self._classes) + 1

    def _probability(self, evidence: dict[str, float], label: str) -> float:
        values = np.array([*evidence.values()])
        unnamed = max(1, self._count - len(values))  # all of log-odds 0
        return float(np.exp(evidence.get(label, 0.0) - logsumexp([*values, math.log(unnamed)])))

    def _agreement(self, object_id: int, label: str) -> float:
        """How much what is known of the object speaks for a class, as a log-ratio; known half at most."""
        evidence = self._evidence.get(object_id)
        if not evidence:
            return 0.0
        believed = 0.5 * self._probability(evidence, label) + 0.5 / self._count
        return math.log(believed * self._count)

    def _learn(self, object_id: int, detection: Detection, sure: float) -> None:
        count, score = self._count, detection.score
        other = (1.0 - score) / max(1, count - 1)
        doubt = (1.0 - sure) / count
        said = math.log((sure * max(score, other) + doubt + 1e-9) / (sure * other + doubt + 1e-9))
        evidence = self._evidence.setdefault(object_id, {})
        self._evidence.move_to_end(object_id)
        evidence[detection.label] = evidence.get(detection.label, 0.0) + said / FRAMES_PER_LOOK
        while len(evidence) > MOST_CLASSES:
            del evidence[min(evidence, key=lambda name: evidence[name])]
        while len(self._evidence) > MOST_OBJECTS:
            self._evidence.popitem(last=False)
