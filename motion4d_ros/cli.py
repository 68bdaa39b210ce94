"""The command line: `motion4d analyze | evaluate | models | doctor | version`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from motion4d_ros.errors import Motion4DError

USER_ERROR = 2
INTERRUPTED = 130

# command -> module with `add_parser(subparsers)`; imported only when asked for, so that a missing optional package
# costs one command and not all of them
_COMMANDS = {
    "analyze": ("motion4d_ros.offline.command", "track everything in a bag, a video or a folder of images"),
    "evaluate": ("motion4d_ros.evaluation.command", "score results against ground truth"),
    "doctor": ("motion4d_ros.doctor.command", "look at this machine: what is missing, and what mends it"),
    "models": ("motion4d_ros.models.command", "list, fetch and verify network weights"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; its exit status: 0, 2 for the user's errors (one line on stderr), 130 after Ctrl-C."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve their neighbours
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser(words).parse_args(words)
    except SystemExit as stopped:  # argparse has printed why
        return stopped.code if isinstance(stopped.code, int) else USER_ERROR
    except Motion4DError as error:
        return _refuse(error)
    try:
        return int(arguments.run(arguments) or 0)
    except Motion4DError as error:
        if arguments.verbose:
            traceback.print_exc()
        return _refuse(error)
    except KeyboardInterrupt:
        sys.stderr.write("motion4d: interrupted, nothing was kept\n")
        return INTERRUPTED
    except BrokenPipeError:  # `motion4d … | head`
        sys.stderr.close()
        return 1


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="motion4d", description="Motion4D: what moves, where it is and where it goes."
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
    from motion4d_ros.offline.metrics import versions
    from motion4d_ros.offline.resources import package_version

    sys.stdout.write(f"motion4d_ros {package_version()}\n")
    for name, number in versions().items():
        sys.stdout.write(f"  {name} {number}\n")
    return 0


def _refuse(error: Motion4DError) -> int:
    sys.stderr.write(f"motion4d: error: {' '.join(str(error).split())}\n")
    return USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
