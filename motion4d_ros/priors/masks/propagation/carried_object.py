"""What a `MaskCarrier` keeps of each object, and how it notices that an object has left its mask behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.priors.masks.propagation.mask_cues import RARE, Soft, color_bins, color_histogram, similarity
from motion4d_ros.types import BoolArray, FloatArray

RING = 15  # px around a mask that count as its surroundings
STILL = 0.6  # px a frame against the surroundings, below which an object counts as standing
FAINT = 0.8  # of its usual contrast or likeness, below which a mask is not believed to show its object
FADE_AFTER = 2  # faint frames on end after which it is given up
JUST_STOPPED = 6  # frames after an object last moved, in which its mask may turn out to have stayed behind
USUAL_RATE = 0.1  # of the running means


@dataclass(frozen=True)
class CarrierSettings:
    """Weights of the cues; the defaults serve hand-held video of 240..480 px."""

    reach: int = 6  # px, radius of the non-local search
    step: int = 2  # px, its spacing
    sigma_color: float = 9.0  # Lab units
    sigma_reach: float = 4.0  # px
    prior: float = 1.0  # weight of where the mask was; decides where nothing remembered looks like this (new light)
    anchor_weight: float = 3.0  # of the frame somebody vouched for, against 1 of each recent frame
    anchor_unlike: float = 10.0  # grey levels of changed texture at which the anchor is hardly believed any more
    color_weight: float = 0.35
    shaded: float = 0.75  # share of what lies beside an object that may be in its shadow
    sunlit: float = 0.5  # share of an object that may be in brighter light than where it was vouched for
    bias: float = -0.2  # log-odds; outlines rather shrink than leak
    motion_weight: float = 0.7
    motion_denial: float = 1.0  # most it may deny: a planted foot stands still with the ground
    motion_claim: float = 0.5  # most that common motion alone may claim; shadows move along, too
    evidence_weight: float = 0.8
    static_weight: float = 1.2  # of evidence that a pixel stands still, while its object moves
    stranger: float = 0.3  # share of the evidence that counts where something moves differently (a limb, another thing)
    smooth_weight: float = 1.6
    smooth_reach: float = 10.0  # px
    smooth_color: float = 28.0  # grey levels
    mean_field_steps: int = 3


class Looks(NamedTuple):
    """What a region's colours say of whether it shows an object."""

    likeness: float  # similarity to the object's, 0..1
    contrast: float  # that minus the similarity to what surrounds the region


@dataclass(eq=False)
class Memory:
    """A frame an object remembers: what it looked like and which pixels were the object's."""

    index: int
    lab: NDArray[np.float32]  # (h, w, 3)
    soft: Soft  # (h, w) probability of the object
    flow: NDArray[np.float32]  # (h, w, 2) from the newest frame to this one, kept up to date by chaining
    weight: float
    gray: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0), np.uint8))  # of anchors only


@dataclass(eq=False)
class Carried:
    """One object being carried."""

    object_id: int
    soft: Soft  # (h, w) probability in the newest frame
    anchor: Memory | None = None  # where a person or the discovery vouched for the mask
    recent: list[Memory] = field(default_factory=list)
    inside: FloatArray = field(default_factory=lambda: np.zeros(0))  # colour histogram of the object
    vouched: FloatArray = field(default_factory=lambda: np.zeros(0))  # the same at the anchor
    hidden_for: int = 0  # frames since it was last seen
    given: bool = False  # whether the anchor is a person's outline, which knows a shadow from the thing that casts it
    alike: Soft | None = None  # (h, w) how far the object still looks as it did at the anchor, 0..1
    pace: float = 0.0  # px a frame against its surroundings
    looks: Looks | None = None  # in the newest frame
    usual: Looks | None = None  # running mean of it; None before the first
    moved_at: int = -JUST_STOPPED - 1  # newest frame in which it moved and looked like itself
    faint_for: int = 0  # frames on end in which what stays in its place doesn't look like it
    left: BoolArray | None = None  # (h, w) the mask that it was found to have left behind, while it is out of sight
    gone_at: int = 0  # first frame of the last time out of sight
    back_at: int | None = None  # frame in which it came back, if it was ever hidden

    @property
    def area(self) -> float:
        """Pixels (working size) the object covers."""
        return float((self.soft > 0.5).sum())

    @property
    def faint(self) -> bool:
        """Whether the mask looks less like the object than usual: something else may be the object."""
        now, usual = self.looks, self.usual
        if now is None or usual is None:
            return False
        unlike = now.likeness < FAINT * usual.likeness
        return unlike or (usual.contrast > 0 and now.contrast < FAINT * usual.contrast)

    def likeness(self, histogram: FloatArray) -> float:
        """How much colours (a histogram) are those of the object, lately or where it was vouched for: 0..1."""
        return max(similarity(self.inside, histogram), similarity(self.vouched, histogram))

    def color_ratio(self, lab: NDArray[np.float32], region: BoolArray) -> NDArray[np.float32]:
        """(h, w) log-ratio of the object's colours to those around a `region`, averaged over a few pixels."""
        bins = color_bins(lab)
        around = surrounding_colors(lab, region)
        return cv2.blur(np.log((self.inside[bins] + RARE) / (around[bins] + RARE)).astype(np.float32), (7, 7))

    def looks_of(self, lab: NDArray[np.float32], mask: BoolArray, histogram: FloatArray) -> Looks:
        """How much a region (h, w) with the colours `histogram` looks like the object, and unlike what surrounds it."""
        likeness = self.likeness(histogram)
        return Looks(likeness, likeness - similarity(surrounding_colors(lab, mask), histogram))

    def uncovered(self, region: BoolArray) -> float:
        """Share of a region (h, w) that the object has just uncovered by going out of sight: that changes, too."""
        if self.left is None or self.hidden_for > JUST_STOPPED:
            return 0.0
        return float((self.left & region).sum()) / max(1, int(region.sum()))

    def better_elsewhere(self, looks: Looks) -> bool:
        """Whether a region that `looks` so is rather the object than its mask, which stands still and fades."""
        return self.looks is not None and self.faint and self.pace < STILL and looks.contrast > self.looks.contrast

    def left_behind(self, index: int, lab: NDArray[np.float32], histogram: FloatArray) -> bool:
        """Whether the object has gone from its mask in frame `index`, whose colours inside are `histogram`.

        An object that leaves the image, or goes behind something, uncovers what it stood before, and flow is smooth:
        some of that keeps the label. It shows by standing still all at once, and by no longer looking like the object.
        """
        self.looks = now = self.looks_of(lab, self.soft > 0.5, histogram)
        usual = self.usual = self.usual or now
        if self.faint:
            stopped = self.pace < STILL and abs(index - self.moved_at) <= JUST_STOPPED
            self.faint_for = self.faint_for + 1 if stopped else 0
            return self.faint_for >= FADE_AFTER
        self.faint_for = 0
        self.moved_at = index if self.pace > STILL else self.moved_at
        if self.learns(index):
            self.usual = Looks(*(old + USUAL_RATE * (new - old) for old, new in zip(usual, now, strict=True)))
        return False

    def learns(self, index: int) -> bool:
        """Whether the mask of frame `index` may tell how the object looks: not while it may have been left behind."""
        return not self.faint and (self.moved_at == index or abs(index - self.moved_at) > JUST_STOPPED)

    def hide(self, index: int) -> None:
        """Nothing of it is in sight in frame `index`."""
        if self.hidden_for == 0:
            self.left, self.gone_at = self.soft > 0.5, index
        self.hidden_for += 1
        self.soft = np.full(self.soft.shape, 0.02, np.float32)


def surrounding_colors(lab: NDArray[np.float32], mask: BoolArray) -> FloatArray:
    """Colour histogram of a ring around `mask` (h, w)."""
    kernel = np.ones((2 * RING + 1,) * 2, np.uint8)
    return color_histogram(lab, (cv2.dilate(mask.astype(np.uint8), kernel) > 0) & ~mask)
