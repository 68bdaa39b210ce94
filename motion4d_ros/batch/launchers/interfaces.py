"""What the loop over all recordings asks of those who run them."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

from motion4d_ros.batch.carriers import Outcome
from motion4d_ros.errors import Motion4DError


class LauncherGone(Motion4DError):
    """Nothing can be run any more: what is done is done, the rest waits for the next call."""


class Launcher(Protocol):
    """Runs attempts elsewhere. Entered before use; leaving it ends what still runs."""

    def __enter__(self) -> Launcher:
        """Raises `Motion4DError` where it cannot be had."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends what still runs."""

    def room(self) -> int:
        """How many attempts may be under way or wait their turn there."""

    def submit(self, number: int, task: dict[str, Any]) -> None:
        """Hands over one attempt (`carriers.Task` as JSON)."""

    def collect(self, wait_s: float) -> list[tuple[int, Outcome]]:
        """Attempts that have ended; waits for the first of them up to `wait_s`. Raises `LauncherGone`."""

    def avoid(self, node_id: str) -> None:
        """Attempts from now on go to other machines, if there are any."""

    def notes(self) -> list[str]:
        """What there is to know since the last call, in lines for people."""
