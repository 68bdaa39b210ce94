"""Masks from a SAM-style ONNX pair: the light way for CPUs and Jetsons. Set `masks.source` to `sam_onnx`.

Such a network knows single images only. Each object's mask is carried into the next frame along the flow of the
object's own inside, and its box, the mask itself and its innermost point ask the network for the new outline. The
network's answer counts if it looks like the object did before (mean of the image embedding inside the mask); otherwise
the object is hidden, and is looked for where it was last seen and where the scene predicts it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.geometry.image_warping import warp
from motion4d_ros.models.sam_onnx import Decoded, Embedding, SamOnnx, full_size
from motion4d_ros.models.store import ModelStore
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.interfaces import SceneHint
from motion4d_ros.priors.masks.discovery.proposals import scaled_box, scaled_pixels
from motion4d_ros.priors.masks.outline_belief import OutlineBelief
from motion4d_ros.priors.masks.prompting import ObjectBook, inner_point, labels_from, read_marks, read_prompt
from motion4d_ros.priors.masks.propagation.mask_cues import own_flow
from motion4d_ros.types import BoolArray, FloatArray, Frame, IntArray, Motion4DError, Prompt

LOOKS_ALIKE = 0.82  # cosine; measured: the object itself >= 0.91, its surroundings <= 0.75 (docs/how-to/models.md)
LOOKS_BETTER = 0.005  # gain of cosine that a refreshed mask must bring: rendered boxes are rarely exact
LOOKS_RENEWED = 0.05  # share of the newest look in the remembered one
AREA_RATIO = 4.0  # largest jump of the area from one frame to the next
SMALLEST_AREA = 16  # px
SEARCH_FRAMES = 150  # frames during which a hidden object is looked for where it was last seen
CERTAIN = 8.0  # logit of a person's mask
CLICKS = 2  # times that the network is asked again
SURE, DEEP = 1.0, 4.0  # log-odds, and px at the flow's size, from which an answer is told to be wrong


@dataclass
class Followed:
    """One object."""

    object_id: int
    soft: NDArray[np.float32]  # (H, W) in [0, 1]: its mask where it was last seen, carried to the newest frame
    look: NDArray[np.float32]  # (C,) remembered appearance
    area: float  # px, when last seen
    since: int  # frame in which it was first marked
    hidden_for: int = 0  # frames


@dataclass
class Seen:
    """A frame that may still be corrected. Features rest in half precision."""

    features: NDArray[np.float16]
    size: tuple[int, int]
    logits: dict[int, NDArray[np.float16]] = field(default_factory=dict)  # by visible object, at any resolution

    @property
    def embedding(self) -> Embedding:
        """As the decoder wants it."""
        return Embedding(self.features.astype(np.float32), self.size)

    def labels(self) -> NDArray[np.int32]:
        """(H, W) ids."""
        return labels_from({key: full_size(value, self.size) for key, value in self.logits.items()}, self.size)


class SamOnnxMasks:
    """Until something is prompted every pixel is background. The last frames are kept for corrections."""

    accepts_prompts = True
    full_size = True

    def __init__(self, config: Config, sam: SamOnnx | None = None, flow: FlowCache | None = None) -> None:
        self._sam = sam or load_sam(config)
        self._keep = max(4, 2 * config.window.length)
        self._flow = flow or FlowCache(keep=self._keep)
        self._belief = OutlineBelief(self._flow)
        self._seen: OrderedDict[int, Seen] = OrderedDict()
        self._objects: dict[int, Followed] = {}
        self._book = ObjectBook()
        self._revised: dict[int, NDArray[np.int32]] = {}

    @property
    def names(self) -> dict[int, str]:
        """Names given by prompts, by object id."""
        return self._book.names

    def masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        """(H, W) object ids of the next frame. What the network raises is raised at the end."""
        seen = self._take(frame)
        embedding = seen.embedding
        failed: Exception | None = None
        for item in self._objects.values():
            try:
                self._follow(item, frame.index, embedding, seen, hint)
            except Exception as error:  # the others are followed all the same
                failed = error
        self._belief.occupy(frame.index, seen.labels() > 0)
        if failed is not None:
            raise failed
        if frame.masks is not None and not self._objects:  # ids that came with the frame start the objects
            for object_id in np.unique(frame.masks[frame.masks > 0]):
                self.prompt(frame, Prompt(frame.stamp_ns, int(object_id), mask=frame.masks == object_id))
        return seen.labels()

    def refresh(self, frame: Frame, prompts: Sequence[Prompt]) -> IntArray | None:
        """(H, W) ids of a seen frame, asked anew for the given objects; the others stay as they were. None if the
        frame is kept no longer.

        Only points and boxes are used. A mask in a prompt is ignored: networks follow mask prompts so strictly that a
        rendered mask's blur would become the answer. The answer counts where it looks more like the object than the
        present mask does: the scene may be wrong, too.
        """
        if not self._keeps(frame):
            return None
        seen = self._recall(frame)
        embedding = seen.embedding
        for prompt in prompts:
            pointed = read_prompt(frame, prompt)
            if len(pointed.points_px) == 0 and pointed.box_px is None:
                continue
            answer = self._sam.decode(embedding, pointed.points_px, pointed.positive, pointed.box_px)
            if (answer.logits > 0).sum() < SMALLEST_AREA:
                continue  # an empty answer to a rendered object is the network's failure, not news
            object_id = self._book.id_of(prompt)
            if self._plausible(object_id, answer.logits > 0, embedding, seen):
                self._settle(object_id, answer.logits, answer.low, frame.index, seen)
        return seen.labels()

    def prompt(self, frame: Frame, prompt: Prompt) -> None:
        """Starts, corrects, renames or deletes an object; frames kept since then change too (`revised_masks`)."""
        object_id = self._book.id_of(prompt)
        if prompt.delete:
            self._delete(object_id)
            return
        pointed = read_marks(frame, prompt)
        if pointed is None:
            return
        seen = self._recall(frame)
        if pointed.mask is not None:
            logits = kept = np.where(pointed.mask, CERTAIN, -CERTAIN).astype(np.float32)
        else:
            known = seen.logits.get(object_id)
            prior = None if known is None else _probability(full_size(known, seen.size))
            answer = self._sam.decode(seen.embedding, pointed.points_px, pointed.positive, pointed.box_px, prior)
            logits, kept = answer.logits, answer.low
        if (logits > 0).sum() < SMALLEST_AREA:
            raise Motion4DError("the prompt marks nothing: point at the object, or draw a box around it")
        self._objects.pop(object_id, None)  # what it looked like before is no longer believed
        self._settle(object_id, logits, kept, frame.index, seen)
        self._replay(object_id, frame.index)

    def outline(self, frame: Frame, prompt: Prompt) -> BoolArray | None:
        """(H, W) what points and box of a prompt mean in a seen frame, nothing is started; None if it is not kept."""
        if not self._keeps(frame):
            return None
        pointed = read_prompt(frame, prompt)
        embedding = self._seen[frame.index].embedding
        return self._sam.decode(embedding, pointed.points_px, pointed.positive, pointed.box_px).logits > 0

    def revised_masks(self) -> dict[int, NDArray[np.int32]]:
        """Masks of seen frames that a prompt has changed since the last call: index -> (H, W) ids."""
        revised, self._revised = self._revised, {}
        return revised

    def reset(self) -> None:
        """Forgets everything; ids go on."""
        self._flow.reset()
        self._belief.reset()
        self._seen.clear()
        self._objects.clear()
        self._revised.clear()

    def _take(self, frame: Frame) -> Seen:
        """Encodes a frame (once) and drops the oldest."""
        if any(seen.size != frame.camera.size for seen in self._seen.values()):
            self.reset()
        self._flow.push(frame)
        if frame.index not in self._seen:
            embedding = self._sam.embed(frame.image)
            previous = next(reversed(self._seen), None)
            before = None if previous is None else self._seen[previous].labels() > 0
            self._belief.link(frame.index, previous, before)
            self._seen[frame.index] = Seen(embedding.features.astype(np.float16), embedding.size)
        while len(self._seen) > self._keep:
            self._seen.popitem(last=False)
        return self._seen[frame.index]

    def _keeps(self, frame: Frame) -> bool:
        """Whether a frame can still be asked about, at the size at which it was seen."""
        return frame.index in self._seen and self._seen[frame.index].size == frame.camera.size

    def _recall(self, frame: Frame) -> Seen:
        if self._keeps(frame):
            return self._seen[frame.index]
        if self._seen and frame.index <= next(reversed(self._seen)):
            raise Motion4DError(f"prompt for frame {frame.index}: it is no longer kept, prompt a newer one")
        return self._take(frame)

    def _delete(self, object_id: int) -> None:
        self._objects.pop(object_id, None)
        self._book.names.pop(object_id, None)
        for index, seen in self._seen.items():
            if seen.logits.pop(object_id, None) is not None:
                self._revised[index] = seen.labels()

    def _settle(
        self, object_id: int, logits: NDArray[np.float32], kept: NDArray[np.float32], index: int, seen: Seen
    ) -> None:
        """Takes over an answer that is vouched for (by a person or by the scene); `kept` is stored for later."""
        seen.logits[object_id] = kept.astype(np.float16)
        if index != next(reversed(self._seen)):
            return  # an older frame: the newest one has its own answer
        mask = logits > 0
        look = seen.embedding.describe(mask)
        item = self._objects.get(object_id)
        if item is None:
            self._objects[object_id] = Followed(object_id, _mask(logits), look, float(mask.sum()), index)
            return
        item.soft, item.area, item.hidden_for = _mask(logits), float(mask.sum()), 0
        item.look = _blend(item.look, look)

    def _plausible(self, object_id: int, mask: BoolArray, embedding: Embedding, seen: Seen) -> bool:
        """Whether a refreshed mask looks like the object where the present one doesn't, or at least more like it."""
        item = self._objects.get(object_id)
        if item is None:
            return True
        likeness = float(embedding.describe(mask) @ item.look)
        present = seen.logits.get(object_id)
        if present is None:
            return likeness > LOOKS_ALIKE
        kept = float(embedding.describe(full_size(present, seen.size) > 0) @ item.look)
        return likeness > LOOKS_ALIKE and (kept < LOOKS_ALIKE or likeness > kept + LOOKS_BETTER)

    def _replay(self, object_id: int, start: int) -> None:
        """Follows an object from the kept frame `start` to the newest, after a prompt in the past."""
        first = self._seen[start]
        self._revised[start] = first.labels()
        self._belief.occupy(start, self._revised[start] > 0)
        if start == next(reversed(self._seen)):
            return
        logits = full_size(first.logits[object_id], first.size)
        mask = logits > 0
        item = Followed(object_id, _mask(logits), first.embedding.describe(mask), float(mask.sum()), start)
        self._objects[object_id] = item
        for index in [i for i in self._seen if i > start]:
            seen = self._seen[index]
            seen.logits.pop(object_id, None)
            self._follow(item, index, seen.embedding, seen, None)
            self._revised[index] = seen.labels()
            self._belief.occupy(index, self._revised[index] > 0)

    def _follow(self, item: Followed, index: int, embedding: Embedding, seen: Seen, hint: SceneHint | None) -> None:
        """Finds one object in frame `index`, or notes that it is hidden.

        The scene's prediction is tried only for an object that was not found where the flow carried it: a prediction
        that is off cuts away what it does not cover, and the network can't tell a part from the whole.
        """
        carried = item.soft = self._carry(item.soft, index, hint)
        if item.hidden_for < SEARCH_FRAMES and self._find(item, carried, index, embedding, seen):
            return
        if hint is not None and hint.masks is not None:
            predicted = (hint.masks == item.object_id).astype(np.float32)
            if self._find(item, predicted, index, embedding, seen):
                return
        item.hidden_for += 1

    def _find(self, item: Followed, soft: NDArray[np.float32], index: int, embedding: Embedding, seen: Seen) -> bool:
        """Whether the object is where the mask `soft` (H, W) points in frame `index`; if so, it is taken over."""
        if (soft > 0.5).sum() < SMALLEST_AREA:
            return False
        answer = self._ask(embedding, self._belief.of(index, soft, item.since, self._before(index)))
        mask = answer.logits > 0
        area = float(mask.sum())
        if not item.area / AREA_RATIO <= area <= item.area * AREA_RATIO or area < SMALLEST_AREA:
            return False
        look = embedding.describe(mask)
        if float(look @ item.look) <= LOOKS_ALIKE:
            return False
        item.soft, item.area, item.look, item.hidden_for = _mask(answer.logits), area, _blend(item.look, look), 0
        seen.logits[item.object_id] = answer.low.astype(np.float16)
        return True

    def _ask(self, embedding: Embedding, belief: NDArray[np.float32]) -> Decoded:
        """The network's outline of what is believed (h, w), log-odds, to be the object: by its box, its innermost point
        and itself. Where the answer and the belief part, it is asked again with a point there, as a person would.
        """
        mask = belief > 0
        if not mask.any():
            return Decoded(np.full(embedding.size, -CERTAIN, np.float32), np.zeros((1, 1), np.float32), 0.0)
        points, positive = [inner_point(mask)], [True]
        box = scaled_box(mask, embedding.size)
        prior = _probability(belief)
        best: Decoded | None = None
        for _ in range(1 + CLICKS):
            at = scaled_pixels(np.array(points), (mask.shape[0], mask.shape[1]), embedding.size)
            answer = self._sam.decode(embedding, at, positive, box, prior)
            if best is not None and _agreement(answer, belief) <= _agreement(best, belief):
                break
            best = answer
            corrections = clicks(full_size(answer.low, (mask.shape[0], mask.shape[1])) > 0, belief)
            if not corrections:
                break
            points += [point for point, _ in corrections]
            positive += [sign for _, sign in corrections]
            prior = _probability(answer.low)
        assert best is not None
        return best

    def _before(self, index: int) -> int | None:
        """The frame seen before `index`, whose flow is still held."""
        order = list(self._seen)
        position = order.index(index)
        if position == 0 or not (self._flow.has(order[position - 1]) and self._flow.has(index)):
            return None
        return order[position - 1]

    def _carry(self, soft: NDArray[np.float32], index: int, hint: SceneHint | None) -> NDArray[np.float32]:
        """(H, W) the previous frame's soft mask seen from frame `index`."""
        previous = self._before(index)
        if previous is None:
            return soft
        height, width = self._flow.size
        small = cv2.resize(soft, (width, height), interpolation=cv2.INTER_AREA)
        back = self._flow.between(index, previous)
        error = self._flow.error(index, previous)
        back = own_flow(back, warp(small, back), error)
        if hint is not None and hint.flow_px is not None and _unreliable(error, warp(small, back)):
            return _push(soft, hint.flow_px)
        full = cv2.resize(back, soft.shape[::-1], interpolation=cv2.INTER_LINEAR)
        full = full * np.array([soft.shape[1] / width, soft.shape[0] / height], np.float32)
        return np.asarray(warp(soft, full, border=0.0), np.float32)


def load_sam(config: Config) -> SamOnnx:
    """The network `masks.model` names: one of the registry, or a folder with `*encoder*.onnx` and another `.onnx`."""
    located = ModelStore(config.models.folder).resolve(config.masks.model, "sam_onnx", {"sam_onnx"}, "masks.model")
    if located.model is not None:
        encoder, decoder = located.paths
        return SamOnnx(encoder, decoder, config)
    folder = located.paths[0]
    files = sorted(folder.glob("*.onnx")) if folder.is_dir() else []
    encoders = [path for path in files if "encoder" in path.name]
    decoders = [path for path in files if path not in encoders]
    if len(encoders) != 1 or len(decoders) != 1:
        raise Motion4DError(f"masks.model={folder}: expected a folder with one *encoder*.onnx and one decoder .onnx")
    sam = SamOnnx(encoders[0], decoders[0], config)
    sam.try_out()  # nobody has checked that these belong together
    return sam


def clicks(mask: BoolArray, belief: NDArray[np.float32]) -> list[tuple[FloatArray, bool]]:
    """Points x, y deep inside what a mask (h, w) leaves out or takes in against the belief (h, w), and their signs."""
    found = []
    for wrong, sign in (((belief > SURE) & ~mask, True), ((belief < -SURE) & mask, False)):
        depth = cv2.distanceTransform(np.pad(wrong.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        if depth.max() > DEEP:
            found.append((inner_point(wrong), sign))
    return found


def _agreement(answer: Decoded, belief: NDArray[np.float32]) -> float:
    """Log-odds of an outline, by what is believed (h, w)."""
    mask = full_size(answer.low, (belief.shape[0], belief.shape[1])) > 0
    return float(belief[mask].sum())


def _probability(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -30, 30))), np.float32)


def _mask(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return (logits > 0).astype(np.float32)


def _blend(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
    mixed = (1 - LOOKS_RENEWED) * old + LOOKS_RENEWED * new
    return np.asarray(mixed / (np.linalg.norm(mixed) + 1e-9), np.float32)


def _unreliable(error: NDArray[np.float32], soft: NDArray[np.float32]) -> bool:
    """Whether forward and backward flow disagree by more than 3 px over most of the object."""
    inside = error[soft > 0.5]
    return inside.size > 0 and float(np.median(inside)) > 3.0


def _push(soft: NDArray[np.float32], flow_px: FloatArray) -> NDArray[np.float32]:
    """A soft mask moved along forward flow: its pixels are thrown, the small holes between them closed."""
    height, width = soft.shape
    y, x = np.nonzero(soft > 0.5)
    target = np.round(np.stack([x, y], -1) + flow_px[y, x])
    good = np.isfinite(target).all(1) & (target >= 0).all(1) & (target < [width, height]).all(1)
    out = np.zeros((height, width), np.uint8)
    at = target[good].astype(int)
    out[at[:, 1], at[:, 0]] = 1
    return cv2.morphologyEx(out, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)).astype(np.float32)
