"""When the frames of a video are to be shown, as its container says: read without decoding anything."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

_PATIENCE_S = 120.0  # a disk that takes longer to read the file is not waited for


def packet_stamps_ns(path: Path) -> list[int] | None:
    """The stamp of every frame, ns from the first on, ascending; None where the container has none, or nothing to read
    them with is installed.
    """
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        return None
    command = [ffmpeg, "-hide_banner", "-loglevel", "quiet", "-nostdin", "-i", f"file:{path}", "-map", "0:v:0", "-c",
               "copy", "-copyts", "-f", "framecrc", "-"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    base: Fraction | None = None
    stamps = []
    for line in done.stdout.decode("ascii", "replace").splitlines():
        if line.startswith("#tb 0:"):
            base = Fraction(line.split(":")[1].strip())
        elif line and line[0].isdigit():
            try:
                stamps.append(int(line.split(",")[2]))
            except (IndexError, ValueError):
                return None
    if base is None or not stamps or len(set(stamps)) < len(stamps):
        return None
    stamps.sort()
    return [round((stamp - stamps[0]) * base * 10**9) for stamp in stamps]


def find_ffmpeg() -> str | None:
    """The path of an FFmpeg program: the one that imageio brings along, else the system's."""
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError, OSError):
        return shutil.which("ffmpeg")
