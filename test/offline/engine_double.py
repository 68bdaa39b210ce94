"""A deterministic stand-in for the engine, for tests of readers and writers only: it fits nothing.

It believes every mask it is given (none: one square that moves to the right), places objects by the median depth of
their mask, and lets query points follow the centre of their object.
"""

from __future__ import annotations

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.types import (
    Estimate,
    Frame,
    Health,
    ObjectPhase,
    ObjectState,
    PoseStatus,
    QueryTracks,
    Rendered,
    Scale,
    Stage,
    StaticPoints,
    TrackedPoints,
)


class EngineDouble:
    """Speaks `Motion4D`'s language; windows of `config.window.length` frames."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.frames: list[Frame] = []
        self.prompts = []
        self.closed = 0
        self.flushed = False
        self.on_accept = None  # a test's hook, called with the running number

    def accept(self, frame):
        index = len(self.frames)
        if self.on_accept is not None:
            self.on_accept(index)
        self.frames.append(frame.with_index(index))
        return self._estimate(index, Stage.LIVE)

    def advance(self, should_yield=None):
        length = self.config.window.length
        if len(self.frames) - self.closed < length:
            return []
        begin, self.closed = self.closed, self.closed + length
        return [self._estimate(i, Stage.WINDOW) for i in range(begin, self.closed)]

    def push(self, frame):
        return [self.accept(frame), *self.advance()]

    def refine(self, should_yield=None):
        return []

    def flush(self):
        self.closed, self.flushed = len(self.frames), True
        return [self._estimate(i, Stage.GLOBAL) for i in range(len(self.frames))]

    def status(self):
        return Health(
            frames=len(self.frames), windows=self.closed // self.config.window.length, gaussians_static=500,
            gaussians_dynamic=60, bases=2, objects=2, horizon=len(self.frames), scale=Scale.METRIC,
            stage_seconds={"stage 1 motion": 1.5, "stage 2 semantics": 0.5, "stage 3 global": 0.8}, raster_seconds=1.7,
            warnings={"a warning of the engine": 2},
        )  # fmt: skip

    def prompt(self, prompt):
        assert self.frames[-1].stamp_ns == prompt.stamp_ns
        self.prompts.append(prompt)
        return prompt.object_id

    def query(self, points_tyx):
        count = len(self.frames)
        assert (points_tyx[:, 0] < count).all(), "asked for a frame that has not been seen"
        shape = (len(points_tyx), count)
        tracks, xyz = np.zeros((*shape, 2), np.float32), np.zeros((*shape, 3), np.float32)
        shift = 0.0 if self.flushed else 0.25  # online and final answers differ
        for row, (t, y, x) in enumerate(points_tyx):
            own = self._masks(int(t))
            object_id = int(own[int(y), int(x)])
            start = self._centre(int(t), object_id)
            for k in range(count):
                delta = self._centre(k, object_id) - start
                tracks[row, k] = np.array([x, y]) + delta + shift
                xyz[row, k] = self._lift(k, tracks[row, k])
        return QueryTracks(
            points_tyx, tracks, np.zeros(shape, bool), xyz, np.full(shape, 0.8, np.float32),
            np.array([f.stamp_ns for f in self.frames], np.int64),
        )  # fmt: skip

    def render(self, index):
        frame = self.frames[index]
        height, width = frame.camera.size
        ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
        return Rendered(frame.image, 1 + ramp, np.ones((height, width), np.float32), ramp, self._masks(index))

    def static_points(self):
        generator = np.random.default_rng(0)
        xyz = generator.uniform([-1.5, -1, 1.5], [1.5, 1, 3.0], (2000, 3)).astype(np.float32)
        return StaticPoints(xyz, generator.integers(60, 220, (2000, 3)).astype(np.uint8), np.ones(2000, np.float32))

    def save_scene(self, folder):
        from pathlib import Path

        paths = [Path(folder) / "scene.json", Path(folder) / "scene.ply"]
        for path in paths:
            path.write_text("scene")
        return [str(path) for path in paths]

    @property
    def T_map_cams(self):
        return {i: self._pose(i) for i in range(len(self.frames))}

    def _pose(self, index):
        T = self.frames[index].T_map_cam
        return np.eye(4) if T is None else T

    def _masks(self, index):
        frame = self.frames[index]
        if frame.masks is not None:
            return frame.masks.astype(np.uint16)
        masks = np.zeros(frame.camera.size, np.uint16)
        masks[8:20, 4 + index : 16 + index] = 1
        return masks

    def _centre(self, index, object_id):
        rows, columns = np.nonzero(self._masks(index) == object_id)
        if object_id == 0 or not len(rows):
            return np.zeros(2)
        return np.array([columns.mean(), rows.mean()])

    def _lift(self, index, uv):
        frame = self.frames[index]
        T = self._pose(index)
        depth = 2.0
        if frame.depth_m is not None and (frame.depth_m > 0).any():
            depth = float(np.median(frame.depth_m[frame.depth_m > 0]))
        return T[:3, :3] @ frame.camera.unproject(np.asarray(uv, float), np.array(depth)) + T[:3, 3]

    def _estimate(self, index, stage):
        frame = self.frames[index]
        masks = self._masks(index)
        objects = []
        points = [np.zeros((0, 3))]
        ids = []
        for object_id in np.unique(masks[masks > 0]).tolist():
            T = np.eye(4)
            T[:3, 3] = self._lift(index, self._centre(index, object_id))
            previous = T[:3, 3] if index == 0 else self._lift(index - 1, self._centre(index - 1, object_id))
            velocity = (T[:3, 3] - previous) * 10.0
            objects.append(
                ObjectState(
                    object_id, "", ObjectPhase.TRACKED if index else ObjectPhase.NEW, 0.9, T, 1e-4 * np.eye(6),
                    np.concatenate([velocity, np.zeros(3)]), 1e-3 * np.eye(6), np.array([0.3, 0.2, 0.25]), 20,
                    self.frames[0].stamp_ns, frame.stamp_ns,
                )
            )  # fmt: skip
            cloud = np.random.default_rng(object_id).normal(0, 0.08, (20, 3))
            points.append(cloud + T[:3, 3])
            ids += [object_id] * 20
        xyz = np.concatenate(points).astype(np.float32)
        count = len(xyz)
        tracked = TrackedPoints(
            np.arange(count, dtype=np.uint32), np.array(ids, np.uint32), xyz, np.zeros((count, 3), np.float32),
            np.full((count, 3), 180, np.uint8), np.full(count, 0.7, np.float32),
        )  # fmt: skip
        return Estimate(
            index, frame.stamp_ns, frame.frame_id, stage, frame.camera, self._pose(index), PoseStatus.OK, Scale.METRIC,
            masks, tracked, objects,
        )  # fmt: skip
