"""What a benchmark is: sequences in a folder, what an analysis is given of each, and the figures it gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

Figures: TypeAlias = dict[str, float]
FIRST_MASK, NOTHING = "first-mask", "nothing"
GIVEN = (FIRST_MASK, NOTHING)
"""What of the truth a benchmark of masks shows: the objects in the first frame, or nothing."""


@dataclass(frozen=True)
class Column:
    """One figure of a table."""

    name: str
    meaning: str
    digits: int = 3


@dataclass(frozen=True)
class Place:
    """One sequence of a benchmark: where it lies, how much of it counts, and what is shown of its truth."""

    root: Path
    name: str
    limit: int | None = None  # frames, from the first on
    given: str = FIRST_MASK


class Benchmark(Protocol):
    """A data set with its protocol. Stateless: a sequence may be worked on in any process."""

    name: str
    title: str

    @property
    def layout(self) -> str:
        """What `root` must hold, in words."""
        ...

    @property
    def columns(self) -> tuple[Column, ...]:
        """Of its table."""
        ...

    def sequences(self, root: Path) -> list[str]:
        """Names of the sequences under `root`; empty where it holds none. Raises `Motion4DError` for a broken list."""
        ...

    def prepare(self, place: Place, folder: Path) -> list[str]:
        """The words of `motion4d analyze` for a sequence; what has to be laid down for it goes into `folder`."""
        ...

    def score(self, place: Place, out: Path) -> Figures:
        """Figures of an analysis in `out`. Raises `Motion4DError` where it does not fit the truth."""
        ...

    def mean(self, rows: Sequence[Figures]) -> Figures:
        """Over sequences, as the protocol takes it."""
        ...


def mean_of(rows: Sequence[Mapping[str, float]], weights: Sequence[float] | None = None) -> Figures:
    """Mean of every figure over the rows that have it; what is not a number is left out."""
    found: Figures = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        shares = [1.0] * len(rows) if weights is None else weights
        known = [(row[name], w) for row, w in zip(rows, shares, strict=True) if np.isfinite(row.get(name, np.nan))]
        if known:
            values, kept = np.array(known).T
            found[name] = float((values * kept).sum() / kept.sum())
    return found
