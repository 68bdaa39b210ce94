"""`index.html`: every recording of a batch in one table, with thumbnails; nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from motion4d_ros.batch.overview.progress import duration

_HERE = Path(__file__).parent


def write_page(path: Path, rows: Iterable[Mapping[str, Any]], whole: Mapping[str, Any]) -> None:
    """Writes the page; links are relative, so that the folder may be moved or served."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((_HERE / "index.html.j2").read_text(encoding="utf-8"))
    content = {"whole": whole, "time": duration(whole["seconds"]), "cpu": duration(whole["cpu_seconds"])}
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(template.generate(rows=_shown(rows), **content))


def _shown(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        link = quote(str(row["folder"] or ""))
        speed = row["top_speed"]
        yield {
            **row,
            "report": f"{link}/report.html" if row["state"] == "ok" else "",
            "log": f"{link}/log.txt" if row["state"] == "failed" and row["frames"] is not None else "",
            "picture": f"{link}/thumbnail.jpg" if row["state"] == "ok" else "",
            "speed_text": "" if speed is None else f"{speed:.2f} {row['unit']}/s",
        }
