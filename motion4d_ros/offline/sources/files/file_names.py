"""What the names of files say: when a picture was taken, or its number."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

NS_PER = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""Nanoseconds in each unit that stamps come in."""
EPOCH_S = (946_684_800, 4_102_444_800)
"""Years 2000 to 2100 as seconds since 1970: a number in this range, in some unit, is the time of a recording."""
SLOWEST_S, _FASTEST_S = 60.0, 1.0 / 2000.0  # between two pictures of a recording
_EPOCH = re.compile(r"(?<!\d)(\d{9,19})(?:[._-](\d{1,9}))?(?!\d)")
_DECIMAL = re.compile(r"^\D*?(\d+\.\d+)\D*$")


@dataclass(frozen=True)
class Keys:
    """What the names of one series of files say; each list has one entry per file, or is None."""

    stems: list[str]
    stamps_ns: list[int] | None  # since 1970 where `absolute`, else since some start
    numbers: list[int] | None
    absolute: bool = False
    unit: str = ""  # of the stamps as they are written

    @property
    def rate_hz(self) -> float | None:
        """Pictures per second in the middle of all, by their stamps."""
        if self.stamps_ns is None or len(self.stamps_ns) < 2:
            return None
        ordered = sorted(self.stamps_ns)
        steps = sorted(b - a for a, b in itertools.pairwise(ordered))
        middle = steps[len(steps) // 2]
        return 1e9 / middle if middle > 0 else None


def read_keys(stems: Sequence[str]) -> Keys:
    """Stamps, where every name holds a different one; and numbers, where one number tells the files apart."""
    epoch = _epoch_stamps(stems)
    if epoch is not None:
        return Keys(list(stems), epoch[0], None, True, epoch[1])
    relative = _relative_stamps(stems)
    if relative is not None:
        return Keys(list(stems), relative, None, False, "s")
    return Keys(list(stems), None, _numbers(stems))


def in_order(files: Sequence[Path]) -> list[Path]:
    """Files in order of the stamps in their names, else in natural order: frame2 before frame10."""
    files = sorted(files, key=natural_key)
    keys = read_keys([file.stem for file in files])
    if keys.stamps_ns is None:
        return files
    return [file for _, file in sorted(zip(keys.stamps_ns, files, strict=True), key=lambda pair: pair[0])]


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorts file names as people do: frame2 before frame10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(0, int(part), part) if part[0] in "0123456789" else (1, 0, part) for part in parts]


def epoch_unit(value: Decimal | int) -> str | None:
    """The unit in which a number is a time between 2000 and 2100; None where there is none."""
    return next((unit for unit, ns in NS_PER.items() if EPOCH_S[0] <= value * ns / 10**9 < EPOCH_S[1]), None)


def _epoch_stamps(stems: Sequence[str]) -> tuple[list[int], str] | None:
    """(ns since 1970 of every file, the unit they are written in)."""
    found = [_EPOCH.findall(stem) for stem in stems]
    if not found or not all(found):
        return None
    whole, fractions = [int(f[0][0]) for f in found], [f[0][1] for f in found]
    units = {epoch_unit(value) for value in whole}
    if len(units) != 1 or None in units:
        return None
    unit = str(units.pop())
    if unit != "s":
        stamps = [value * NS_PER[unit] for value in whole]
    elif _is_unpadded(fractions):
        digits = max(map(len, fractions))
        step = 1 if digits > 6 else 1000
        stamps = [value * 10**9 + int(fraction or 0) * step for value, fraction in zip(whole, fractions, strict=True)]
    else:
        stamps = [value * 10**9 + int(f"{fraction:0<9}") for value, fraction in zip(whole, fractions, strict=True)]
    return (stamps, unit) if len(set(stamps)) == len(stamps) else None


def _is_unpadded(fractions: Sequence[str]) -> bool:
    """Whether `seconds.nanoseconds` were written as two whole numbers, without the zeros between them.

    A decimal fraction whose last zeros were dropped never ends with one; a whole number never begins with one.
    """
    long = [fraction for fraction in fractions if len(fraction) > 1]
    if len({len(fraction) for fraction in fractions}) < 2 or max(map(len, fractions)) < 4:
        return False
    return any(text.endswith("0") for text in long) and not any(text.startswith("0") for text in long)


def _relative_stamps(stems: Sequence[str]) -> list[int] | None:
    """Names such as 0.0333 and 12.5: seconds since some start, if they are far enough apart."""
    found = [_DECIMAL.match(stem) for stem in stems]
    if len(found) < 2 or not all(found):
        return None
    try:
        stamps = [int(Decimal(match.group(1)) * 10**9) for match in found if match is not None]
    except InvalidOperation:
        return None
    ordered = sorted(stamps)
    steps = sorted(b - a for a, b in itertools.pairwise(ordered))
    middle_s = steps[len(steps) // 2] / 1e9
    return stamps if steps[0] > 0 and _FASTEST_S <= middle_s <= SLOWEST_S else None


def _numbers(stems: Sequence[str]) -> list[int] | None:
    """The one number that tells the files apart: the group of digits that changes, in names that are alike."""
    groups = [re.findall(r"[0-9]+", stem) for stem in stems]
    if not groups or not all(groups):
        return None
    if len({len(group) for group in groups}) == 1:
        changing = [k for k in range(len(groups[0])) if len({int(group[k]) for group in groups}) > 1]
        if len(changing) > 1:
            return None
        at = changing[0] if changing else len(groups[0]) - 1
    else:
        at = -1
    numbers = [int(group[at]) for group in groups]
    return numbers if len(set(numbers)) == len(numbers) else None
