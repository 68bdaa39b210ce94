"""From the messages of one image to a `Frame`: decode, rectify, find the pose. Runs in the worker, not in callbacks."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.imagery import conversions
from motion4d_ros.imagery.backends import ImageBackend
from motion4d_ros.imagery.camera import Rectifier, same_calibration
from motion4d_ros.imagery.high_bit import Levels
from motion4d_ros.imagery.validation import Rejection, check_picture, check_stamp, nanoseconds
from motion4d_ros.imagery.void_labels import VoidRule
from motion4d_ros.ros.inputs.depth_input import DepthInput, scaled_text
from motion4d_ros.ros.inputs.detections import Waiting
from motion4d_ros.ros.inputs.transforms import Extrinsics, PoseLookup, matrix_from_pose
from motion4d_ros.types import Detection, FloatArray, Frame

MOST_WITH_MAPS = 4
"""Calibrations that keep the maps by which images are rectified: lenses that adjust themselves have new ones all the
time, and the maps of 64 of them for Full HD take two gigabytes.
"""
_INFO_WAIT_S = 0.1
"""How long a frame waits for a camera_info that fits its size (it may arrive just after the image)."""


@dataclass
class ImageGroup:
    """The messages that belong to one image, as the synchroniser found them, already checked."""

    image: Any
    depth: Any = None
    masks: Any = None
    odometry: Any = None
    arrival_s: float = field(default_factory=time.monotonic)

    @property
    def stamp_ns(self) -> int:
        """Stamp of the image."""
        return nanoseconds(self.image.header.stamp)

    @property
    def bytes(self) -> int:
        """Of the pictures in it."""
        return sum(len(message.data) for message in (self.image, self.depth, self.masks) if message is not None)


class Calibrations:
    """The `CameraInfo` seen lately, by stamp. Filled by the callback, read by the worker.

    A frame gets the calibration of its own stamp; where there is none, the newest.
    """

    def __init__(self, keep: int = 64) -> None:
        self._keep = keep
        self._by_stamp: OrderedDict[int, Rectifier] = OrderedDict()
        self._newest: tuple[Any, Rectifier] | None = None
        self._newest_ns = 0
        self._distinct: deque[Rectifier] = deque()  # the newest, which may hold maps as large as images
        self._changed = threading.Condition()
        self.frame_id = ""
        self.rectified = False  # whether somebody has rectified the images already

    def add(self, info: Any) -> None:
        """A `CameraInfo` came in. Raises `Rejection` if it makes no sense; the last good one stays."""
        stamp_ns = nanoseconds(info.header.stamp)
        if self._newest is not None and same_calibration(self._newest[0], info):
            rectifier = self._newest[1]
        else:
            rectifier = Rectifier(info, rectified=self.rectified)
            self._distinct.append(rectifier)
            if len(self._distinct) > MOST_WITH_MAPS:
                self._distinct.popleft().forget_maps()
        with self._changed:
            self._newest = (info, rectifier)
            self._newest_ns = stamp_ns
            self._by_stamp[stamp_ns] = rectifier
            while len(self._by_stamp) > self._keep:
                self._by_stamp.popitem(last=False)
            self.frame_id = info.header.frame_id
            self._changed.notify_all()

    @property
    def ready(self) -> bool:
        """Whether any usable calibration has come."""
        return self._newest is not None

    @property
    def newest(self) -> Rectifier | None:
        """The newest usable calibration."""
        newest = self._newest
        return None if newest is None else newest[1]

    def find(self, stamp_ns: int, width: int, height: int) -> Rectifier:
        """The calibration for an image. Raises `Rejection` if the newest one is for another size."""
        deadline = time.monotonic() + _INFO_WAIT_S
        with self._changed:
            while True:
                candidates = [self._by_stamp.get(stamp_ns), self._newest[1] if self._newest else None]
                for rectifier in candidates:
                    if rectifier is not None and (rectifier.width, rectifier.height) == (width, height):
                        return rectifier
                left = deadline - time.monotonic()
                if left <= 0 or self._newest_ns >= stamp_ns or not self._changed.wait(left):
                    break
            known = self._newest[1] if self._newest else None
        if known is None:
            raise Rejection("camera_info", "no camera_info yet")
        raise Rejection(
            "camera_info size",
            f"image is {width}x{height}, camera_info says {known.width}x{known.height}: do they belong together?",
        )

    def clear(self) -> None:
        """Forgets everything."""
        with self._changed:
            self._by_stamp.clear()
            self._newest = None


@dataclass
class FrameContext:
    """What the outputs of one frame need besides the estimate."""

    rectifier: Rectifier
    image: NDArray[np.uint8] | None  # (H, W, 3) RGB as it arrived, not rectified; None once nobody needs it
    arrival_s: float  # time.monotonic()


class FrameBuilder:
    """Makes frames. One per activation; used by one thread."""

    def __init__(
        self,
        config: Config,
        calibrations: Calibrations,
        backend: ImageBackend,
        *,
        lookup: PoseLookup | None = None,
        base_to_camera: FloatArray | None = None,
        depth_calibrations: Calibrations | None = None,
        give_up: Callable[[], bool] = lambda: False,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._config = config
        self._calibrations = calibrations
        self._backend = backend
        self._lookup = lookup
        self._base_to_camera = base_to_camera
        self._give_up = give_up
        self._note = note
        self.map_frame = config.ros.map_frame or "map"
        self._extrinsics = None if lookup is None else Extrinsics(lookup)
        self._depth_calibrations = depth_calibrations or Calibrations()
        self._depth_input = self._new_depth_input()
        self._levels, self._void = Levels(), VoidRule()
        self.detections = Waiting(config.ros.slop)
        self._said_levels = ""
        self.misfits: dict[str, str] = {}  # input -> what is odd about it, though it is used
        self.misfit_at = float("-inf")  # time.monotonic() of the newest entry

    def start(self) -> None:
        """Forgets what was odd about the inputs: the node is activated (again)."""
        self._depth_input = self._new_depth_input()
        self._levels, self._void = Levels(), VoidRule()
        self.detections = Waiting(self._config.ros.slop)
        self.misfits.clear()
        self.misfit_at = float("-inf")

    def build(self, group: ImageGroup) -> tuple[Frame, FrameContext]:
        """The frame of a group. Raises `Rejection` when something in it cannot be used."""
        image = group.image
        stamp_ns = check_stamp(image.header.stamp, "image")
        frame_id = image.header.frame_id or self._calibrations.frame_id
        if not frame_id:
            raise Rejection("frame", "image: header.frame_id is empty, in camera_info too: set it in the camera driver")
        width, height = check_picture(image)
        rectifier = self._calibrations.find(stamp_ns, width, height)  # before a false size is unpacked
        raw = conversions.read_rgb(image, self._backend, self._levels)
        if self._levels.text != self._said_levels:
            self._said_levels = self._levels.text
            self._note(self._said_levels)
        frame = Frame(
            stamp_ns=stamp_ns,
            image=np.ascontiguousarray(rectifier.rectify(raw)),
            camera=rectifier.camera,
            T_map_cam=self._pose(group, frame_id, stamp_ns),
            depth_m=self._depth(group, rectifier, frame_id),
            masks=self._masks(group, rectifier),
            frame_id=frame_id,
            detections=self._detections(group, rectifier),
        )
        return frame, FrameContext(rectifier, raw, group.arrival_s)

    def _new_depth_input(self) -> DepthInput:
        calibrations = self._depth_calibrations
        return DepthInput(self._config, lambda: calibrations.newest, self._extrinsics, self._give_up)

    def _depth(self, group: ImageGroup, rectifier: Rectifier, frame_id: str) -> NDArray[np.float32] | None:
        if group.depth is None:
            return None
        depth, oddity = self._depth_input.read(group.depth, rectifier, frame_id, group.stamp_ns)
        self.say_misfit("depth", oddity)
        return depth

    def _masks(self, group: ImageGroup, rectifier: Rectifier) -> NDArray[np.int32] | None:
        if group.masks is None:
            return None
        labels = self._void.apply(conversions.read_labels(group.masks))
        size = (rectifier.height, rectifier.width)
        fitted = conversions.fit_size(labels, *size, "masks")
        scaled = "" if labels.shape == size else scaled_text("masks", labels.shape, size)
        self.say_misfit("masks", "; ".join(filter(None, (scaled, self._void.note))))
        return np.ascontiguousarray(rectifier.rectify(fitted, nearest=True), np.int32)

    def _detections(self, group: ImageGroup, rectifier: Rectifier) -> tuple[Detection, ...] | None:
        message = self.detections.take(group.stamp_ns)
        if message is None:
            return None
        try:
            return self.detections.read(message, rectifier)
        except Rejection as error:
            self.say_misfit("detections", str(error))
            return None
        finally:
            self.say_misfit("detections", self.detections.oddity)

    def say_misfit(self, what: str, text: str) -> None:
        """Notes what is odd about an input, once."""
        if text != self.misfits.get(what, ""):
            self.misfits[what] = text
            if text:
                self.misfit_at = time.monotonic()
                self._note(text)

    def _pose(self, group: ImageGroup, frame_id: str, stamp_ns: int) -> FloatArray | None:
        source = self._config.pose.source
        if source == "tf":
            if self._lookup is None:
                raise Rejection("tf", "pose.source is tf, but TF is not available")
            return self._lookup(self.map_frame, frame_id, stamp_ns, self._config.ros.pose_timeout, self._give_up)
        if source != "odometry" or group.odometry is None:
            return None
        odometry = group.odometry
        T = matrix_from_pose(odometry.pose.pose, "odometry")
        world = odometry.header.frame_id
        if self._config.ros.map_frame and world and world != self._config.ros.map_frame:
            wanted = self._config.ros.map_frame
            raise Rejection(
                "odometry frame", f"odometry is given in {world!r}, but map_frame is {wanted!r}: set map_frame:={world}"
            )
        if not self._config.ros.map_frame and world:
            self.map_frame = world
        if self._base_to_camera is not None:
            return T @ self._base_to_camera
        body = odometry.child_frame_id
        if body and body != frame_id and self._extrinsics is not None:
            return T @ self._extrinsics.find(body, frame_id, stamp_ns, self._config.ros.pose_timeout, self._give_up)
        return T
