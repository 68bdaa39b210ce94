"""Estimates as a stream of Rerun: one entity for each kind of thing, all on the images' own time line.

Something that is said again about the same frame takes the place of what was said before, so an analysis streams what
it believes as it goes, and corrects it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.geometry.rigid import inverse_pose, transform_points
from motion4d_ros.types import Camera, Estimate, FloatArray, ObjectState, Scale, StaticPoints
from motion4d_ros.viewer import blueprint as layout
from motion4d_ros.viewer import drawn, palette

FIRST_EPOCH_NS = 10**18  # 2001: earlier stamps count from some start of their own
VELOCITY_SECONDS = 0.5  # arrows reach to where an object will be then
FRUSTUM_SHARE = 0.12  # of the distance to the scene: how large the camera is drawn
_BACKGROUND = (200, 200, 195)
_REMEMBERED = 4096  # frames of a running node, of which later corrections and plots may be told
_COLOURED = 1024  # ids
_HIDDEN_ALPHA = 90  # of 255, of boxes that nothing of is seen now


class RerunStream:
    """Says what is known to one recording of Rerun. Frames may come in any order, and more than once. `node`: they are
    a running node's, which has no end and tells of its health.
    """

    def __init__(self, recording: Any, *, node: bool = False) -> None:
        import rerun

        self._rr, self._recording, self._node = rerun, recording, node
        self._unit = Scale.METRIC.unit
        self._names: dict[int, str] = {}
        self._coloured = 0  # ids below have colours
        self._distance: float | None = None  # from the camera to what it sees
        self._stamps: dict[int, int] = {}
        self._started = False

    # -- one frame -----------------------------------------------------------------------------------------------------

    def image(self, index: int, stamp_ns: int, jpeg: bytes, camera: Camera, T_map_cam: FloatArray) -> None:
        """A picture, and the camera (of the picture's size) that took it."""
        self._at(index, stamp_ns)
        if not self._started:
            self._begin(T_map_cam)
        self._camera(camera, T_map_cam)
        self._log(layout.IMAGE, self._rr.EncodedImage(contents=jpeg, media_type="image/jpeg"))

    def estimate(self, estimate: Estimate, camera: Camera, *, plotted: bool = True) -> None:
        """What is believed of a frame; `camera` has the size of its picture. A plot shows all that it was ever told, so
        speeds are `plotted` once.
        """
        self._at(estimate.index, estimate.stamp_ns)
        self._unit = estimate.scale.unit
        if not self._started:
            self._begin(estimate.T_map_cam)
        states = drawn.present(estimate.objects)
        ids = {s.object_id for s in states} | set(np.unique(estimate.masks).tolist())
        self._name(dict.fromkeys(sorted(ids - {0}), "") | {s.object_id: s.named for s in states})
        self._camera(camera, estimate.T_map_cam)
        small = cv2.resize(estimate.masks, (camera.width, camera.height), interpolation=cv2.INTER_NEAREST)
        small = small.astype(np.uint8) if small.max(initial=0) < 256 else small
        self._log(layout.MASKS, self._rr.SegmentationImage(small, opacity=0.45))
        points = estimate.points
        rows = drawn.thinned(len(points.point_id), drawn.MAX_MOVING)
        radius = self._rr.Radius.ui_points(1.5)
        self._log(layout.POINTS, self._rr.Points3D(points.xyz_map[rows], colors=points.rgb[rows], radii=radius))
        self._objects(states)
        if plotted:
            for state in states:
                speed = float(np.linalg.norm(state.twist[:3]))
                self._log(f"{layout.SPEED}/{state.object_id}", self._rr.Scalars([speed]))

    def tracks(self, trails: drawn.Trails, ids: Sequence[int], index: int, factor: float) -> None:
        """Points that are followed, with their trails, and the objects they lie on; `factor`: the picture's size by the
        image's.
        """
        if index not in self._stamps:
            return
        self._at(index, self._stamps[index])
        rr, colours = self._rr, np.array([palette.rgb(i) if i else _BACKGROUND for i in ids], np.uint8).reshape(-1, 3)
        thick, thin = rr.Radius.ui_points(2.5), rr.Radius.ui_points(0.8)
        placed = np.isfinite(trails.xyz).all(1)
        self._log(layout.TRACKS, rr.Points3D(trails.xyz[placed], colors=colours[placed], radii=thick))
        long = [k for k, path in enumerate(trails.paths_xyz) if len(path) > 1]
        self._log(layout.TRAILS, rr.LineStrips3D([trails.paths_xyz[k] for k in long], colors=colours[long], radii=thin))
        uv = [(path + 0.5) * factor for path in trails.paths_uv]  # Rerun's (0, 0) is the corner of the first pixel
        here = np.array([path[-1] for path in uv], np.float32).reshape(-1, 2)
        self._log(layout.TRACKS_2D, rr.Points2D(here, colors=colours, radii=thick))
        long = [k for k, path in enumerate(uv) if len(path) > 1]
        self._log(layout.TRAILS_2D, rr.LineStrips2D([uv[k] for k in long], colors=colours[long], radii=thin))

    def cost(self, index: int, seconds: float, mib: float) -> None:
        """What a frame cost: time of computing, and the largest memory so far."""
        if index in self._stamps:
            self._at(index, self._stamps[index])
            self._log(layout.COST, self._rr.Scalars([seconds]))
            self._log(layout.MEMORY, self._rr.Scalars([mib]))

    def health(self, index: int, latency_s: Mapping[str, float], numbers: Mapping[str, float]) -> None:
        """How a running node is, as of a frame: seconds of latency by stage, and whatever counts, by name."""
        if index in self._stamps:
            self._at(index, self._stamps[index])
            for origin, values in ((layout.LATENCY, latency_s), (layout.HEALTH, numbers)):
                for name, value in values.items():
                    self._log(f"{origin}/{name}", self._rr.Scalars([value]))

    def finding(self, index: int, level: str, text: str) -> None:
        """What a node says is wrong, as of a frame; `level`: INFO, WARN or ERROR."""
        if index in self._stamps:
            self._at(index, self._stamps[index])
            self._log(layout.FINDINGS, self._rr.TextLog(text, level=level))

    def static(self, points: StaticPoints, index: int, stamp_ns: int, T_map_cam: FloatArray) -> None:
        """The map of what stands still, from frame `index` on, where the camera was at `T_map_cam` (4, 4)."""
        self._at(index, stamp_ns)
        xyz, rgb = drawn.thin_static(points)
        self._log(layout.STATIC, self._rr.Points3D(xyz, colors=rgb, radii=self._rr.Radius.ui_points(1.5)))
        depth = transform_points(inverse_pose(T_map_cam), xyz)[:, 2]
        if self._distance is None and (depth > 0).any():  # once: a layout that comes again undoes what a person did
            self._distance = float(np.median(depth[depth > 0]))
            self._lay_out(T_map_cam)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _begin(self, T_map_cam: FloatArray) -> None:
        self._started = True
        level = drawn.up_direction({0: T_map_cam})[2] == 1.0
        axes = self._rr.ViewCoordinates.RIGHT_HAND_Z_UP if level else self._rr.ViewCoordinates.RIGHT_HAND_Y_DOWN
        self._recording.log(layout.WORLD, axes, static=True)
        style = self._rr.SeriesLines(names="s a frame", colors=[[120, 170, 240]])
        self._recording.log(layout.COST, style, static=True)
        self._name({})
        self._lay_out(T_map_cam)

    def _lay_out(self, T_map_cam: FloatArray) -> None:
        """Lays the views out for a map of which the size is known by now."""
        up = drawn.up_direction({0: T_map_cam})
        where = layout.blueprint(T_map_cam, up, self._distance or 1.0, self._unit, node=self._node)
        self._recording.send_blueprint(where)

    def _camera(self, camera: Camera, T_map_cam: FloatArray) -> None:
        rr = self._rr
        self._log(layout.CAMERA, rr.Transform3D(translation=T_map_cam[:3, 3], mat3x3=T_map_cam[:3, :3]))
        K = camera.K + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # (0, 0) is the corner of the first pixel
        size = {"resolution": [camera.width, camera.height], "camera_xyz": rr.ViewCoordinates.RDF}
        plane = FRUSTUM_SHARE * (self._distance or 1.0)
        self._log(layout.IMAGE, rr.Pinhole(image_from_camera=K, image_plane_distance=plane, **size))

    def _objects(self, states: Sequence[ObjectState]) -> None:
        """Boxes, velocities and uncertainty; what is not there any more goes."""
        rr = self._rr
        colours = np.array([[*palette.rgb(s.object_id), 255] for s in states], np.uint8).reshape(-1, 4)
        faded = colours.copy()
        faded[[s.phase.value == "occluded" for s in states], 3] = _HIDDEN_ALPHA
        half, turns, centres = drawn.ellipsoids(states)
        boxes = rr.Boxes3D(
            half_sizes=np.reshape([s.size_m / 2 for s in states], (-1, 3)),
            centers=centres,
            quaternions=np.reshape([Rotation.from_matrix(s.T_map_object[:3, :3]).as_quat() for s in states], (-1, 4)),
            labels=[self._names[s.object_id] for s in states],
            colors=faded,
            radii=rr.Radius.ui_points(1.0),
        )
        self._log(layout.BOXES, boxes)
        vectors = np.reshape([VELOCITY_SECONDS * s.twist[:3] for s in states], (-1, 3))
        width = rr.Radius.ui_points(2.0)
        self._log(layout.VELOCITIES, rr.Arrows3D(vectors=vectors, origins=centres, colors=colours, radii=width))
        lines = {"fill_mode": rr.components.FillMode.MajorWireframe, "line_radii": rr.Radius.ui_points(0.6)}
        self._log(
            layout.UNCERTAINTY,
            rr.Ellipsoids3D(half_sizes=half, centers=centres, quaternions=turns, colors=colours, **lines),
        )

    def _name(self, names: dict[int, str]) -> None:
        """Tells the viewer what ids are called and how their plots are coloured, where that is news."""
        news = {i: f"{i} {name}".strip() for i, name in names.items() if name or i not in self._names}
        news = {i: name for i, name in news.items() if self._names.get(i) != name}
        if self._names and not news:
            return
        self._names |= news
        self._colour(max(self._names, default=0))
        for i, name in news.items():
            style = self._rr.SeriesLines(names=name, colors=[palette.rgb(i)])
            self._recording.log(f"{layout.SPEED}/{i}", style, static=True)

    def _colour(self, largest: int) -> None:
        """Tells the viewer the colours of ids, `_COLOURED` at a time: told a second time while it looks on, it forgets
        them all (Rerun 0.41).
        """
        if largest < self._coloured:
            return
        self._coloured = _COLOURED * (largest // _COLOURED + 1)
        known = [(0, "background", (0, 0, 0, 0)), *((i, str(i), palette.rgb(i)) for i in range(1, self._coloured))]
        self._recording.log("/", self._rr.AnnotationContext(known), static=True)

    def _at(self, index: int, stamp_ns: int) -> None:
        """What is said next is about frame number `index`."""
        self._stamps.pop(index, None)
        self._stamps[index] = stamp_ns
        if self._node and len(self._stamps) > _REMEMBERED:
            del self._stamps[next(iter(self._stamps))]
        self._recording.set_time(layout.FRAMES, sequence=index)
        if stamp_ns >= FIRST_EPOCH_NS:
            self._recording.set_time(layout.TIMELINE, timestamp=np.datetime64(stamp_ns, "ns"))
        else:
            self._recording.set_time(layout.TIMELINE, duration=np.timedelta64(stamp_ns, "ns"))

    def _log(self, entity: str, what: Any) -> None:
        self._recording.log(entity, what)


def small_camera(camera: Camera, size: tuple[int, int]) -> Camera:
    """The camera of a picture that was made smaller, to (height, width)."""
    height, width = size
    sx, sy = width / camera.width, height / camera.height
    return Camera(
        camera.fx * sx, camera.fy * sy, (camera.cx + 0.5) * sx - 0.5, (camera.cy + 0.5) * sy - 0.5, width, height
    )
