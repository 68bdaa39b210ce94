"""`motion4d analyze`: options, progress on the terminal, exit status."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import Any

from motion4d_ros.config import Config
from motion4d_ros.failures import DEFECT, USER_ERROR
from motion4d_ros.offline.carriers import AnalysisResult, AnalyzeOptions
from motion4d_ros.offline.resources import find_files, preset
from motion4d_ros.offline.sources.interfaces import SourceOptions
from motion4d_ros.types import Motion4DError

AUTO = "auto"  # the preset that is none: defaults, and a network where one lies in the cache
DEFAULTS_FILE = "motion4d"  # of the files beside the presets, the one that holds the defaults
EXAMPLES = """\
examples:
  motion4d analyze clip.mp4 --out out                             what moves is found by itself
  motion4d analyze clip.mp4 --out out --prompt-mask first.png     what to follow is marked in the first frame
  motion4d analyze images/ --fps 30 --intrinsics 600,600,320,240 --depth depth/ --poses path.tum --out out
  motion4d analyze bag/ --depth /camera/depth --odometry /odom --out out
  motion4d analyze clip.mp4 --out out --preset fast --limit 100   a quick look at the beginning
  motion4d analyze clip.mp4 --out out --rerun spawn               look on in the viewer Rerun

first.png: 8-bit grey PNG of the first frame's size, 0 = background, 1, 2, … = one object each.
exit status: 0 done; 1 a file could not be written, or something unforeseen; 2 for you to mend, or the disk is full;
             130 Ctrl-C, 143 SIGTERM, 129 hang-up. Finished frames are kept in all of these."""
_MARK = "mark it in the first frame with --prompt-mask FILE.png (0 background, 1, 2, … objects)"
_NOTHING_FOUND = {  # masks.discovery, or masks.source where it finds nothing else -> what to try
    "motion": f"nothing was seen to move against its background. If something is there, {_MARK}, or give label images "
    "with --masks",
    "prompt": "none of the marked objects could be followed: do the ids in --prompt-mask lie on the objects?",
    "detections": "no detection was seen often enough to be believed: are the boxes these frames', in their pixels?",
    "topic": "the given masks hold no object (all 0) in these frames: are they of this recording?",
    "none": f"masks.source=none looks for no object: leave it out, or {_MARK}",
}


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds `analyze` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "analyze",
        help="track everything in a bag, a video or a folder of images",
        description="Reads a recording, tracks what moves in it, and writes masks, tracks, objects, a bag, the scene "
        "and a report to a folder.",
        epilog=f"{EXAMPLES}\n\n{presets_text()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "input", type=Path, metavar="INPUT", help="rosbag2 folder, ROS 1 .bag, video, or folder of images"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="accept a DIR that holds other files")

    parser.add_argument(
        "--rerun", metavar="FILE.rrd|spawn|URL", help="show it in the viewer Rerun while it runs (extra [view])"
    )

    add_recording_options(parser)
    parser.set_defaults(run=run)
    return parser


def add_recording_options(parser: argparse.ArgumentParser) -> None:
    """Adds how a recording is read, what to follow in it, and with which settings: the same for one and for many."""
    where = parser.add_argument_group("what to read (topics of a bag, or folders beside a video or images)")
    where.add_argument("--image", metavar="TOPIC", help="images; may be left out where there is only one candidate")
    where.add_argument("--camera-info", metavar="TOPIC|FILE", help="camera info; files: a calibration; left out: found")
    where.add_argument(
        "--depth", metavar="TOPIC|DIR", help="depth: 16UC1, 32FC1; files: 16-bit PNG, .npy; none: leave it alone"
    )
    where.add_argument(
        "--depth-scale",
        type=float,
        metavar="UNITS_PER_METRE",
        help="units of depth in one metre: 1000 = mm, 5000 = TUM, 256 = KITTI, 4000 = .25 mm; left out: recognised",
    )
    where.add_argument("--masks", metavar="TOPIC|DIR", help="object ids per pixel; they may flicker")
    where.add_argument(
        "--detections", metavar="FILE.json|TOPIC", help="boxes, classes, scores: COCO's JSON; bags: Detection2DArray"
    )
    where.add_argument("--odometry", metavar="TOPIC", help="Odometry or PoseStamped of the camera, or of its robot")
    where.add_argument("--poses", metavar="FILE|DIR", help="files only: TUM, EuRoC, KITTI; none: take no poses")
    where.add_argument("--fps", type=float, metavar="N", help="frames per second of a folder or video, else its stamps")
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

    add_config_options(parser.add_argument_group("settings (docs/reference/interface.md lists them all)"))


def add_config_options(group: Any) -> None:
    """Adds --preset, --config and --set."""
    group.add_argument("--preset", metavar="NAME", help="settings by name (list below); left out: auto")
    group.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings")
    group.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="one setting; repeatable"
    )


def presets_text() -> str:
    """The presets, one line each: the first sentence of what each file says about itself."""
    lines = []
    for path in find_files("config", "*.yaml"):
        comments = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            comments.append(line.lstrip("# "))
        sentence = " ".join(comments).partition(". ")[0].rstrip(".")
        if path.stem != DEFAULTS_FILE:
            lines.append(f"  {path.stem:<16} {sentence}")
    lines.append(
        f"  {AUTO:<16} The defaults, with a network that outlines objects where one lies in the cache (the default)"
    )
    return "\n".join(["presets:", *sorted(lines)])


def read_config(arguments: argparse.Namespace) -> tuple[Config, frozenset[str]]:
    """Defaults, then preset, then file, then --set; and the paths given by --set. Raises `Motion4DError`."""
    config = Config()
    if arguments.preset and arguments.preset != AUTO:
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


def analyze_options(arguments: argparse.Namespace) -> AnalyzeOptions:
    """What the command line asks for. Raises `Motion4DError`."""
    config, explicit = read_config(arguments)
    return AnalyzeOptions(
        input=arguments.input,
        out=arguments.out,
        source=SourceOptions(
            image=arguments.image,
            camera_info=arguments.camera_info,
            depth=arguments.depth,
            masks=arguments.masks,
            detections=arguments.detections,
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
        rerun=arguments.rerun or "",
        automatic=arguments.preset in (None, AUTO) and arguments.config is None,
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the analysis; the exit status. Raises `Motion4DError` for the user's errors."""
    options = analyze_options(arguments)
    from motion4d_ros.offline.analyze import analyze

    started = time.monotonic()
    from motion4d_ros.offline.progress import progress_display

    with progress_display(sys.stderr) as show:
        result = analyze(options, show)
    with contextlib.suppress(OSError, ValueError):  # nobody reads it: the files are what counts
        sys.stdout.write(summary(result, time.monotonic() - started))
        sys.stdout.flush()
    return ending(result)


def summary(result: AnalysisResult, seconds: float) -> str:
    """What came out, in lines for people: what to know, what to try, counts, and where to look."""
    counts = result.metrics["counts"]
    lines = [f"note: {warning}" for warning in result.warnings]
    if not (result.failure or result.interrupted):  # else it is known why little came out
        lines += [f"hint: {hint}" for hint in hints(result)]
    lines.append(
        f"{_many(result.frames, 'frame')}, {_many(counts['objects'], 'object')}, {_many(counts['queries'], 'track')} "
        f"in {seconds:.1f} s ({seconds / result.frames:.2f} s a frame); scale: {result.metrics['scale']}"
    )
    page = result.out / "report.html"
    lines.append(str(page if page.exists() else result.out))
    return "\n".join(lines) + "\n"


def hints(result: AnalysisResult) -> list[str]:
    """What to try where little came out."""
    settings = result.metrics.get("configuration", {})
    source, length = settings.get("masks.source", ""), int(settings.get("window.length", 1))
    if source not in ("topic", "none"):
        source = {"none": "prompt"}.get(settings.get("masks.discovery", ""), settings.get("masks.discovery", ""))
    found = []
    if result.frames < length:
        found.append(
            f"a window is {length} frames (window.length), and there were only {result.frames}: things that move show "
            f"over at least two windows; raise --limit or give a longer recording"
        )
    if result.metrics["counts"]["objects"] == 0 and source in _NOTHING_FOUND:
        found.append(_NOTHING_FOUND[source])
    return found


def ending(result: AnalysisResult) -> int:
    """The exit status; what is missing is said on stderr, in one line."""
    kept = f"the {_many(result.frames, 'finished frame')} {'is' if result.frames == 1 else 'are'} in {result.out}"
    if result.failure:
        line, status = f"error: {result.failure} ({kept})", DEFECT if result.defect else USER_ERROR
    elif result.failed:
        names = "; ".join(f"{name}: {reason}" for name, reason in result.failed.items())
        if len(set(result.failed.values())) == 1:
            names = f"{', '.join(result.failed)}: {next(iter(result.failed.values()))}"
        line, status = f"error: not written: {names} (the rest is in {result.out})", DEFECT
        status = USER_ERROR if result.full and not result.defect else DEFECT
    elif result.defect:
        line, status = f"error: something is missing, see the notes ({kept})", DEFECT
    elif result.interrupted:
        line, status = f"interrupted: {kept}", 128 + result.signal
    else:
        return 0
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"motion4d: {line}\n")
    return status


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
