"""Every fault at every stage, of the real engine over real DDS: the node lives, goes on, counts, and names it.

The matrix is generated: stages x faults. `python test/ros/test_faults.py` prints it as a table for the documents.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import Harness
from motion4d_ros.srv import SaveScene
from node_process import KINDS, NAMES, SETTINGS, Process

from motion4d_ros.children import environment
from motion4d_ros.fit.initialisation import geometry as geometry_module
from motion4d_ros.fit.optimisation.mapper import Mapper
from motion4d_ros.fit.optimisation.trainer import Trainer
from motion4d_ros.fit.output.estimate_builder import EstimateBuilder
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.priors.masks.given import GivenMasks
from motion4d_ros.priors.tracks.flow_tracks import FlowTracks
from motion4d_ros.ros.diagnostics import assess
from motion4d_ros.ros.engine import make_engine
from motion4d_ros.ros.inputs import frames
from motion4d_ros.ros.outputs.publishers import Outputs
from motion4d_ros.ros.work import watch
from motion4d_ros.ros_tools.soak.world import PERIOD_NS, World

Target = tuple[Any, str, Callable[[tuple[Any, ...]], bool]]
"""An object, the name of its function, and which calls are meant, by their positional arguments."""


def always(arguments: tuple[Any, ...]) -> bool:
    return True


def trained(stage: str) -> Target:
    return Trainer, "run", lambda arguments: arguments[1] == stage


STAGES: dict[str, Target] = {
    "decode": (frames.conversions, "read_rgb", always),
    "masks source": (GivenMasks, "masks", always),
    "track source": (FlowTracks, "push", always),
    "geometry": (geometry_module.Geometry, "update", always),
    "stage 1": trained("motion"),
    "stage 2": trained("semantic"),
    "stage 3": trained("global"),
    "densification": (Mapper, "fill", always),
    "report": (EstimateBuilder, "report", always),
    "publish": (Outputs, "publish_estimate", always),
    "save": (Motion4D, "save_scene", always),
}
POISONED = ("geometry", "stage 1", "stage 2", "stage 3", "densification")
"""Stages that hold the scene, in which NaN can be left."""


class OutOfMemoryError(RuntimeError):
    """As `torch.cuda.OutOfMemoryError` is called: without a GPU nobody else raises it."""


class Saboteur:
    """Breaks one call of a function, in one way, then never again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, target: Target, engine: Callable[[], Any]) -> None:
        holder, name, self._meant = target
        self._original, self._engine = getattr(holder, name), engine
        self._fault = ""
        self.struck = False
        self.ends: list[socket.socket] = []
        saboteur = self

        def broken(*arguments: Any, **words: Any) -> Any:
            return saboteur.call(arguments, words)

        monkeypatch.setattr(holder, name, broken)

    def arm(self, fault: str) -> None:
        self._fault, self.struck = fault, False

    def call(self, arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
        if not self._fault or not self._meant(arguments):
            return self._original(*arguments, **words)
        fault, self._fault, self.struck = self._fault, "", True
        return getattr(self, fault.replace(" ", "_"))(arguments, words)

    def exception(self, arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
        raise RuntimeError("sabotage")

    def exit(self, arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
        raise SystemExit("sabotage")

    def NaN(self, arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
        result = self._original(*arguments, **words)
        with torch.no_grad():
            for parameter in self._engine().mapper.scene.params.values():
                parameter[::2] = float("nan")
        return result

    def endless_loop(self, arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
        while True:
            time.sleep(0.001)

    def stalled_network(self, arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
        """A read that nobody answers, inside C: no exception reaches it."""
        here, there = socket.socketpair()
        self.ends += [here, there]
        here.recv(1)
        raise ConnectionError("the other side went away")

    def memory(self, arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
        raise MemoryError

    def GPU_memory(self, arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
        raise OutOfMemoryError("CUDA out of memory")

    def full_disk(self, arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        for end in self.ends:
            end.close()


FAULTS = ("exception", "exit", "NaN", "endless loop", "memory", "GPU memory", "full disk", "stalled network")
NAMED = {"exceptions", "worker_restarted", "worker_dead", "out_of_memory", "rejected", "source_failed"}


def cells(stage: str) -> list[str]:
    """The faults that a stage can have."""
    return [fault for fault in FAULTS if fault != "NaN" or stage in POISONED]


class Camera:
    """Sends good frames, with all that belongs to them."""

    def __init__(self, h: Harness) -> None:
        self._h, self._world, self._count = h, World(1), itertools.count(1)
        for name, topic in NAMES.items():
            h.publisher(topic, KINDS[name])

    def send(self, count: int) -> None:
        for _ in range(count):
            number = next(self._count)
            moment = self._world.at(0.1 * number, 10**12 + number * PERIOD_NS)
            for name, message in moment.messages.items():
                self._h.publisher(NAMES[name]).publish(message)


def ids_of(h: Harness) -> set[int]:
    found: set[int] = set()
    for message in h.heard["tracked_points"]:
        offset = next(field.offset for field in message.fields if field.name == "point_id")
        rows = np.frombuffer(message.data, np.uint8).reshape(message.width, message.point_step)
        found |= set(rows[:, offset : offset + 4].copy().view(np.uint32).ravel().tolist())
    h.heard["tracked_points"].clear()
    return found


def survives(h: Harness, camera: Camera, saboteur: Saboteur, stage: str, fault: str) -> None:
    """One cell of the matrix. The node has processed good frames before it, and does so after it."""
    used, counts, resets = ids_of(h), h.counts(), h.node.worker.report.resets
    worker, engines, restarts = h.node.worker, len(h.engines), h.node.watch.restarts
    exceptions = h.node.worker.report.exceptions.total()
    h.node.watch.begin()
    saboteur.arm(fault)
    saved = None
    if stage == "save":
        saved = h.tester.create_client(SaveScene, h.topic("save_scene")).call_async(SaveScene.Request(folder="a"))
    camera.send(2)
    cell = f"{stage} x {fault}"
    assert h.until(lambda: saboteur.struck, 60.0), f"{cell}: never came there"
    if fault in ("endless loop", "stalled network"):
        h.node.config.ros.watchdog = 0.3
        assert h.until(lambda: h.node.worker is not worker, 30.0), f"{cell}: nobody ended it"
        h.node.config.ros.watchdog = 0.0
    assert h.until(lambda: h.node.worker.alive and h.counts().queued == 0, 60.0), (cell, h.counts())
    windows, processed = h.engine.health.windows, h.counts().processed
    codes = {finding.rule.code for finding in assess(h.node.snapshot())}
    camera.send(4)
    assert h.until(lambda: h.counts().queued == 0 and h.counts().processed >= processed + 4, 60.0), (cell, h.counts())
    assert h.until(lambda: h.engine.health.windows > windows, 60.0), f"{cell}: windows are fitted again"
    assert h.until(lambda: any(message.width for message in h.heard["tracked_points"]), 60.0), cell
    after = h.counts()
    assert after.balanced and after.received == counts.received + 6, (cell, after)
    if saved is not None:
        assert h.until(saved.done, 30.0) and not saved.result().success and saved.result().message, cell
    named = h.node.worker.report.exceptions.total() > exceptions or codes & NAMED or fault == "NaN"
    assert named or saved is not None, f"{cell}: {codes}"
    newly_begun = h.node.worker.report.resets > resets or h.node.watch.restarts > restarts or len(h.engines) > engines
    fresh = ids_of(h)
    assert not newly_begun or not (used and fresh) or max(fresh) > max(used), f"{cell}: ids go on"
    objects = h.heard["tracked_objects"][-1]
    for item in objects.objects:
        p = item.pose.pose.position
        assert np.isfinite([p.x, p.y, p.z]).all(), f"{cell}: NaN got out"
    h.heard["tracked_objects"].clear()


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_fault_of_a_stage_is_survived(
    harness: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str
) -> None:
    monkeypatch.setattr(watch, "GRACE_S", 0.3)
    monkeypatch.setattr(watch, "PAUSES_S", (0.0,))
    h = harness(engine=make_engine, parameters={**SETTINGS, "save_root": str(tmp_path)})
    h.listen("tracked_points", "tracked_objects")
    camera = Camera(h)
    saboteur = Saboteur(monkeypatch, STAGES[stage], lambda: h.node.worker.engine)
    camera.send(6)
    assert h.until(lambda: h.counts().processed == 6 and h.engine.health.windows >= 3, 60.0), h.counts()
    try:
        for fault in cells(stage):
            survives(h, camera, saboteur, stage, fault)
    finally:
        saboteur.close()


# --- the process ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_node_that_is_killed_is_replaced_and_goes_on(harness: Callable[..., Harness], tmp_path: Path) -> None:
    """SIGKILL in mid-work; what `respawn:=true` does then is to start the same command again."""
    node = Process(harness(start=False), tmp_path)
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = node.start()
        try:
            node.works()
            process.send_signal(number)
            assert process.wait(20) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        finally:
            process.kill()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_too_many_workers_that_hang_end_the_process_with_status_one(tmp_path: Path) -> None:
    """Only a new process helps then; it must not wait for the threads that hang."""
    code = (
        "import socket, sys, threading; sys.path[:] = [p for p in sys.path if p]\n"
        "from motion4d_ros.ros import main as m, node as n\n"
        "class Hopeless(n.Motion4DNode):\n"
        "    def __init__(self, **words):\n"
        "        super().__init__(**words); self.hopeless = True\n"
        "        pair = socket.socketpair()\n"
        "        threading.Thread(target=lambda: pair[0].recv(1), daemon=True).start()\n"
        "m.Motion4DNode = Hopeless\n"
        "m.end(m.main([]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), timeout=90, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr


if __name__ == "__main__":
    print("| stage | " + " | ".join(FAULTS) + " |\n|---" * 1 + "|---" * (len(FAULTS)) + "|")
    for stage in STAGES:
        print(f"| {stage} | " + " | ".join("survived" if f in cells(stage) else "–" for f in FAULTS) + " |")
