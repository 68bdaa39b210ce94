"""How many frames a video has and when they are to be shown, as its container says: read without decoding anything."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

_PATIENCE_S = 120.0  # a disk that takes longer to read the file is not waited for
_NO_STAMP = -(2**63)
_DISCARD = 0x4  # FFmpeg's flag of packets that are decoded but not shown: what an edit list cuts off


@dataclass(frozen=True)
class Packets:
    """The frames that are shown. `stamps_ns`: of each, from the first on, ascending; None where some have none."""

    count: int
    stamps_ns: list[int] | None


def read_packets(path: Path) -> Packets | None:
    """What the container says of its first video stream; None where it can't be asked (no FFmpeg, no such stream)."""
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        return None
    command = [ffmpeg, "-hide_banner", "-loglevel", "quiet", "-nostdin", "-i", f"file:{path}", "-map", "0:v:0", "-c",
               "copy", "-copyts", "-f", "framecrc", "-"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _parse(done.stdout.decode("ascii", "replace"))


def _parse(text: str) -> Packets | None:
    """Lines of `stream, dts, pts, duration, size, checksum[, F=flags]` after a header that holds the time base."""
    base: Fraction | None = None
    stamps = []
    for line in text.splitlines():
        if line.startswith("#tb 0:"):
            base = Fraction(line.split(":")[1].strip())
        elif line and line[0].isdigit():
            fields = [field.strip() for field in line.split(",")]
            if len(fields) < 6:
                return None
            flags = next((int(field[2:], 16) for field in fields[6:] if field.startswith("F=")), 0)
            if not flags & _DISCARD:
                stamps.append(int(fields[2]))
    if base is None or not stamps:
        return None
    if _NO_STAMP in stamps or len(set(stamps)) < max(2, 0.9 * len(stamps)):
        return Packets(len(stamps), None)
    stamps.sort()
    return Packets(len(stamps), [round((stamp - stamps[0]) * base * 10**9) for stamp in stamps])


def find_ffmpeg() -> str | None:
    """The path of an FFmpeg program: the one that imageio brings along, else the system's."""
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError, OSError):
        return shutil.which("ffmpeg")
