"""Masks from a network that remembers what each object looked like: `masks.source: sam2 | edgetam`.

The network runs as a stream (`models/video/segmenter.py`). A person starts and corrects objects at any time; the
semantic stage refreshes frames of the current window by boxes and points, never by a rendered mask.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.models.sam_onnx import full_size
from motion4d_ros.models.video.choice import load_segmenter
from motion4d_ros.models.video.segmenter import VideoSegmenter
from motion4d_ros.priors.interfaces import SceneHint
from motion4d_ros.priors.masks.prompting import ObjectBook, labels_from, read_marks, read_prompt
from motion4d_ros.priors.masks.sam_onnx import SMALLEST_AREA
from motion4d_ros.types import BoolArray, Frame, IntArray, Motion4DError, Prompt


class VideoNetworkMasks:
    """Until something is prompted every pixel is background. The last frames are kept for corrections."""

    accepts_prompts = True
    full_size = True

    def __init__(self, config: Config, network: VideoSegmenter | None = None) -> None:
        self._network = network or load_segmenter(config)
        self._keep = max(4, 2 * config.window.length)
        self._keep_features = config.window.length + 1
        self._state: Any = None
        self._size: tuple[int, int] = (0, 0)
        self._logits: OrderedDict[int, dict[int, NDArray[np.float16]]] = OrderedDict()  # frame -> object -> (h, w)
        self._book = ObjectBook()
        self._revised: dict[int, NDArray[np.int32]] = {}

    @property
    def names(self) -> dict[int, str]:
        """Names given by prompts, by object id."""
        return self._book.names

    @property
    def object_ids(self) -> list[int]:
        """Ids of the objects being followed."""
        return [] if self._state is None else self._network.object_ids(self._state)

    def masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        """(H, W) object ids of the next frame. The hint is not needed: such a network has a memory of its own.

        What the network raises is raised at the end.
        """
        state = self._take(frame)
        failed: Exception | None = None
        for object_id in self.object_ids:
            try:
                self._keep_answer(frame.index, object_id, self._network.track(state, frame.index, object_id))
            except Exception as error:  # the others are followed all the same
                failed = error
        if failed is not None:
            self._network.trim(state, self._keep)
            raise failed
        if frame.masks is not None and not self.object_ids:  # ids that came with the frame start the objects
            for object_id in np.unique(frame.masks[frame.masks > 0]):
                self.prompt(frame, Prompt(frame.stamp_ns, int(object_id), mask=frame.masks == object_id))
        self._network.trim(state, self._keep)
        return self._labels(frame.index)

    def refresh(self, frame: Frame, prompts: Sequence[Prompt]) -> IntArray | None:
        """(H, W) ids of a seen frame, asked anew for the given objects; the others stay as they were. None if the
        frame is kept no longer.

        Only points and boxes are used: such networks follow mask prompts so strictly that they would lose their fine
        outlines.
        """
        if frame.index not in self._logits or frame.camera.size != self._size:
            return None
        state = self._recall(frame)
        for prompt in prompts:
            pointed = read_prompt(frame, prompt)
            if len(pointed.points_px) == 0 and pointed.box_px is None:
                continue
            object_id = self._book.id_of(prompt)
            answer = self._network.refresh(
                state, frame.index, object_id, pointed.points_px, pointed.positive, pointed.box_px
            )
            self._keep_answer(frame.index, object_id, answer)
        return self._labels(frame.index)

    def prompt(self, frame: Frame, prompt: Prompt) -> None:
        """Starts, corrects, renames or deletes an object; frames kept since then change too (`revised_masks`)."""
        object_id = self._book.id_of(prompt)
        if prompt.delete:
            self._delete(object_id)
            return
        pointed = read_marks(frame, prompt)
        if pointed is None:
            return
        if pointed.mask is not None and pointed.mask.sum() < SMALLEST_AREA:
            raise Motion4DError("the prompt's mask is empty: mark the object")
        state = self._recall(frame)
        answer = self._network.prompt(
            state, frame.index, object_id, pointed.points_px, pointed.positive, pointed.box_px, pointed.mask
        )
        self._keep_answer(frame.index, object_id, answer)
        self._revised[frame.index] = self._labels(frame.index)
        for index in [i for i in self._logits if i > frame.index]:
            self._keep_answer(index, object_id, self._network.track(state, index, object_id))
            self._revised[index] = self._labels(index)
        self._network.trim(state, self._keep)

    def outline(self, frame: Frame, prompt: Prompt) -> BoolArray | None:
        """(H, W) what points and box of a prompt mean in a seen frame, nothing is started; None if it is not kept."""
        if frame.index not in self._logits or frame.camera.size != self._size:
            return None
        pointed = read_prompt(frame, prompt)
        logits = self._network.outline(self._state, frame.index, pointed.points_px, pointed.positive, pointed.box_px)
        return full_size(_as_array(logits), self._size) > 0

    def revised_masks(self) -> dict[int, NDArray[np.int32]]:
        """Masks of seen frames that a prompt has changed since the last call: index -> (H, W) ids."""
        revised, self._revised = self._revised, {}
        return revised

    def reset(self) -> None:
        """Forgets everything; ids go on."""
        self._state = None
        self._logits.clear()
        self._revised.clear()

    def _take(self, frame: Frame) -> Any:
        if self._state is not None and frame.camera.size != self._size:
            self.reset()
        if self._state is None:
            self._size = frame.camera.size
            self._state = self._network.open_state(self._size, self._keep_features)
        if frame.index not in self._logits:
            self._network.append(self._state, frame.index, frame.image)
            self._logits[frame.index] = {}
        while len(self._logits) > self._keep:
            self._logits.popitem(last=False)
        return self._state

    def _recall(self, frame: Frame) -> Any:
        if self._logits and frame.index not in self._logits and frame.index < next(reversed(self._logits)):
            raise Motion4DError(f"prompt for frame {frame.index}: it is no longer kept, prompt a newer one")
        return self._take(frame)

    def _keep_answer(self, index: int, object_id: int, logits: Any) -> None:
        self._logits[index][object_id] = _as_array(logits)

    def _labels(self, index: int) -> NDArray[np.int32]:
        found = {key: full_size(value, self._size) for key, value in self._logits[index].items()}
        return labels_from(found, self._size)

    def _delete(self, object_id: int) -> None:
        self._book.names.pop(object_id, None)
        if self._state is not None:
            self._network.forget(self._state, object_id)
        for index, found in self._logits.items():
            if found.pop(object_id, None) is not None:
                self._revised[index] = self._labels(index)


def _as_array(logits: Any) -> NDArray[np.float16]:
    """(h, w) of a tensor (1, 1, h, w) of logits."""
    return np.asarray(logits[0, 0].float().clamp(-100.0, 100.0).cpu().numpy(), np.float16)
