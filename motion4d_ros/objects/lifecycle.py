"""Life cycle of tracked objects as pure functions: what was seen, whether it exists, which phase it is in."""

from __future__ import annotations

from dataclasses import dataclass

from motion4d_ros.config import ObjectsConfig
from motion4d_ros.types import ObjectPhase


@dataclass(frozen=True)
class Sighting:
    """What one frame says about an object's visibility."""

    visible_pixels: int  # pixels at which it was measured
    expected_pixels: int  # pixels it would cover if nothing stood before it
    hidden_share: float  # share of those predicted to be hidden by something nearer, [0, 1]
    in_view: bool  # within the camera's field of view


UNSEEN = Sighting(visible_pixels=0, expected_pixels=0, hidden_share=0.0, in_view=False)
"""Nothing was said about the object."""


def is_seen(sighting: Sighting, config: ObjectsConfig) -> bool:
    """Whether enough of the object was measured to count as a detection."""
    enough = max(config.min_pixels, config.min_share * sighting.expected_pixels * (1 - sighting.hidden_share))
    return sighting.visible_pixels >= max(1.0, enough)


def observability(sighting: Sighting) -> float:
    """Share of the object that should be visible, [0, 1]: 0 when out of view or wholly hidden."""
    if not sighting.in_view or sighting.expected_pixels <= 0:
        return 0.0
    return min(max(1.0 - sighting.hidden_share, 0.0), 1.0)


def update_existence(probability: float, seen: bool, observable: float, seconds: float, config: ObjectsConfig) -> float:
    """Bayes update of the probability that the object is (still) there, [0, 1].

    Detections and misses weigh as much as the object was observable: the miss of a hidden object tells nothing. What
    isn't seen may also have gone unnoticed, so its probability halves every `hidden_half_life` seconds.
    """
    if seen:
        hit = config.detection * max(observable, 0.5)  # it was seen: the prediction that it is hidden was wrong
        false = config.false_alarm
        return hit * probability / (hit * probability + false * (1 - probability))
    alive = probability * 0.5 ** (max(seconds, 0.0) / config.hidden_half_life)
    miss, silence = 1 - config.detection * observable, 1 - config.false_alarm * observable
    return miss * alive / (miss * alive + silence * (1 - alive))


def next_phase(
    phase: ObjectPhase, seen: bool, seen_frames: int, unseen_seconds: float, existence: float, config: ObjectsConfig
) -> ObjectPhase:
    """The phase after a frame; `seen_frames` and `unseen_seconds` include it.

    Once confirmed, an object is `TRACKED` whenever it is seen, even after it was lost. One that is not seen is
    `OCCLUDED` (hidden, out of view or not measured) until it has been missing too long, or probably does not exist.
    """
    if seen:
        return ObjectPhase.TRACKED if seen_frames >= config.confirm_frames else ObjectPhase.NEW
    if phase is ObjectPhase.LOST or unseen_seconds > config.lost_after or existence < config.lost_existence:
        return ObjectPhase.LOST
    return ObjectPhase.NEW if phase is ObjectPhase.NEW else ObjectPhase.OCCLUDED
