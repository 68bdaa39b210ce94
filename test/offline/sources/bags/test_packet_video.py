"""Video streams in a bag's messages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DAMAGED = """
import random
from motion4d_ros.offline.sources.bags.packet_video import PacketVideo
from motion4d_ros.types import Motion4DError
noise = random.Random(0).randbytes
units = (b"\\0\\0\\1" + head + noise(400) for head in (b"\\x67", b"\\x68", b"\\x65", b"\\x41"))
try:
    PacketVideo(units, "H.264", "/camera")
except Motion4DError as error:
    print(error)
"""


def test_a_damaged_stream_is_told_of_in_our_words_alone(tmp_path: Path) -> None:
    """In a process of its own: FFmpeg keeps the level of its log from when it is first used."""
    environment = {name: value for name, value in os.environ.items() if name != "OPENCV_FFMPEG_LOGLEVEL"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", DAMAGED], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
