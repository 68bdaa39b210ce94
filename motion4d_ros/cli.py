"""The command line: `motion4d analyze | batch | view | render | evaluate | benchmark | models | doctor | version`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from motion4d_ros.errors import Motion4DError
from motion4d_ros.failures import USER_ERROR, guarded
from motion4d_ros.options import Parser, check_words

# command -> module with `add_parser(subparsers)`; imported only when asked for, so that a missing optional package
# costs one command and not all of them
_COMMANDS = {
    "analyze": ("motion4d_ros.offline.command", "track everything in a bag, a video or a folder of images"),
    "batch": ("motion4d_ros.batch.command", "analyze many recordings, on one machine or a cluster"),
    "view": ("motion4d_ros.offline.viewing.command", "look at results in the viewer Rerun"),
    "render": ("motion4d_ros.offline.novel_views.command", "a saved scene from new places: video, images, .ply"),
    "evaluate": ("motion4d_ros.evaluation.command", "score results against ground truth"),
    "benchmark": ("motion4d_ros.evaluation.benchmarks.command", "score a public data set by its own protocol"),
    "doctor": ("motion4d_ros.doctor.command", "look at this machine: what is missing, and what mends it"),
    "models": ("motion4d_ros.models.command", "list, fetch and verify network weights"),
}


EXAMPLES = """\
examples:
  motion4d analyze clip.mp4 --out out                           track what moves; out/report.html shows it
  motion4d analyze clip.mp4 --out out --prompt-mask first.png   what to follow is marked in the first frame
  motion4d analyze --help                                       all options, more examples, the presets
  motion4d batch 'clips/*.mp4' --out all                        many recordings, a page over all (extra [batch])
  motion4d view out                                             results in the viewer Rerun (extra [view])
  motion4d render out --out orbit.mp4 --path orbit              the scene from places where no camera was
  motion4d evaluate truth/ out                                  score the masks (and tracks) against ground truth
  motion4d benchmark davis2017 --root DAVIS                     a public data set by its own protocol
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; its exit status (`failures` says what each means). Errors are one line on stderr."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve their neighbours
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded("motion4d", lambda: _run(words), verbose=bool({"-v", "--verbose"} & set(words)))


def _run(words: list[str]) -> int:
    parser = _parser(words)
    if not words:
        parser.print_help(sys.stderr)
        return USER_ERROR
    check_words(parser, words)
    try:
        arguments = parser.parse_args(words)
    except SystemExit as stopped:  # --help, --version
        return stopped.code if isinstance(stopped.code, int) else USER_ERROR
    return int(arguments.run(arguments) or 0)


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = Parser(
        prog="motion4d",
        description="Motion4D: what moves, where it is and where it goes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show where errors come from")
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    asked = next((word for word in words if not word.startswith("-")), None)
    for name, (module, summary) in _COMMANDS.items():
        if name != asked:  # only named, for the help text
            subparsers.add_parser(name, help=summary, add_help=False)
            continue
        try:
            importlib.import_module(module).add_parser(subparsers)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("motion4d_ros"):
                raise
            raise Motion4DError(f"{name} needs the Python package {error.name!r}, which is not installed") from None
    version = subparsers.add_parser("version", help="versions of this package and of what it rests on")
    version.set_defaults(run=_version)
    for subparser in set(subparsers.choices.values()):
        if not any(action.dest == "verbose" for action in subparser._actions):
            # SUPPRESS: without the option here, the one before the command keeps its value
            subparser.add_argument(
                "-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
            )
    return parser


class _ShowVersion(argparse.Action):
    """`motion4d --version`: one line; `motion4d version` tells of the libraries, too."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from motion4d_ros.offline.resources import package_version

        sys.stdout.write(f"motion4d_ros {package_version()}\n")
        parser.exit()


def _version(_: argparse.Namespace) -> int:
    from motion4d_ros.offline.resources import package_version
    from motion4d_ros.offline.results.metrics import versions

    sys.stdout.write(f"motion4d_ros {package_version()}\n")
    for name, number in versions().items():
        sys.stdout.write(f"  {name} {number}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
