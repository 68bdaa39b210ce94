"""SAM 2 and EdgeTAM of `transformers`, fed frame by frame (Ravi et al., 2024; Zhou et al., "EdgeTAM", 2025).

A session of `transformers` keeps every frame, and all that was ever said of it. Here each object has a session of its
own, so that it can be asked, corrected and forgotten by itself; images and features are shared by all of them, and what
the memory no longer looks at is dropped: time and memory per frame stay constant.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoConfig,
    EdgeTamVideoInferenceSession,
    EdgeTamVideoModel,
    Sam2VideoInferenceSession,
    Sam2VideoModel,
)

from motion4d_ros.config import Config
from motion4d_ros.models.onnx_session import normalisation
from motion4d_ros.models.transformers_loading import device_and_type, kind_of, load_pretrained
from motion4d_ros.models.video.segmenter import PROBE
from motion4d_ros.types import BoolArray, FloatArray, Motion4DError

PIXELS_PER_TOKEN = 32  # image sides must be a multiple: four stages of the backbone and its windows
STRIDES = (4, 8, 16)  # px, of the feature maps
MAX_CONDITIONING = 4  # frames with a person's prompts that an object remembers: the first one and the newest ones
FIRST_MANY = 1 << 30  # "number of frames" of a stream; the models only take the minimum with it
LABEL_BOX = (2, 3)  # of the two corners
SUREST = 32.0  # logit: more is not shown to the decoder as the present mask


class _Features:
    """Features of the newest frames, in place of the session's own cache. One copy of the position codes for all."""

    def __init__(self, keep: int) -> None:
        self._keep, self._codes = keep, list[Any]()
        self.held: OrderedDict[int, Any] = OrderedDict()

    def get_vision_features(self, frame_idx: int) -> dict[str, Any] | None:
        """As the models ask for them; None where they must be computed."""
        found = self.held.get(frame_idx)
        return None if found is None else {"vision_feats": found, "vision_pos_embeds": self._codes}

    def cache_vision_features(self, frame_idx: int, features: dict[str, Any]) -> None:
        """As the models hand them over."""
        self._codes = self._codes or [features["vision_pos_embeds"][-1]]  # the coarsest alone is looked at
        self.held[frame_idx] = features["vision_feats"]
        while len(self.held) > self._keep:
            self.held.popitem(last=False)

    def clear_all(self) -> None:
        """Forgets all."""
        self.held.clear()


@dataclass
class VideoState:
    """What is remembered of one video."""

    size: tuple[int, int]  # (height, width) of its images
    features: _Features
    images: dict[int, NDArray[np.uint8]] = field(default_factory=dict)  # at the network's size, by frame
    sessions: OrderedDict[int, Any] = field(default_factory=OrderedDict)  # by object


class _OneObject:
    """One object's session: frames come from the state that it shares with the others."""

    def share(self, state: VideoState, number: torch.dtype) -> Any:
        """Takes images and features from `state`."""
        self._state, self.cache, self.dtype = state, state.features, number
        return self

    @property
    def num_frames(self) -> int:
        """More than ever come."""
        return FIRST_MANY

    def get_frame(self, frame_idx: int) -> torch.Tensor:
        """(3, side, side) normalised image."""
        mean, deviation = normalisation("imagenet")
        image = (self._state.images[frame_idx].astype(np.float32) - mean) / deviation
        planes = torch.as_tensor(image.transpose(2, 0, 1)).contiguous()
        return planes.to(self.inference_device, self.dtype)  # type: ignore[attr-defined]


class _Sam2Session(_OneObject, Sam2VideoInferenceSession):  # type: ignore[misc,unused-ignore]
    pass


class _EdgeTamSession(_OneObject, EdgeTamVideoInferenceSession):  # type: ignore[misc,unused-ignore]
    pass


class _Corrected:
    """A model that shows its decoder what it said before, where a person corrects that."""

    present: torch.Tensor | None = None  # (1, 1, h, w) logits

    def _run_single_frame_inference(self, *arguments: Any, **named: Any) -> Any:
        named.setdefault("prev_sam_mask_logits", self.present)
        return super()._run_single_frame_inference(*arguments, **named)  # type: ignore[misc]


class _Sam2(_Corrected, Sam2VideoModel):  # type: ignore[misc,unused-ignore]
    pass


class _EdgeTam(_Corrected, EdgeTamVideoModel):  # type: ignore[misc,unused-ignore]
    pass


KINDS: dict[str, tuple[Any, Any]] = {"sam2": (_Sam2, _Sam2Session), "edgetam": (_EdgeTam, _EdgeTamSession)}
"""Class of the model and of its session, by `masks.source`."""


class TransformersSegmenter:
    """A `VideoSegmenter`. `model` is of one of the classes in `KINDS`."""

    def __init__(self, model: Any, source: str, device: str = "cpu", number: torch.dtype = torch.float32) -> None:
        self._model = model.to(device, number).eval()
        self._session, self._device, self._number = KINDS[source][1], device, number
        self.image_size = int(model.config.image_size)
        reach = max(int(model.config.num_maskmem), int(model.config.max_object_pointers_in_encoder))
        self._reach = reach  # frames that a memory is looked at

    def open_state(self, size: tuple[int, int], keep_features: int = 2) -> VideoState:
        """An empty state for images of `size` (height, width). Features of the last `keep_features` frames stay."""
        return VideoState(size, _Features(keep_features))

    def object_ids(self, state: VideoState) -> list[int]:
        """Ids of the objects being followed."""
        return list(state.sessions)

    def append(self, state: VideoState, index: int, image: NDArray[np.uint8]) -> None:
        """Adds an (H, W, 3) RGB image as frame `index`; it rests as bytes and is encoded when first looked at."""
        side = (self.image_size, self.image_size)  # the models squeeze images to a square
        method = cv2.INTER_AREA if min(image.shape[:2]) > self.image_size else cv2.INTER_LINEAR
        state.images[index] = np.asarray(cv2.resize(image, side, interpolation=method), np.uint8)

    def track(self, state: VideoState, index: int, object_id: int) -> torch.Tensor:
        """(1, 1, h, w) logits of an object in frame `index`, from its memory. Prompted frames answer as prompted."""
        return self._run(state.sessions[object_id], index)

    def prompt(
        self,
        state: VideoState,
        index: int,
        object_id: int,
        points_px: FloatArray,
        positive: BoolArray,
        box_px: FloatArray | None,
        mask: BoolArray | None,
    ) -> torch.Tensor:
        """A person's word on frame `index`: starts or corrects the object, and is remembered. (1, 1, h, w) logits.

        A correction shows the decoder the present mask, unless it brings a box or a mask, which begin anew.
        """
        known = state.sessions.get(object_id)
        session = known or self._open_session(state)
        conditioning, tracked = (session.output_dict_per_obj[0][part] for part in _PARTS)
        spoken = conditioning.pop(index, None)  # what was said here before is corrected: no memory of it
        if not conditioning:
            session.frames_tracked_per_obj[0].pop(index, None)  # or a memory would be asked for
        present = None
        if mask is not None:
            given = torch.as_tensor(self._squeezed(mask)[None, None])
            session.add_mask_inputs(0, index, given.to(self._device, self._number))
        else:
            session.add_point_inputs(0, index, self._points(state, points_px, positive, box_px))
            before = spoken or tracked.get(index)
            if before is not None and box_px is None:
                present = before["pred_masks"].clamp(-SUREST, SUREST)
        try:
            logits = self._run(session, index, present, prompted=True)
        except Exception:
            conditioning.update({} if spoken is None else {index: spoken})
            raise
        if index not in conditioning:  # corrected where it had been tracked: that is remembered all the same
            conditioning[index] = tracked.pop(index)
        session.frames_tracked_per_obj[0][index] = {"reverse": False}
        if known is None:
            state.sessions[object_id] = session
        return logits

    def refresh(
        self,
        state: VideoState,
        index: int,
        object_id: int,
        points_px: FloatArray,
        positive: BoolArray,
        box_px: FloatArray | None,
    ) -> torch.Tensor:
        """The scene's word on a tracked frame: answers from memory, points and box. (1, 1, h, w) logits.

        Unlike a person's correction it is not a conditioning frame, and the former mask, which is what the prompts
        object to, is not shown to the decoder.
        """
        session = state.sessions.get(object_id)
        if session is None:
            return self.prompt(state, index, object_id, points_px, positive, box_px, None)
        if index not in session.output_dict_per_obj[0][_PARTS[0]]:  # a person spoke there: nobody overrules them
            session.frames_tracked_per_obj[0][index] = {"reverse": False}  # memory is asked, too
            session.add_point_inputs(0, index, self._points(state, points_px, positive, box_px))
            return self._run(session, index, prompted=True)
        return self._run(session, index)

    def outline(
        self, state: VideoState, index: int, points_px: FloatArray, positive: BoolArray, box_px: FloatArray | None
    ) -> torch.Tensor:
        """(1, 1, h, w) logits of what points and box mean in frame `index`; nothing is remembered of it."""
        logits = self.prompt(state, index, PROBE, points_px, positive, box_px, None)
        self.forget(state, PROBE)
        return logits

    def forget(self, state: VideoState, object_id: int) -> None:
        """An object is followed no more."""
        state.sessions.pop(object_id, None)

    def trim(self, state: VideoState, keep_images: int) -> None:
        """Drops images older than the last `keep_images` and whatever no later frame can look at any more."""
        for index in sorted(state.images)[: max(0, len(state.images) - keep_images)]:
            del state.images[index]
        if not state.images:
            return
        oldest = min(state.images) - self._reach  # a correction of the oldest kept image still looks back this far
        for session in state.sessions.values():
            conditioning, tracked = (session.output_dict_per_obj[0][part] for part in _PARTS)
            for index in sorted(conditioning)[1 : len(conditioning) - (MAX_CONDITIONING - 1)]:
                del conditioning[index]
            for table in (tracked, session.frames_tracked_per_obj[0]):
                for index in [key for key in table if key < oldest]:
                    del table[index]

    def _open_session(self, state: VideoState) -> Any:
        session = self._session(
            video_height=state.size[0],
            video_width=state.size[1],
            inference_device=self._device,
            inference_state_device=self._device,
            dtype=self._number,
        ).share(state, self._number)
        session.obj_id_to_idx(PROBE)  # its only object, which it knows as number 0
        return session

    def _run(
        self, session: Any, index: int, present: torch.Tensor | None = None, prompted: bool = False
    ) -> torch.Tensor:
        """(1, 1, h, w) logits of a session's object in frame `index`. What is not a number is not remembered."""
        session.obj_with_new_inputs = [PROBE] if prompted else []
        tables = [session.output_dict_per_obj[0][part] for part in _PARTS]
        before = [table.get(index) for table in tables]
        self._model.present = present
        try:
            with torch.inference_mode():
                logits: torch.Tensor = self._model(inference_session=session, frame_idx=index).pred_masks
            output = tables[0].get(index) or tables[1][index]
            output.pop("high_res_masks", None)  # of use to the memory's encoder alone, and large
            _demand_finite(output)
        except Exception:
            for table, was in zip(tables, before, strict=True):
                table.pop(index, None) if was is None else table.update({index: was})
            raise
        finally:
            self._model.present = None
            session.obj_with_new_inputs = []
            for inputs in (session.point_inputs_per_obj[0], session.mask_inputs_per_obj[0]):
                inputs.pop(index, None)  # what was said is in the outputs now
        return logits

    def _points(
        self, state: VideoState, points_px: FloatArray, positive: BoolArray, box_px: FloatArray | None
    ) -> dict[str, torch.Tensor]:
        """Points (1, 1, P, 2) in the network's pixels and their labels, with a box as two corners before them."""
        coords, labels = np.asarray(points_px, float).reshape(-1, 2) + 0.5, np.asarray(positive).astype(np.int32)
        if box_px is not None:  # the models mean pixel edges, we mean pixel centres
            corners = np.asarray(box_px, float).reshape(2, 2) + np.array([[0.0, 0.0], [1.0, 1.0]])
            coords, labels = np.concatenate([corners, coords]), np.concatenate([np.array(LABEL_BOX, np.int32), labels])
        coords = coords / np.array([state.size[1], state.size[0]]) * self.image_size
        return {
            "point_coords": torch.as_tensor(coords[None, None].astype(np.float32)),
            "point_labels": torch.as_tensor(labels[None, None]),
        }

    def _squeezed(self, mask: BoolArray) -> NDArray[np.float32]:
        """(side, side) 0 or 1."""
        side = (self.image_size, self.image_size)
        method = cv2.INTER_AREA if min(mask.shape) > self.image_size else cv2.INTER_LINEAR
        return (cv2.resize(np.asarray(mask, np.float32), side, interpolation=method) >= 0.5).astype(np.float32)


_PARTS = ("cond_frame_outputs", "non_cond_frame_outputs")


def load_transformers_segmenter(folder: Path, source: str, config: Config) -> TransformersSegmenter:
    """The `source` (sam2, edgetam) in a local folder. Raises `Motion4DError` when it holds something else."""
    found = kind_of(folder, (source, f"{source}_video"), f"a {source}_video")
    device, number = device_and_type(config)
    description = None
    if config.masks.image_size:
        try:
            description = AutoConfig.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers raises its own types
            raise Motion4DError(f"{folder}: config.json is not a {found}'s ({error})".splitlines()[0]) from None
        resize(description, config.masks.image_size)
    model = load_pretrained(KINDS[source][0], folder, number, description)
    return TransformersSegmenter(model, source, device, number)


def resize(description: Any, side: int) -> None:
    """Changes the configuration of a model: it looks at squares of `side` px. Raises `Motion4DError`."""
    windows = math.isqrt(getattr(description, "perceiver_resampler_num_latents_2d", 1))  # of EdgeTAM, along a side
    multiple = math.lcm(PIXELS_PER_TOKEN, STRIDES[-1] * windows)
    if side % multiple:
        raise Motion4DError(f"masks.image_size={side}: must be a multiple of {multiple} for this network")
    description.image_size = description.prompt_encoder_config.image_size = side
    vision = description.vision_config
    vision.backbone_feature_sizes = [[side // stride] * 2 for stride in STRIDES]
    if hasattr(vision.backbone_config, "image_size"):
        vision.backbone_config.image_size = [side, side]
    description.memory_attention_rope_feat_sizes = [side // STRIDES[-1]] * 2


def _demand_finite(output: dict[str, Any]) -> None:
    """Raises `Motion4DError` for an answer that is not to be remembered. Its mask alone looks like a hidden object."""
    parts = [output.get(name) for name in ("pred_masks", "maskmem_features", "object_pointer")]
    if not all(bool(torch.isfinite(part).all()) for part in parts if part is not None):
        raise Motion4DError("the network answered NaN or infinity")
