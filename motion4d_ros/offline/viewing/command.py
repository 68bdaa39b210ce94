"""`motion4d view`: a result in the viewer Rerun."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motion4d_ros.types import Motion4DError

if TYPE_CHECKING:
    from motion4d_ros.offline.results.saved_result import SavedResult

EXAMPLES = """\
examples:
  motion4d view out                     the viewer's own window
  motion4d view out --web               in a browser, until Ctrl-C; it uses the ports 9090 and 9091 (--port)
  motion4d view out --save out.rrd      a recording to send to somebody: rerun out.rrd

The viewer is an extra: pip install 'motion4d_ros[view]', or rerun-sdk."""
PORT = 9090


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds `view` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "view",
        help="look at results in the viewer Rerun",
        description="Opens what `motion4d analyze` wrote: images with masks, the camera, the scene, tracks, boxes\n"
        "with velocities and uncertainty, and plots of speed and cost, all on the images' time line.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("result", type=Path, metavar="DIR", help="folder of `motion4d analyze`")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--web", action="store_true", help="in a browser; the page is served until Ctrl-C")
    where.add_argument("--save", type=Path, metavar="FILE.rrd", help="write a recording of Rerun, and end")
    parser.add_argument(
        "--port", type=int, default=PORT, metavar="N", help=f"of --web; N+1 is used, too (default {PORT})"
    )
    parser.add_argument("--no-browser", action="store_true", help="--web: say the address only")
    parser.add_argument("--input", type=Path, metavar="PATH", help="where the recording lies by now, for its images")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Shows a result; exit status 0. Raises `Motion4DError` for what is no result, or where no viewer can be had."""
    from motion4d_ros.offline.results.saved_result import read_result
    from motion4d_ros.viewer.destinations import SPAWN, SUFFIX, check_target, need_viewer, recording_to, served

    if not 1 <= arguments.port < 65535:
        raise Motion4DError(f"--port {arguments.port}: must lie in 1 .. 65534")
    if arguments.save is not None and arguments.save.suffix != SUFFIX:
        raise Motion4DError(f"--save {arguments.save}: name a file that ends in {SUFFIX}")
    result = read_result(arguments.result)
    name = arguments.result.resolve().name
    need_viewer()
    if arguments.web:
        with served(name, arguments.port, browser=not arguments.no_browser) as (recording, address):
            frames = _show(result, recording, arguments.input)
            _say(f"{frames} frames at {address} (Ctrl-C ends)")
            _wait()
        return 0
    target = SPAWN if arguments.save is None else str(arguments.save)
    check_target(target)
    with recording_to(target, name) as recording:
        frames = _show(result, recording, arguments.input)
    _say(f"{frames} frames" if arguments.save is None else f"{arguments.save}: {frames} frames")
    return 0


def _show(result: SavedResult, recording: Any, where: Path | None) -> int:
    from motion4d_ros.offline.viewing.saved_view import show_result
    from motion4d_ros.viewer.rerun_stream import RerunStream

    return show_result(result, RerunStream(recording), lambda text: _say(f"note: {text}"), where)


def _wait() -> None:
    """Until somebody ends it."""
    try:
        signal.pause()
    except KeyboardInterrupt:
        return


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
