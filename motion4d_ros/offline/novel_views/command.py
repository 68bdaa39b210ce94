"""`motion4d render`: options, and what is said."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from motion4d_ros.types import Motion4DError

EXAMPLES = """\
examples:
  motion4d render out --out again.mp4                         as the camera went
  motion4d render out --out steady.mp4 --path stabilised      without its shaking
  motion4d render out --out around.mp4 --path orbit --freeze 40   one instant from all sides (bullet time)
  motion4d render out --out depth/ --what depth               16-bit PNG, mm
  motion4d render out --ply moving/                           what moves, one .ply for every frame

The scene holds the newest frames (window.horizon, 64 of them by default). What no camera saw is black."""
MOST_PIXELS = 8192  # along one side


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds `render` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "render",
        help="show a saved scene from new places and at any time, as video, images or .ply",
        description="Renders the 4D scene that an analysis saved, from a path of your choice.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "scene", type=Path, metavar="DIR|SCENE", help="folder of `motion4d analyze`, or of a saved scene"
    )
    parser.add_argument(
        "--out", type=Path, metavar="VIDEO|FOLDER", help="video (.mp4, .mkv, .mov), or folder for PNG images"
    )
    parser.add_argument(
        "--path", choices=("given", "stabilised", "orbit"), default="given",
        help="as the camera went (the default), the same smoothed, or about the middle of what it saw",
    )  # fmt: skip
    parser.add_argument("--freeze", type=float, metavar="FRAME", help="time stands still at this frame (bullet time)")
    parser.add_argument("--degrees", type=float, default=40.0, metavar="N", help="how far an orbit swings; 360: round")
    parser.add_argument("--smooth", type=float, default=0.5, metavar="S", help="of stabilised: standard deviation, s")
    parser.add_argument("--what", choices=("rgb", "depth", "labels"), default="rgb", help="what is shown")
    parser.add_argument("--size", type=_size, metavar="WxH", help="of the pictures; left out: the images'")
    parser.add_argument(
        "--fps", type=float, metavar="N", help="frames per second of the video; left out: the recording's"
    )
    parser.add_argument("--ply", type=Path, metavar="FOLDER", help="what moves, one .ply a frame, with colours")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Renders; exit status 0. Raises `Motion4DError` for what cannot be done, before anything is written."""
    if arguments.out is None and arguments.ply is None:
        raise Motion4DError("say where to: --out VIDEO or FOLDER, or --ply FOLDER (motion4d render --help)")
    for name, value, low in (("--fps", arguments.fps, 0.0), ("--degrees", arguments.degrees, 0.0)):
        if value is not None and not low < value <= 1000.0:
            raise Motion4DError(f"{name} {value:g}: must lie in 0 .. 1000")
    if not 0.0 <= arguments.smooth <= 60.0:
        raise Motion4DError(f"--smooth {arguments.smooth:g}: must lie in 0 .. 60 s")
    # PyTorch takes seconds to load: bad options should be told before
    from motion4d_ros.offline.novel_views import writing
    from motion4d_ros.offline.novel_views.saved_scene import open_scene

    video = arguments.out is not None and writing.is_video(arguments.out)
    saved = open_scene(arguments.scene)
    for option, place, file in (("--out", arguments.out, video), ("--ply", arguments.ply, False)):
        if place is not None:
            writing.check_writable(place, option, file=file)
    if arguments.freeze is not None:
        saved.check_time(arguments.freeze)
    if arguments.out is not None:
        _pictures(arguments, saved, video=video)
    if arguments.ply is not None:
        times = [float(index) for index in saved.frames] if arguments.freeze is None else [arguments.freeze]
        count = writing.write_ply_sequence(saved.scene, arguments.ply, times)
        _say(f"{arguments.ply}: {_many(count, 'frame')} of what moves, static.ply, moving.npz")
    return 0


def _pictures(arguments: argparse.Namespace, saved: Any, *, video: bool) -> None:
    from motion4d_ros.offline.novel_views import writing
    from motion4d_ros.offline.novel_views.paths import PathOptions, plan
    from motion4d_ros.offline.novel_views.pictures import Photographer, sized

    width, height = arguments.size or (saved.camera.width, saved.camera.height)
    if video:  # H.264 wants even sides
        width, height = width + width % 2, height + height % 2
    rate = arguments.fps or saved.rate
    options = PathOptions(arguments.path, arguments.freeze, arguments.degrees, arguments.smooth)
    steps = plan(saved, options, rate)
    photographer = Photographer(saved, sized(saved.camera, (width, height)))
    if video:
        writing.write_video(arguments.out, photographer, steps, arguments.what, rate)
    else:
        writing.write_images(arguments.out, photographer, steps, arguments.what)
    frames = (
        f"frame {arguments.freeze:g}"
        if arguments.freeze is not None
        else f"frames {saved.frames[0]} to {saved.frames[-1]}"
    )
    _say(f"{arguments.out}: {_many(len(steps), 'picture')} of {width}x{height} px, {frames}")


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)[x×](\d+)", text)
    if not found or not all(1 <= int(side) <= MOST_PIXELS for side in found.groups()):
        raise argparse.ArgumentTypeError(f"{text!r}: expected WIDTHxHEIGHT in pixels, such as 1280x720")
    return int(found[1]), int(found[2])


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
