"""`motion4d analyze`: options, progress on the terminal, exit status."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from motion4d_ros.config import Config
from motion4d_ros.offline.sources.base import SourceOptions
from motion4d_ros.types import Motion4DError

INTERRUPTED = 130


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds `analyze` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "analyze",
        help="track everything in a bag, a video or a folder of images",
        description="Reads a recording, tracks what moves in it, and writes masks, tracks, objects, a bag, the scene "
        "and a report to a folder.",
    )
    parser.add_argument(
        "input", type=Path, metavar="INPUT", help="rosbag2 folder, ROS 1 .bag, video, or folder of images"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="accept a DIR that holds other files")

    where = parser.add_argument_group("what to read (topics of a bag, or folders beside a video or images)")
    where.add_argument("--image", metavar="TOPIC", help="images; may be left out where there is only one candidate")
    where.add_argument("--camera-info", metavar="TOPIC", help="camera info; derived from --image")
    where.add_argument(
        "--depth", metavar="TOPIC|DIR", help="depth: 16UC1 mm or 32FC1 m; files: uint16 PNG mm or .npy m"
    )
    where.add_argument(
        "--depth-scale",
        type=float,
        metavar="UNITS_PER_METRE",
        help="what depth counts a metre with: 1000 = mm, 5000 = TUM, 256 = KITTI, 4000 = .25 mm; left out: recognised",
    )
    where.add_argument("--masks", metavar="TOPIC|DIR", help="object ids per pixel, however flickering")
    where.add_argument("--odometry", metavar="TOPIC", help="Odometry or PoseStamped of the camera, or of its robot")
    where.add_argument("--poses", metavar="FILE.tum|DIR", help="camera poses for a video or folder")
    where.add_argument("--fps", type=float, metavar="N", help="frames per second of a folder or video")
    where.add_argument("--intrinsics", type=_intrinsics, metavar="fx,fy,cx,cy", help="of the full image, px")
    where.add_argument("--image-glob", metavar="GLOB", help="which files of a folder are images, such as '*.color.jpg'")
    where.add_argument("--depth-glob", metavar="GLOB", help="which files of the depth folder to take")
    where.add_argument("--masks-glob", metavar="GLOB", help="which files of the masks folder to take")
    where.add_argument("--limit", type=_positive, metavar="N", help="read the first N frames only")

    what = parser.add_argument_group("what to follow")
    what.add_argument("--prompt-mask", type=Path, metavar="FILE.png", help="ids of the objects in the first frame")
    what.add_argument(
        "--queries", type=Path, metavar="FILE.npy", help="(Q, 3) points t, y, x; else a grid on the objects"
    )

    add_config_options(parser.add_argument_group("settings (docs/interface.md lists them all)"))
    parser.set_defaults(run=run)
    return parser


def add_config_options(group: Any) -> None:
    """Adds --preset, --config and --set."""
    group.add_argument("--preset", metavar="NAME", help="settings by name, such as fast")
    group.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings")
    group.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="one setting; repeatable"
    )


def read_config(arguments: argparse.Namespace) -> tuple[Config, frozenset[str]]:
    """Defaults, then preset, then file, then --set; and the paths given by --set. Raises `Motion4DError`."""
    from motion4d_ros.offline.resources import preset

    config = Config()
    if arguments.preset:
        config.update_from_yaml(preset(arguments.preset))
    if arguments.config:
        config.update_from_yaml(arguments.config)
    explicit = set()
    for setting in arguments.settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise Motion4DError(f"--set {setting}: expected key=value")
        config.set(key.strip(), value.strip())
        explicit.add(key.strip())
    return config, frozenset(explicit)


def run(arguments: argparse.Namespace) -> int:
    """Runs the analysis; the exit status. Raises `Motion4DError` for the user's errors."""
    config, explicit = read_config(arguments)
    from motion4d_ros.offline.analyze import AnalyzeOptions, analyze

    options = AnalyzeOptions(
        input=arguments.input,
        out=arguments.out,
        source=SourceOptions(
            image=arguments.image,
            camera_info=arguments.camera_info,
            depth=arguments.depth,
            masks=arguments.masks,
            odometry=arguments.odometry,
            poses=arguments.poses,
            image_glob=arguments.image_glob,
            depth_glob=arguments.depth_glob,
            masks_glob=arguments.masks_glob,
            fps=arguments.fps,
            intrinsics=arguments.intrinsics,
            depth_units_per_metre=arguments.depth_scale or 0.0,
        ),
        config=config,
        explicit=explicit,
        queries=arguments.queries,
        prompt_mask=arguments.prompt_mask,
        limit=arguments.limit,
        overwrite=arguments.overwrite,
    )
    started = time.monotonic()
    from motion4d_ros.offline.progress import progress_display

    with progress_display(sys.stderr) as show:
        result = analyze(options, show)
    seconds = time.monotonic() - started
    counts = result.metrics["counts"]
    out = sys.stdout
    for warning in result.warnings:
        out.write(f"note: {warning}\n")
    out.write(
        f"{_many(result.frames, 'frame')}, {_many(counts['objects'], 'object')}, {_many(counts['queries'], 'track')} "
        f"in {seconds:.1f} s "
        f"({seconds / result.frames:.2f} s a frame); scale: {result.metrics['scale']}\n"
        f"{result.out / 'report.html'}\n"
    )
    if result.failure:
        raise Motion4DError(f"{result.failure} (the {result.frames} frames before it are in {result.out})")
    if result.interrupted:
        sys.stderr.write(f"interrupted: the {result.frames} finished frames are in {result.out}\n")
        return INTERRUPTED
    return 0


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _intrinsics(text: str) -> tuple[float, float, float, float]:
    try:
        fx, fy, cx, cy = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected four numbers fx,fy,cx,cy") from None
    return fx, fy, cx, cy


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1 on")
    return int(text)
