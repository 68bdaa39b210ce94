"""Found by one, outlined and followed by another: any discovery in front of any source that takes prompts.

What is found becomes a prompt: its box, and points deep inside the region in which it was seen. The answer gets a
second look. It must be the same thing when only the points ask: what has no outline of its own, as waves have none, is
no thing, and is not shown. It must cover what was seen, and not run away from it; else the thing is shown as it was
found, and asked about again later. Frames in which the outliner does not see it show it as it was found, too. What the
discovery takes back goes from all frames.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.geometry.overlap import boxes_of, fit_of, overlaps
from motion4d_ros.priors.interfaces import (
    DepthPrior,
    HearsOfPoses,
    LooksAhead,
    LooksFirst,
    MaskSource,
    Outlines,
    PosePrior,
    RevisesMasks,
    SceneHint,
)
from motion4d_ros.priors.masks.discovery.proposals import Discovery, Proposal
from motion4d_ros.priors.masks.propagation.mask_cues import grow_labels
from motion4d_ros.types import BoolArray, Detection, FloatArray, Frame, IntArray, Motion4DError, Prompt

COVERED = 0.5  # share of what was seen that an outline must cover
RUN_AWAY = 4.0  # times the area of what was seen, from which an outline is of something else
SAME_THING = 0.5  # share of what was seen that lies in the outline of a known object, from which it is that object
STABLE = 0.5  # overlap (intersection over union) of the answers to two prompts, from which they are of one thing
FIRST_WAIT = 4  # frames until a refused proposal is made again; twice as many each time
TRIES = 4
MOST_LINKS = 1024  # proposals whose fate is remembered, the newest ones


@dataclass
class _Link:
    """What became of a proposal."""

    object_id: int = 0  # 0: nobody has seen it, or a person does not want it
    outlined: bool = False  # by the outliner, else it is shown as it was found
    tries: int = 0
    next_try: int = 0  # frame


class DiscoveredMasks:
    """A `MaskSource` made of a discovery and an outliner. Prompts of people go to the outliner."""

    def __init__(self, config: Config, outliner: MaskSource, discovery: Discovery) -> None:
        self.outliner, self.discovery = outliner, discovery
        self.accepts_prompts = outliner.accepts_prompts
        self.full_size = outliner.full_size
        self._keep = max(4, 2 * config.window.length)  # as many as outliners keep for prompts
        self._frames: OrderedDict[int, Frame] = OrderedDict()
        self._outlined: OrderedDict[int, IntArray] = OrderedDict()  # what the outliner has said of them
        self._links: dict[int, _Link] = {}
        self._revised: set[int] = set()
        self._next_id = 1

    def look(self, frame: Frame, pose: PosePrior, depth: DepthPrior | None) -> None:
        """Passed on to whoever wants to know."""
        self.discovery.look(frame, pose, depth)
        if isinstance(self.outliner, LooksFirst):
            self.outliner.look(frame, pose, depth)

    def begin_after(self, object_id: int) -> None:
        """See `GivesIds`."""
        self._next_id = max(self._next_id, object_id + 1)

    def masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        """(H, W) object ids of the next frame."""
        if any(held.camera.size != frame.camera.size for held in self._frames.values()):
            self.reset()
        self.discovery.push(frame, self._by_keys(hint))
        self._outlined[frame.index] = self._heard(self.outliner.masks(frame, hint))  # may raise: then it is not kept
        self._frames[frame.index] = frame
        while len(self._frames) > self._keep:
            self._outlined.pop(self._frames.popitem(last=False)[0], None)
        if frame.detections is not None:
            self.discovery.hear(frame, frame.detections, self._outlined[frame.index])
        self._settle(frame.index)
        self._revised.discard(frame.index)
        return self._shown(frame.index)

    def hear_detections(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Detections of a frame that has been seen before, in its pixels."""
        if frame.index in self._outlined:
            self.discovery.hear(frame, detections, self._outlined[frame.index])
            self._settle(next(reversed(self._frames)))

    def refresh(self, frame: Frame, prompts: Sequence[Prompt]) -> IntArray | None:
        """(H, W) ids of a seen frame, asked anew for the objects that the outliner follows."""
        waiting = {link.object_id for link in self._links.values() if not link.outlined}
        fresh = self.outliner.refresh(frame, [prompt for prompt in prompts if prompt.object_id not in waiting])
        if fresh is None or frame.index not in self._outlined:
            return fresh
        self._outlined[frame.index] = self._heard(fresh)
        return self._shown(frame.index)

    def prompt(self, frame: Frame, prompt: Prompt) -> None:
        """A person's word: the object is the outliner's from then on, whatever its discovery thinks."""
        object_id = prompt.object_id or self._next_id
        self._next_id = max(self._next_id, object_id + 1)
        mine = [key for key, link in self._links.items() if link.object_id == object_id]
        if prompt.delete and mine and not any(self._links[key].outlined for key in mine):
            self._withdraw(object_id)
        else:
            self.outliner.prompt(frame, replace(prompt, object_id=object_id))
            self._take_revisions()
        for key in mine:
            if prompt.delete:
                self._links[key].object_id = 0  # it is known, and not wanted
            elif prompt.marks:
                self._links[key].outlined = True

    def revise_poses(self, poses: dict[int, FloatArray]) -> None:
        """Passed on to whoever lives by the camera's path."""
        self.discovery.revise_poses(poses)
        if isinstance(self.outliner, HearsOfPoses):
            self.outliner.revise_poses(poses)

    def revised_masks(self) -> dict[int, IntArray]:
        """Frame index -> (H, W) ids, of what has changed since it was last asked."""
        self._take_revisions()
        revised, self._revised = sorted(self._revised), set()
        return {index: self._shown(index) for index in revised if index in self._frames}

    def finish(self) -> None:
        """The input ends."""
        self.discovery.finish()
        if isinstance(self.outliner, LooksAhead):
            self.outliner.finish()
        if self._frames:
            self._take_revisions()
            self._settle(next(reversed(self._frames)))

    def reset(self) -> None:
        """Forgets everything; ids go on."""
        self.outliner.reset()
        self.discovery.reset()
        self._frames.clear()
        self._outlined.clear()
        self._links.clear()
        self._revised.clear()

    # ---- from proposals to objects ----------------------------------------------------------------------------------

    def _settle(self, newest: int) -> None:
        """Takes over what is proposed, and gives up what is taken back."""
        for key in self.discovery.gone():
            self._take_back(key)
        for proposal in self.discovery.proposals(list(self._frames)):
            link = self._links.get(proposal.key)
            if link is None or not (link.outlined or link.tries >= TRIES or newest < link.next_try):
                self._take_over(proposal, newest)
        if changed := self.discovery.changed():
            self._revised |= changed & set(self._frames)

    def _take_over(self, proposal: Proposal, newest: int) -> None:
        """Makes an object of a proposal: a known one, one of the outliner's, or for now as it was found."""
        known = self._known(proposal)
        link = self._links.setdefault(proposal.key, _Link())
        while len(self._links) > MOST_LINKS:
            del self._links[min(self._links)]
        link.tries += 1
        link.next_try = newest + FIRST_WAIT * 2 ** (link.tries - 1)
        if known is not None and known != link.object_id:
            link.object_id, link.outlined = known, True
            return
        if link.object_id == 0 and not self._is_a_thing(proposal):
            return
        object_id = link.object_id or self._next_id
        link.outlined = self._ask(proposal, object_id, newest)
        if link.outlined or proposal.region is not None:  # else nobody has ever seen the id
            link.object_id, self._next_id = object_id, max(self._next_id, object_id + 1)

    def _ask(self, proposal: Proposal, object_id: int, newest: int) -> bool:
        """Prompts the outliner; whether its answer stands a second look. If not, it is undone."""
        frame = self._frames[proposal.index]
        positive = np.ones(len(proposal.points_px), bool)
        prompt = Prompt(frame.stamp_ns, object_id, proposal.points_px, positive, proposal.box_px)
        try:
            self.outliner.prompt(frame, prompt)
        except Motion4DError:  # the network finds nothing there
            return False
        self._take_revisions()
        now = self.discovery.regions(newest)
        later = now == proposal.key if now is not None and newest != proposal.index else None
        if self._stands(self._outlined[proposal.index] == object_id, proposal.box_px, proposal.region) and (
            later is None or not later.any() or self._stands(self._outlined[newest] == object_id, None, later)
        ):
            return True
        self._withdraw(object_id)
        return False

    def _is_a_thing(self, proposal: Proposal) -> bool:
        """Whether its points alone mean the same as with its box; True where nobody can tell."""
        frame, count = self._frames[proposal.index], len(proposal.points_px)
        if count == 0 or not isinstance(self.outliner, Outlines):
            return True
        prompt = Prompt(frame.stamp_ns, 0, proposal.points_px, np.ones(count, bool))
        alone = self.outliner.outline(frame, prompt)
        boxed = self.outliner.outline(frame, replace(prompt, box_px=proposal.box_px))
        if alone is None or boxed is None:
            return True
        return bool((alone & boxed).sum() >= STABLE * (alone | boxed).sum())

    @staticmethod
    def _stands(answer: BoolArray, box_px: FloatArray | None, region: BoolArray | None) -> bool:
        """Whether an outline (H, W) is of what was seen: in a box (4,), or a region (h, w)."""
        area = int(answer.sum())
        if area == 0:
            return False
        if region is None:
            _, boxes = boxes_of(answer.astype(np.int32))
            return box_px is None or bool(fit_of(overlaps(boxes, box_px[None]))[0, 0] > 0)
        seen = _at_size(region, answer.shape)
        return bool((answer & seen).sum() >= COVERED * seen.sum() and area <= RUN_AWAY * seen.sum())

    def _known(self, proposal: Proposal) -> int | None:
        """The object in whose outline a proposal lies; None if it is something new."""
        labels = self._outlined[proposal.index]
        if proposal.region is None:
            ids, boxes = boxes_of(labels)
            fit = fit_of(overlaps(boxes, proposal.box_px[None]))[:, 0] if ids else np.zeros(0)
            return ids[int(fit.argmax())] if ids and fit.max() > 0 else None
        inside = labels[_at_size(proposal.region, labels.shape)]
        values, counts = np.unique(inside[inside > 0], return_counts=True)
        if len(values) == 0 or counts.max() < SAME_THING * inside.size:
            return None
        return int(values[counts.argmax()])

    def _take_back(self, key: int) -> None:
        """A proposal has turned out to be nothing: its object goes, unless another stands for it."""
        link = self._links.pop(key, None)
        if link is None or link.object_id == 0:
            return
        self._revised |= set(self._frames)  # it may have been shown as it was found
        if not any(other.object_id == link.object_id for other in self._links.values()):
            self._withdraw(link.object_id)

    def _withdraw(self, object_id: int) -> None:
        stamp_ns = next(reversed(self._frames.values())).stamp_ns
        self.outliner.prompt(next(reversed(self._frames.values())), Prompt(stamp_ns, object_id, delete=True))
        self._take_revisions()
        for index, labels in self._outlined.items():
            if (labels == object_id).any():
                self._outlined[index] = np.where(labels == object_id, 0, labels)
                self._revised.add(index)

    # ---- labels -----------------------------------------------------------------------------------------------------

    def _heard(self, labels: IntArray) -> IntArray:
        """Labels of the outliner, whose ids are taken."""
        largest = int(labels.max(initial=0))
        self._next_id = max(self._next_id, largest + 1)
        return labels.astype(np.int16) if largest < 2**15 else labels  # many are held

    def _take_revisions(self) -> None:
        revised = self.outliner.revised_masks() if isinstance(self.outliner, RevisesMasks) else {}
        for index, labels in revised.items():
            if index in self._frames:
                self._outlined[index] = self._heard(labels)
                self._revised.add(index)

    def _shown(self, index: int) -> IntArray:
        """(H, W) ids: as outlined, and as found where there is no outline."""
        labels = self._outlined[index].astype(np.int32)
        regions = self.discovery.regions(index)
        if regions is None:
            return labels
        outlined = set(np.unique(labels).tolist())
        table = np.zeros(int(regions.max(initial=0)) + 1, np.int32)
        for key, link in self._links.items():
            if key < len(table) and (not link.outlined or link.object_id not in outlined):
                table[key] = link.object_id
        found = table[np.maximum(regions, 0)]
        if not found.any():
            return labels
        grown = grow_labels(found, (labels.shape[0], labels.shape[1]))
        return np.where(labels == 0, grown, labels).astype(np.int32)

    def _by_keys(self, hint: SceneHint | None) -> SceneHint | None:
        """A hint whose labels are the discovery's keys."""
        if hint is None or hint.masks is None:
            return hint
        table = np.zeros(int(hint.masks.max(initial=0)) + 1, np.int32)
        for key, link in self._links.items():
            if 0 < link.object_id < len(table):
                table[link.object_id] = key
        return replace(hint, masks=table[np.maximum(hint.masks, 0)])


def _at_size(region: BoolArray, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """A region (h, w) at another size (H, W)."""
    if region.shape == size:
        return region
    return np.asarray(cv2.resize(region.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0)
