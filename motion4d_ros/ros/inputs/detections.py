"""What detector nodes say of the camera's images: `vision_msgs/Detection2DArray` on `detections`.

A detector is slower than the camera and looks at some images only: no image waits for it. What has come before its
image is fitted goes with it; what comes later is handed to the engine, which still holds that frame.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any

from motion4d_ros.imagery.detections import boxes_of, clean, rectified, told
from motion4d_ros.imagery.validation import Rejection
from motion4d_ros.types import Detection, Motion4DError

if TYPE_CHECKING:
    from motion4d_ros.imagery.camera import Rectifier

KEPT = 64  # messages that wait for their image; detectors answer within seconds


def message_type(name: str = "Detection2DArray") -> type | None:
    """A type of `vision_msgs`; None where that package is not installed."""
    try:
        return getattr(importlib.import_module("vision_msgs.msg"), name, None)
    except ImportError:
        return None


def demand_messages() -> None:
    """Raises `Motion4DError` where `vision_msgs` is not installed."""
    if message_type() is None:
        distro = os.environ.get("ROS_DISTRO", "<distro>")
        raise Motion4DError(
            f"detections come as vision_msgs/Detection2DArray, and vision_msgs is not installed: apt install "
            f"ros-{distro}-vision-msgs, or choose another masks.discovery"
        )


class Waiting:
    """Messages that wait for their image, by stamp. Filled by a callback, emptied by the worker."""

    def __init__(self, slop_s: float, keep: int = KEPT) -> None:
        self._slop_ns, self._keep = round(slop_s * 1e9), keep
        self._by_stamp: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()
        self.left_out: Counter[str] = Counter()  # boxes and messages that cannot be used, by reason

    def put(self, stamp_ns: int, message: Any) -> None:
        """Keeps a message; the oldest is given up when there are too many."""
        with self._lock:
            self._by_stamp[stamp_ns] = message
            while len(self._by_stamp) > self._keep:
                self._by_stamp.popitem(last=False)
                self.left_out["of stamps that no image has"] += 1

    def take(self, stamp_ns: int) -> Any:
        """The message nearest to the stamp of an image, within the slop; None if there is none."""
        with self._lock:
            nearest = min(self._by_stamp, key=lambda stamp: abs(stamp - stamp_ns), default=None)
            if nearest is None or abs(nearest - stamp_ns) > self._slop_ns:
                return None
            return self._by_stamp.pop(nearest)

    def take_until(self, stamp_ns: int) -> list[tuple[int, Any]]:
        """Messages whose images must have come when one of that stamp has: those within the slop after it, too."""
        with self._lock:
            late = [stamp for stamp in self._by_stamp if stamp <= stamp_ns + self._slop_ns]
            return [(stamp, self._by_stamp.pop(stamp)) for stamp in sorted(late)]

    def read(self, message: Any, rectifier: Rectifier) -> tuple[Detection, ...]:
        """Detections in rectified pixels; what cannot be used is counted. Raises `Rejection` for no message at all."""
        try:
            boxes = boxes_of(message)
        except (AttributeError, TypeError, ValueError) as error:
            raise Rejection("detections", f"detections: not a Detection2DArray ({error})") from None
        found = clean(boxes, (rectifier.height, rectifier.width), self.left_out)
        return rectified(found, rectifier)

    @property
    def oddity(self) -> str:
        """What was left out so far, in words; empty if nothing was."""
        return f"detections: {'; '.join(told(self.left_out))}" if self.left_out else ""
