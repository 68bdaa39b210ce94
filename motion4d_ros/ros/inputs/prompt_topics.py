"""The two topics on which people speak to the node while it is active."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
from geometry_msgs.msg import PointStamped
from rclpy.node import Node

from motion4d_ros.imagery.validation import Rejection, check_name
from motion4d_ros.msg import ObjectPrompt
from motion4d_ros.ros.engine import Engine
from motion4d_ros.ros.inputs.prompts import check_prompt_size, prompt_from_click, prompt_from_message
from motion4d_ros.ros.pace import Pace
from motion4d_ros.ros.work.worker import Worker
from motion4d_ros.types import FloatArray, Motion4DError

MOST_WAITING = 8
"""Prompts that wait for the worker. Each may hold a mask of the image's size."""
AT_ONCE, PER_S = 50, 10.0
"""Prompts that are looked at: what a person clicks, or a program says of every object, now and then."""


class Prompting:
    """Subscribes to `prompt` and `clicked_point`; hands what it understands to the worker, if there is one by then.

    `map_frame` gives the frame in which the outputs are expressed.
    """

    def __init__(
        self,
        node: Node,
        worker: Callable[[], Worker | None],
        map_frame: Callable[[], str],
        log: Callable[[str], None],
    ) -> None:
        self.problem = ""
        self.problem_at = float("-inf")
        self._pace = Pace(AT_ONCE, PER_S)
        self._room = threading.BoundedSemaphore(MOST_WAITING)
        self._node = node
        self._worker = worker
        self._map_frame = map_frame
        self._log = log
        self._subscriptions = [
            node.create_subscription(ObjectPrompt, "prompt", self._on_prompt, 10),
            node.create_subscription(PointStamped, "clicked_point", self._on_click, 10),
        ]

    def close(self) -> None:
        """Unsubscribes."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _on_prompt(self, message: Any) -> None:
        try:
            check_prompt_size(message)
            check_name(message.header.frame_id, "prompt")
        except Rejection as error:
            self._refuse(str(error))
            return

        def job(engine: Engine) -> int:
            worker = self._worker()
            newest = worker.newest if worker is not None else None
            context = worker.contexts.get(newest.index) if worker is not None and newest is not None else None
            if newest is None or context is None:
                raise Rejection("prompt", "prompt: no image has been processed yet")
            return engine.prompt(prompt_from_message(message, context.rectifier, newest.stamp_ns))

        self._submit(job)

    def _on_click(self, message: Any) -> None:
        try:
            check_name(message.header.frame_id, "clicked_point")
        except Rejection as error:
            self._refuse(str(error))
            return

        def job(engine: Engine) -> int:
            worker = self._worker()
            newest = worker.newest if worker is not None else None
            if newest is None:
                raise Rejection("prompt", "clicked_point: no image has been processed yet")
            xyz = np.array([message.point.x, message.point.y, message.point.z])
            return engine.prompt(prompt_from_click(self._to_map(xyz, message, newest), newest.stamp_ns))

        self._submit(job)

    def _to_map(self, xyz: FloatArray, message: Any, newest: Any) -> FloatArray:
        frame = message.header.frame_id
        if frame in ("", self._map_frame()):
            return xyz
        if frame == newest.frame_id:
            return newest.T_map_cam[:3, :3] @ xyz + newest.T_map_cam[:3, 3]
        raise Rejection(
            "prompt",
            f"clicked_point: given in {frame!r}; set RViz's fixed frame to {self._map_frame()!r} "
            f"or {newest.frame_id!r}",
        )

    def _submit(self, job: Callable[[Engine], int]) -> None:
        worker = self._worker()
        if worker is None:
            return
        if not self._pace.take() or not self._room.acquire(blocking=False):
            self._refuse(f"too many prompts: at most {PER_S:g} a second, and {MOST_WAITING} that wait for a window")
            return
        worker.submit(job).add_done_callback(self._done)

    def _done(self, future: Future[int]) -> None:
        self._room.release()
        try:
            self._log(f"prompt: object {future.result()}")
        except CancelledError:
            return
        except Motion4DError as error:
            self._refuse(str(error))
        except Exception as error:
            self._refuse(f"{type(error).__name__}: {error}")

    def _refuse(self, text: str) -> None:
        self.problem, self.problem_at = text, time.monotonic()
        self._log(f"prompt refused: {text}")
