"""The parameter `rerun`: a running node in the viewer Rerun, by a thread of its own that nobody waits for."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.rigid import inverse_pose, transform_points
from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.ros.diagnostics import Finding, Level
from motion4d_ros.ros.inputs.frames import FrameContext
from motion4d_ros.types import Estimate, FloatArray, Motion4DError, Stage, StaticPoints
from motion4d_ros.viewer import drawn
from motion4d_ros.viewer.destinations import check_target, recording_to
from motion4d_ros.viewer.rerun_stream import RerunStream, small_camera

WAITING = 100  # things to tell that may wait; beyond, the oldest are given up
AGAIN_S = 5.0  # until a viewer elsewhere that was not there is looked for again, and how often one is looked after
DELIVERY_S = 1.5  # within which a viewer must have taken the rest at the end
CLOSE_S = 3.0  # within which the thread must have told all when the node goes down
_LEVELS = {Level.OK: "INFO", Level.WARN: "WARN", Level.ERROR: "ERROR"}

Tell = Callable[["_Account"], None]


class ViewerShow:
    """Told by the node what it publishes. Never waits, never raises; what goes wrong with the viewer is one line.

    A viewer at a URL may come and go: it is told what happens while it is there. One on this machine (`spawn`) or a
    file is told until something is wrong with it.
    """

    def __init__(self, target: str, name: str, note: Callable[[str], None]) -> None:
        """`note` writes a line to the node's log; `name` is the recording's."""
        self._target, self._name, self._note = target, name, note
        self._waiting: deque[Tell] = deque(maxlen=WAITING)
        self._news, self._stop = threading.Event(), threading.Event()
        self._windows = 0  # stamps fitted since the scene began
        self._newest_ns = -1  # stamp of the newest frame that was fitted
        self._given_up = False  # for good
        self._telling = self._lost = False  # whether a viewer is there; whether it is known that none is
        self._said_too_much = False
        self._thread = threading.Thread(target=self._run, name="motion4d-viewer", daemon=True)
        self._thread.start()

    def estimate(
        self, estimate: Estimate, context: FrameContext | None, static_points: Callable[[], StaticPoints]
    ) -> None:
        """An estimate goes out (the worker's thread, in which alone `static_points` may be asked)."""
        picture = context.image if context is not None and estimate.stage is Stage.LIVE else None
        rectifier = None if context is None else context.rectifier
        self._put(lambda account: account.estimate(estimate, picture, rectifier))
        if estimate.stage is Stage.WINDOW and estimate.stamp_ns > self._newest_ns:
            self._newest_ns = estimate.stamp_ns
            self._windows += 1
            if self._windows & (self._windows - 1) == 0:  # 1, 2, 4, 8, ...: a map is large, and changes less and less
                static = static_points()
                self._put(lambda account: account.static(static, estimate))

    def status(self, message: Any) -> None:
        """The books (`PipelineStatus`) go out."""
        latency = {"live": message.latency_live, "window": message.latency_window}
        numbers = {name: float(getattr(message, name)) for name in ("queued", "dropped", "rejected", "objects")}
        numbers["memory, GB"] = message.memory_rss / 1e9
        self._put(lambda account: account.health({k: v for k, v in latency.items() if v > 0}, numbers))

    def findings(self, findings: Sequence[Finding]) -> None:
        """What is wrong, once a second."""
        told = [(finding.rule.level, finding.text) for finding in findings]
        self._put(lambda account: account.findings(told))

    def begin_anew(self) -> None:
        """The scene began anew."""
        self._windows, self._newest_ns = 0, -1
        self._put(lambda account: account.begin_anew())

    def close(self) -> None:
        """Tells what waits and ends, within `CLOSE_S`."""
        self._stop.set()
        self._news.set()
        self._thread.join(CLOSE_S)

    def _put(self, tell: Tell) -> None:
        if self._given_up:
            return
        if len(self._waiting) == WAITING and self._telling and not self._said_too_much:
            self._said_too_much = True
            self._note(f"rerun={self._target}: the viewer takes less than there is to show, so some of it is left out")
        self._waiting.append(tell)
        self._news.set()

    def _late(self, text: str) -> None:
        if self._stop.is_set():  # else it is said that the viewer is gone
            self._note(text)

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._show()
            except Exception as error:  # of others' library, over a network: nothing of it may cost the node anything
                text = str(error) if isinstance(error, Motion4DError) else f"{type(error).__name__} {error}"
                goes_on = "://" in self._target
                if not self._lost:
                    again = "; it is looked for again" if goes_on else ""
                    text = " ".join(text.split()).removeprefix("--")
                    self._note(f"nothing is shown ({text}); the node goes on{again}")
                if not goes_on:
                    break
                self._lost, self._telling = True, False
                self._stop.wait(AGAIN_S)
                self._waiting.clear()
        self._given_up = not self._stop.is_set()
        self._waiting.clear()

    def _show(self) -> None:
        """Tells one recording all there is, until the end. Raises when the viewer is gone."""
        with recording_to(self._target, self._name, delivery_s=DELIVERY_S, say=self._late) as recording:
            account, looked = _Account(recording), time.monotonic()
            self._lost, self._telling = False, True
            while True:
                ending = self._stop.is_set()
                with suppress(IndexError):
                    while True:
                        self._waiting.popleft()(account)
                if ending:
                    return
                if "://" in self._target and time.monotonic() - looked > AGAIN_S:
                    looked = time.monotonic()
                    check_target(self._target)  # Rerun itself would go on, and keep everything in memory
                self._news.wait(1.0)
                self._news.clear()


@dataclass
class _Account:
    """What one recording was told of the running scene. Frames are numbered as their stamps come."""

    recording: Any
    stream: RerunStream = field(init=False)
    numbers: dict[int, int] = field(default_factory=dict)  # stamp -> frame number, of the newest frames
    count: int = 0
    paths: deque[dict[int, FloatArray]] = field(default_factory=lambda: deque(maxlen=drawn.TRAIL_FRAMES))
    plotted: set[int] = field(default_factory=set)
    said: tuple[tuple[Level, str], ...] = ()

    def __post_init__(self) -> None:
        self.stream = RerunStream(self.recording, node=True)

    def begin_anew(self) -> None:
        """A new scene: nothing of the old one is followed on. Numbers go on."""
        self.stream = RerunStream(self.recording, node=True)
        self.numbers.clear()
        self.paths.clear()
        self.plotted.clear()

    def estimate(self, estimate: Estimate, picture: NDArray[np.uint8] | None, rectifier: Rectifier | None) -> None:
        """An estimate, with the image as it came where there is one."""
        number = self._number(estimate.stamp_ns)
        camera = small_camera(estimate.camera, drawn.picture_size(estimate.camera.size))
        if picture is not None and rectifier is not None:
            jpeg = drawn.jpeg(np.ascontiguousarray(rectifier.rectify(picture)))
            self.stream.image(number, estimate.stamp_ns, jpeg, camera, estimate.T_map_cam)
        first = number not in self.plotted
        self.plotted.add(number)
        self.stream.estimate(replace(estimate, index=number), camera, plotted=first)
        if estimate.stage is Stage.LIVE:
            self._tracks(estimate, number, camera.width / estimate.camera.width)

    def static(self, static: StaticPoints, estimate: Estimate) -> None:
        """The map of what stands still."""
        self.stream.static(static, self._number(estimate.stamp_ns), estimate.stamp_ns, estimate.T_map_cam)

    def health(self, latency_s: dict[str, float], numbers: dict[str, float]) -> None:
        """Plots, as of the newest frame."""
        worst = max((level for level, _ in self.said), default=Level.OK)
        self.stream.health(self.count - 1, latency_s, {**numbers, "level (0 ok, 1 warning, 2 error)": float(worst)})

    def findings(self, told: Sequence[tuple[Level, str]]) -> None:
        """What is wrong, where that is news."""
        news = [(level, text) for level, text in told if text not in {old for _, old in self.said}]
        if self.said and not told:
            news = [(Level.OK, "all well")]
        self.said = tuple(told)
        for level, text in news:
            self.stream.finding(self.count - 1, _LEVELS[level], text)

    def _number(self, stamp_ns: int) -> int:
        if stamp_ns not in self.numbers:
            self.numbers[stamp_ns] = self.count
            self.count += 1
            if len(self.numbers) > 1024:
                gone = self.numbers.pop(next(iter(self.numbers)))
                self.plotted.discard(gone)
        return self.numbers[stamp_ns]

    def _tracks(self, estimate: Estimate, number: int, factor: float) -> None:
        """The followed points of a live estimate, with where they were in the frames before."""
        points = estimate.points
        rows = drawn.thinned(len(points.point_id), drawn.MAX_TRACKS) if len(points.point_id) else np.zeros(0, int)
        self.paths.append(dict(zip(points.point_id.tolist(), points.xyz_map.astype(float), strict=True)))
        T_cam_map = inverse_pose(estimate.T_map_cam)
        in_front = transform_points(T_cam_map, points.xyz_map[rows].astype(float))[:, 2] > 0
        rows = rows[in_front]
        xyz = [np.array([there[i] for there in self.paths if i in there]) for i in points.point_id[rows].tolist()]
        uv = [estimate.camera.project(transform_points(T_cam_map, path)) for path in xyz]
        shown = drawn.Trails(
            np.asarray(rows),
            np.array([path[-1] for path in uv], np.float32).reshape(-1, 2),
            np.array([path[-1] for path in xyz], np.float32).reshape(-1, 3),
            [path[np.isfinite(path).all(1)].astype(np.float32) for path in uv],
            [path.astype(np.float32) for path in xyz],
        )
        self.stream.tracks(shown, points.object_id[rows].astype(int).tolist(), number, factor)
