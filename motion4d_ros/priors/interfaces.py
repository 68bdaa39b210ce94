"""The Protocols behind which every 2D source stands: five, and what some can do besides.

A source is added by one file and one registry line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import (
    BoolArray,
    Detection,
    FloatArray,
    Frame,
    IntArray,
    PointTracks,
    PoseStatus,
    Prompt,
    Scale,
)


@dataclass
class DepthPrior:
    """Depth of one frame as its source gives it, before it is aligned to the scene."""

    depth: NDArray[np.float32]  # (H, W) along z; NaN = unknown. Metres if `scale` is METRIC, else arbitrary
    sigma: NDArray[np.float32]  # (H, W) one relative standard deviation
    scale: Scale
    affine: bool = True  # the true disparity is a*(1/depth) + b with unknown a, b per frame (as from a network)


@dataclass
class PosePrior:
    """Camera pose of one frame."""

    T_map_cam: FloatArray  # (4, 4)
    status: PoseStatus
    scale: Scale
    sigma_m: float = 0.0  # one standard deviation of the position; 0 = exact
    sigma_rad: float = 0.0


@dataclass
class SceneHint:
    """What the scene already knows about the newest frame, offered to every source (None where it doesn't)."""

    T_map_cam: FloatArray  # (4, 4) predicted or fitted pose
    depth_m: NDArray[np.float32] | None  # (H, W) rendered
    masks: IntArray | None  # (H, W) rendered object ids, predicted to this frame
    flow_px: NDArray[np.float32] | None  # (H, W, 2) from the previous frame to this one, on the previous frame's pixels


class PoseSource(Protocol):
    """Frame -> camera pose. Called once per frame, in order."""

    def pose(self, frame: Frame, hint: SceneHint | None) -> PosePrior:
        """Never raises for bad images: reports `PoseStatus.LOST` instead."""

    def reset(self) -> None:
        """Forgets everything (clock jump, new camera)."""


class DepthSource(Protocol):
    """Frame -> depth. Called once per frame, in order, after the pose."""

    def depth(self, frame: Frame, pose: PosePrior, hint: SceneHint | None) -> DepthPrior | None:
        """None where nothing can be said."""

    def reset(self) -> None:
        """Forgets everything."""


class MaskSource(Protocol):
    """Frame -> object masks. Called once per frame, in order, after pose and depth."""

    accepts_prompts: bool
    """Whether `refresh` can do anything."""
    full_size: bool
    """Whether the source is shown frames, hints and prompts at the input's size, and answers at that size.

    Everything else works at `budget.working_width`; outlines published from such a source keep the input's resolution.
    """

    def masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        """(H, W) object ids at the size of `frame`; UNKNOWN_LABEL where the source has no opinion.

        A hint at the input's size holds labels and pose, nothing else.
        """

    def refresh(self, frame: Frame, prompts: Sequence[Prompt]) -> IntArray | None:
        """New (H, W) masks of an already seen frame for the given prompts.

        None if the source takes none, or no longer keeps that frame.
        """

    def prompt(self, frame: Frame, prompt: Prompt) -> None:
        """A user's word about an already seen frame: start, correct, rename or delete an object."""

    def reset(self) -> None:
        """Forgets everything."""


class DetectionSource(Protocol):
    """Frame -> what a detector sees in it. Called once per frame, in order."""

    left_out: Counter[str]
    """What could not be used, by reason, since the start."""

    def detections(self, frame: Frame) -> tuple[Detection, ...] | None:
        """In pixels of `frame`; None where it did not look."""


class FlowSource(Protocol):
    """Dense flow between neighbouring frames that are kept."""

    def between(self, first: int, second: int) -> NDArray[np.float32]:
        """(h, w, 2) flow from frame `first` to frame `second`, px."""

    def error(self, first: int, second: int) -> NDArray[np.float32]:
        """(h, w) px by which that flow and its reverse disagree; inf where it leaves the image."""


class TrackSource(Protocol):
    """Frames -> 2D point tracks over the frames it has kept."""

    @property
    def flows(self) -> FlowSource:
        """The flow that it works with."""

    def push(self, frame: Frame, masks: IntArray | None) -> None:
        """Adds the next frame; `masks` (H, W) only guide where tracks are started."""

    def tracks(self, first_index: int, last_index: int) -> PointTracks:
        """All tracks seen between the two frame indices, inclusive."""

    def query(self, points_tyx: FloatArray) -> PointTracks:
        """Tracks of the given (Q, 3) points (frame index, y, x) over all kept frames."""

    def flow(self, from_index: int, to_index: int) -> tuple[NDArray[np.float32], BoolArray]:
        """(H, W, 2) flow between two neighbouring kept frames and where it can be trusted."""

    def forget_before(self, index: int) -> None:
        """Drops frames older than `index`: memory stays bounded."""

    def reset(self) -> None:
        """Forgets everything."""


# ---- what some sources can do besides: they are asked by `isinstance` ------------------------------------------------


@runtime_checkable
class RevisesPoses(Protocol):
    """A pose source that changes its mind about earlier frames."""

    def revised_poses(self) -> dict[int, FloatArray]:
        """Frame index -> (4, 4) map <- camera, of what has changed since it was last asked."""


@runtime_checkable
class GetsStranded(Protocol):
    """A pose source that can lose the camera for good."""

    @property
    def stranded(self) -> bool:
        """Whether the camera is lost and hardly found again in this scene."""


@runtime_checkable
class SavesMap(Protocol):
    """A pose source that recognises places, also those of a run that has ended."""

    def saved_map(self) -> dict[str, NDArray[Any]]:
        """What it recognises them by; empty while it knows none."""

    def go_on_in(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Starts in such a map, with the camera lost in it. Raises `ValueError` or `KeyError` if it is none."""


@runtime_checkable
class HearsOfPoses(Protocol):
    """A mask source that lives by the camera's path."""

    def revise_poses(self, poses: dict[int, FloatArray]) -> None:
        """Told of poses (4, 4) of earlier frames, by index, that have become known, or better known."""


@runtime_checkable
class RevisesDepth(Protocol):
    """A depth source that lives by the camera's path."""

    def revise(self, poses: dict[int, FloatArray]) -> None:
        """Told of poses (4, 4) of earlier frames, by index, when the camera's motion becomes known."""

    def again(self, frame: Frame, T_map_cam: FloatArray, scale: Scale, labels: IntArray) -> DepthPrior | None:
        """Depth of an earlier frame by what is known since, (H, W) `labels` of what moves; None: as it was."""


@runtime_checkable
class LooksFirst(Protocol):
    """A mask source that wants to know a frame's pose and depth."""

    def look(self, frame: Frame, pose: PosePrior, depth: DepthPrior | None) -> None:
        """Told before `masks` of the same frame."""


@runtime_checkable
class HearsDetections(Protocol):
    """A mask source that can use what a detector says later of a frame."""

    def hear_detections(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Told of detections, in pixels of `frame`, which has been seen before; without effect if it is not kept."""


@runtime_checkable
class Outlines(Protocol):
    """A mask source that can be asked about a thing without following it."""

    def outline(self, frame: Frame, prompt: Prompt) -> BoolArray | None:
        """(H, W) what points and box of a prompt mean in a frame that has been seen; None if it is kept no longer."""


@runtime_checkable
class RevisesMasks(Protocol):
    """A mask source that changes its mind about earlier frames."""

    def revised_masks(self) -> dict[int, IntArray]:
        """Frame index -> (H, W) labels, of what has changed since it was last asked."""


@runtime_checkable
class GivesIds(Protocol):
    """A mask source that numbers objects by itself."""

    def begin_after(self, object_id: int) -> None:
        """Its next object gets a larger id: those up to this one belong to others."""


@runtime_checkable
class LooksAhead(Protocol):
    """A mask source that waits for later frames before it has the last word."""

    def finish(self) -> None:
        """The input ends: it says what it can of the last frames."""
