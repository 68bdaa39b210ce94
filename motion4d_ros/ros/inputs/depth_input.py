"""Depth messages to depth that lies on the image: as it is, at the image's size, aligned, or not at all, and said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.imagery import conversions
from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.imagery.depth_units import DepthUnits
from motion4d_ros.imagery.registration import Registration, same_view
from motion4d_ros.imagery.validation import Rejection
from motion4d_ros.ros.inputs.transforms import Extrinsics
from motion4d_ros.types import FloatArray

_MOST_LARGER = 16
"""Times as many pixels as its image a depth image may have: a larger one is refused before it is unpacked."""


class DepthInput:
    """One per activation; used by one thread."""

    def __init__(
        self,
        config: Config,
        calibration: Callable[[], Rectifier | None],
        extrinsics: Extrinsics | None,
        give_up: Callable[[], bool],
    ) -> None:
        """`calibration`: the depth camera's own, None while none has come."""
        self._config = config
        self._calibration = calibration
        self._extrinsics = extrinsics
        self._give_up = give_up
        self._units = DepthUnits(config.depth.units_per_metre)

    def read(
        self, message: Any, rectifier: Rectifier, frame_id: str, stamp_ns: int
    ) -> tuple[NDArray[np.float32] | None, str]:
        """(H, W) m on the *rectified* image, None if this depth cannot be laid on it; and what is odd, "" for nothing.

        Raises `Rejection` for a message that cannot be read, or that shows another view at another aspect.
        """
        depth = conversions.read_depth(message, _MOST_LARGER * rectifier.width * rectifier.height, self._units)
        notes = list(self._units.notes)
        frame = (self._config.depth.frame or message.header.frame_id).lstrip("/")
        same_frame = not frame or not frame_id or frame == frame_id.lstrip("/")
        calibration = None if self._config.depth.frame else self._calibration()
        if calibration is not None and (calibration.height, calibration.width) != depth.shape:
            calibration = None
        if not same_frame or (calibration is not None and not same_view(calibration, rectifier)):
            try:
                T = np.eye(4) if same_frame else self._transform(frame_id, frame, stamp_ns, calibration)
            except Rejection as error:
                return None, "; ".join([*notes, str(error)])
            assert calibration is not None
            registration = Registration(calibration, rectifier, T)
            if not registration.is_needless:
                notes.append(f"depth of {frame!r} is aligned to the image in {frame_id!r} by both calibrations")
                return registration.apply(depth), "; ".join(notes)
        size = (rectifier.height, rectifier.width)
        fitted = conversions.fit_size(depth, *size, "depth")
        if depth.shape != size:
            notes.append(scaled_text("depth", depth.shape, size))
        return np.ascontiguousarray(rectifier.rectify(fitted, nearest=True), np.float32), "; ".join(notes)

    def _transform(self, frame_id: str, frame: str, stamp_ns: int, calibration: Rectifier | None) -> FloatArray:
        """(4, 4) T_image_depth. Raises `Rejection` that says why depth of another frame cannot be used."""
        text = f"depth is not used: its frame is {frame!r}, the image's is {frame_id!r}, and"
        remedy = f"take the driver's registered depth, or set depth.frame to {frame_id} if it is registered"
        if calibration is None:
            raise Rejection("depth frame", f"{text} no camera_info of its size is beside it: {remedy}")
        if self._extrinsics is None:
            raise Rejection("depth frame", f"{text} TF is not available: {remedy}")
        try:
            return self._extrinsics.find(frame_id, frame, stamp_ns, self._config.ros.pose_timeout, self._give_up)
        except Rejection as error:
            raise Rejection("depth frame", f"{text} {error}: {remedy}") from None


def scaled_text(what: str, have: tuple[int, ...], want: tuple[int, int]) -> str:
    """For depth and masks of another size than their image."""
    return f"{what} of {have[1]}x{have[0]} px scaled to the image's {want[1]}x{want[0]} by nearest neighbour"
