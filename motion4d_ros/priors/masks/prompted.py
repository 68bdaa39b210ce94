"""Masks that start from a person's word (a mask, a box, points, a click in 3D) and are carried along from there.

`masks.source: propagation` with `masks.discovery: none`. No network is involved: `mask_carrier` tells how a mask finds
its way into the next frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.priors.masks.propagation.carried_masks import CarriedMasks
from motion4d_ros.types import Frame


class PromptedMasks(CarriedMasks):
    """Objects are named by prompts and carried through all later frames.

    Until something is prompted every pixel is background. A frame that comes with `Frame.masks` before any prompt
    starts an object per id.
    """

    vouch_absorbed = False  # a person's outline stays the one to remember

    def _found(self, frame: Frame, evidence: NDArray[np.float32] | None, previous: int | None) -> None:
        if self._carrier.objects and evidence is not None and previous is not None:
            self._strays(frame.index, evidence, self._flow.between(frame.index, previous))
        if frame.masks is None or self._carrier.objects:
            return
        for object_id in np.unique(frame.masks[frame.masks > 0]):
            self._carrier.place(frame.index, int(object_id), self._shrink(frame.masks == object_id), given=True)
            self._next_id = max(self._next_id, int(object_id) + 1)
