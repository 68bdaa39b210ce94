"""A tiny engine for tests of the node alone: what the real one promises, with nothing behind it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.types import (
    Detection,
    Estimate,
    Frame,
    Health,
    Motion4DError,
    ObjectPhase,
    ObjectState,
    PoseStatus,
    Prompt,
    Rendered,
    Scale,
    Stage,
    StaticPoints,
    TrackedPoints,
)


class DoubleView:
    """Tells frames as the engine does, apart from it."""

    def __init__(self, engine: DoubleEngine) -> None:
        self._engine, self._camera = engine, engine.frames[-1].camera

    def continues(self, frame: Frame) -> bool:
        return frame.camera.is_like(self._camera)

    def look(self, frame: Frame, *, with_labels: bool = True, with_points: bool = True) -> Estimate:
        self._engine._maybe_fail("look")
        estimate = self._engine._estimate(frame.with_index(-1), Stage.LIVE)
        self._engine.told.append(frame.stamp_ns)
        if not with_labels:
            estimate.masks, estimate.mask_confidence = np.zeros((0, 0), np.uint16), None
        return estimate if with_points else replace(estimate, points=TrackedPoints.empty())


class DoubleEngine:
    """Every non-zero label is an object one metre ahead. Misbehaves on request."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.frames: list[Frame] = []
        self.pending: list[Frame] = []
        self.count = self.windows = self.refinements = 0
        self.calls: list[str] = []
        self.prompts: list[Prompt] = []
        self.fail: dict[str, BaseException] = {}  # method -> what it raises, once
        self.window_s = 0.0
        self.accept_s = 0.0
        self.deaf = False  # a window that never pauses
        self.rendered = self.looks = self.offered = 0
        self.views = False  # whether frames can be told apart from it
        self.told: list[int] = []  # stamps of the frames that were
        self.restart = ""  # why the next frame starts a new scene

    def _maybe_fail(self, method: str) -> None:
        self.calls.append(method)
        if method in self.fail:
            raise self.fail.pop(method)

    @property
    def live_view(self) -> DoubleView | None:
        return DoubleView(self) if self.views and self.frames else None

    def keeps_next(self, waiting: int) -> bool:
        self.offered += 1
        return len(self.pending) + waiting < self.config.window.length and self.offered % 2 == 0

    def count_looks(self, frames: int) -> None:
        self.looks += frames

    def add_frame(self, frame: Frame, *, told: bool = False) -> Estimate:
        self._maybe_fail("add_frame")
        time.sleep(self.accept_s)
        frame = frame.with_index(self.count)
        self.count += 1
        self.frames = [*self.frames, frame][-self.config.window.horizon :]
        self.pending.append(frame)
        return self._estimate(frame, Stage.LIVE)

    def reason_to_restart(self, frame: Frame) -> str:
        reason, self.restart = self.restart, ""
        return reason

    def set_timing(self, period_s: float | None, cost_s: float = 0.0) -> None:
        self.period_s = period_s

    @property
    def window_is_full(self) -> bool:
        return len(self.pending) >= self.config.window.length

    def process_window(
        self, should_yield: Callable[[], bool] | None = None, between: Callable[[], None] | None = None
    ) -> list[Estimate]:
        if not self.window_is_full:
            return []
        self._maybe_fail("process_window")
        length = self.config.window.length
        window, self.pending = self.pending[:length], self.pending[length:]
        began = time.monotonic()
        while time.monotonic() < began + self.window_s:  # a test may end it
            time.sleep(0.005)
            if between is not None and not self.deaf:
                between()
        self.windows += 1
        return [self._estimate(frame, Stage.WINDOW) for frame in window]

    def refine(
        self, should_yield: Callable[[], bool] | None = None, between: Callable[[], None] | None = None
    ) -> list[Estimate]:
        self._maybe_fail("refine")
        self.refinements += 1
        waiting = {frame.index for frame in self.pending}
        return [self._estimate(frame, Stage.GLOBAL) for frame in self.frames if frame.index not in waiting]

    def flush(
        self, should_yield: Callable[[], bool] | None = None, between: Callable[[], None] | None = None
    ) -> list[Estimate]:
        self.pending = []
        return self.refine()

    def reset(self, reason: str) -> None:
        self._maybe_fail("reset")
        self.frames, self.pending = [], []

    def inherit(self, other: DoubleEngine) -> None:
        self.count = other.count

    def status(self) -> Health:
        return Health(
            frames=self.count,
            windows=self.windows,
            refinements=self.refinements,
            horizon=len(self.frames),
            scale=Scale.METRIC,
            stage_seconds={"window": 0.1 * self.windows},
        )

    def detect(self, stamp_ns: int, detections: tuple[Detection, ...]) -> bool:
        self._maybe_fail("detect")
        for frame in self.frames:
            if frame.stamp_ns == stamp_ns:
                frame.detections = detections
                return True
        return False

    def prompt(self, prompt: Prompt) -> int:
        self._maybe_fail("prompt")
        self.prompts.append(prompt)
        return prompt.object_id or 100 + len(self.prompts)

    def render(self, index: int) -> Rendered:
        self.rendered += 1
        if index in {frame.index for frame in self.pending}:
            raise Motion4DError("not fitted yet")
        frame = next(frame for frame in self.frames if frame.index == index)
        shape = frame.camera.size
        return Rendered(
            frame.image,
            np.ones(shape, np.float32),
            np.full(shape, 0.1, np.float32),
            np.ones(shape, np.float32),
            np.full(shape, 0.5, np.float32),
            np.zeros(shape, np.uint16),
        )

    def static_points(self) -> StaticPoints:
        return StaticPoints(np.ones((5, 3), np.float32), np.full((5, 3), 255, np.uint8), np.ones(5, np.float32))

    def save_scene(self, folder: str) -> list[str]:
        path = Path(folder) / "scene.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("scene", encoding="utf-8")
        return [str(path)]

    def _estimate(self, frame: Frame, stage: Stage) -> Estimate:
        masks = np.zeros(frame.camera.size, np.uint16)
        if frame.masks is not None:
            masks = np.clip(frame.masks, 0, None).astype(np.uint16)
        ids = [int(label) for label in np.unique(masks) if label]
        T_map_cam = np.eye(4) if frame.T_map_cam is None else frame.T_map_cam
        objects = [self._object(object_id, frame, T_map_cam) for object_id in ids]
        count = len(ids)
        points = TrackedPoints(
            np.array(ids, np.uint32),
            np.array(ids, np.uint32),
            np.full((count, 3), 1.0, np.float32),
            np.full((count, 3), 0.1, np.float32),
            np.tile(np.array([[255, 128, 0]], np.uint8), (count, 1)),
            np.full(count, 0.9, np.float32),
        )
        return Estimate(
            frame.index,
            frame.stamp_ns,
            frame.frame_id,
            stage,
            frame.camera,
            T_map_cam,
            PoseStatus.OK,
            Scale.METRIC,
            masks,
            points,
            objects,
            mask_confidence=np.full(masks.shape, 204, np.uint8),
        )

    @staticmethod
    def _object(object_id: int, frame: Frame, T_map_cam: np.ndarray) -> ObjectState:
        T = T_map_cam.copy()
        T[:3, 3] += T[:3, 2]
        return ObjectState(
            object_id,
            "",
            ObjectPhase.TRACKED,
            0.9,
            T,
            np.eye(6) * 1e-4,
            np.array([0.1, 0, 0, 0, 0, 0.2]),
            np.eye(6) * 1e-3,
            np.array([0.2, 0.3, 0.4]),
            1,
            frame.stamp_ns,
            frame.stamp_ns,
        )
