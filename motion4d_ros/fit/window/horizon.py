"""The frames that are still being worked on, each with what its 2D sources said and what has become of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.label_images import PackedLabels, resize_labels
from motion4d_ros.priors.interfaces import MaskSource
from motion4d_ros.types import (
    UNKNOWN_LABEL,
    Camera,
    Detection,
    FloatArray,
    Frame,
    IntArray,
    PoseStatus,
    Scale,
)


@dataclass
class FrameState:
    """One frame at working size."""

    frame: Frame  # working size; its `camera` is the working camera
    output_camera: Camera  # of the input image: what outputs are sized to
    T_map_cam: FloatArray  # (4, 4)
    pose_status: PoseStatus
    scale: Scale
    raw_labels: IntArray  # (H, W) as the mask source gave them
    raw_inverse_depth: NDArray[np.float32]  # (H, W) 1/m (or arbitrary), NaN = unknown
    depth_sigma: NDArray[np.float32]  # (H, W) relative
    labels: IntArray  # (H, W) what the scene is taught: voted over neighbouring frames, then refreshed
    depth_m: NDArray[np.float32]  # (H, W) aligned to the scene, NaN = unknown
    warnings: list[str] = field(default_factory=list)
    affine: bool = False  # whether its depth source gives depth up to scale and offset, as networks do
    sensed: bool = False  # whether a sensor or a network sees how far things are, those that move, too
    own_metres: bool = False  # whether that is in metres by itself, whatever the camera's path says
    loose: bool = False  # whether `raw_inverse_depth` still has neither scale nor offset (see `affine_depth`)
    holds_names: bool = False  # whether the mask source keeps its names itself, and takes a user's word on them
    whole: Frame | None = None  # at the input's size, while a mask source that looks at that may be asked again
    outlines: PackedLabels | None = None  # what such a source said last, at the input's size
    names: dict[int, int] = field(
        default_factory=dict
    )  # what masks of the source are to be called (see `identity_association`)
    published: PackedLabels | None = None  # (H, W) labels that were published last, at the input's size
    guide: NDArray[np.uint8] | None = None  # the picture at the size at which labels are fused, if it isn't `image`

    def adopt(self, labels: IntArray) -> None:
        """Takes (H, W) labels of the mask source, at working size or the input's, for `raw_labels` and `outlines`."""
        self.raw_labels, self.names = resize_labels(labels, self.frame.camera.size), {}
        self.keep_outlines(labels)

    def forget(self, label: int) -> None:
        """Takes an object out of what was concluded."""
        concluded = self.concluded
        if concluded is not None:
            self.published = PackedLabels.pack(np.where(concluded == label, 0, concluded))

    @property
    def concluded(self) -> IntArray | None:
        """(H, W) labels that were published last, at the input's size; None if none were."""
        return None if self.published is None else self.published.unpack()

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of what is published."""
        return self.output_camera.size

    def keep_outlines(self, labels: IntArray) -> None:
        """Remembers (H, W) labels of the mask source if they have the input's size."""
        if labels.shape == self.output_camera.size:
            self.outlines = PackedLabels.pack(labels)

    def hear_detections(self, detections: Sequence[Detection]) -> None:
        """Takes what a detector says of the frame, in pixels of the input image."""
        output, camera = self.output_camera, self.frame.camera
        x, y = camera.width / output.width, camera.height / output.height
        self.frame.detections = tuple(each.scaled(x, y) for each in detections)

    def believe_depth(self, depth: FloatArray, sigma: FloatArray) -> None:
        """Takes (H, W) depth and its relative sigma for what its source says of the frame."""
        self.raw_inverse_depth, self.depth_sigma = inverted(depth), np.asarray(sigma, np.float32)
        self.depth_m = inverted(self.raw_inverse_depth)

    def shown_to(self, source: MaskSource) -> Frame:
        """The frame at the size at which `source` looks at it, as long as its input image is held."""
        return self.whole if source.full_size and self.whole is not None else self.frame

    def source_labels(self) -> IntArray:
        """(H, W) what the mask source said last, at the input's size where it looks at that, else at working size."""
        return self.raw_labels if self.outlines is None else self.outlines.unpack()

    def named_source(self) -> IntArray:
        """(H, W) the same by the names that its masks have earned."""
        return renamed(self.source_labels(), self.names)

    def picture(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """(H, W, 3) the picture at `size` (height, width)."""
        picture = self.image if self.guide is None else self.guide
        if picture.shape[:2] == size:
            return picture
        return np.asarray(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)

    @property
    def index(self) -> int:
        """Frame index."""
        return self.frame.index

    @property
    def median_depth_m(self) -> float:
        """Median depth, m (or scene units); 1 where none is known."""
        finite = self.depth_m[np.isfinite(self.depth_m)]
        return float(np.median(finite)) if finite.size else 1.0

    @property
    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""
        return self.frame.image

    @property
    def T_cam_map(self) -> FloatArray:
        """(4, 4)"""
        return np.linalg.inv(self.T_map_cam)


class Horizon:
    """Consecutive frames, oldest first. At most `limit` of them are kept."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.frames: list[FrameState] = []
        self.dropped = 0  # frames that have left

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def first_index(self) -> int:
        """Index of the oldest frame; 0 when empty."""
        return self.frames[0].index if self.frames else 0

    @property
    def camera(self) -> Camera:
        """Working camera."""
        return self.frames[-1].frame.camera

    @property
    def T_cam_map(self) -> FloatArray:
        """(T, 4, 4)"""
        return np.stack([state.T_cam_map for state in self.frames])

    @property
    def T_map_cam(self) -> FloatArray:
        """(T, 4, 4)"""
        return np.stack([state.T_map_cam for state in self.frames])

    @property
    def seconds(self) -> FloatArray:
        """(T,) since the oldest frame."""
        start = self.frames[0].frame.stamp_ns
        return np.array([(state.frame.stamp_ns - start) * 1e-9 for state in self.frames])

    def get(self, index: int) -> FrameState:
        """The frame with this index; raises `KeyError` when it has left the horizon."""
        position = index - self.first_index
        if not self.frames or not 0 <= position < len(self.frames):
            raise KeyError(index)
        return self.frames[position]

    def frames_that_show(self, label: int, indices: Iterable[int], min_pixels: int) -> list[int]:
        """Those of the frames `indices` in which an object has `min_pixels` at least."""
        return [k for k in indices if int((self.get(k).labels == label).sum()) >= min_pixels]

    def append(self, state: FrameState) -> int:
        """Adds the newest frame; its index. Drop old ones with `shrink`."""
        self.frames.append(state)
        return state.index

    def shrink(self) -> list[FrameState]:
        """Drops and returns the oldest frames beyond the limit."""
        excess = max(0, len(self.frames) - self.limit)
        dropped, self.frames = self.frames[:excess], self.frames[excess:]
        self.dropped += excess
        return dropped


def renamed(labels: IntArray, names: Mapping[int, int]) -> IntArray:
    """(H, W) labels with every one in `names` called otherwise."""
    if not names:
        return labels
    result = labels.copy()
    for label, name in names.items():
        result[labels == label] = name
    return result


def known(labels: IntArray) -> NDArray[np.bool_]:
    """Where a label image has an opinion."""
    return labels != UNKNOWN_LABEL


def inverted(depth: FloatArray) -> NDArray[np.float32]:
    """(H, W) inverse of depth or of inverse depth; NaN where it is not above 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(depth > 0, 1.0 / depth, np.nan).astype(np.float32)
