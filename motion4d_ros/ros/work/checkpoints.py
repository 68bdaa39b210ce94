"""When the scene is kept, where, and what a node that starts makes of what one that crashed has left."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from motion4d_ros.fit.checkpoint.saved import RESERVED_OBJECTS, RESERVED_POINTS
from motion4d_ros.ros.engine import Engine
from motion4d_ros.ros.save_root import HOW, SaveRoot
from motion4d_ros.ros.work.worker import Worker
from motion4d_ros.types import Motion4DError


class Checkpoints:
    """One file of its own for each node, `.checkpoint-NAME` in the save root: no name that a caller gives leads to it.

    `period_s` 0: none. Raises `Motion4DError` if there is to be one and nowhere to write.
    """

    def __init__(self, period_s: float, save_root: SaveRoot, node: str, say: Callable[[str], None]) -> None:
        if period_s > 0 and not save_root.allowed:
            raise Motion4DError(f"run.checkpoint={period_s:g} needs a place to write: {HOW}")
        self._period_s, self._save_root, self._say = period_s, save_root, say
        self._name = ".checkpoint-" + re.sub(r"[^A-Za-z0-9_]", ".", node.strip("/"))
        self._looked = period_s <= 0  # whether this process has looked for what one before it left
        self._due_at = float("-inf")
        self._ids = (0, 0)  # given, when the scene was kept last
        self._future: Future[Any] | None = None
        self._told = ""
        self._kept = False  # whether the file is this process's: written by it, or taken over

    def resume(self, engine: Engine | None) -> None:
        """Hands the file of a process that crashed to the first engine of this one.

        A file of which only the ids remain takes its place at once: should this scene be what nobody survives, the next
        process begins without it.
        """
        if self._looked or engine is None:
            return
        self._looked = True
        path = self._save_root.kept(self._name)
        if path is None:
            return
        try:
            engine.resume(str(path), self._save_root.room)
            self._save_root.keep(self._name, engine.save_checkpoint)
            self._ids, self._kept = engine.ids_given, True
        except Motion4DError as error:
            self._say(f"{error}: a new scene begins, ids begin anew")
            self._save_root.remove(self._name)

    def look(self, worker: Worker | None) -> None:
        """Every second: lets the worker keep its scene when that is due, or when many ids were given since."""
        if worker is None or not worker.alive:
            return
        told = worker.health.resumed
        if told != self._told:
            self._told = told
            self._say(told)
        if self._period_s <= 0 or worker.newest is None or not (self._future is None or self._future.done()):
            return
        points, objects = (now - then for now, then in zip(worker.engine.ids_given, self._ids, strict=True))
        many = points > RESERVED_POINTS // 2 or objects > RESERVED_OBJECTS // 2
        if many or time.monotonic() >= self._due_at:
            self._future = worker.submit(self._keep)

    def scene_over(self) -> None:
        """The scene was given up: the file is out of date."""
        self._due_at = float("-inf")

    def end(self) -> None:
        """An orderly end: no file of this process is left to go on from. One that it never came to read stays."""
        if self._kept:
            self._save_root.remove(self._name)

    def _keep(self, engine: Engine) -> None:
        self._due_at = time.monotonic() + self._period_s
        try:
            self._save_root.keep(self._name, engine.save_checkpoint)
            self._ids, self._kept = engine.ids_given, True
        except Motion4DError as error:
            self._say(f"the scene is not kept: {error}")
