"""What `masks.source: sam2 | edgetam` asks of a network that follows prompted objects through a video."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import BoolArray, FloatArray

PROBE = -1  # "object" that is asked about and forgotten; objects have positive ids


class VideoSegmenter(Protocol):
    """A network that is fed frame by frame. `state` is whatever it remembers of one video."""

    def open_state(self, size: tuple[int, int], keep_features: int) -> Any:
        """What is remembered of images of `size` (height, width): nothing yet. Features of the last `keep_features`
        frames stay.
        """

    def object_ids(self, state: Any) -> list[int]:
        """Ids of the objects being followed."""

    def append(self, state: Any, index: int, image: NDArray[np.uint8]) -> None:
        """Adds an (H, W, 3) RGB image as frame `index`."""

    def track(self, state: Any, index: int, object_id: int) -> Any:
        """(1, 1, h, w) logits of an object in frame `index`, from its memory. Prompted frames answer as prompted."""

    def prompt(
        self,
        state: Any,
        index: int,
        object_id: int,
        points_px: FloatArray,
        positive: BoolArray,
        box_px: FloatArray | None,
        mask: BoolArray | None,
    ) -> Any:
        """A person's word on frame `index`: starts or corrects the object, and is remembered. (1, 1, h, w) logits."""

    def refresh(
        self,
        state: Any,
        index: int,
        object_id: int,
        points_px: FloatArray,
        positive: BoolArray,
        box_px: FloatArray | None,
    ) -> Any:
        """The scene's word on a tracked frame: answers from memory, points and box. (1, 1, h, w) logits."""

    def outline(
        self, state: Any, index: int, points_px: FloatArray, positive: BoolArray, box_px: FloatArray | None
    ) -> Any:
        """(1, 1, h, w) logits of what points and box mean in frame `index`; nothing is remembered of it."""

    def forget(self, state: Any, object_id: int) -> None:
        """An object is followed no more."""

    def trim(self, state: Any, keep_images: int) -> None:
        """Drops images older than the last `keep_images`, and what no later frame can look at any more."""
