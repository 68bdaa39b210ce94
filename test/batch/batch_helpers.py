"""What the tests of a batch share: small recordings, the command as a process, and processes that break on demand."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from motion4d_ros.children import environment, module_command

QUICK = ("--preset", "fast", "--set", "window.length=4", "--set", "window.horizon=6", "--fps", "10")
PATIENCE_S = 400.0  # a busy machine may be slow

# Read by every Python process that finds it first on its path: in the process of a recording it notes what is read, and
# where the recording's folder is called so, it crashes for real, or waits.
BREAKER = """
import os, sys
if "motion4d_ros.batch.recording" in sys.orig_argv:
    def hook(event, arguments, seen=set()):
        if event not in ("os.listdir", "os.scandir"):
            return
        name = str(arguments[0])  # a path, or the number of an open folder
        if not name.endswith("images") or name in seen:
            return
        seen.add(name)
        with open(os.environ["BATCH_TEST_LOG"], "a") as log:
            log.write(f"{os.path.basename(os.path.dirname(name))} {os.getpid()}\\n")
        if "crashes" in name:
            import ctypes
            ctypes.string_at(0)
        if "hangs" in name:
            import time
            time.sleep(1000)
        if "swells" in name:
            swollen = bytearray(600 * 2**20)
            swollen[::4096] = b"x" * len(swollen[::4096])
            import time
            time.sleep(1000)
    sys.addaudithook(hook)
"""


def write_recording(folder: Path, seed: int = 0, frames: int = 5) -> Path:
    """Images of a red square that moves right, with label images in `masks` beside them; the folder of the images."""
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    ground = np.random.default_rng(seed).integers(0, 200, (8, 12, 3)).astype(np.uint8)
    ground = cv2.resize(ground, (48, 32), interpolation=cv2.INTER_CUBIC)
    for index in range(frames):
        image, labels = ground.copy(), np.zeros((32, 48), np.uint16)
        labels[8:20, 4 + 2 * index : 16 + 2 * index] = 3
        image[labels == 3] = (30, 40, 220)
        cv2.imwrite(str(images / f"{index:03d}.png"), image)
        cv2.imwrite(str(masks / f"{index:03d}.png"), labels)
    return images


def start(*words: object) -> subprocess.Popen[str]:
    """`motion4d batch WORDS…` as a process."""
    command = module_command("motion4d_ros.cli", "batch", *map(str, words))
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Status, stdout and stderr of it."""
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def summary(out: Path) -> dict[str, dict[str, object]]:
    """Folder → row of `summary.json`."""
    content = json.loads((out / "summary.json").read_text())
    return {row["folder"]: row for row in content["recordings"]}


def wait_for(what: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Waits until something is true; fails when `process` ends before, or after a long time."""
    end = time.monotonic() + PATIENCE_S
    while not what():
        if process is not None and process.poll() is not None:
            pytest.fail(f"ended before with status {process.returncode}: {process.communicate()}")
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
