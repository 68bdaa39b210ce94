"""The process that speaks with Ray: ``python -m motion4d_ros.batch.launchers.ray_process``, lines of JSON in and out.

Ray ends the process of its driver where the head node goes away, and writes to its terminal as it likes. Here that
costs a process which holds nothing: `ray_launcher` notices, and the batch ends in order.

in:  {"do": "start", …} first; {"do": "run", "number", "task"}; {"do": "avoid", "node"}; end of file: stop
out: {"ready": …}; {"number", "outcome"}; {"room": n}; {"note": text}; {"error": text}
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, TextIO

STORE_BYTES = 80 * 2**20  # Ray's least; what we pass is small
LOOK_EVERY_S = 2.0  # at the nodes
WAIT_S = 0.1
SILENT_S = 20.0  # with work and no node that could take it: a note
LONGEST_FOLDER = 40  # characters; Ray's sockets lie in it, and their names may have 107 in all


def attempt(function: str, task: str) -> str:
    """Runs on a node: `module:function` of a task, both JSON."""
    module, _, name = function.partition(":")
    outcome = getattr(importlib.import_module(module), name)(json.loads(task))
    context: Any = importlib.import_module("ray").get_runtime_context()
    return json.dumps({**outcome, "node_id": context.get_node_id()})


class RayProcess:
    """Ray's driver."""

    def __init__(self, ray: Any, answers: TextIO, start: dict[str, Any]) -> None:
        self._ray, self._answers, self._start = ray, answers, start
        self._remote = ray.remote(attempt)  # once: Ray keeps every function it is given
        self._numbers: dict[Any, int] = {}  # reference -> number
        self._avoided: set[str] = set()
        self._choosy: set[Any] = set()  # references to what must not run on those
        self._looked = self._fitted = 0.0
        self._room = -1
        self._folder: Path | None = None

    def connect(self) -> bool:
        """Joins the cluster, or makes one of this machine; False (and an error told) where that fails."""
        address = self._start["address"]
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        try:
            if address:
                self._ray.init(address=address, namespace="motion4d_batch", **quiet)
            else:
                self._folder = Path(tempfile.mkdtemp(prefix=f"m4d-{os.getpid()}-", dir=_short_folder()))
                self._ray.init(
                    address="local", num_cpus=self._start["cores"], object_store_memory=STORE_BYTES,
                    include_dashboard=False, _temp_dir=str(self._folder), **quiet,
                )  # fmt: skip
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            self._tell(error=f"Ray does not start here ({type(error).__name__}: {text})" if not address else text)
            return False
        head = "" if not address else getattr(self._ray.get_runtime_context(), "gcs_address", "")
        fitting = self._fitting()
        self._tell(ready={"head": head, "nodes": len(fitting), "room": sum(fitting), "largest": self._largest()})
        return True

    def close(self) -> None:
        """Ends what runs, and Ray."""
        for reference in self._numbers:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)
        with contextlib.suppress(Exception):
            self._ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def serve(self, wishes: queue.Queue[dict[str, Any] | None]) -> None:
        """Does what is wished until the end of the wishes (None)."""
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    wish = wishes.get(timeout=0 if self._numbers else WAIT_S)
                    if wish is None:
                        return
                    self._grant(wish)
            self._look()
            self._answer()

    def _grant(self, wish: dict[str, Any]) -> None:
        if wish["do"] == "avoid":
            self._avoided.add(wish["node"])
            self._looked = 0.0
            return
        needs = self._start["needs"]
        options: dict[str, Any] = {
            "num_cpus": needs["cpus"],
            "num_gpus": needs["gpus"],
            "max_retries": 0,
            "enable_task_events": False,
        }
        options |= {"memory": needs["memory"]} if needs["memory"] else {}
        options |= {"scheduling_strategy": "SPREAD", "name": wish["task"].get("folder", "")}
        if self._avoided and self._fitting():  # else there is no other machine
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(self._avoided))})"}
        reference = self._remote.options(**options).remote(self._start["function"], json.dumps(wish["task"]))
        self._numbers[reference] = wish["number"]
        if "label_selector" in options:
            self._choosy.add(reference)

    def _answer(self) -> None:
        if not self._numbers:
            return
        ended, _ = self._ray.wait(list(self._numbers), timeout=WAIT_S)
        for reference in ended:
            number = self._numbers.pop(reference)
            self._choosy.discard(reference)
            try:
                outcome = json.loads(self._ray.get(reference))
            except Exception as error:
                outcome = {"state": "failed", **_lost(self._ray, error)}
            self._tell(number=number, outcome=outcome)

    def _look(self) -> None:
        """How many there is room for; says so when it changes."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        good = self._fitting()
        fitting = good or self._fitting(everywhere=True)
        if sum(fitting) != self._room:
            self._room = sum(fitting)
            self._tell(room=self._room)
        waits = (self._choosy and not good) or (self._numbers and not fitting)
        self._fitted = self._fitted if waits and self._fitted else now
        if now - self._fitted > SILENT_S:
            self._fitted = now
            self._tell(note=f"no node can take a recording now ({self._largest()}): waiting for one")

    def _fitting(self, *, everywhere: bool = False) -> list[int]:
        """How many recordings fit on each node that is alive and not avoided, where there is room for one."""
        needs = self._start["needs"]
        wanted = {"CPU": needs["cpus"], "GPU": needs["gpus"], "memory": needs["memory"]}
        counts = []
        for node in self._ray.nodes():
            if not node["Alive"] or (node["NodeID"] in self._avoided and not everywhere):
                continue
            there = node["Resources"]
            counts.append(min(int(there.get(name, 0.0) / amount) for name, amount in wanted.items() if amount))
        return [count for count in counts if count]

    def _largest(self) -> str:
        """What the nodes have, in words."""
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not alive:
            return "there is no node"
        most = {name: max(item.get(name, 0.0) for item in alive) for name in ("CPU", "GPU", "memory")}
        gib = most["memory"] / 2**30
        return f"the largest of {len(alive)} has {most['CPU']:g} CPUs, {most['GPU']:g} GPUs, {gib:.1f} GiB"

    def _tell(self, **content: Any) -> None:
        self._answers.write(json.dumps(content) + "\n")
        self._answers.flush()


def _lost(ray: Any, error: Exception) -> dict[str, str]:
    """Kind and reason of an attempt that gave no answer."""
    names = {
        "NodeDiedError": "its node died",
        "WorkerCrashedError": "its worker died",
        "OutOfMemoryError": "its node ran out of memory",
        "TaskCancelledError": "was cancelled",
        "TaskUnschedulableError": "no node can take it",
    }
    cause = getattr(error, "cause", None) or error
    for kind in type(error).__mro__:
        if kind.__name__ in names:
            return {"kind": "lost", "reason": names[kind.__name__]}
    if isinstance(cause, ModuleNotFoundError):
        return {"kind": "place", "reason": f"a node lacks the Python package {cause.name!r}: install the same there"}
    text = next((line for line in reversed(str(cause).splitlines()) if line.strip()), "")
    return {"kind": "lost", "reason": f"{type(cause).__name__}: {' '.join(text.split())[:200]}"}


def _short_folder() -> str:
    folder = tempfile.gettempdir()
    return folder if len(folder) <= LONGEST_FOLDER else "/tmp"


def _read(wishes: queue.Queue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        wishes.put(json.loads(line))
    wishes.put(None)


def main() -> int:
    """Serves until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    start = json.loads(sys.stdin.readline())
    import ray

    process = RayProcess(ray, answers, start)
    wishes: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read, args=(wishes,), daemon=True).start()
    try:
        if not process.connect():
            return 1
        with contextlib.suppress(BrokenPipeError):
            process.serve(wishes)
    finally:
        process.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
