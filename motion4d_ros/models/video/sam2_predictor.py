"""SAM 2's video predictor, fed frame by frame (Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024).

The `sam2` package's own `init_state` wants a whole video. Here the state starts empty, images are appended as they
come, and everything the memory no longer looks at is dropped: time and memory per frame stay constant. No torchvision
and no compiled extension of `sam2` is needed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import sam2
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from sam2.sam2_video_predictor import SAM2VideoPredictor

from motion4d_ros.config import Config
from motion4d_ros.models.onnx_session import normalisation
from motion4d_ros.models.registry import MODELS
from motion4d_ros.models.store import Located
from motion4d_ros.models.video.segmenter import PROBE
from motion4d_ros.types import BoolArray, FloatArray, Motion4DError

State = dict[str, Any]
PIXELS_PER_TOKEN = 32  # image sides must be a multiple: four stages of the backbone and its windows
MAX_CONDITIONING = 4  # frames with a person's prompts that an object remembers: the first one and the newest ones
FIRST_MANY = 1 << 30  # "number of frames" of a stream; SAM 2 only takes the minimum with it


class StreamingPredictor(SAM2VideoPredictor):
    """`open_state`, then `append` each image, `add_*` prompts on kept frames, `track` objects, and `trim`.

    Frames are known by a running number; objects by any positive id.
    """

    def open_state(self, size: tuple[int, int], keep_features: int = 2) -> State:
        """An empty state for images of `size` (height, width). Features of the last `keep_features` frames stay."""
        height, width = size
        return {
            "images": {},
            "num_frames": FIRST_MANY,
            "offload_video_to_cpu": True,
            "offload_state_to_cpu": False,
            "video_height": height,
            "video_width": width,
            "device": self.device,
            "storage_device": self.device,
            "point_inputs_per_obj": {},
            "mask_inputs_per_obj": {},
            "cached_features": OrderedDict(),
            "constants": {},
            "obj_id_to_idx": OrderedDict(),
            "obj_idx_to_id": OrderedDict(),
            "obj_ids": [],
            "output_dict_per_obj": {},
            "temp_output_dict_per_obj": {},
            "frames_tracked_per_obj": {},
            "keep_features": keep_features,
        }

    def object_ids(self, state: State) -> list[int]:
        """Ids of the objects being followed."""
        return list(state["obj_ids"])

    def forget(self, state: State, object_id: int) -> None:
        """An object is followed no more."""
        if object_id in state["obj_ids"]:
            self.remove_object(state, object_id, need_output=False)

    def append(self, state: State, index: int, image: NDArray[np.uint8]) -> None:
        """Adds an (H, W, 3) RGB image as frame `index`; it rests as bytes and is encoded when first looked at."""
        side = (self.image_size, self.image_size)  # SAM 2 squeezes images to a square
        method = cv2.INTER_AREA if min(image.shape[:2]) > self.image_size else cv2.INTER_LINEAR
        state["images"][index] = cv2.resize(image, side, interpolation=method)

    def trim(self, state: State, keep_images: int) -> None:
        """Drops images older than the last `keep_images` and whatever no later frame can look at any more."""
        images = state["images"]
        for index in sorted(images)[: max(0, len(images) - keep_images)]:
            del images[index]
        if not images:
            return
        # a correction of the oldest kept image still looks back this far
        reach = max(self.num_maskmem * self.memory_temporal_stride_for_eval, self.max_obj_ptrs_in_encoder)
        oldest = min(images) - reach
        for slot, outputs in state["output_dict_per_obj"].items():
            conditioning = outputs["cond_frame_outputs"]
            for index in sorted(conditioning)[1 : len(conditioning) - (MAX_CONDITIONING - 1)]:
                del conditioning[index]
            _drop_before(outputs["non_cond_frame_outputs"], oldest)
            _drop_before(state["frames_tracked_per_obj"][slot], oldest)
            _drop_before(state["point_inputs_per_obj"][slot], oldest)
            _drop_before(state["mask_inputs_per_obj"][slot], oldest)

    def track(self, state: State, index: int, object_id: int) -> torch.Tensor:
        """(1, 1, h, w) logits of an object in frame `index`, from its memory. Prompted frames answer as prompted."""
        slot = state["obj_id_to_idx"][object_id]
        outputs = state["output_dict_per_obj"][slot]
        if index in outputs["cond_frame_outputs"]:
            logits: torch.Tensor = outputs["cond_frame_outputs"][index]["pred_masks"]
            return logits
        with self._precision():
            current, logits = self._run_single_frame_inference(
                inference_state=state,
                output_dict=outputs,
                frame_idx=index,
                batch_size=1,
                is_init_cond_frame=False,
                point_inputs=None,
                mask_inputs=None,
                reverse=False,
                run_mem_encoder=True,
            )
        _demand_finite(current)  # or the memory would be of nothing from now on
        outputs["non_cond_frame_outputs"][index] = current
        state["frames_tracked_per_obj"][slot][index] = {"reverse": False}
        return logits

    def prompt(
        self,
        state: State,
        index: int,
        object_id: int,
        points_px: FloatArray,
        positive: BoolArray,
        box_px: FloatArray | None,
        mask: BoolArray | None,
    ) -> torch.Tensor:
        """A person's word on frame `index`: starts or corrects the object, and is remembered. (1, 1, h, w) logits."""
        with self._precision():
            if mask is not None:
                self.add_new_mask(state, index, object_id, mask)
            else:
                self.add_new_points_or_box(
                    state,
                    index,
                    object_id,
                    points=(points_px + 0.5).astype(np.float32) if len(points_px) else None,
                    labels=positive.astype(np.int32) if len(points_px) else None,
                    box=None if box_px is None else _edges(box_px),
                )
            self.propagate_in_video_preflight(state)
        slot = state["obj_id_to_idx"][object_id]
        state["frames_tracked_per_obj"][slot][index] = {"reverse": False}
        conditioning = state["output_dict_per_obj"][slot]["cond_frame_outputs"]
        logits: torch.Tensor = conditioning[index]["pred_masks"]
        return logits

    def refresh(
        self,
        state: State,
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
        slot = state["obj_id_to_idx"].get(object_id)
        if slot is None:
            return self.prompt(state, index, object_id, points_px, positive, box_px, None)
        outputs = state["output_dict_per_obj"][slot]
        if index in outputs["cond_frame_outputs"]:
            logits: torch.Tensor = outputs["cond_frame_outputs"][index]["pred_masks"]
            return logits  # a person spoke here: the scene does not overrule them
        with self._precision():
            current, logits = self._run_single_frame_inference(
                inference_state=state,
                output_dict=outputs,
                frame_idx=index,
                batch_size=1,
                is_init_cond_frame=False,
                point_inputs=self._point_inputs(state, points_px, positive, box_px),
                mask_inputs=None,
                reverse=False,
                run_mem_encoder=True,
            )
        _demand_finite(current)
        outputs["non_cond_frame_outputs"][index] = current
        return logits

    def outline(
        self, state: State, index: int, points_px: FloatArray, positive: BoolArray, box_px: FloatArray | None
    ) -> torch.Tensor:
        """(1, 1, h, w) logits of what points and box mean in frame `index`; nothing is remembered of it."""
        try:
            return self.prompt(state, index, PROBE, points_px, positive, box_px, None)
        finally:
            self.forget(state, PROBE)

    def _point_inputs(
        self, state: State, points_px: FloatArray, positive: BoolArray, box_px: FloatArray | None
    ) -> dict[str, torch.Tensor]:
        """SAM 2's coordinates, with a box as its two corners (labels 2 and 3) before the points."""
        coords, labels = points_px + 0.5, positive.astype(np.int32)
        if box_px is not None:
            coords = np.concatenate([_edges(box_px).reshape(2, 2), coords])
            labels = np.concatenate([np.array([2, 3], np.int32), labels])
        coords = coords / np.array([state["video_width"], state["video_height"]]) * self.image_size
        device = state["device"]
        return {
            "point_coords": torch.as_tensor(coords[None].astype(np.float32), device=device),
            "point_labels": torch.as_tensor(labels[None], device=device),
        }

    def _get_image_feature(self, inference_state: State, frame_idx: int, batch_size: int) -> Any:
        """As in `sam2`, but for several recent frames, from images at rest, with one copy of the position codes."""
        cache: OrderedDict[int, Any] = inference_state["cached_features"]
        if frame_idx not in cache:
            mean, deviation = normalisation("imagenet")
            image = (inference_state["images"][frame_idx].astype(np.float32) - mean) / deviation
            tensor = torch.as_tensor(image.transpose(2, 0, 1)[None]).contiguous().to(inference_state["device"])
            backbone = self.forward_image(tensor)
            codes = inference_state["constants"].setdefault("vision_pos_enc", backbone["vision_pos_enc"])
            features = {"backbone_fpn": backbone["backbone_fpn"], "vision_pos_enc": codes}
            cache[frame_idx] = (tensor[:, :, :1, :1].clone(), features)  # nobody looks at the image's pixels again
            while len(cache) > inference_state["keep_features"]:
                cache.popitem(last=False)
        image, features = cache[frame_idx]
        expanded = {
            name: [level.expand(batch_size, -1, -1, -1) for level in levels] for name, levels in features.items()
        }
        return (image.expand(batch_size, -1, -1, -1), *self._prepare_backbone_features(expanded))

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """No gradients, and half precision where the weights' device is a GPU and `half` was asked for."""
        with torch.inference_mode(), self._autocast():
            yield

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.device.type != "cuda" or not getattr(self, "half_precision", False):
            return nullcontext()
        kind = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.autocast("cuda", kind)


def build_predictor(model: DictConfig, checkpoint: Path | None, device: str, half: bool = False) -> StreamingPredictor:
    """A predictor of the architecture `model` (the `model` section of a `sam2` configuration file).

    `checkpoint`: weights as published (loaded as plain tensors, never unpickled); None leaves them random.
    Raises `Motion4DError` when the file does not hold this architecture's weights.
    """
    description = model.copy()
    description["_target_"] = f"{StreamingPredictor.__module__}.{StreamingPredictor.__qualname__}"
    description["add_all_frames_to_correct_as_cond"] = True  # a person's correction is remembered
    description["max_cond_frames_in_attn"] = MAX_CONDITIONING
    description["binarize_mask_from_pts_for_mem_enc"] = True  # remember exactly what the person saw
    description["sam_mask_decoder_extra_args"] = {  # fall back to several masks when the single one is unstable
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    predictor: StreamingPredictor = instantiate(description, _recursive_=True)
    if checkpoint is not None:
        try:
            weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
            predictor.load_state_dict(weights["model"])
        except Exception as error:  # unpickling, missing and surplus keys each raise their own type
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise Motion4DError(f"{checkpoint}: not the weights of this SAM 2 ({reason})") from None
    predictor = predictor.to(device).eval()
    predictor.half_precision = half
    return predictor


def load_predictor(located: Located, config: Config) -> StreamingPredictor:
    """The SAM 2 whose weights are `located`, on `run.device`. A file of one's own must be named like a known one."""
    checkpoint = located.paths[0]
    known = [model for model in MODELS if model.loader == "sam2"]
    model = located.model or next((m for m in known if m.files[0].path == checkpoint.name), None)
    if model is None:
        names = ", ".join(m.files[0].path for m in known)
        raise Motion4DError(f"masks.model={checkpoint}: cannot tell which SAM 2 this is; name it like one of {names}")
    device = config.run.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return build_predictor(architecture(model.variant, config.masks.image_size), checkpoint, device, config.models.half)


def architecture(variant: str, image_size: int = 0) -> DictConfig:
    """The `model` section of a configuration file of `sam2`, such as ``configs/sam2.1/sam2.1_hiera_t.yaml``.

    `image_size`: side of the square that images are squeezed to, px; 0 = as trained.
    """
    if image_size % PIXELS_PER_TOKEN:
        raise Motion4DError(f"masks.image_size={image_size}: must be a multiple of {PIXELS_PER_TOKEN}")
    path = Path(sam2.__file__).parent / variant
    if not path.is_file():
        raise Motion4DError(f"this sam2 package knows no {variant}: install sam2 1.1 or newer")
    loaded = OmegaConf.load(path)
    model: DictConfig = loaded["model"]  # type: ignore[index,unused-ignore]
    if image_size:
        model["image_size"] = image_size
    return model


def _demand_finite(output: dict[str, Any]) -> None:
    """Raises `Motion4DError` for an answer that is not to be remembered. Its mask alone looks like a hidden object."""
    parts = [output.get(name) for name in ("pred_masks", "maskmem_features", "obj_ptr")]
    if not all(bool(torch.isfinite(part).all()) for part in parts if part is not None):
        raise Motion4DError("SAM 2 answered NaN or infinity")


def _edges(box_px: FloatArray) -> FloatArray:
    """SAM means pixel edges, we mean pixel centres."""
    return np.asarray(np.asarray(box_px, float) + np.array([0.0, 0.0, 1.0, 1.0]), np.float32)


def _drop_before(table: dict[int, Any], index: int) -> None:
    for old in [key for key in table if key < index]:
        del table[old]
