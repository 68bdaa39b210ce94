"""The node in a process of its own, as soak, load, fuzz and benchmark start it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from motion4d_ros.children import environment, module_command

END_S = 20.0
"""It has so long to end in order."""


def arguments(
    remap: Mapping[str, str],
    settings: Mapping[str, Any],
    *,
    params_file: Path | None = None,
    namespace: str = "",
    reliable: Iterable[str] = (),
    depth: int = 0,
) -> list[str]:
    """ROS arguments of a node that activates by itself.

    `reliable` names topics on which nothing may get lost (best effort loses large messages on the way), of which as
    many as `depth` messages wait if it is not 0.
    """
    words = ["--ros-args", "-p", "autostart:=true"]
    if params_file is not None:
        words += ["--params-file", str(params_file)]
    if namespace:
        words += ["-r", f"__ns:={namespace}"]
    for name, topic in remap.items():
        words += ["-r", f"{name}:={topic}"]
    for topic in reliable:
        words += ["-p", f"qos_overrides.{topic}.subscription.reliability:=reliable"]
        if depth:
            words += ["-p", f"qos_overrides.{topic}.subscription.depth:={depth}"]
    for name, value in settings.items():
        words += ["-p", f"{name}:={value}"]
    return words


class NodeProcess:
    """Starts the node on construction, its output in the file `log`; `close` ends it."""

    def __init__(self, words: list[str], log: Path) -> None:
        self.log = log
        self._stream = log.open("ab")
        command = module_command("motion4d_ros.ros.main", *words)
        self._process = subprocess.Popen(command, stdout=self._stream, stderr=subprocess.STDOUT, env=environment())
        self.usage = psutil.Process(self._process.pid)

    def check(self) -> None:
        """Raises `RuntimeError` if it has ended."""
        status = self._process.poll()
        if status is not None:
            raise RuntimeError(f"the node ended with status {status}: {self.log}")

    def ask_to_end(self) -> None:
        """Lets it begin to end; `close` waits for that."""
        self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Ends it, by force if it takes too long."""
        self.ask_to_end()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stream.close()
