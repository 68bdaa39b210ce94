"""`masks.discovery: detections`: what a detector keeps seeing is proposed, whether it moves or not.

A detection that belongs to no known object is a candidate. Its existence is a log-odds: its own score begins it, and
how often candidates have turned out to be something so far; each further detection of it speaks for it, each frame in
which the detector looked and did not see it against it. False alarms rarely come twice at one place. A candidate that
is likely enough is proposed; one that is then no longer seen is taken back, until it has been looked at for some time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from motion4d_ros.config import Config
from motion4d_ros.geometry.overlap import boxes_of, fit_of, overlaps
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior, SceneHint
from motion4d_ros.priors.masks.discovery.proposals import Proposal
from motion4d_ros.types import Detection, FloatArray, Frame, IntArray

SEEN = 0.6  # probability that a detector sees, in one frame, a thing that is there
INVENTED = 0.1  # probability that it sees one, at a given place, where there is none
HIT, MISS = math.log(SEEN / INVENTED), math.log((1.0 - SEEN) / (1.0 - INVENTED))
LEAST_SCORE, MOST_SCORE = 0.05, 0.85  # of one detection: no single one is proof, or nothing
BELIEVED = math.log(0.9 / 0.1)  # log-odds from which a candidate is proposed
DISBELIEVED = math.log(0.1 / 0.9)  # and below which it is forgotten, or taken back
SURE = 2.0 * BELIEVED  # more is not remembered: things go away
PROBATION = 16  # frames that a detector has looked at, after which a thing that was proposed stays
MOST_CANDIDATES = 100


@dataclass(eq=False)
class _Candidate:
    """Something that may be there."""

    key: int
    odds: float  # log-odds that it is there
    boxes: dict[int, FloatArray]  # frame -> (4,), of the frames that a proposal may be made in
    seen_at: int  # frame of its newest detection
    step_px: FloatArray = field(default_factory=lambda: np.zeros(4))  # change of its box in a frame
    looked: int = 0  # frames that a detector has looked at since it was first seen
    proposed: bool = False

    def predicted(self, index: int) -> FloatArray:
        """(4,) its box in frame `index`, moving on as it did."""
        return self.boxes[self.seen_at] + (index - self.seen_at) * self.step_px


class DetectionDiscovery:
    """Candidates from detections; objects that are outlined already keep theirs."""

    def __init__(self, config: Config) -> None:
        self._keep = max(4, 2 * config.window.length)
        self._candidates: list[_Candidate] = []
        self._next_key = 1
        self._gone: set[int] = set()
        self._real = self._nothing = 0  # candidates that have turned out to be something, or not

    def look(self, frame: Frame, pose: PosePrior, depth: DepthPrior | None) -> None:
        """Nothing: boxes need neither."""

    def push(self, frame: Frame, hint: SceneHint | None) -> None:
        """Nothing: what a detector says is heard once it is known what is outlined in the frame."""

    def revise_poses(self, poses: dict[int, FloatArray]) -> None:
        """Nothing: boxes need no poses."""

    def finish(self) -> None:
        """Nothing is waited for."""

    def hear(self, frame: Frame, detections: Sequence[Detection], outlined: IntArray) -> None:
        """Weighs everything that is known by what was detected in a frame; the rest are new candidates.

        `outlined` (H, W) are the objects known in that frame. Whatever a detection fits better is what it is of.
        """
        _, known = boxes_of(outlined)
        mine = [item for item in self._candidates if not item.proposed]
        expected = np.concatenate([known, *(item.predicted(frame.index)[None] for item in mine)])
        boxes = np.array([each.box_px for each in detections]).reshape(-1, 4)
        fit = np.maximum(fit_of(overlaps(expected, boxes)), 0.0) if len(expected) and len(boxes) else np.zeros((0, 0))
        rows, columns = linear_sum_assignment(fit, maximize=True)
        pairs = {int(row): int(column) for row, column in zip(rows, columns, strict=True) if fit[row, column] > 0}
        for number, item in enumerate(mine):
            self._weigh(item, frame.index, pairs.get(len(known) + number), detections)
        taken = set(pairs.values())
        for item in [each for each in self._candidates if each.proposed]:
            near = fit_of(overlaps(item.predicted(frame.index)[None], boxes))[0] if len(boxes) else np.zeros(0)
            best = int(near.argmax()) if len(near) and near.max() > 0 else None
            self._weigh(item, frame.index, best, detections)
            taken |= set() if best is None else {best}
        for column in sorted(set(range(len(boxes))) - taken):
            self._begin(frame.index, detections[column])
        self._forget()

    def proposals(self, kept: Sequence[int]) -> list[Proposal]:
        """Candidates that are believed in, by their newest detection in one of the frames `kept`."""
        found = []
        for item in self._candidates:
            frames = [index for index in item.boxes if index in kept]
            if frames and (item.proposed or item.odds >= BELIEVED):
                self._real += not item.proposed
                item.proposed = True
                found.append(Proposal(item.key, max(frames), item.boxes[max(frames)], np.zeros((0, 2))))
        return found

    def gone(self) -> set[int]:
        """Candidates that were proposed, and then no longer seen."""
        gone, self._gone = self._gone, set()
        return gone

    def changed(self) -> set[int]:
        """No frame: there are no regions."""
        return set()

    def regions(self, index: int) -> IntArray | None:
        """None: boxes are all that is known."""
        return None

    def reset(self) -> None:
        """Forgets everything; keys go on."""
        self._candidates.clear()
        self._gone.clear()

    def _begin(self, index: int, detection: Detection) -> None:
        box = np.array(detection.box_px, float)
        usual = math.log((1.0 + self._real) / (1.0 + self._nothing))
        self._candidates.append(_Candidate(self._next_key, usual + _odds(detection.score), {index: box}, index))
        self._next_key += 1

    def _weigh(self, item: _Candidate, index: int, column: int | None, detections: Sequence[Detection]) -> None:
        """Counts a frame for or against a candidate."""
        item.looked += 1
        if column is None:
            item.odds += MISS
            return
        item.odds = min(SURE, item.odds + HIT + _odds(detections[column].score) / 2.0)
        box = np.array(detections[column].box_px, float)
        if index > item.seen_at:
            item.step_px = 0.5 * item.step_px + 0.5 * (box - item.boxes[item.seen_at]) / (index - item.seen_at)
            item.seen_at = index
        item.boxes[index] = box
        for old in sorted(item.boxes)[: max(0, len(item.boxes) - self._keep)]:
            del item.boxes[old]

    def _forget(self) -> None:
        """Lets go of candidates that are there no more, and of the least likely where there are too many."""
        for item in list(self._candidates):
            if item.proposed and item.looked >= PROBATION:  # from here on it is followed, seen by the detector or not
                self._candidates.remove(item)
            elif item.odds < DISBELIEVED and item.looked:
                self._candidates.remove(item)
                self._nothing += 1
                if item.proposed:
                    self._real -= 1
                    self._gone.add(item.key)
        waiting = [item for item in self._candidates if not item.proposed]
        for item in sorted(waiting, key=lambda item: item.odds)[: max(0, len(waiting) - MOST_CANDIDATES)]:
            self._candidates.remove(item)


def _odds(score: float) -> float:
    bounded = min(max(score, LEAST_SCORE), MOST_SCORE)
    return math.log(bounded / (1.0 - bounded))
