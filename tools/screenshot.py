"""A picture of the viewer Rerun with a result of `motion4d analyze` in it, on a machine without a display.

    source tools/env.bash && python tools/screenshot.py out docs/img/view.jpg [--size 1100x700] [--wait 60]

It needs the extra [view], Xvfb (`apt-get install xvfb libxkbcommon-x11-0 libxi6 libxcursor1 libxrandr2 libx11-xcb1`),
and Vulkan: a GPU, or Mesa's software renderer (`apt-get install mesa-vulkan-drivers`). The viewer is told the result
as a running analysis would tell it, so its cursor stands at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2

from motion4d_ros.failures import guarded
from motion4d_ros.offline.results.saved_result import read_result
from motion4d_ros.offline.viewing.saved_view import show_result
from motion4d_ros.types import Motion4DError
from motion4d_ros.viewer.destinations import need_viewer, recording_to
from motion4d_ros.viewer.rerun_stream import RerunStream

START_S = 120.0  # within which the viewer must answer
ATTEMPTS = 5
QUALITY = 85  # of 100, JPEG


def main() -> int:
    """Takes one picture; exit status 0. Raises `Motion4DError` where it cannot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="folder of `motion4d analyze`")
    parser.add_argument("picture", type=Path, help=".jpg or .png")
    parser.add_argument("--size", default="1100x700", help="of the window, px")
    parser.add_argument("--wait", type=float, default=60.0, help="until the viewer's greetings are gone, s")
    arguments = parser.parse_args()
    size = re.fullmatch(r"(\d+)x(\d+)", arguments.size)
    if size is None or arguments.picture.suffix not in (".jpg", ".png"):
        raise Motion4DError("expected RESULT PICTURE.jpg|.png, and --size WIDTHxHEIGHT")
    result = read_result(arguments.result)
    need_viewer()
    with tempfile.TemporaryDirectory() as folder, _display(int(size[1]), int(size[2])) as display:
        log = Path(folder) / "log.txt"
        with (
            _viewer(display, arguments.size, log) as url,
            recording_to(url, arguments.result.resolve().name) as recording,
        ):
            show_result(result, RerunStream(recording), lambda text: print(f"note: {text}", file=sys.stderr))
            recording.flush(timeout_sec=START_S)
            time.sleep(arguments.wait)
            _shoot(url, Path(folder) / "view.png", log)
        image = cv2.imread(str(Path(folder) / "view.png"))
    if image is None or not cv2.imwrite(str(arguments.picture), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY]):
        raise Motion4DError(f"{arguments.picture}: cannot be written")
    print(f"{arguments.picture}: {image.shape[1]}x{image.shape[0]} px, {arguments.picture.stat().st_size // 1000} kB")
    return 0


@contextlib.contextmanager
def _display(width: int, height: int) -> Iterator[str]:
    """A display in memory, so wide that the pointer, in its middle, is not on the window; the name of it."""
    if shutil.which("Xvfb") is None:
        raise Motion4DError("Xvfb is not installed: apt-get install xvfb")
    read, write = os.pipe()
    words = ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{3 * width}x{height}x24", "-nolisten", "tcp"]
    server = subprocess.Popen(words, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as said:
            number = said.readline().strip()
        if not number:
            raise Motion4DError("Xvfb could not be started")
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def _viewer(display: str, size: str, log: Path) -> Iterator[str]:
    """A viewer on a display; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["rerun", "--port", str(port), "--window-size", size, "--hide-welcome-screen"]
    environment = {**os.environ, "DISPLAY": display, "WINIT_UNIX_BACKEND": "x11"}
    environment.pop("WAYLAND_DISPLAY", None)
    with log.open("w") as said:
        viewer = subprocess.Popen(words, env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if viewer.poll() is not None or time.monotonic() > deadline:
                raise Motion4DError(f"the viewer did not start: {_last(log)}")
            time.sleep(0.2)
        yield f"rerun+http://127.0.0.1:{port}/proxy"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(viewer.pid, 15)  # the program behind Python's, too
        viewer.wait()


def _shoot(url: str, path: Path, log: Path) -> None:
    from rerun.experimental import ViewerClient

    client = ViewerClient.connect(url)
    for _ in range(ATTEMPTS):
        try:
            client.save_screenshot(str(path))
        except Exception as error:  # of the viewer's making; drawing by software may take it too long
            print(f"note: {' '.join(str(error).split())}", file=sys.stderr)
        if path.is_file():
            return
    raise Motion4DError(f"the viewer took no picture: {_last(log)} (on a busy machine: a smaller --size)")


def _last(log: Path) -> str:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace")).strip().splitlines()
    return lines[-1] if lines else "it said nothing"


if __name__ == "__main__":
    sys.exit(guarded("screenshot", main))
