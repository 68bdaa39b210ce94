"""Camera poses from TF: a bounded wait, and a diagnosis instead of a silent identity.

`tf2_ros` is not required to import this module; without it `pose.source: tf` is refused when the node is configured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.config import Config
from motion4d_ros.imagery.validation import Rejection, check_pose
from motion4d_ros.types import FloatArray, Motion4DError

_POLL_S = 0.005
NEWEST = 0
"""The stamp that asks TF for the newest transform."""
SAME_TRANSFORM = 1e-6
"""Largest difference (m; entries of the rotation) of two transforms that are taken for the same."""

MOST_LINKS = 64
"""Pairs of frames that are remembered."""


def have_tf2() -> bool:
    """Whether `tf2_ros` can be imported."""
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        return False
    return True


def matrix_from_pose(pose: Any, what: str) -> FloatArray:
    """(4, 4) of a checked `geometry_msgs/Pose`. Raises `Rejection`."""
    check_pose(pose, what)
    q = pose.orientation
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    T[:3, 3] = (pose.position.x, pose.position.y, pose.position.z)
    return T


def matrix_from_transform(transform: Any) -> FloatArray:
    """(4, 4) of a `geometry_msgs/Transform`."""
    q, t = transform.rotation, transform.translation
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    T[:3, 3] = (t.x, t.y, t.z)
    return T


class PoseLookup(Protocol):
    """Where a pose comes from when it comes from TF: `TransformSource.lookup`."""

    def __call__(
        self, target: str, source: str, stamp_ns: int, timeout_s: float, give_up: Callable[[], bool]
    ) -> FloatArray: ...


class Extrinsics:
    """Transforms between things that are mounted on each other. Until one is seen to move, the newest there is holds at
    all times: it may be said once, late, or rarely, on `/tf_static` or `/tf`.
    """

    def __init__(self, lookup: PoseLookup) -> None:
        self._lookup = lookup
        self._known: dict[tuple[str, str], FloatArray] = {}
        self._moving: set[tuple[str, str]] = set()

    def find(
        self, target: str, source: str, stamp_ns: int, timeout_s: float, give_up: Callable[[], bool]
    ) -> FloatArray:
        """(4, 4) T_target_source. Waits only for what was never known, or moves. Raises `Rejection`."""
        link = (target, source)
        known = self._known.get(link)
        if link in self._moving:
            return self._lookup(target, source, stamp_ns, timeout_s, give_up)
        try:
            found = self._lookup(target, source, stamp_ns, timeout_s if known is None else 0.0, give_up)
        except Rejection as error:
            try:
                found = self._lookup(target, source, NEWEST, 0.0, give_up)
            except Rejection:
                if known is None:
                    raise error from None
                return known
        if known is not None and np.abs(known - found).max() > SAME_TRANSFORM:
            self._moving.add(link)
        self._known.pop(link, None)
        self._known[link] = found  # the newest used comes last
        while len(self._known) > MOST_LINKS:  # odometry may name another body in every message
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._moving.discard(oldest)
        return found


class TransformSource:
    """Looks transforms up in a `tf2_ros.Buffer`, from the worker's thread while the executor fills the buffer."""

    def __init__(self, buffer: Any, listener: Any = None, make_time: Callable[[int], Any] | None = None) -> None:
        self._buffer = buffer
        self._listener = listener
        self._make_time = make_time or _rclpy_time

    @classmethod
    def create(cls, node: Any) -> TransformSource:
        """Listens to TF on `node`. Raises `Motion4DError` where `tf2_ros` is missing."""
        try:
            from tf2_ros import Buffer, TransformListener
        except ImportError:
            raise Motion4DError(
                "pose.source tf needs tf2_ros: apt install ros-jazzy-tf2-ros-py, or use pose.source odometry"
            ) from None
        buffer = Buffer(node=node)
        return cls(buffer, TransformListener(buffer, node, spin_thread=False))

    def lookup(
        self, target: str, source: str, stamp_ns: int, timeout_s: float, give_up: Callable[[], bool] = lambda: False
    ) -> FloatArray:
        """(4, 4) T_target_source at `stamp_ns`, waiting at most `timeout_s` of real time. Raises `Rejection`."""
        deadline = time.monotonic() + timeout_s
        when = self._make_time(stamp_ns)
        while True:
            try:
                found = self._buffer.lookup_transform(target, source, when)
                return matrix_from_transform(found.transform)
            except Exception as error:  # tf2's own exceptions; their classes need tf2 to be named
                if time.monotonic() >= deadline or give_up():
                    raise Rejection("tf", self._diagnose(target, source, error)) from None
            time.sleep(_POLL_S)

    def clear(self) -> None:
        """Forgets all transforms: after a backward jump the old ones lie in the future."""
        self._buffer.clear()

    def close(self) -> None:
        """Stops listening."""
        if self._listener is not None and hasattr(self._listener, "unregister"):
            self._listener.unregister()
        self._listener = None

    def _diagnose(self, target: str, source: str, error: Exception) -> str:
        """Which frame is missing, who publishes the others, what to set."""
        known = self._known_frames()
        missing = [frame for frame in (target, source) if frame not in known]
        if not known:
            return f"TF: nothing is published on /tf yet; needed: {target} <- {source}"
        if missing:
            listing = ", ".join(sorted(known)[:12])
            return (
                f"TF: frame {' and '.join(repr(frame) for frame in missing)} is not published; needed: {target} <- "
                f"{source}; known: {listing}. Set map_frame, or publish the missing frame"
            )
        reason = " ".join(str(error).split())[:200]
        return f"TF: no {target} <- {source} at the image's stamp: {reason}"

    def _known_frames(self) -> set[str]:
        import yaml

        try:
            tree = yaml.safe_load(self._buffer.all_frames_as_yaml()) or {}
        except Exception:
            return set()
        if not isinstance(tree, dict):
            return set()
        parents = {str(entry.get("parent")) for entry in tree.values() if isinstance(entry, dict)}
        return {str(name) for name in tree} | parents


def transforms_for(node: Any, config: Config, base_to_camera: FloatArray | None) -> TransformSource | None:
    """TF, where poses come from it, or where it may say where camera, depth camera and body sit on each other; else
    None. Raises `Motion4DError` where poses come from it and `tf2_ros` is missing.
    """
    helps = config.depth.source == "topic" or (config.pose.source == "odometry" and base_to_camera is None)
    return TransformSource.create(node) if config.pose.source == "tf" or (helps and have_tf2()) else None


def _rclpy_time(stamp_ns: int) -> Any:
    from rclpy.time import Time

    return Time(nanoseconds=stamp_ns)
