"""The libraries that know colour encodings: `cv_bridge` where it is installed *and* gives right answers, else
`rosbags-image`.

Both mistreat some legal messages (padded rows, big-endian samples, grey JPEGs), so what they see is always tight and
little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass
class TightImage:
    """An image message without padding, little-endian, with a canonical encoding: what the libraries read reliably."""

    height: int
    width: int
    encoding: str
    step: int
    data: bytes
    is_bigendian: int = 0


class ImageBackend(Protocol):
    """A library that knows colour encodings."""

    name: str

    def to_rgb8(self, image: TightImage) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""


class CvBridgeBackend:
    """`cv_bridge`, as robots have it."""

    name = "cv_bridge"

    def __init__(self) -> None:
        from cv_bridge import CvBridge

        self._bridge = CvBridge()

    def to_rgb8(self, image: TightImage) -> NDArray[np.uint8]:
        """See `ImageBackend`."""
        return np.asarray(self._bridge.imgmsg_to_cv2(image, "rgb8"), np.uint8)


class RosbagsBackend:
    """`rosbags-image`, pure Python."""

    name = "rosbags-image"

    def to_rgb8(self, image: TightImage) -> NDArray[np.uint8]:
        """See `ImageBackend`."""
        from rosbags.image import image_to_cvimage

        return np.asarray(image_to_cvimage(image, "rgb8"), np.uint8)  # type: ignore[arg-type]


def choose_backend() -> ImageBackend:
    """`cv_bridge` if it imports and converts a known picture rightly, else `rosbags-image`."""
    try:
        backend: ImageBackend = CvBridgeBackend()
        if backend_is_healthy(backend):
            return backend
    except Exception:  # a broken cv_bridge fails in many ways: ABI, OpenCV 5, NumPy 2, an old pure-Python namesake
        pass
    return RosbagsBackend()


def backend_is_healthy(backend: ImageBackend) -> bool:
    """Whether the back end turns known BGR, grey and 16-bit pictures into the right RGB."""
    bgr = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    grey16 = np.full((2, 4), 65535, np.uint16)
    got = backend.to_rgb8(TightImage(2, 4, "bgr8", 12, bgr.tobytes()))
    white = backend.to_rgb8(TightImage(2, 4, "mono16", 8, grey16.tobytes()))
    return np.array_equal(got, bgr[..., ::-1]) and white.shape == (2, 4, 3) and int(white.min()) == 255
