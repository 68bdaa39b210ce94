"""What a worker has been through: read by the node, and handed on to the worker that takes its place."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class WorkerReport:
    """What the worker has been through. Times are `time.monotonic()`, minus infinity = never."""

    exceptions: Counter[str] = field(default_factory=Counter)
    last_exception: str = ""
    exception_at: float = float("-inf")
    oom_at: float = float("-inf")
    processed_at: float = float("-inf")
    reset_at: dict[str, float] = field(default_factory=dict)  # by reason
    last_rejection: str = ""
    tf_problem: str = ""
    resets: int = 0

    def note(self, where: str, error: BaseException) -> str:
        """Counts an exception that was survived, or ended the worker; what the log says of it."""
        self.exceptions[where] += 1
        self.last_exception = f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        self.exception_at = time.monotonic()
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return f"exception in {where}: {self.last_exception}\n{trace}"
