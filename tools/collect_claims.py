"""Every table of figures in the documents: which command gave it, when, at which revision, and what has changed since.

    python tools/collect_claims.py              # the list (`make claims`)
    python tools/collect_claims.py --stale 50   # status 1 if a table has more than 50 commits of code since

A table's source is what stands nearest before it: a command in backticks, a date, a revision (`at 06b044b`). Without a
date, it is that of the commit that last changed the table. What counts as change are commits to `motion4d_ros` and
`raster` since then. So the list says what to measure again; it does not know whether a figure would differ.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = ("motion4d_ros", "raster")
COMMAND = re.compile(r"`((?:python -m motion4d_ros\.[\w.]+|tools/\w+\.py|make \w+(?:-\w+)*|motion4d \w+)[^`]*)`")
DAY = re.compile(r"\b20\d\d-\d\d-\d\d\b")
TARGET = re.compile(r"(?<=\])\([^)\s]*\)")  # of a link; the date in it is another table's
REVISION = re.compile(r"\bat (?:revision )?([0-9a-f]{7})\b")
FIGURES = 4  # a table with fewer numbers holds no measurements
PAGES = ("README.md", "docs")
REPEATED = ("research_log", "method", "limits", "results", "interface", "command_line", "messages", "analyze", "speed")
"""Pages whose tables hold no measurements that are kept true: notes, settings, figures of other pages."""


@dataclass(frozen=True)
class Claim:
    """One table of figures."""

    page: str
    line: int
    heading: str
    command: str
    date: str  # YYYY-MM-DD of the measurement, or of the table's last change
    stated: bool  # whether the page says the date
    commits: int  # to the code, since


def git(*arguments: str) -> str:
    """What git prints; empty where it fails (no checkout, or a revision that is not there)."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def tables(text: str) -> list[tuple[int, int]]:
    """(First, last line) of every table with figures, counted from 1."""
    found, first = [], 0
    lines = [*text.splitlines(), ""]
    for number, line in enumerate(lines, 1):
        if line.startswith("|"):
            first = first or number
        elif first:
            cells = " ".join(lines[first + 1 : number - 1])
            if len(re.findall(r"(?<![\w`.])\d*\.\d+(?![\w.])", cells)) >= FIGURES:
                found.append((first, number - 1))
            first = 0
    return found


def section(lines: list[str], line: int, depth: int) -> str:
    """The text below the nearest heading of at most `depth` before `line`, to the next such heading."""
    heading = re.compile(rf"#{{1,{depth}}} ")
    start = max((k for k in range(line) if heading.match(lines[k])), default=0)
    end = next((k for k in range(line, len(lines)) if heading.match(lines[k])), len(lines))
    return "\n".join(lines[start:end])


def part(text: str, name: str) -> str:
    """What stands between the markers `name`."""
    found = re.search(rf"<!-- {name} -->(.*?)<!-- /{name} -->", text, re.DOTALL)
    return found[1] if found else ""


def commands(text: str) -> list[str]:
    """Those named in a text, as they stand in one line; what measures before what analyses."""
    found = COMMAND.findall(re.sub(r"\s+", " ", text))
    return sorted(found, key=lambda command: command.startswith(("motion4d", "make demo")))


def claims_of(page: Path) -> list[Claim]:
    """The tables of a page with their sources."""
    text = page.read_text(encoding="utf-8")
    lines, found = text.splitlines(), []
    for first, last in tables(text):
        start = max((k for k in range(first) if lines[k].startswith("#")), default=0)
        near, around = section(lines, first, 3), (part(text, "provenance"), section(lines, first, 2), text)
        command = next((known[0] for place in (near, *around) if (known := commands(place))), "")
        stated = next((days for place in (near, *around[:2]) if (days := DAY.findall(TARGET.sub("", place)))), [])
        name = str(page.relative_to(ROOT))
        date = max(stated) if stated else newest_change(name, first, last)
        since = git("rev-list", "--count", f"--since={date}T23:59:59", "HEAD", "--", *CODE) if date else ""
        revision = REVISION.search(near)
        if revision:
            since = git("rev-list", "--count", f"{revision[1]}..HEAD", "--", *CODE) or since
        heading = lines[start].lstrip("# ")
        found.append(Claim(name, first, heading, command, date, bool(stated), int(since or 0)))
    return found


def newest_change(page: str, first: int, last: int) -> str:
    """The date on which lines of the table were last changed."""
    blamed = git("blame", "--line-porcelain", f"-L{first},{last}", "--", page)
    times = [int(time) for time in re.findall(r"^committer-time (\d+)", blamed, re.MULTILINE)]
    return git("show", "-s", "--format=%cs", re.findall(r"^([0-9a-f]{40}) ", blamed, re.MULTILINE)[0]) if times else ""


def main(arguments: list[str] | None = None) -> int:
    """The list; 1 if a table is older than `--stale` commits of code, or names no command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stale", type=int, metavar="COMMITS", help="complain about tables with more commits since")
    options = parser.parse_args(arguments)
    found = []
    for name in PAGES:
        path = ROOT / name
        pages = sorted(path.rglob("*.md")) if path.is_dir() else [path] if path.is_file() else []
        found += [claim for page in pages if page.stem not in REPEATED for claim in claims_of(page)]
    for claim in found:
        when = claim.date + ("" if claim.stated else " (last changed)")
        sys.stdout.write(f"{claim.page}:{claim.line} {claim.heading}\n")
        sys.stdout.write(f"  {when}, {claim.commits} commits of code since; ")
        sys.stdout.write(f"{claim.command or 'NO COMMAND NAMED'}\n")
    limit = options.stale
    late = [claim for claim in found if limit is not None and (claim.commits > limit or not claim.command)]
    if late:
        sys.stderr.write(f"{len(late)} of {len(found)} tables: more than {limit} commits since, or no command\n")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
