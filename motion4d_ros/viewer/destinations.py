"""Where a stream of Rerun goes: a file, a viewer on this machine, a browser, or a viewer elsewhere."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from motion4d_ros.options import no_such_path
from motion4d_ros.remedies import pip_install
from motion4d_ros.types import Motion4DError

SPAWN = "spawn"
SUFFIX = ".rrd"
APPLICATION = "motion4d"
FORMS = f"FILE{SUFFIX}, {SPAWN}, or rerun+http://HOST:PORT/proxy"
_ANSWER_S = 3.0  # within which a viewer elsewhere must answer
_DELIVERY_S = 10.0  # within which it must have taken everything at the end


def is_target(target: str) -> bool:
    """Whether `target` is one of the `FORMS`, whatever is found there."""
    return target == SPAWN or target.endswith(SUFFIX) or ("://" in target and _address(target) is not None)


def need_viewer() -> Any:
    """The module `rerun`. Raises `Motion4DError` where it is not installed."""
    try:
        import rerun
    except ImportError as error:
        reason = "" if isinstance(error, ModuleNotFoundError) and error.name == "rerun" else f" ({error})"
        raise Motion4DError(
            f"the viewer Rerun is not installed{reason}: {pip_install('rerun-sdk')} (or motion4d_ros[view])"
        ) from None
    return rerun


def _note(text: str) -> None:
    sys.stderr.write(f"note: {text}\n")


@contextmanager
def recording_to(
    target: str, name: str, *, delivery_s: float = _DELIVERY_S, say: Callable[[str], None] = _note
) -> Iterator[Any]:
    """A recording of Rerun that goes to `target`: `FILE.rrd`, `spawn`, or the URL of a viewer (rerun+http://HOST:PORT/proxy).

    Everything has arrived when the block ends, unless that takes longer than `delivery_s`; `say` tells then. Raises
    `Motion4DError` where it cannot go there.
    """
    check_target(target)
    recording = need_viewer().RecordingStream(APPLICATION)
    recording.send_recording_name(name)
    if target == SPAWN:
        _spawn(recording)
    elif "://" in target:
        recording.connect_grpc(target)
    else:
        _save(recording, Path(target))
    try:
        yield recording
    finally:
        try:
            recording.flush(timeout_sec=delivery_s)
        except Exception as error:  # of the viewer's making: it has gone away, or the disk is full
            say(f"not everything reached {target} ({' '.join(str(error).split())})")
        recording.disconnect()


def check_target(target: str) -> None:
    """Raises `Motion4DError` where nothing can be sent to `target`; touches nothing."""
    if target == SPAWN:
        _need_display()
    elif "://" in target:
        _need_listener(target)
    elif not target.endswith(SUFFIX):
        raise Motion4DError(f"--rerun {target}: expected {FORMS}")
    elif not (folder := Path(target).absolute().parent).is_dir():
        raise no_such_path(folder)
    need_viewer()


@contextmanager
def served(name: str, port: int, *, browser: bool) -> Iterator[tuple[Any, str]]:
    """A recording that a web viewer of ours shows, and the address of its page. Raises `Motion4DError`."""
    from urllib.parse import quote

    rerun = need_viewer()
    for wanted in (port, port + 1):
        _need_free(wanted)
    recording = rerun.RecordingStream(APPLICATION)
    recording.send_recording_name(name)
    source = recording.serve_grpc(grpc_port=port + 1)
    rerun.serve_web_viewer(web_port=port, open_browser=browser, connect_to=source)
    try:
        yield recording, f"http://127.0.0.1:{port}/?url={quote(source, safe='')}"
    finally:
        recording.disconnect()


def _spawn(recording: Any) -> None:
    try:
        recording.spawn()
    except Exception as error:
        raise Motion4DError(
            f"the viewer Rerun could not be started ({' '.join(str(error).split())}): try --web, or --save FILE{SUFFIX}"
        ) from None


def _save(recording: Any, path: Path) -> None:
    try:
        with path.open("wb"):  # Rerun would only log that it cannot
            pass
        recording.save(path)
    except OSError as error:
        raise Motion4DError(f"{path}: cannot be written ({error.strerror or error})") from None


def _need_display() -> None:
    """A window needs something to stand on."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise Motion4DError(f"there is no display for the viewer's window here: use --web, or write a FILE{SUFFIX}")


def _address(url: str) -> tuple[str, int] | None:
    """Host and port of a viewer's URL; None where it is none."""
    try:
        parts = urlparse(url)
        host, port = parts.hostname, parts.port or 9876
    except ValueError:
        return None
    return (host, port) if host and parts.scheme.startswith("rerun") else None


def _need_listener(url: str) -> None:
    """Rerun itself would wait, and lose everything in the end."""
    address = _address(url)
    if address is None:
        raise Motion4DError(f"--rerun {url}: expected rerun+http://HOST:PORT/proxy")
    try:
        socket.create_connection(address, timeout=_ANSWER_S).close()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise Motion4DError(f"--rerun {url}: no viewer answers there ({reason}); start one with: rerun") from None


def _need_free(port: int) -> None:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Motion4DError(f"--port: port {port} cannot be used ({reason}); name another (two are taken)") from None
