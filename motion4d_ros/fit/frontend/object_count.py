"""How many objects there are, and which ids are still free: masks and prompts may name any number of both."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from motion4d_ros.imagery.conversions import LARGEST_ID
from motion4d_ros.types import IntArray, Motion4DError

LARGEST_NAMED = 32767  # that a prompt may give a new object: those above are left to whoever finds objects


class ObjectCount:
    """Counts the ids of the last `horizon` frames. Nothing is allocated for an object before it has passed here."""

    def __init__(self, most: int, horizon: int) -> None:
        self._most, self._horizon = most, horizon
        self._seen: dict[int, int] = {}  # id -> number of the newest frame (or prompt's frame) that named it
        self._frames = 0

    def frame(self, masks: IntArray | None) -> None:
        """A frame comes with (H, W) `masks`, or without. Raises `Motion4DError`, and counts nothing, if its ids are
        more than there may be, alone or with those of the frames before.
        """
        ids = set() if masks is None else _named(masks)
        self._check(ids, "masks")
        self._frames += 1
        self.shown(ids)

    def shown(self, ids: Iterable[int]) -> None:
        """A mask source shows these in the newest frame: they count like those of given masks, but are not refused."""
        self._seen.update(dict.fromkeys(ids, self._frames))

    def surplus(self) -> list[int]:
        """Takes out as many as are too many, those that nobody has named or shown for longest; these."""
        gone = sorted(self._seen, key=lambda label: self._seen[label])[: max(0, len(self._seen) - self._most)]
        for label in gone:
            del self._seen[label]
        return gone

    def prompt(self, object_id: int, known: set[int]) -> int:
        """The id that a prompt means: a free one for 0. Raises `Motion4DError` if there may be no further object."""
        if not 0 <= object_id <= LARGEST_ID:
            raise Motion4DError(f"prompt: object id {object_id}: must lie in 0 .. {LARGEST_ID}")
        if object_id > LARGEST_NAMED and object_id not in known:
            raise Motion4DError(f"prompt: object {object_id} is not known; new ones get ids up to {LARGEST_NAMED}")
        chosen = object_id or self._free(known)
        self._check({chosen}, "prompt")
        self._seen[chosen] = self._frames
        return chosen

    def forget(self) -> None:
        """A new scene begins."""
        self._seen.clear()

    def _check(self, ids: set[int], what: str) -> None:
        new = len(ids - self._seen.keys())
        if new + len(self._seen) <= self._most:  # the usual case, without a look at every id
            return
        count = len(ids | self._alive().keys())
        _refuse(what, count, self._most)

    def _alive(self) -> dict[int, int]:
        oldest = self._frames - self._horizon
        return {label: at for label, at in self._seen.items() if at > oldest}

    @staticmethod
    def _free(known: set[int]) -> int:
        """An id that nothing ever had: the one after the largest, else the smallest that is left."""
        after = max([0, *known]) + 1
        if after <= LARGEST_ID:
            return after
        for label in range(1, LARGEST_ID):
            if label not in known:
                return label
        raise Motion4DError(f"prompt: all {LARGEST_ID} object ids are used up: start the node anew")


def check_count(masks: IntArray, most: int) -> None:
    """Raises `Motion4DError` if (H, W) masks alone name more than `most` objects."""
    _refuse("masks", len(_named(masks)), most)


def _named(masks: IntArray) -> set[int]:
    return set(np.flatnonzero(np.bincount(masks[masks > 0].ravel())).tolist())


def _refuse(what: str, count: int, most: int) -> None:
    if count > most:
        raise Motion4DError(
            f"{what}: {count} objects in the horizon, at most {most}: raise objects.most, or give "
            "every thing an id of its own and keep it"
        )
