"""What RViz draws of every object: box, label, velocity, recent trajectory, and how sure position and velocity are."""

from __future__ import annotations

from collections import deque

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from motion4d_ros.geometry.rigid import pose_matrix
from motion4d_ros.ros.outputs.messages import header, pose_message
from motion4d_ros.ros.outputs.overlay import object_colour
from motion4d_ros.types import Estimate, FloatArray, ObjectPhase, ObjectState

_FADE = {ObjectPhase.NEW: 0.35, ObjectPhase.TRACKED: 0.7, ObjectPhase.OCCLUDED: 0.35, ObjectPhase.LOST: 0.15}
ARROW_SECONDS = 0.5
"""The arrow ends where the object will be after this time."""

SIGMAS = 2.0
"""Half axes of ellipsoids, standard deviations: each axis holds 95 %."""

NAMESPACES = ("box", "label", "velocity", "trajectory", "position_uncertainty", "velocity_uncertainty")


class MarkerMaker:
    """Keeps the recent positions of the objects and draws them. Feed it each stamp once, in order."""

    def __init__(self, trail: int) -> None:
        self.trail = trail
        self._paths: dict[int, deque[Point]] = {}
        self._shown: set[int] = set()

    def clear(self) -> None:
        """Forgets the trajectories (after a reset)."""
        self._paths.clear()

    def make(self, estimate: Estimate, map_frame: str) -> MarkerArray:
        """Markers of the estimate's objects; those that have gone are deleted."""
        head = header(estimate.stamp_ns, map_frame)
        markers: list[Marker] = []
        seen: set[int] = set()
        for state in estimate.objects:
            seen.add(state.object_id)
            path = self._paths.setdefault(state.object_id, deque())
            path.append(_point(state.T_map_object[:3, 3]))
            while len(path) > max(self.trail, 1):
                path.popleft()
            markers += [self._box(state, head), self._label(state, head), self._arrow(state, head)]
            markers += [self._position_uncertainty(state, head), self._velocity_uncertainty(state, head)]
            if self.trail >= 2 and len(path) >= 2:
                markers.append(self._path(state, head))
        for gone in self._shown - seen:
            self._paths.pop(gone, None)
            for namespace in NAMESPACES:
                markers.append(Marker(header=head, ns=namespace, id=gone, action=Marker.DELETE))
        self._shown = seen
        return MarkerArray(markers=markers)

    def _base(self, state: ObjectState, head: Header, namespace: str, kind: int, alpha: float) -> Marker:
        red, green, blue = (value / 255.0 for value in object_colour(state.object_id))
        marker = Marker(header=head, ns=namespace, id=state.object_id, type=kind, action=Marker.ADD)
        marker.color = ColorRGBA(r=red, g=green, b=blue, a=alpha)
        marker.lifetime = Duration(sec=5)  # nothing stale stays on the screen when the node goes away
        marker.pose.orientation.w = 1.0
        return marker

    def _box(self, state: ObjectState, head: Header) -> Marker:
        marker = self._base(state, head, "box", Marker.CUBE, _FADE[state.phase])
        marker.pose = pose_message(state.T_map_object)
        x, y, z = (max(float(v), 1e-3) for v in state.size_m)
        marker.scale = Vector3(x=x, y=y, z=z)
        return marker

    def _label(self, state: ObjectState, head: Header) -> Marker:
        marker = self._base(state, head, "label", Marker.TEXT_VIEW_FACING, 1.0)
        marker.pose.position = _point(state.T_map_object[:3, 3])
        height = max(0.05, 0.3 * float(max(state.size_m)))
        marker.scale.z = height
        marker.text = f"{state.object_id} {state.named}".strip()
        if state.phase is not ObjectPhase.TRACKED:
            marker.text += f" ({state.phase.value})"
        return marker

    def _arrow(self, state: ObjectState, head: Header) -> Marker:
        marker = self._base(state, head, "velocity", Marker.ARROW, 1.0)
        start = state.T_map_object[:3, 3]
        marker.points = [_point(start), _point(start + ARROW_SECONDS * state.twist[:3])]
        width = max(0.005, 0.05 * float(max(state.size_m)))
        marker.scale = Vector3(x=width, y=2 * width, z=3 * width)
        return marker

    def _position_uncertainty(self, state: ObjectState, head: Header) -> Marker:
        marker = self._base(state, head, "position_uncertainty", Marker.SPHERE, 0.5)
        _shape(marker, state.T_map_object[:3, 3], state.pose_covariance[:3, :3])
        return marker

    def _velocity_uncertainty(self, state: ObjectState, head: Header) -> Marker:
        """Where the arrow may end."""
        marker = self._base(state, head, "velocity_uncertainty", Marker.SPHERE, 0.25)
        end = state.T_map_object[:3, 3] + ARROW_SECONDS * state.twist[:3]
        _shape(marker, end, ARROW_SECONDS**2 * state.twist_covariance[:3, :3])
        return marker

    def _path(self, state: ObjectState, head: Header) -> Marker:
        marker = self._base(state, head, "trajectory", Marker.LINE_STRIP, 0.9)
        marker.points = list(self._paths[state.object_id])
        marker.scale.x = max(0.003, 0.03 * float(max(state.size_m)))
        return marker


def _shape(marker: Marker, centre: FloatArray, covariance: FloatArray) -> None:
    """Makes a sphere the ellipsoid of `SIGMAS` standard deviations of a (3, 3) covariance, m²."""
    values, axes = np.linalg.eigh((covariance + covariance.T) / 2)
    if np.linalg.det(axes) < 0:
        axes = -axes
    marker.pose = pose_message(pose_matrix(axes, centre))
    x, y, z = (max(float(v), 1e-4) for v in 2 * SIGMAS * np.sqrt(np.maximum(values, 0.0)))
    marker.scale = Vector3(x=x, y=y, z=z)


def _point(values: FloatArray) -> Point:
    x, y, z = (float(v) for v in values)
    return Point(x=x, y=y, z=z)
