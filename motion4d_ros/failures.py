"""How a failure is told: one line for the user, and a log file for what nobody foresaw. Never a traceback by itself.

Exit statuses of all commands: 0 done; 1 something of ours failed (the line names the log, or the files that are
missing); 2 the user can mend it; 128 + n stopped by signal n (130 Ctrl-C, 143 SIGTERM, 129 SIGHUP).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from motion4d_ros.errors import Motion4DError

DEFECT = 1
USER_ERROR = 2
LOG_FOLDER_VARIABLE = "MOTION4D_LOG"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end, and there was nothing to keep."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number = number


def guarded(program: str, run: Callable[[], int], *, verbose: bool = False) -> int:
    """Calls `run` and returns its exit status; whatever it raises becomes one line on stderr and a status."""
    streams_for_anybody()
    try:
        status = run()
        sys.stdout.flush()  # what cannot be written is an error, however much Python keeps back
        return status
    except BrokenPipeError:  # `motion4d … | head`
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as stopped:
        _say(f"{program}: interrupted, nothing was kept")
        return 128 + getattr(stopped, "number", signal.SIGINT)
    except Exception as error:
        if verbose:
            _say("".join(traceback.format_exception(error)).rstrip())
        _say(f"{program}: error: {' '.join(describe(error).split())}")
        return USER_ERROR if is_users(error) else DEFECT
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)


def describe(error: BaseException) -> str:
    """What is said of an error, one line. What nobody foresaw is written to a log, which the line names."""
    if isinstance(error, Motion4DError):
        return str(error)
    if is_full(error):
        named = (found.filename for found in _chain(error) if isinstance(found, OSError) and found.filename)
        place = next(named, "the device")
        return f"no space left on {place}: free some, or choose another folder"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("motion4d_ros"):
        return f"needs the Python package {error.name!r}, which is not installed"
    if isinstance(error, MemoryError):
        return "not enough memory: lower budget.working_width, budget.max_static or window.horizon (--preset cpu_small)"
    if is_users(error):
        assert isinstance(error, OSError)
        return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    log = write_log(error)
    text = (str(error).strip().splitlines() or [""])[0][:200]
    where = f"details in {log}" if log else "no log could be written, -v shows details"
    return f"unforeseen {type(error).__name__}{': ' if text else ''}{text} ({where}; please report it)"


def is_users(error: BaseException) -> bool:
    """Whether the user can mend it: an error of use, a missing package, a full disk, a file that can't be opened."""
    if isinstance(error, Motion4DError | MemoryError) or is_full(error):
        return True
    if isinstance(error, ModuleNotFoundError):
        return not (error.name or "").startswith("motion4d_ros")
    return isinstance(error, OSError) and error.strerror is not None


def is_full(error: BaseException) -> bool:
    """Whether a full disk, or a quota, is behind it; some libraries pass on the system's words only."""
    words = tuple(os.strerror(number) for number in _FULL)
    return any(
        (isinstance(found, OSError) and found.errno in _FULL) or any(word in str(found) for word in words)
        for found in _chain(error)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the CPU or the GPU ran out of memory (torch's class is found by name: torch need not be loaded)."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def write_log(error: BaseException) -> Path | None:
    """Appends the traceback to this run's log and returns its path; None where nothing can be written.

    The folder is `$MOTION4D_LOG`, else `$XDG_STATE_HOME/motion4d`, else `~/.local/state/motion4d`, else the system's
    for temporary files.
    """
    text = "".join(traceback.format_exception(error))
    head = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {' '.join(sys.argv)}\nPython {sys.version}\n"
    for folder in _log_folders():
        path = folder / f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{head}{text}\n")
        except OSError:
            continue
        return path
    return None


def streams_for_anybody() -> None:
    """stdout and stderr that never fail for a character, and that exist even where the caller closed them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # `motion4d … >&-`
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it was raised for, `from None` or not."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def _log_folders() -> Iterator[Path]:
    if chosen := os.environ.get(LOG_FOLDER_VARIABLE):
        yield Path(chosen).expanduser()
    if state := os.environ.get("XDG_STATE_HOME"):
        yield Path(state) / "motion4d"
    else:
        with contextlib.suppress(RuntimeError):  # nobody's home
            yield Path.home() / ".local" / "state" / "motion4d"
    yield Path(tempfile.gettempdir()) / "motion4d"


def _say(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
    except (OSError, ValueError):  # nobody listens any more
        return


def _flush(stream: TextIO) -> None:
    """Flushes; a stream that nobody reads is turned away, or Python would complain about it at exit."""
    try:
        stream.flush()
    except (OSError, ValueError):
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (OSError, ValueError):
            return
