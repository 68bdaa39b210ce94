"""Stamps of images in a file beside them, a line each: `times.txt`, `timestamps.txt`, as KITTI has them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from pathlib import Path
from statistics import median

from motion4d_ros.offline.sources.files.file_names import NS_PER, SLOWEST_S, epoch_unit
from motion4d_ros.offline.sources.files.series import Series
from motion4d_ros.offline.sources.interfaces import SourceReport

TIME_FILES = ("times.txt", "timestamps.txt", "timestamp.txt")


def with_times(series: Series, folder: Path, report: SourceReport) -> Series:
    """The series with stamps from a file in its folder or the one above, where its names hold none.

    Line k belongs to image k, or, of a part of a recording, to the image of number k. A file that fits neither is left,
    and said.
    """
    if series.keys.stamps_ns is not None:
        return series
    files = (place / name for place in (folder, folder.resolve().parent) for name in TIME_FILES)
    file = next((path for path in files if path.is_file()), None)
    if file is None:
        return series
    read = _read(file)
    if read is None:
        report.warn(f"{file.name} beside the images was not used: expected a rising time in every line")
        return series
    stamps, unit, absolute = read
    numbers = series.keys.numbers
    if len(stamps) == len(series):
        rows = list(range(len(series)))
    elif numbers is not None and max(numbers) < len(stamps) and min(numbers) >= 0:
        rows = numbers
    else:
        report.warn(f"{file.name} beside the images was not used: {len(stamps)} times for {len(series)} images")
        return series
    keys = replace(series.keys, stamps_ns=[stamps[row] for row in rows], absolute=absolute, unit=unit)
    report.warn(f"the images' times are those of {file.name} beside them")
    return replace(series, keys=keys, listed=True)


def _read(file: Path) -> tuple[list[int], str, bool] | None:
    """Times in ns, the unit they are written in, and whether they count since 1970; None where they are no times."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
        found = [_time(line) for line in lines if line and line[0] != "#"]
    except (OSError, UnicodeDecodeError, ValueError, InvalidOperation):
        return None
    steps = [b - a for a, b in itertools.pairwise(found)]
    if not steps or min(steps) <= 0:
        return None
    unit = epoch_unit(found[0])
    absolute = unit is not None
    if unit is None:  # since some start: seconds, unless so far apart no recording's pictures are
        unit = next((name for name, ns in NS_PER.items() if median(steps) * ns <= SLOWEST_S * 10**9), "s")
    return [int(value * NS_PER[unit]) for value in found], unit, absolute


def _time(line: str) -> Decimal:
    """A number, or a date and time of day (UTC) in seconds since 1970."""
    try:
        return Decimal(line)
    except InvalidOperation:
        whole, _, fraction = line.partition(".")
        moment = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc)
        return Decimal(int(moment.timestamp())) + Decimal(f"0.{fraction or 0}")
