"""From one run of the engine to the next: what is kept goes into a file, and comes back once it has proved true."""

from __future__ import annotations

import enum
import logging
from pathlib import Path

import torch

from motion4d_ros.config import Config
from motion4d_ros.fit.checkpoint.comparison import Verdict
from motion4d_ros.fit.checkpoint.resumption import Resumption, within_budget
from motion4d_ros.fit.checkpoint.saved import checkpoint_of, read_checkpoint, write_checkpoint
from motion4d_ros.fit.frontend.intake import Intake
from motion4d_ros.fit.optimisation.mapper import Mapper
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.priors.interfaces import SavesMap
from motion4d_ros.types import Motion4DError, PoseStatus

logger = logging.getLogger(__name__)
NOT_SEEN = "it is not what the camera sees"


class Decision(enum.Enum):
    """What becomes of a window."""

    FIT = enum.auto()
    PASS_OVER = enum.auto()  # the camera has not been found in the saved map yet: nobody knows where its frames are
    BEGIN_ANEW = enum.auto()  # it was looked for in a map that was refused: frames and poses go


class Continuation:
    """Saves, loads, and holds a loaded scene until there is a verdict on it."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.told = ""  # what became of a loaded scene, in words
        self._config, self._device = config, device
        self._resumption: Resumption | None = None

    @property
    def names(self) -> dict[int, str]:
        """What people called the objects of the loaded scene that waits."""
        return {} if self._resumption is None else self._resumption.saved.names

    def save(self, path: Path, intake: Intake, mapper: Mapper, names: dict[int, str]) -> None:
        """Writes the scene as it lies now, and the ids given. Raises `Motion4DError` when that can't be written."""
        kept = checkpoint_of(mapper.scene, self._config, intake.known_ids)
        kept.camera = None if intake.newest is None else intake.newest.output_camera
        kept.names = names
        if isinstance(intake.poses, SavesMap):
            kept.pose_map = intake.poses.saved_map()
        write_checkpoint(kept, path)

    def load(self, path: Path, most_bytes: int, intake: Intake) -> int:
        """Reads such a file: its ids are not given again. The first id that a point may have.

        Raises `Motion4DError`, and changes nothing, for a file that is no good. One that is good, but was made under
        other circumstances, only lends its ids.
        """
        saved = within_budget(read_checkpoint(path, most_bytes), self._config)
        differs = saved.disagreement(self._config)
        if saved.count and not differs:
            if saved.pose_map and isinstance(intake.poses, SavesMap):
                try:
                    intake.poses.go_on_in(saved.pose_map)
                except (KeyError, ValueError, AttributeError) as error:
                    intake.poses.reset()
                    raise Motion4DError(f"{path}: damaged checkpoint ({error})") from None
            self._resumption = Resumption(saved, self._config, self._device)
            self.told = "a saved scene waits until the camera shows it"
        elif saved.count:
            self._refuse(differs)
        intake.begin_after(set(saved.object_ids))
        return saved.next_point_id

    def decide(self, intake: Intake, mapper: Mapper, horizon: Horizon) -> Decision:
        """Before a window is fitted: takes the scene that waits into use, refuses it, or goes on waiting; what becomes
        of the window.
        """
        resumption = self._resumption
        if resumption is None:
            return Decision.FIT
        verdict = resumption.look(intake.pending)
        if verdict is Verdict.UNKNOWN:
            lost = all(state.pose_status is PoseStatus.LOST for state in intake.pending)
            return Decision.PASS_OVER if resumption.mapped and lost else Decision.FIT
        self._resumption = None
        if verdict is Verdict.MISFIT:
            self._refuse(NOT_SEEN)
            return Decision.BEGIN_ANEW if resumption.mapped else Decision.FIT
        self._take_into_use(resumption, intake, mapper, horizon)
        return Decision.FIT

    def drop(self, reason: str) -> None:
        """A new scene begins: what waits is given up."""
        if self._resumption is not None:
            self._refuse(f"a new scene began before the camera showed it ({reason})")
            self._resumption = None

    def _take_into_use(self, resumption: Resumption, intake: Intake, mapper: Mapper, horizon: Horizon) -> None:
        before = mapper.scene.count
        masks = resumption.adopt(mapper)
        if resumption.shown.holds_names:  # else the ids come with the masks
            for label, mask in masks.items():
                try:
                    intake.prompt(resumption.prompt(label, mask), horizon)
                except Motion4DError as error:
                    logger.info("object %d of the saved scene is not followed: %s", label, error)
        objects = f"objects {', '.join(map(str, sorted(masks)))}" if masks else "no object"
        self.told = f"went on from the saved scene: {mapper.scene.count - before} points, {objects} in place"

    def _refuse(self, reason: str) -> None:
        self.told = f"refused the saved scene: {reason}; a new one begins, ids go on"
