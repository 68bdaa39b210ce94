"""`CameraInfo` to a pinhole camera, and back and forth between the camera's own pixels and rectified ones.

Everything inside works on rectified images; everything that leaves is warped back, so that a mask lies exactly on the
image it was made for, distorted or not.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.imagery.validation import Rejection, check_camera_info
from motion4d_ros.types import Camera, FloatArray

FISHEYE_MODELS = ("equidistant", "fisheye")
BROWN_MODELS = ("", "plumb_bob", "radial_tangential", "rational_polynomial", "thin_prism_fisheye")
SAME_INTRINSICS = 1e-3
"""Relative difference between calibrations that is taken for rounding."""
SAME_ASPECT = 0.02
"""Relative difference of aspects at which images still show a calibration's view."""


class Rectifier:
    """One calibration. Raises `Rejection` for a `CameraInfo` that makes no sense.

    The rectified camera is the projection matrix `p`, turned by `r`, as `image_proc` makes it; without one, `k`.
    `rectified` says that somebody did that before: the images are those of `p` as they come.
    """

    def __init__(self, info: Any, *, rectified: bool = False) -> None:
        check_camera_info(info)
        self.width, self.height = _image_size(info)
        self._K = _scaled_K(np.array(info.k, float).reshape(3, 3), info)
        self._D = np.array(info.d, float)
        self._R = _rotation(info.r)
        self._fisheye = info.distortion_model in FISHEYE_MODELS
        straight = not self._D.any() and not self._fisheye and np.allclose(self._R, np.eye(3))
        self._identity = rectified or straight
        if straight:
            K = self._K
        else:
            if not rectified:
                self._check_model(info.distortion_model)
            projection = np.array(info.p, float).reshape(3, 4)[:, :3]
            usable = projection[0, 0] > 0 and projection[1, 1] > 0
            K = _scaled_K(projection, info) if usable else self._K
        self.camera = Camera(K[0, 0], K[1, 1], K[0, 2], K[1, 2], self.width, self.height)
        self._to_rectified: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self._to_raw: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self._keeps_maps = True

    @classmethod
    def of_pinhole(cls, camera: Camera) -> Rectifier:
        """For images that are those of `camera` as they come."""
        K, P = camera.K.reshape(-1), np.hstack([camera.K, np.zeros((3, 1))]).reshape(-1)
        whole = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
        size = {"width": camera.width, "height": camera.height, "binning_x": 1, "binning_y": 1, "roi": whole}
        return cls(SimpleNamespace(distortion_model="", k=K, d=(), r=(), p=P, **size))

    @property
    def is_identity(self) -> bool:
        """Whether nothing needs warping."""
        return self._identity

    @property
    def rotation(self) -> FloatArray:
        """(3, 3): from the camera's own axes to those of its rectified images."""
        return np.eye(3) if self._identity else self._R

    def same_distortion(self, other: Rectifier) -> bool:
        """Whether both lenses bend rays alike, as far as their calibrations say."""
        if self._identity or other._identity:
            return self._identity == other._identity
        longest = max(len(self._D), len(other._D))
        mine, theirs = (np.pad(one._D, (0, longest - len(one._D))) for one in (self, other))
        return self._fisheye == other._fisheye and np.allclose(mine, theirs, atol=SAME_INTRINSICS)

    def rectify(self, image: NDArray[Any], *, nearest: bool = False) -> NDArray[Any]:
        """Raw (H, W[, C]) -> rectified, same size. `nearest` for labels and depth. Outside the raw image: 0."""
        if self._identity:
            return image
        maps = self._to_rectified or self._rectify_maps()
        self._to_rectified = maps if self._keeps_maps else None
        return _remap(image, maps, nearest)

    def unrectify(self, image: NDArray[Any], *, nearest: bool = False, fill: float = 0.0) -> NDArray[Any]:
        """Rectified (H, W[, C]) -> raw pixels, same size; `fill` where the rectified image does not reach."""
        if self._identity:
            return image
        maps = self._to_raw or self._unrectify_maps()
        self._to_raw = maps if self._keeps_maps else None
        return _remap(image, maps, nearest, fill)

    def forget_maps(self) -> None:
        """Holds no maps (16 bytes a pixel) any more: from now on they are made for each image."""
        self._keeps_maps, self._to_rectified, self._to_raw = False, None, None

    def rectify_points(self, uv_px: FloatArray) -> FloatArray:
        """(P, 2) raw pixels -> (P, 2) rectified pixels."""
        if self._identity or len(uv_px) == 0:
            return np.asarray(uv_px, float)
        points = np.asarray(uv_px, np.float64).reshape(-1, 1, 2)
        if self._fisheye:
            straight = cv2.fisheye.undistortPoints(points, self._K, self._D[:4], R=self._R, P=self.camera.K)
        else:
            straight = cv2.undistortPoints(points, self._K, self._D, R=self._R, P=self.camera.K)
        return np.asarray(straight).reshape(-1, 2)

    def _check_model(self, model: str) -> None:
        if self._fisheye:
            if len(self._D) < 4 or self._D[4:].any():  # some drivers append zeros
                raise Rejection("camera_info", f"camera_info: {model} needs 4 coefficients, got {len(self._D)}")
        elif model not in BROWN_MODELS:
            raise Rejection(
                "camera_info",
                f"camera_info: distortion model {model[:40]!r} is unknown: use plumb_bob, rational_polynomial or "
                "equidistant, or publish rectified images",
            )
        elif len(self._D) not in (0, 4, 5, 8, 12, 14):
            raise Rejection("camera_info", f"camera_info: {len(self._D)} distortion coefficients: 4, 5, 8, 12 or 14")

    def _rectify_maps(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        size, kind = (self.width, self.height), cv2.CV_32FC1
        if self._fisheye:
            maps = cv2.fisheye.initUndistortRectifyMap(self._K, self._D[:4], self._R, self.camera.K, size, kind)
        else:
            maps = cv2.initUndistortRectifyMap(self._K, self._D, self._R, self.camera.K, size, kind)
        return np.asarray(maps[0], np.float32), np.asarray(maps[1], np.float32)

    def _unrectify_maps(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        grid = np.stack(np.meshgrid(np.arange(self.width), np.arange(self.height)), -1).astype(np.float32)
        uv = self.rectify_points(grid.reshape(-1, 2)).reshape(self.height, self.width, 2).astype(np.float32)
        return np.ascontiguousarray(uv[..., 0]), np.ascontiguousarray(uv[..., 1])


def rectifier_for(info: Any, size: tuple[int, int], *, rectified: bool) -> tuple[Rectifier, str]:
    """The rectifier for (height, width) images of a camera info of either ROS version (`K` or `k`), and a remark
    where the camera info was scaled because the images had been. Raises `Rejection` where they do not fit.
    """
    plain = plain_info(info, size)
    rectifier = Rectifier(plain, rectified=rectified)
    if (rectifier.height, rectifier.width) == size:
        return rectifier, ""
    have, images = f"{rectifier.width}x{rectifier.height}", f"{size[1]}x{size[0]}"
    if max(plain.binning_x, plain.binning_y) > 1 or plain.roi.width or plain.roi.height:
        raise Rejection(
            "camera_info size",
            f"camera_info: its binning or region of interest makes images of {have} px, they are {images}: give "
            "--intrinsics fx,fy,cx,cy, or mend what the driver publishes",
        )
    if abs(rectifier.height / rectifier.width - size[0] / size[1]) > SAME_ASPECT * size[0] / size[1]:
        raise Rejection(
            "camera_info size", f"camera_info is for {have} px, images are {images}: do they belong together?"
        )
    scaled = Rectifier(_scaled_info(plain, size), rectified=rectified)
    return scaled, f"camera_info is for {have} px, images are {images}: scaled"


def plain_info(info: Any, size: tuple[int, int]) -> SimpleNamespace:
    """The fields of a camera info under ROS 2's names; an image size of zero, which some drivers leave, is `size`."""
    matrices = {name: np.array(getattr(info, name, getattr(info, name.upper(), ())), float) for name in "kdpr"}
    if matrices["p"].size != 12:
        matrices["p"] = np.zeros(12)
    height, width = (int(info.height), int(info.width)) if info.width and info.height else size
    others = {name: getattr(info, name) for name in ("distortion_model", "binning_x", "binning_y", "roi")}
    return SimpleNamespace(width=width, height=height, **matrices, **others)


def same_intrinsics(info: Any, other: Any) -> bool:
    """Whether two camera infos of either ROS version say the same of the lens, apart from rounding."""
    if info is other:
        return True
    mine, theirs = (plain_info(message, (0, 0)) for message in (info, other))
    return len(mine.d) == len(theirs.d) and all(
        np.allclose(a, b, rtol=SAME_INTRINSICS, atol=SAME_INTRINSICS)
        for a, b in ((mine.k, theirs.k), (mine.d, theirs.d))
    )


def is_calibrated(info: Any) -> bool:
    """Whether a camera info of either ROS version holds a focal length: drivers publish empty ones before they know."""
    k: Any = getattr(info, "k", getattr(info, "K", ()))
    return len(k) == 9 and bool(np.isfinite(k[0])) and k[0] > 0


TRANSPORTS = ("compressed", "compressedDepth", "ffmpeg", "zstd", "theora", "h264", "foxglove")
"""What `image_transport` and its like append to a topic's name."""


def base_topic(topic: str) -> str:
    """An image topic without its transport."""
    base, _, last = topic.rpartition("/")
    return base if last in TRANSPORTS and base else topic


def is_rectified_topic(topic: str) -> bool:
    """Whether a topic's name says that its images are rectified: `image_rect`, `image_rect_color`, …, as `image_proc`
    calls them. Their camera_info still tells the lens' distortion.
    """
    words = base_topic(topic).rpartition("/")[2].lower().split("_")
    return any(word in ("rect", "rectified") for word in words)


def same_calibration(a: Any, b: Any) -> bool:
    """Whether two `CameraInfo` say the same apart from their headers (cheap: called for every frame)."""
    return bool(
        (a.width, a.height, a.distortion_model) == (b.width, b.height, b.distortion_model)
        and list(a.k) == list(b.k)
        and list(a.d) == list(b.d)
        and list(a.p) == list(b.p)
        and list(a.r) == list(b.r)
        and (a.binning_x, a.binning_y) == (b.binning_x, b.binning_y)
        and (a.roi.x_offset, a.roi.y_offset, a.roi.width, a.roi.height)
        == (b.roi.x_offset, b.roi.y_offset, b.roi.width, b.roi.height)
    )


def _binning(info: Any) -> tuple[int, int]:
    return max(1, int(info.binning_x)), max(1, int(info.binning_y))  # 0 means 1 by the message's definition


def _image_size(info: Any) -> tuple[int, int]:
    bx, by = _binning(info)
    width = int(info.roi.width) or int(info.width)
    height = int(info.roi.height) or int(info.height)
    right, bottom = int(info.roi.x_offset) + width, int(info.roi.y_offset) + height
    outside = bool(info.roi.width or info.roi.height) and (right > info.width or bottom > info.height)
    if outside or bx > width or by > height:
        raise Rejection(
            "camera_info",
            f"camera_info: its region of interest ({info.roi.width}x{info.roi.height} px at {info.roi.x_offset}, "
            f"{info.roi.y_offset}) or binning ({bx}x{by}) does not fit its {info.width}x{info.height} px",
        )
    return width // bx, height // by


def _rotation(r: Any) -> FloatArray:
    """(3, 3) of a `CameraInfo`'s `r`; the identity where it was left empty or is no rotation."""
    R = np.array(r, float).reshape(3, 3) if len(r) == 9 else np.eye(3)
    return R if np.allclose(R @ R.T, np.eye(3), atol=1e-3) and np.linalg.det(R) > 0 else np.eye(3)


def _scaled_K(K: FloatArray, info: Any) -> FloatArray:
    """`K` is given for the full sensor: shift by the region of interest, shrink by the binning (pixel centres)."""
    bx, by = _binning(info)
    out = np.eye(3)
    out[0, 0], out[1, 1] = K[0, 0] / bx, K[1, 1] / by
    out[0, 2] = (K[0, 2] - info.roi.x_offset + 0.5) / bx - 0.5
    out[1, 2] = (K[1, 2] - info.roi.y_offset + 0.5) / by - 0.5
    return out


def _scaled_info(info: SimpleNamespace, size: tuple[int, int]) -> SimpleNamespace:
    """For images that were resized to `size` without a word in the camera info (pixel centres)."""
    x, y = size[1] / info.width, size[0] / info.height
    scale = np.array([[x, 0.0, 0.5 * x - 0.5], [0.0, y, 0.5 * y - 0.5], [0.0, 0.0, 1.0]])
    k, p = (scale @ info.k.reshape(3, 3)).reshape(-1), (scale @ info.p.reshape(3, 4)).reshape(-1)
    return SimpleNamespace(**{**vars(info), "k": k, "p": p, "height": size[0], "width": size[1]})


def _remap(
    image: NDArray[Any], maps: tuple[NDArray[np.float32], NDArray[np.float32]], nearest: bool, fill: float = 0.0
) -> NDArray[Any]:
    kind = image.dtype
    work = image.astype(np.float32) if kind in (np.int32, np.int64) else image  # exact for ids below 2**24
    interpolation = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    warped = cv2.remap(work, *maps, interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=(fill,) * 4)
    return np.asarray(warped).astype(kind, copy=False)
