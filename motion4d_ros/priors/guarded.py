"""Sources of masks and depth that may fail in mid-run without ending it.

A network answers NaN or the wrong shape, raises, or takes ten seconds: that frame then has no opinion from it, a
warning says so, and everything else goes on. What is wrong from the start (missing weights, weights of another model)
is refused when the source is made, not here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from motion4d_ros.failures import describe, is_out_of_memory
from motion4d_ros.priors.interfaces import (
    DepthPrior,
    DepthSource,
    DetectionSource,
    GivesIds,
    HearsDetections,
    HearsOfPoses,
    LooksAhead,
    LooksFirst,
    MaskSource,
    PosePrior,
    RevisesDepth,
    RevisesMasks,
    SceneHint,
)
from motion4d_ros.types import UNKNOWN_LABEL, Detection, FloatArray, Frame, IntArray, Motion4DError, Prompt, Scale

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
MOST_TOLD = 20  # different texts of one source: a run of days must not gather them
SLOW_S = 5.0  # s for one frame, from which it is said that a source is slow: no camera waits so long


class Trouble:
    """What went wrong in one source: said once in the log, counted ever after."""

    def __init__(self, name: str, instead: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`name`: the setting that chose the source; `instead`: what is done without it."""
        self.told: dict[str, int] = {}  # the warning, and how often
        self.now = ""  # of the newest frame; empty when all was well
        self._name, self._instead, self._clock = name, instead, clock

    def attempt(self, job: Callable[[], Result], otherwise: Result) -> Result:
        """What `job` returns; `otherwise` where it raises. Memory that runs out is the caller's to mend."""
        began = self._clock()
        try:
            result = job()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self.note(error)
            return otherwise
        took = self._clock() - began
        if took > SLOW_S:
            self.tell(
                f"{self._name} takes more than {SLOW_S:g} s for a frame: choose a smaller network or a smaller image "
                "(motion4d models list)"
            )
        return result

    def note(self, error: Exception) -> None:
        """Says that it failed, and why."""
        known = isinstance(error, Motion4DError)
        reason = str(error) if known else f"{type(error).__name__}: {_first_line(error)}"
        text = f"{self._name} failed ({reason}): {self._instead}"
        if text not in self.told and not known:
            describe(error)  # writes the details where they can be reported
        self.tell(text)

    def tell(self, text: str) -> None:
        """Warns of it, once in the log."""
        if text not in self.told and len(self.told) >= MOST_TOLD:
            text = f"{self._name} failed in many ways (see the log): {self._instead}"
        if text not in self.told:
            logger.warning(text)
        self.told[text] = self.told.get(text, 0) + 1
        self.now = text


class GuardedMasks:
    """A mask source that never raises, but for what a person can mend in a prompt. It can all that any source can."""

    def __init__(self, source: MaskSource, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.source = source
        self.accepts_prompts, self.full_size = source.accepts_prompts, source.full_size
        self.trouble = Trouble(name, "the labels of the frames around are carried on", clock)
        self._name = name

    def look(self, frame: Frame, pose: PosePrior, depth: DepthPrior | None) -> None:
        """Passed on to sources that want to know."""
        source = self.source
        self.trouble.now = ""
        if isinstance(source, LooksFirst):
            self.trouble.attempt(lambda: source.look(frame, pose, depth), None)

    def masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        """(H, W) object ids; `UNKNOWN_LABEL` everywhere where the source fails."""
        unknown = np.full(frame.camera.size, UNKNOWN_LABEL, np.int32)
        return self.trouble.attempt(lambda: _labels(self.source.masks(frame, hint), frame.camera.size), unknown)

    def refresh(self, frame: Frame, prompts: Sequence[Prompt]) -> IntArray | None:
        """(H, W) new ids of a seen frame; None where the source fails, or does not keep that frame any more."""

        def ask() -> IntArray | None:
            fresh = self.source.refresh(frame, prompts)
            return None if fresh is None else _labels(fresh, frame.camera.size)

        return self.trouble.attempt(ask, None)

    def prompt(self, frame: Frame, prompt: Prompt) -> None:
        """Raises `Motion4DError`, one line, whatever goes wrong."""
        try:
            self.source.prompt(frame, prompt)
        except Motion4DError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self.trouble.note(error)
            reason = f"{type(error).__name__}: {_first_line(error)}"
            raise Motion4DError(f"{self._name} failed on this prompt ({reason}): try another frame") from error

    def revise_poses(self, poses: dict[int, FloatArray]) -> None:
        """Passed on to sources that live by the camera's path."""
        source = self.source
        if isinstance(source, HearsOfPoses):
            self.trouble.attempt(lambda: source.revise_poses(poses), None)

    def hear_detections(self, frame: Frame, detections: Sequence[Detection]) -> None:
        """Passed on to sources that can use them."""
        source = self.source
        if isinstance(source, HearsDetections):
            self.trouble.attempt(lambda: source.hear_detections(frame, detections), None)

    def revised_masks(self) -> dict[int, IntArray]:
        """Frame index -> (H, W) labels of what has changed since; nothing of sources that never change their mind."""
        source = self.source
        return self.trouble.attempt(source.revised_masks, {}) if isinstance(source, RevisesMasks) else {}

    def begin_after(self, object_id: int) -> None:
        """Passed on to sources that number objects by themselves."""
        if isinstance(self.source, GivesIds):
            self.source.begin_after(object_id)

    def finish(self) -> None:
        """The input ends."""
        source = self.source
        if isinstance(source, LooksAhead):
            self.trouble.attempt(source.finish, None)

    def reset(self) -> None:
        """Forgets everything but what went wrong."""
        self.source.reset()


class GuardedDepth:
    """A depth source that never raises."""

    def __init__(self, source: DepthSource, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.source = source
        self.trouble = Trouble(name, "such a frame has no depth of its own", clock)

    def depth(self, frame: Frame, pose: PosePrior, hint: SceneHint | None) -> DepthPrior | None:
        """None where nothing can be said, or the source fails."""
        self.trouble.now = ""
        return self.trouble.attempt(lambda: _depth(self.source.depth(frame, pose, hint), frame.camera.size), None)

    def revise(self, poses: dict[int, FloatArray]) -> None:
        """Passed on to sources that live by the camera's path."""
        source = self.source
        if isinstance(source, RevisesDepth):
            self.trouble.attempt(lambda: source.revise(poses), None)

    def again(self, frame: Frame, T_map_cam: FloatArray, scale: Scale, labels: IntArray) -> DepthPrior | None:
        """Depth of an earlier frame by what is known since; None: as it was."""
        source = self.source
        if not isinstance(source, RevisesDepth):
            return None
        return self.trouble.attempt(lambda: _depth(source.again(frame, T_map_cam, scale, labels), labels.shape), None)

    def reset(self) -> None:
        """Forgets everything but what went wrong."""
        self.source.reset()


class GuardedDetections:
    """A detector that never raises."""

    def __init__(self, source: DetectionSource, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.source = source
        self.trouble = Trouble(name, "nothing is detected in such a frame", clock)
        self._name = name

    def detections(self, frame: Frame) -> tuple[Detection, ...] | None:
        """None where the source did not look, or fails. Boxes that cannot be used are told of."""
        self.trouble.now = ""
        before = set(self.source.left_out)
        found = self.trouble.attempt(lambda: self.source.detections(frame), None)
        for reason in sorted(set(self.source.left_out) - before):
            if not reason.startswith("clipped"):  # every detector reaches beyond the edge
                self.trouble.tell(f"{self._name}: boxes {reason} were left out")
        return found


_GUARDED = (GuardedMasks, GuardedDepth, GuardedDetections)


def trouble_now(*sources: object) -> list[str]:
    """What went wrong with the newest frame in those of the sources that are guarded, one line each."""
    return [source.trouble.now for source in sources if isinstance(source, _GUARDED) and source.trouble.now]


def troubles(*sources: object) -> dict[str, int]:
    """Everything that ever went wrong in those of the sources that are guarded, and how often."""
    return {text: n for source in sources if isinstance(source, _GUARDED) for text, n in source.trouble.told.items()}


def _labels(found: Any, size: tuple[int, int]) -> IntArray:
    """(H, W) labels as they must be. Raises `Motion4DError` for anything else."""
    labels = np.asarray(found)
    if labels.shape != size or labels.dtype.kind not in "iu":
        raise Motion4DError(f"it answered {labels.dtype}{labels.shape} instead of the ids of {size[0]} x {size[1]} px")
    return labels


def _depth(prior: DepthPrior | None, size: tuple[int, ...]) -> DepthPrior | None:
    """A prior as it must be. Raises `Motion4DError` for anything else."""
    if prior is not None and not prior.depth.shape == prior.sigma.shape == size:
        raise Motion4DError(f"it answered {prior.depth.shape} instead of {size[0]} x {size[1]} px")
    return prior


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:160]
