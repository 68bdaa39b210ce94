"""The node's services. They wait for the worker, in a callback group of their own: images go on arriving meanwhile.

Who calls them is not known: few may wait at a time, so that images keep threads to arrive by, and few are served a
minute; what they write goes below one folder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from std_srvs.srv import Trigger

from motion4d_ros.ros.engine import Engine
from motion4d_ros.ros.pace import Pace
from motion4d_ros.ros.save_root import SaveRoot
from motion4d_ros.ros.work.worker import Worker
from motion4d_ros.srv import SaveScene
from motion4d_ros.types import Motion4DError

RESET_S, REFINE_S, SAVE_S = 20.0, 300.0, 120.0
"""How long a caller waits for each; a window in progress comes first."""
MOST_WAITING = 2
"""Calls that wait at a time. Each holds one of the executor's threads (`main.THREADS`)."""
CALLS_AT_ONCE, CALLS_PER_S = 10, 1.0
"""Calls that are served one after another, and in the long run: who resets more often has no scene at all."""


class Services:
    """``~/reset``, ``~/refine`` and ``~/save_scene``, offered as long as the node lives.

    `worker` gives the worker of the active node, None while it is not active; `save_root` says where scenes may go.
    """

    def __init__(self, node: Node, worker: Callable[[], Worker | None], save_root: SaveRoot) -> None:
        self._node = node
        self._worker = worker
        self._save_root = save_root
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self._pace = Pace(CALLS_AT_ONCE, CALLS_PER_S)
        group = ReentrantCallbackGroup()
        node.create_service(Trigger, "~/reset", self._on_reset, callback_group=group)
        node.create_service(Trigger, "~/refine", self._on_refine, callback_group=group)
        node.create_service(SaveScene, "~/save_scene", self._on_save, callback_group=group)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._ask(lambda worker, _: worker.reset("service"), RESET_S, "reset done")
        return response

    def _on_refine(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._ask(lambda worker, _: worker.refine_now(), REFINE_S, "refined")
        return response

    def _on_save(self, request: SaveScene.Request, response: SaveScene.Response) -> SaveScene.Response:
        try:
            folder = self._save_root.folder(request.folder)
        except Motion4DError as error:
            response.message = str(error)
            return response

        def save(worker: Worker, engine: Engine) -> str:
            response.files = self._save_root.save(request.folder, engine.save_scene)
            return f"{len(response.files)} files in {folder}"

        response.success, response.message = self._ask(save, SAVE_S, "saved")
        return response

    def _ask(self, job: Callable[[Worker, Engine], Any], timeout_s: float, done: str) -> tuple[bool, str]:
        """Runs a job in the worker's thread and waits for it; (success, one line)."""
        worker = self._worker()
        if worker is not None and not worker.alive:
            return False, "the worker died: read the log, then deactivate and activate the node"
        if worker is None:
            return False, f"the node is not active: ros2 lifecycle set {self._node.get_fully_qualified_name()} activate"
        if not self._pace.take():
            return False, f"too many calls: at most {CALLS_PER_S:g} a second"
        if not self._waiting.acquire(blocking=False):
            return False, f"busy: {MOST_WAITING} calls wait already; call again when they are answered"
        try:
            answer = worker.submit(lambda engine: job(worker, engine)).result(timeout_s)
        except Motion4DError as error:
            return False, str(error)
        except BaseException as error:  # cancelled by a deactivation, timed out, or an engine's own exception
            return False, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        finally:
            self._waiting.release()
        return True, answer if isinstance(answer, str) else done
