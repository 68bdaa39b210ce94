"""Which file belongs to which frame: by stamp, by number or by name; by position only where nothing else can be meant.

Pure functions of what the names say. What they decide comes with a sentence that says how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motion4d_ros.offline.sources.files.file_names import Keys
from motion4d_ros.types import Motion4DError

TOLERANCE_S = 0.02
"""Stamps of two cameras of one device differ by less: the limit of TUM's own `associate.py`."""


@dataclass(frozen=True)
class Pairing:
    """Frame index -> position in the series; how that was found, and whether people should be told."""

    matched: dict[int, int]
    how: str
    tell: bool


def pair(frames: Keys, files: Keys, what: str, where: str, *, slop_s: float = TOLERANCE_S, counted: bool) -> Pairing:
    """Finds the file of every frame.

    `counted`: the frames have no names of their own (a video): their numbers are 0, 1, 2, … in order.
    Raises `Motion4DError` where several answers are as good.
    """
    if frames.stamps_ns is not None and files.stamps_ns is not None and frames.absolute == files.absolute:
        return _by_stamp(frames.stamps_ns, files.stamps_ns, what, where, max(slop_s, TOLERANCE_S))
    count = len(frames.stems)
    if set(files.stems) == set(frames.stems) and not counted:
        position = {stem: k for k, stem in enumerate(files.stems)}
        return Pairing({i: position[stem] for i, stem in enumerate(frames.stems)}, "of the same names", False)
    if files.numbers is not None:
        own = frames.numbers if not counted and frames.stamps_ns is None else list(range(count))
        if own is not None and (found := _by_number(own, files, what, own is not frames.numbers)):
            return found
    if len(files.stems) == count:
        return Pairing(
            dict(enumerate(range(count))),
            "in order",
            frames.stamps_ns is not None or files.stamps_ns is not None or files.numbers is not None,
        )
    common = set(files.stems) & set(frames.stems)
    if common and not counted:
        position = {stem: k for k, stem in enumerate(files.stems)}
        matched = {i: position[stem] for i, stem in enumerate(frames.stems) if stem in common}
        return Pairing(matched, f"{len(matched)} by name", True)
    raise Motion4DError(
        f"{where}: {len(files.stems)} {what} for {count} frames, and neither stamps nor numbers in their names "
        f"({files.stems[0]}, …) say which belongs to which ({frames.stems[0]}, …): name them alike"
    )


def _by_stamp(frames: Sequence[int], files: Sequence[int], what: str, where: str, tolerance_s: float) -> Pairing:
    matched = associate(frames, files, round(tolerance_s * 1e9))
    if not matched:
        nearest = min(int(np.abs(np.asarray(files, np.int64) - stamp).min()) for stamp in frames)
        raise Motion4DError(
            f"{where}: none of the {len(files)} {what} lies within {tolerance_s:g} s of an image (nearest: "
            f"{nearest / 1e9:.3g} s): are they of the same recording? --set slop=SECONDS allows more"
        )
    offsets = np.array([files[k] - frames[i] for i, k in matched.items()]) / 1e6
    how = (
        f"{len(matched)} by stamp, {np.median(offsets):+.3g} ms from the image's, at most "
        f"{np.abs(offsets).max():.3g} ms (limit {1e3 * tolerance_s:g})"
    )
    return Pairing(matched, how, len(matched) < max(len(frames), len(files)))


def associate(first_ns: Sequence[int], second_ns: Sequence[int], tolerance_ns: int) -> dict[int, int]:
    """Index in `first_ns` -> index in `second_ns`: the nearest pairs first, each used once, none beyond the tolerance.

    As `associate.py` of Sturm et al., "A Benchmark for the Evaluation of RGB-D SLAM Systems" (IROS 2012).
    """
    order = np.argsort(np.asarray(second_ns, np.int64), kind="stable")
    ordered = np.asarray(second_ns, np.int64)[order]
    candidates: list[tuple[int, int, int]] = []
    for i, stamp in enumerate(first_ns):
        low, high = np.searchsorted(ordered, (stamp - tolerance_ns, stamp + tolerance_ns + 1))
        candidates += [(abs(int(ordered[k]) - stamp), i, int(order[k])) for k in range(low, high)]
    matched: dict[int, int] = {}
    used: set[int] = set()
    for _, i, k in sorted(candidates):
        if i not in matched and k not in used:
            matched[i] = k
            used.add(k)
    return dict(sorted(matched.items()))


def _by_number(own: Sequence[int], files: Keys, what: str, counted: bool) -> Pairing | None:
    """Matches numbers, which may be counted from 0 or from 1; None where they do not fit."""
    theirs = files.numbers or []
    position = {number: k for k, number in enumerate(theirs)}
    reach = {shift: [i for i, number in enumerate(own) if number + shift in position] for shift in (0, 1, -1)}
    shift = next((s for s in (0, 1, -1) if len(reach[s]) == len(theirs)), None)
    if shift is None and len(own) == len(theirs):
        constant = min(theirs) - min(own)
        if not reach[0] and sorted(theirs) == [number + constant for number in sorted(own)]:
            return _shifted(own, files, constant, what, tell=True)
        steps = _steps(own) | _steps(theirs)
        if len(_steps(own)) == len(_steps(theirs)) == 1 and len(steps) == 2:  # both complete, numbered differently
            how = f"in order: numbers go from {min(theirs)} to {max(theirs)}, the images' from {min(own)} to {max(own)}"
            return Pairing(dict(enumerate(range(len(own)))), how, True)
    if shift is None and 2 * len(reach[0]) >= min(len(own), len(theirs)):
        shift = 0
    if shift is None:
        return None
    whole = shift == 0 and len(reach[0]) == len(own) == len(theirs)
    return _shifted(own, files, shift, what, tell=not whole, counted=counted)


def _steps(numbers: Sequence[int]) -> set[int]:
    return set(np.diff(sorted(numbers)).tolist())


def _shifted(own: Sequence[int], files: Keys, shift: int, what: str, *, tell: bool, counted: bool = False) -> Pairing:
    position = {number: k for k, number in enumerate(files.numbers or [])}
    matched = {i: position[number + shift] for i, number in enumerate(own) if number + shift in position}
    first = min(matched)
    example = files.stems[matched[first]]
    how = f"{len(matched)} by number: {example} belongs to image {own[first]}"
    if counted:
        base = "from 0" if shift == 0 else "from 1" if shift == 1 else f"from {shift}"
        how = f"{len(matched)} by number, counted {base}: {example} belongs to frame {own[first]} (the first is 0)"
    elif shift:
        how += f" (numbers differ by {shift:+d})"
    return Pairing(matched, how, tell)
