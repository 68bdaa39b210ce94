"""What goes into an analysis, what it tells on the way, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motion4d_ros.config import Config
from motion4d_ros.offline.sources import SourceOptions


@dataclass
class AnalyzeOptions:
    """Everything `motion4d analyze` can be told."""

    input: Path  # bag, video, or folder of images
    out: Path  # folder for the results
    source: SourceOptions = field(default_factory=SourceOptions)
    config: Config = field(default_factory=Config)
    explicit: frozenset[str] = frozenset()  # settings the user named himself: no option overrides them
    queries: Path | None = None  # .npy with (Q, 3) points: frame number, y, x in px
    prompt_mask: Path | None = None  # label image of the first frame
    limit: int | None = None  # frames at most
    overwrite: bool = False  # whether `out` may hold other files
    rerun: str = ""  # where to show the analysis while it runs: FILE.rrd, spawn or a viewer's URL; "": nowhere
    automatic: bool = False  # a network may be chosen by what lies in the cache (`--preset auto`)


@dataclass(frozen=True)
class Progress:
    """How far an analysis has come."""

    frames: int  # read so far
    total: int | None  # in all; None: not known
    doing: str  # "frames", "last window", "writing …"


@dataclass
class AnalysisResult:
    """What came out."""

    out: Path
    """Where the files are: the folder asked for, or `partial` in it."""
    files: list[Path]  # what was written
    frames: int  # frames analysed
    metrics: dict[str, Any]  # what `metrics.json` holds
    warnings: list[str]  # what was noticed, for people
    interrupted: bool = False
    signal: int = 0  # the signal that interrupted it
    failure: str = ""  # why the recording could not be read to its end, "" if it could
    failed: dict[str, str] = field(default_factory=dict)  # files that could not be written -> why
    defect: bool = False  # something of ours failed that nobody foresaw
    full: bool = False  # the disk was full

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not (self.interrupted or self.failure or self.failed or self.defect)
