"""Runs probes in processes of their own, within a bounded time, and says how those died that died."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from motion4d_ros.children import environment, module_command

LIMIT_S = 60.0  # importing PyTorch from a slow card takes half of that
GRACE_S = 2.0  # for a killed process to go
HANGS = 2  # after so many probes that hang, the others are left


@dataclass(frozen=True)
class Answer:
    """What a probe found, or why it failed."""

    found: str = ""
    error: str = ""

    @property
    def well(self) -> bool:
        """Whether the probe succeeded."""
        return not self.error


def installed(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def ask(probes: Sequence[str], limit_s: float = LIMIT_S) -> dict[str, Answer]:
    """The answers of `child` to some probes. One that crashes or hangs costs itself; the rest is asked again."""
    answers: dict[str, Answer] = {}
    left, hangs = list(probes), 0
    while left and hangs < HANGS:
        output, how = run(module_command("motion4d_ros.doctor.child", *left), limit_s)
        for line in output.splitlines():
            content = _parsed(line)
            if content.get("name") in left:
                answers[content["name"]] = Answer(content.get("found", ""), content.get("error", ""))
        left = [name for name in left if name not in answers]
        if left:
            answers[left[0]] = Answer(error=how or "the check ended without an answer")
            hangs += "did not" in how
            left = left[1:]
    return answers | {name: Answer(error="not looked at: other checks hang") for name in left}


def run(words: Sequence[str], limit_s: float) -> tuple[str, str]:
    """Output of a command, and how it failed ("" = it did not). Files instead of pipes: a grandchild cannot block."""
    try:
        output, errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
    except OSError as error:
        return "", f"no temporary files can be made ({error.strerror})"
    with output, errors:
        try:
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment())
        except OSError as error:
            return "", f"{words[0]} cannot be started ({error.strerror})"
        how = ""
        try:
            status = child.wait(limit_s)
            if status:
                words_said = _text(errors).strip().splitlines()
                how = f"crashed with signal {-status}" if status < 0 else (words_said or [f"status {status}"])[-1][:200]
        except subprocess.TimeoutExpired:
            how = f"did not answer within {limit_s:.0f} s"
        finally:
            if child.poll() is None:
                child.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold it even then
                    child.wait(GRACE_S)
        return _text(output), how


def _parsed(line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _text(stream: Any) -> str:
    stream.seek(0)
    return str(stream.read().decode("utf-8", "replace"))
