"""Motion4D online: frames in, estimates out.

    engine = Motion4D(config)
    for frame in frames:
        for estimate in engine.push(frame):
            ...
    estimates = engine.flush()
"""

from __future__ import annotations

from collections.abc import Callable

from motion4d_ros.config import Config
from motion4d_ros.types import Estimate, FloatArray, Frame, Health, Prompt, QueryTracks, Rendered, StaticPoints


class Motion4D:
    """One camera's scene, grown window after window. Not thread-safe: one worker owns it."""

    def __init__(self, config: Config) -> None:
        raise NotImplementedError

    def push(self, frame: Frame) -> list[Estimate]:
        """`accept`, then `advance`: the live estimate first, then whatever its window yields."""

    def accept(self, frame: Frame) -> Estimate:
        """Takes a frame, asks the 2D sources about it, and predicts: the LIVE estimate, within tens of ms."""

    def advance(self, should_yield: Callable[[], bool] | None = None) -> list[Estimate]:
        """If a window is full: fits it (stages 1 and 2) and, when due, refines globally (stage 3). Else []."""

    def refine(self, should_yield: Callable[[], bool] | None = None) -> list[Estimate]:
        """A global round over the horizon, in short slices; stops early (keeping the gain) once `should_yield()`."""

    def flush(self) -> list[Estimate]:
        """Closes the unfinished window, refines once more; the final estimates of all frames in the horizon."""

    def reset(self, reason: str) -> None:
        """Forgets scene, tracks and buffers; object and point ids go on and are never reused."""

    def status(self) -> Health:
        """Counters since the start."""

    def prompt(self, prompt: Prompt) -> int:
        """A user's word on an object; its id. Raises `Motion4DError` if its frame has left the horizon."""

    def query(self, points_tyx: FloatArray) -> QueryTracks:
        """Trajectories of (Q, 3) query points (frame index, y, x) over all frames so far (archived ones included)."""

    def render(self, index: int) -> Rendered:
        """The scene as seen by the camera of frame `index` (in the horizon), at that frame's time, at full size."""

    def static_points(self) -> StaticPoints:
        """The static map."""

    def save_scene(self, folder: str) -> list[str]:
        """Writes the scene (reloadable) and `scene.ply`; the paths written."""

    @property
    def T_map_cams(self) -> dict[int, FloatArray]:
        """Camera pose used for every frame so far, by index (4, 4)."""
