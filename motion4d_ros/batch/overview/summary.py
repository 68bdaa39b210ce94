"""`summary.json`, `summary.csv`, `summary.parquet` (where pyarrow is installed) and `index.html`, row by row."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from motion4d_ros.batch.overview.page import write_page
from motion4d_ros.batch.overview.rows import COLUMNS, Rows, totals
from motion4d_ros.batch.places import Place

_ROWS_AT_ONCE = 1000
_INTEGERS = ("frames", "objects", "attempts")
_NUMBERS = ("seconds", "top_speed", "seconds_per_frame", "cpu_seconds", "peak_mib")


def write_summary(rows: Rows, place: Place, about: Mapping[str, Any]) -> list[str]:
    """Writes all of them to the place; their names. `about`: what is said of the batch as a whole (JSON).

    Raises `Motion4DError` where the place cannot be written to, `OSError` where no temporary file can be made.
    """
    counts = totals(rows)
    whole = {
        **about, "counts": counts.states, "frames": counts.frames, "objects": counts.objects,
        "seconds": counts.seconds, "cpu_seconds": counts.cpu_seconds,
    }  # fmt: skip
    writers: dict[str, Callable[[Path], None]] = {
        "summary.json": lambda path: _json(path, rows, whole),
        "summary.csv": lambda path: _csv(path, rows),
        **({"summary.parquet": lambda path: _parquet(path, rows)} if find_spec("pyarrow") else {}),
        "index.html": lambda path: write_page(path, rows, whole),
    }
    with tempfile.TemporaryDirectory(prefix="motion4d-summary-") as folder:
        for name, write in writers.items():
            write(Path(folder) / name)
            place.put_file(name, Path(folder) / name)
    return list(writers)


def _json(path: Path, rows: Iterable[Mapping[str, Any]], whole: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(whole, indent=1)[:-2] + ',\n "recordings": [')
        for number, row in enumerate(rows):
            file.write(f"{',' if number else ''}\n  {json.dumps(row)}")
        file.write("\n ]\n}\n")


def _csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _parquet(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = {**dict.fromkeys(_INTEGERS, pyarrow.int64()), **dict.fromkeys(_NUMBERS, pyarrow.float64())}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in COLUMNS])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        iterator = iter(rows)
        while part := list(islice(iterator, _ROWS_AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist([_legal(row) for row in part], schema))


def _legal(row: Mapping[str, Any]) -> dict[str, Any]:
    """File names need not be UTF-8: what is not is written as an escape."""
    texts = {name: value for name, value in row.items() if isinstance(value, str)}
    return {**row, **{name: text.encode("utf-8", "backslashreplace").decode() for name, text in texts.items()}}
