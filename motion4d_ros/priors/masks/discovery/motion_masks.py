"""Objects discovered by their motion: no prompt, no network (`masks.discovery: motion`).

Pixels that move against the static scene gather evidence (`motion_evidence`); where it forms a group for several
frames an object is born, its outline is fitted to colours, and from then on it is carried like a prompted one
(`mask_carrier`), whether it goes on moving or not. A newborn is on probation: it is shown, and followed back to where
it came from, once it has moved in most of its first frames.

A few frames later more is known: rigid bodies are told apart by their motion over all frames (`rigid_segmentation`).
Where the static scene is so well explained that little else seems to move, they have the last word: frames are labelled
anew, and what is carried on is corrected.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.geometry.image_warping import warp
from motion4d_ros.priors.flow.optical_flow import FlowCache, chain
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior, SceneHint
from motion4d_ros.priors.masks.discovery.regions import fit_outline, near_each_other, two_motions
from motion4d_ros.priors.masks.discovery.rigid_motion import SPAN, trajectories
from motion4d_ros.priors.masks.discovery.rigid_search import better_explained
from motion4d_ros.priors.masks.discovery.rigid_segmentation import RigidSegmentation
from motion4d_ros.priors.masks.propagation.carried_masks import CarriedMasks
from motion4d_ros.priors.masks.propagation.carried_object import Carried
from motion4d_ros.priors.masks.propagation.mask_carrier import MaskCarrier
from motion4d_ros.priors.masks.propagation.mask_cues import color_histogram, similarity
from motion4d_ros.types import BoolArray, Camera, FloatArray, Frame, IntArray, PoseStatus, Prompt, Scale

BIRTH_HITS = 2  # frames a group must show before it is tried as an object
PROBATION = 8  # frames after which a newborn that hardly moved is dropped
CONFIRM = 3  # frames of motion that end the probation
LOOK_BACK = 12  # frames a confirmed object is followed back
CLEARLY_TWO = 12.0  # times what two motions leave unexplained lies between them
TORN = 3  # frames of two motions before an object is split
JOINED = 6  # frames of one motion before two objects are joined
APART = 10  # px between objects that are surely not one
FORGET_AFTER = 64  # frames out of sight
LEAST_CARRIED, EDGE = 12, 0.03  # px of a body that is carried on; share of it that is no more than its edge
MOST_NAMES = 100  # bodies that have turned out to be others, from which names are tidied up
RETURNED = 3  # frames in which one is back in view, from which it is followed back to where it came from
NOW_AND_THEN = 4  # of so many frames one is segmented where bodies are not believed: the scene may become clearer
TRIED = 4  # frames in a row in which the static scene must have been well explained before bodies have the last word


@dataclass(eq=False)
class _Candidate:
    """A group of moving pixels that is not yet an object."""

    mask: BoolArray  # (h, w) in the newest frame
    hits: int = 1
    missed: int = 0


@dataclass(eq=False)
class _Life:
    """What became of an object since its birth."""

    born: int  # frame index
    age: int = 0
    moved: int = 0  # frames in which it moved against the static scene
    torn: int = 0  # frames in which it moved like two things


class MotionMasks(CarriedMasks):
    """A `MaskSource` that finds what moves. Prompts work here, too."""

    def __init__(self, config: Config, flow: FlowCache | None = None) -> None:
        super().__init__(config, flow)
        self._candidates: list[_Candidate] = []
        self._lives: dict[int, _Life] = {}
        self._together: dict[tuple[int, int], int] = {}
        self._apart: set[tuple[int, int]] = set()
        self._use_bodies = config.masks.rigid_segmentation
        self._bodies = RigidSegmentation(self._flow)
        self._told: dict[int, NDArray[np.int32]] = {}  # (h, w) what bodies say of the frames held
        self._traced: set[int] = set()
        self._clear = 0  # frames in a row in which bodies could be trusted
        self._names_of: dict[int, int] = {}  # ids under which bodies are told of
        self._known_poses: dict[int, FloatArray] = {}
        self._camera: Camera | None = None

    def masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        """(H, W) object ids of the next frame."""
        self._take(frame)
        self._camera = frame.camera
        previous = self._carrier.last_index
        if self._use_bodies and previous is not None and self._flow.has(previous):
            self._look_again(frame.index - SPAN, frame.index)
        return super().masks(frame, hint)

    def finish(self) -> None:
        """The input ends: the last frames are looked at again with what there is."""
        newest = self._carrier.last_index
        if newest is None or self._bodies.last is None:
            return
        for index in self._flow.indices:
            self._look_again(index, newest)

    def look(self, frame: Frame, pose: PosePrior, depth: DepthPrior | None) -> None:
        """Told before :meth:`masks` of the same frame: its measured pose and depth."""
        self._take(frame)
        if pose.status is PoseStatus.OK and pose.scale is not Scale.UNKNOWN:
            self._known_poses[frame.index] = pose.T_map_cam
        for index in [i for i in self._known_poses if not self._flow.has(i)]:
            del self._known_poses[index]

    def revise_poses(self, poses: dict[int, FloatArray]) -> None:
        """Told of poses of earlier frames that have become known, or better known."""
        self._known_poses.update({index: pose for index, pose in poses.items() if self._flow.has(index)})

    def prompt(self, frame: Frame, prompt: Prompt) -> None:
        """As for all carried masks; what a person has spoken about is the carrier's from then on."""
        known = prompt.object_id
        super().prompt(frame, prompt)
        if not prompt.delete and not prompt.marks:
            return
        for key in [key for key in self._bodies.objects if self._names_of.get(key, key) == known]:
            self._bodies.remove(key)
        self._lives.pop(known, None)

    def reset(self) -> None:
        """Forgets everything; ids go on."""
        super().reset()
        self._candidates.clear()
        self._lives.clear()
        self._together.clear()
        self._apart.clear()
        self._bodies.reset()
        self._told.clear()
        self._traced.clear()
        self._names_of.clear()
        self._known_poses.clear()
        self._clear = 0

    # ---- bodies, in hindsight ---------------------------------------------------------------------------------------

    @property
    def _trusts_bodies(self) -> bool:
        return self._clear >= TRIED

    def _look_again(self, index: int, newest: int) -> None:
        """Segments frame `index` with the frames up to `newest` in view; corrects labels and what is carried."""
        bodies = self._bodies
        if not self._flow.has(index) or (bodies.last is not None and index <= bodies.last):
            return
        if bodies.hopeless and index % NOW_AND_THEN:
            return
        given = [item.object_id for item in self._carrier.objects.values() if item.object_id not in self._lives]
        occupied = np.isin(self._labels[index], given) & (self._labels[index] > 0) if index in self._labels else None
        bodies.next_id = self._next_id = max(bodies.next_id, self._next_id)
        said = bodies.step(index, newest, occupied, self._known_poses, self._scaled_camera())
        self._next_id = bodies.next_id
        if said is None:
            return
        self._told[index] = said
        for key, item in bodies.objects.items():
            if item.proved and key not in self._traced:
                self._traced.add(key)
                self._trace_back(key, [i for i in self._told if self._shows(i, key)])
            elif key in self._traced:
                lately = [i for i in sorted(self._told)[-RETURNED - 1 :] if self._shows(i, key)]
                if len(lately) == RETURNED and lately[-1] == index and not self._shows(index - RETURNED, key):
                    self._trace_back(key, lately)
        self._told = {i: labels for i, labels in self._told.items() if self._flow.has(i)}
        if len(bodies.became) > MOST_NAMES:
            self._forget_names()
        self._clear = self._clear + 1 if bodies.clear else 0
        if self._trusts_bodies:
            self._take_over(index, given)

    def _forget_names(self) -> None:
        """Lets go of what no frame held shows any more: memory stays bounded."""
        shown = {key for labels in self._told.values() for key in np.unique(labels).tolist()}
        self._bodies.forget(shown, FORGET_AFTER)
        kept = shown | set(self._bodies.objects)
        self._traced &= kept
        self._names_of = {key: name for key, name in self._names_of.items() if key in kept}

    def _shows(self, index: int, key: int) -> bool:
        """Whether bodies say that one is seen in a frame."""
        return index in self._told and int((self._told[index] == key).sum()) >= LEAST_CARRIED

    def _trace_back(self, key: int, shown: list[int]) -> None:
        """Follows a body that has been `shown` for some frames, since it came (back) into view, to where it came from.

        As a thing that is carried, until it was last seen before. If there was too little of it to be found, and it was
        taken for a part of others until then, what moves as it does is given back, frame after frame.
        """
        if not shown:
            return
        before = max((i for i in self._told if i < shown[0] and self._shows(i, key)), default=-1)
        held = [i for i in self._flow.indices if max(before + 1, shown[0] - LOOK_BACK) <= i < shown[0]]
        if not held:
            return
        start, part = shown[min(2, len(shown) - 1)], True  # by then it has mostly been seen whole
        alone = MaskCarrier(self._flow)
        alone.place(start, key, self._told[start] == key)
        for i in [i for i in self._flow.indices if held[0] <= i < start][::-1]:
            alone.advance(i)
            if (said := self._told.get(i)) is not None:
                mine = alone.objects[key].soft > 0.5
                tracks = trajectories(self._flow, i, self._flow.indices[-1]) if part else None
                theirs = better_explained(tracks, mine, said, key)
                part &= i >= shown[0] or bool(theirs.sum() > max(LEAST_CARRIED, EDGE * mine.sum()))
                said[mine & ((said == 0) | theirs)] = key

    def _scaled_camera(self) -> Camera | None:
        if self._camera is None:
            return None
        scaled = self._camera.scaled(self._flow.size[0] / self._camera.height)
        return scaled if scaled.size == self._flow.size else None

    def _take_over(self, index: int, given: list[int]) -> None:
        """Labels the frames held as bodies say by now, and carries on from there in the newest frame carried to."""
        newest = self._carrier.last_index
        assert newest is not None  # frames are told of once they have been carried to
        self._keep_names()
        shown = {key: self._names_of.get(key, key) for key, item in self._bodies.objects.items() if item.proved}
        table = np.zeros(self._bodies.next_id, np.int32)
        for key in range(1, len(table)):
            table[key] = shown.get(self._bodies.final(key), 0)
        for i, said in self._told.items():
            before = self._labels.get(i)
            if before is None:
                continue
            labels = np.where(np.isin(before, given) & (before > 0), before, table[said]).astype(np.int32)
            if (labels != before).any():
                self._labels[i] = labels
                self._revised.add(i)
        backward: NDArray[np.float32] = np.zeros((*self._flow.size, 2), np.float32)
        held = [i for i in self._flow.indices if index <= i <= newest][::-1]
        for later, earlier in itertools.pairwise(held):
            backward = chain(backward, self._flow.between(later, earlier))
        for object_id in [key for key in self._carrier.objects if key not in given]:
            self._drop(object_id)
        for key, object_id in shown.items():
            item = self._bodies.objects[key]
            mask = warp(item.soft, backward) > 0.5
            if not item.hidden and mask.sum() >= LEAST_CARRIED:
                self._carrier.place(newest, object_id, mask, trust=False)
                self._lives[object_id] = _Life(index, age=item.seen, moved=item.moved)

    def _keep_names(self) -> None:
        """Bodies take the ids under which they have been told of so far."""
        taken = set(self._names_of.values())
        for key, item in self._bodies.objects.items():
            if key in self._names_of or not item.proved:
                continue
            votes: dict[int, int] = {}
            for i, said in self._told.items():
                before = self._labels.get(i)
                mine = said == key
                if before is None or not mine.any():
                    continue
                for other in np.unique(before[mine & (before > 0)]).tolist():
                    if other in self._lives and other not in self._hidden and other not in taken:
                        votes[other] = votes.get(other, 0) + int((mine & (before == other)).sum())
            self._names_of[key] = max(votes, key=lambda other: votes[other], default=key)
            taken.add(self._names_of[key])

    def _found(self, frame: Frame, evidence: NDArray[np.float32] | None, previous: int | None) -> None:
        if evidence is None or previous is None or self._trusts_bodies:
            return
        index = frame.index
        back = self._flow.between(index, previous)
        self._follow(index, evidence)
        self._mend(index, back, self._flow.error(index, previous))
        for group in self._strays(index, evidence, back):
            self._consider(group)
        for candidate in self._candidates:
            if candidate.missed:
                candidate.mask = warp(candidate.mask, back, nearest=True)
            candidate.missed += 1
            if candidate.missed == 1 and candidate.hits >= BIRTH_HITS:
                self._birth(index, candidate.mask)
                candidate.missed = 99
        self._candidates = [c for c in self._candidates if c.missed <= 3]

    def _consider(self, group: BoolArray) -> None:
        """Counts a group as the continuation of a candidate, or as a new one."""
        matching = [c for c in self._candidates if (c.mask & group).sum() > 0.3 * min(c.mask.sum(), group.sum())]
        if not matching:
            self._candidates.append(_Candidate(group))
            return
        best = max(matching, key=lambda c: c.hits)
        best.mask, best.hits, best.missed = group, best.hits + 1, 0
        self._candidates = [c for c in self._candidates if c is best or c not in matching]

    def _body(self, group: BoolArray) -> BoolArray:
        """The group and what moves between and beside its parts: flat colours that bear no evidence of their own."""
        score = self._evidence.current
        if score is None:
            return group
        size = max(3, round(0.5 * np.sqrt(group.sum())) | 1)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        near = cv2.morphologyEx(group.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0
        grown = near | ((score > 1.5) & (cv2.dilate(group.astype(np.uint8), kernel) > 0))
        _, parts = cv2.connectedComponents((grown | group).astype(np.uint8))
        return np.asarray(np.isin(parts, np.unique(parts[group])) & (parts > 0))

    def _birth(self, index: int, group: BoolArray) -> None:
        mask = fit_outline(self._flow.rgb(index), self._body(group))
        object_id, self._next_id = self._next_id, self._next_id + 1
        self._carrier.place(index, object_id, mask)
        self._hidden.add(object_id)
        self._lives[object_id] = _Life(index)

    def _follow(self, index: int, evidence: NDArray[np.float32]) -> None:
        """Ends probations and forgets what has long been out of sight."""
        for object_id, item in list(self._carrier.objects.items()):
            life = self._lives.get(object_id)
            if life is None:  # prompted by a person
                continue
            if item.hidden_for > (FORGET_AFTER if object_id not in self._hidden else 0):
                self._drop(object_id)
                continue
            core = item.soft > 0.7
            life.age += 1
            life.moved += bool(core.any()) and float((evidence[core] > 0.5).mean()) > 0.35
            if object_id in self._hidden and life.moved >= CONFIRM and life.moved >= 0.6 * life.age:
                self._hidden.discard(object_id)
                body = (item.soft > 0.5) | self._unclaimed_near(item, evidence)
                outline = fit_outline(self._flow.rgb(index), body) | (item.soft > 0.5)
                self._carrier.place(index, object_id, outline)
                item = self._carrier.objects[object_id]
                self._replay_back(index, object_id, item.soft > 0.5, max(0, life.born - LOOK_BACK))
            elif object_id in self._hidden and life.age >= PROBATION:
                self._drop(object_id)

    def _mend(self, index: int, back: NDArray[np.float32], error: NDArray[np.float32]) -> None:
        """Splits objects that have been two for some frames, and joins those that have long been one."""
        shown = [item for key, item in self._carrier.objects.items() if key in self._lives and key not in self._hidden]
        for item in shown:
            life = self._lives[item.object_id]
            parts = two_motions(back, (item.soft > 0.7) & (error < 1.0))
            life.torn = life.torn + 1 if parts is not None else max(0, life.torn - 1)
            if parts is not None and life.torn >= TORN:
                self._split(index, item, parts[:2], parts[2])
        for a, b in itertools.combinations(shown, 2):
            pair = (a.object_id, b.object_id)
            if not near_each_other(a.soft > 0.5, b.soft > 0.5, APART):
                self._apart.add(pair)
            if pair in self._apart:  # whoever has been on its own stays itself
                continue
            together = self._as_one(a.soft > 0.5, b.soft > 0.5, back) and similarity(a.inside, b.inside) > 0.4
            self._together[pair] = self._together.get(pair, 0) + 1 if together else 0
            if self._together[pair] >= JOINED and pair[1] in self._carrier.objects:
                self._carrier.absorb(pair[0], b.soft > 0.5)
                self._carrier.remove(pair[1])
                self._lives.pop(pair[1], None)
                for frame_index, labels in self._labels.items():
                    self._write(frame_index, pair[0], (labels == pair[0]) | (labels == pair[1]), over=pair[1])
        followed = self._carrier.objects.keys()
        self._apart = {pair for pair in self._apart if followed >= set(pair)}
        self._together = {pair: frames for pair, frames in self._together.items() if followed >= set(pair)}

    def _as_one(self, a: BoolArray, b: BoolArray, back: NDArray[np.float32]) -> bool:
        """Whether two regions touch along a good part of the smaller one and move as one."""
        if a.sum() < 30 or b.sum() < 30:
            return False
        small, large = (a, b) if a.sum() < b.sum() else (b, a)
        touching = (cv2.dilate(small.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0) & large
        return float(touching.sum()) > 1.5 * np.sqrt(small.sum()) and self._moves_as_one(a, b, back)

    def _split(self, index: int, item: Carried, parts: tuple[BoolArray, BoolArray], clear: float) -> None:
        """The part that looks more like the object was keeps the id; the other is born anew."""
        lab = self._carrier.lab
        before = item.inside if item.anchor is None else color_histogram(item.anchor.lab, item.anchor.soft > 0.7)
        likeness = [similarity(before, color_histogram(lab, part)) for part in parts]
        between = similarity(*(color_histogram(lab, part) for part in parts))
        if between > (0.85 if clear > CLEARLY_TWO else 0.6):  # one thing that bends
            return
        keeps, leaves = parts if likeness[0] >= likeness[1] else parts[::-1]
        self._carrier.place(index, item.object_id, keeps)
        self._lives[item.object_id].torn = 0
        object_id, self._next_id = self._next_id, self._next_id + 1
        self._carrier.place(index, object_id, leaves)
        self._lives[object_id] = _Life(index)
        self._apart.add((item.object_id, object_id))

    def _unclaimed_near(self, item: Carried, evidence: NDArray[np.float32]) -> BoolArray:
        """(h, w) moving pixels beside an object that nobody else claims."""
        mask = (item.soft > 0.5).astype(np.uint8)
        near = cv2.dilate(mask, np.ones((15, 15), np.uint8)) > 0
        others = [other.soft > 0.5 for key, other in self._carrier.objects.items() if key != item.object_id]
        free = ~np.any(others, axis=0) if others else np.ones(near.shape, bool)
        return np.asarray(near & free & (evidence > 0.7))

    def _drop(self, object_id: int) -> None:
        self._carrier.remove(object_id)
        self._hidden.discard(object_id)
        self._lives.pop(object_id, None)
