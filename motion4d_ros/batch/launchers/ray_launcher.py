"""Recordings on Ray: this machine alone, or a cluster that is there already."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from motion4d_ros.batch.carriers import Needs, Outcome, outcome_of
from motion4d_ros.batch.launchers.interfaces import LauncherGone
from motion4d_ros.children import environment, module_command
from motion4d_ros.errors import Motion4DError
from motion4d_ros.remedies import pip_install

FUNCTION = "motion4d_ros.batch.attempt:run_attempt"
ANSWER_S = 3.0  # within which a head node must take a connection
READY_S = 120.0  # within which Ray must be there; a busy machine takes 20
ASK_EVERY_S = 5.0  # the head node, whether it is still there
SILENT = 4  # so many times without an answer, and it is gone
STOP_S = 20.0  # for Ray to end what runs
AHEAD = 2  # recordings that wait at Ray, so that no core waits for the next


class RayLauncher:
    """A `Launcher`. `address`: HOST:PORT of a head node, `auto`, `ray://…`; "" = this machine, for this call alone."""

    def __init__(self, needs: Needs, address: str = "", jobs: int = 0, function: str = FUNCTION) -> None:
        self._needs, self._address, self._jobs, self._function = needs, address, jobs, function
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._notes: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the launcher)
        self._head = ""
        self._slots = 0
        self._asked, self._silent = time.monotonic(), 0

    def __enter__(self) -> RayLauncher:
        if find_spec("ray") is None:
            raise Motion4DError(f"batch needs Ray: {pip_install('ray')} (or motion4d_ros[batch])")
        if self._address and self._address != "auto":
            _check_address(self._address)
        extra = environment(
            RAY_USAGE_STATS_ENABLED="0",
            RAY_gcs_rpc_server_reconnect_timeout_s="15",
            RAY_worker_niceness="0",  # Ray's 15 leaves next to nothing beside other programs
        )
        self._process = subprocess.Popen(
            module_command("motion4d_ros.batch.launchers.ray_process"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, env=extra, text=True, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self._send(
                address=self._address, needs=asdict(self._needs), function=self._function,
                cores=len(os.sched_getaffinity(0)),
            )  # fmt: skip
            self._begin()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _begin(self) -> None:
        """Waits for Ray. Raises `Motion4DError`."""
        where = f"--address {self._address}" if self._address else "this machine"
        try:
            first = self._lines.get(timeout=READY_S)
        except queue.Empty:
            raise Motion4DError(f"{where}: Ray was not ready within {READY_S:g} s") from None
        if first is None or "ready" not in first:
            raise Motion4DError(f"{where}: {(first or {}).get('error') or self._last_words()}")
        ready = first["ready"]
        self._head, self._slots = ready["head"], ready["room"]
        if not ready["nodes"] and not self._address:
            asked = "what --cpus, --gpus and --memory ask for"
            raise Motion4DError(f"{where} has not {asked}: {ready['largest']}")
        if not ready["nodes"]:
            self._notes.append(f"no node can take a recording yet: {ready['largest']}; waiting for one")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            process.stdin.close()
        try:
            process.wait(STOP_S if self._silent < SILENT else 1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._errors.close()
        for folder in Path(tempfile.gettempdir()).glob(f"m4d-{process.pid}-*"):
            shutil.rmtree(folder, ignore_errors=True)
        self._process = None

    def room(self) -> int:
        return min(self._slots + AHEAD, self._jobs or self._slots + AHEAD)

    def submit(self, number: int, task: dict[str, Any]) -> None:
        self._send(do="run", number=number, task=task)

    def avoid(self, node_id: str) -> None:
        self._send(do="avoid", node=node_id)

    def notes(self) -> list[str]:
        told, self._notes = self._notes, []
        return told

    def collect(self, wait_s: float) -> list[tuple[int, Outcome]]:
        found: list[tuple[int, Outcome]] = []
        try:
            line = self._lines.get(timeout=wait_s)
            while True:
                if line is None:
                    raise LauncherGone(self._gone())
                if "outcome" in line:
                    found.append((int(line["number"]), outcome_of(line["outcome"])))
                self._slots = line.get("room", self._slots)
                self._notes += [line["note"]] if "note" in line else []
                line = self._lines.get_nowait()
        except queue.Empty:
            pass
        except LauncherGone:
            if not found:
                raise
            self._lines.put(None)  # the next call tells
        self._ask_head()
        return found

    def _ask_head(self) -> None:
        if not self._head or time.monotonic() - self._asked < ASK_EVERY_S:
            return
        self._asked = time.monotonic()
        host, _, port = self._head.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
            self._silent = 0
        except (OSError, ValueError):
            self._silent += 1
        if self._silent >= SILENT:
            raise LauncherGone(self._gone())

    def _gone(self) -> str:
        what = f"the head node at {self._head or self._address} is gone" if self._address else "Ray has ended"
        return f"{what}: what is finished is kept, the same command goes on with the rest"

    def _send(self, **content: Any) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(content) + "\n")
            self._process.stdin.flush()
        except OSError:  # it has ended: `collect` tells
            return

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    self._lines.put(json.loads(line))
        self._lines.put(None)

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        return " ".join((lines or ["Ray has ended without a word"])[-1].split())[:300]


def _check_address(address: str) -> None:
    """Raises `Motion4DError` where nobody listens: Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "expected HOST:PORT"
        raise Motion4DError(
            f"--address {address}: no head node answers there ({reason}); start one with: ray start --head"
        ) from None
