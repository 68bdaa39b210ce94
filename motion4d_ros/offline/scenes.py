"""The scenes of a recording: a cut, or a camera that is lost for good, ends one and begins another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from motion4d_ros.offline.results.frame_log import FrameLog
from motion4d_ros.types import FloatArray

if TYPE_CHECKING:
    from motion4d_ros.pipeline import Motion4D


@dataclass
class Scenes:
    """Where scenes begin, and what the engine, which knows only the newest one, no longer tells of those before.

    Each has an origin and a scale of its own. Ids of objects and points are never used twice.
    """

    starts: list[int] = field(default_factory=lambda: [0])  # frame numbers
    reasons: list[str] = field(default_factory=lambda: [""])  # why each began
    T_map_cams: dict[int, FloatArray] = field(default_factory=dict)  # of the scenes that have ended, by frame number

    def close(self, engine: Motion4D, frames: int, reason: str) -> None:
        """The engine's scene ends before frame number `frames`; call before it forgets it."""
        self.T_map_cams |= engine.T_map_cams
        self.starts.append(frames)
        self.reasons.append(reason)

    def newest_start(self, log: FrameLog) -> int:
        """The frame number from which the newest scene with a finished frame shows."""
        return max(start for start in self.starts if start < max(1, log.finished))

    def as_metrics(self, log: FrameLog) -> list[dict[str, Any]]:
        """One entry a scene that has finished frames: first and last frame, why it began, what a length means in it."""
        found = []
        for k, (first, reason) in enumerate(zip(self.starts, self.reasons, strict=True)):
            end = min(log.finished, *self.starts[k + 1 : k + 2], log.finished)
            if first < end:
                scale = log.facts[end - 1].estimate.scale.value
                found.append({"first_frame": first, "last_frame": end - 1, "scale": scale, "began": reason})
        return found

    def sentences(self, log: FrameLog) -> list[str]:
        """For the list of warnings: one line per scene that is not the first."""
        return [
            f"frame {scene['first_frame']}: a new scene begins ({scene['began']}), with its own origin and scale"
            for scene in self.as_metrics(log)[1:]
        ]
