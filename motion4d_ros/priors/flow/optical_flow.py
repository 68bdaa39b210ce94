"""Dense optical flow, shared by every source that needs it.

The flow is DIS (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016) as OpenCV has it: no
weights, tens of milliseconds on a CPU, patches normalised by their mean (so brightness changes do little harm).

A flow field ``f`` from image a to image b says: what is at pixel ``p`` in a is at ``p + f[p]`` in b.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.image_warping import length, pixel_grid, warp
from motion4d_ros.types import FloatArray, Frame

Preset = Literal["ultrafast", "fast", "medium"]

SMALLEST_SIDE = 32  # px; DIS needs a few 8 px patches, smaller images are enlarged first
PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


def dis_flow(
    a_gray: NDArray[Any],
    b_gray: NDArray[Any],
    preset: Preset = "medium",
    finest_scale: int = 0,
    initial: FloatArray | None = None,
) -> NDArray[np.float32]:
    """Flow from `a_gray` to `b_gray`, both (H, W) uint8: (H, W, 2) px, x then y.

    `finest_scale` 0 works down to full resolution, 1 stops at half (4x faster, coarser edges). `initial` (H, W, 2)
    starts the search, for pairs that lie far apart.
    """
    height, width = a_gray.shape
    if b_gray.shape != a_gray.shape:
        raise ValueError(f"flow between images of {a_gray.shape} and {b_gray.shape}")
    shorter = min(height, width)
    if shorter < SMALLEST_SIDE:
        factor = SMALLEST_SIDE / shorter
        size = (round(width * factor), round(height * factor))
        flow = dis_flow(cv2.resize(a_gray, size), cv2.resize(b_gray, size), preset, finest_scale)
        scale = np.array([width / size[0], height / size[1]], np.float32)
        return cv2.resize(flow, (width, height)) * scale
    solver = cv2.DISOpticalFlow.create(PRESETS[preset])
    solver.setFinestScale(finest_scale)
    start = np.zeros((height, width, 2), np.float32) if initial is None else np.array(initial, np.float32)
    return np.asarray(solver.calc(np.ascontiguousarray(a_gray), np.ascontiguousarray(b_gray), start), np.float32)


def consistency(forward: NDArray[np.float32], backward: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) how far from its start a pixel lands after going `forward` and `backward`, px; inf where it leaves."""
    height, width = forward.shape[:2]
    target = pixel_grid(height, width) + forward
    error = length(forward + warp(backward, forward))
    outside = (target[..., 0] < 0) | (target[..., 1] < 0) | (target[..., 0] > width - 1) | (target[..., 1] > height - 1)
    error[outside] = np.inf
    return error


def chain(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """The flow a -> c from a -> b and b -> c, both (H, W, 2)."""
    return first + warp(second, first)


def working_size(height: int, width: int, max_side: int) -> tuple[int, int]:
    """(height, width) of an image shrunk so that its longer side is at most `max_side` px (0 = never)."""
    factor = 1.0 if max_side <= 0 else min(1.0, max_side / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


class FlowCache:
    """Working-size images of the last frames and the flows between them, each computed once, on demand.

    Sources that share one cache share its flows: all of them `push` every frame, repeats cost nothing. Frames are known
    by `Frame.index`. When the image size changes, everything older is forgotten.
    """

    def __init__(
        self,
        max_side: int = 480,
        keep: int = 24,
        preset: Preset = "medium",
        finest_scale: int = 0,
        far_finest_scale: int = 0,
    ) -> None:
        """`keep` frames of at most `max_side` px (0 = any size) are held.

        `finest_scale` as in :func:`dis_flow`, between neighbouring frames; `far_finest_scale` between others.
        """
        self.max_side = max_side
        self.keep = keep
        self.preset: Preset = preset
        self.finest_scale = finest_scale
        self.far_finest_scale = far_finest_scale
        self._input_size: tuple[int, int] | None = None
        self._rgb: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._gray: dict[int, NDArray[np.uint8]] = {}
        self._flow: dict[tuple[int, int], NDArray[np.float32]] = {}
        self._consistency: dict[tuple[int, int], NDArray[np.float32]] = {}

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images and flows held, px; (0, 0) before the first frame."""
        for image in self._rgb.values():
            return image.shape[0], image.shape[1]
        return 0, 0

    @property
    def indices(self) -> list[int]:
        """Indices of the frames held, oldest first."""
        return list(self._rgb)

    def push(self, frame: Frame) -> None:
        """Takes the next frame; one that is already held is ignored."""
        if frame.index in self._rgb:
            return
        if self._input_size != frame.camera.size:
            self.reset()
            self._input_size = frame.camera.size
        height, width = working_size(*frame.camera.size, self.max_side)
        image: NDArray[Any] = frame.image
        if image.shape[:2] != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        self._rgb[frame.index] = image
        self._gray[frame.index] = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        while len(self._rgb) > self.keep:
            self._drop(next(iter(self._rgb)))

    def has(self, index: int) -> bool:
        """Whether the frame is still held."""
        return index in self._rgb

    def rgb(self, index: int) -> NDArray[np.uint8]:
        """(h, w, 3) working-size image. Raises KeyError when it is no longer held."""
        return self._rgb[index]

    def gray(self, index: int) -> NDArray[np.uint8]:
        """(h, w) working-size grey image. Raises KeyError when it is no longer held."""
        return self._gray[index]

    def between(self, first: int, second: int) -> NDArray[np.float32]:
        """(h, w, 2) flow from frame `first` to frame `second` (either order), working-size px."""
        key = (first, second)
        if key not in self._flow:
            finest = self.finest_scale if abs(first - second) == 1 else self.far_finest_scale
            self._flow[key] = dis_flow(self._gray[first], self._gray[second], self.preset, finest)
        return self._flow[key]

    def error(self, first: int, second: int) -> NDArray[np.float32]:
        """(h, w) forward-backward disagreement on the pixels of `first`, px; inf where they leave the image."""
        key = (first, second)
        if key not in self._consistency:
            self._consistency[key] = consistency(self.between(first, second), self.between(second, first))
        return self._consistency[key]

    def replace(self, first: int, second: int, flow: NDArray[np.float32]) -> None:
        """Puts a better flow (h, w, 2) in the place of `between(first, second)`."""
        self._flow[first, second] = flow
        self._consistency.pop((first, second), None)
        self._consistency.pop((second, first), None)

    def forget_before(self, index: int) -> None:
        """Drops frames older than `index`."""
        for held in [i for i in self._rgb if i < index]:
            self._drop(held)

    def reset(self) -> None:
        """Forgets everything."""
        self._input_size = None
        self._rgb.clear()
        self._gray.clear()
        self._flow.clear()
        self._consistency.clear()

    def _drop(self, index: int) -> None:
        del self._rgb[index], self._gray[index]
        for table in (self._flow, self._consistency):
            for key in [k for k in table if index in k]:
                del table[key]
