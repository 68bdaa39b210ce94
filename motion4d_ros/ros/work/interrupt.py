"""How a window ends before its time: given up in a pause, or, as the last resort, broken off anywhere."""

from __future__ import annotations

import ctypes
import sys
import threading


class Abandoned(Exception):
    """Raised in a pause of the engine, to give up the window: its scene is over, or the worker is to stop."""

    def __init__(self, reason: str, *, jumped: bool = False) -> None:
        super().__init__(reason)
        self.jumped = jumped  # because the clock went back


class Interrupted(BaseException):
    """Raised inside a worker that would not end by itself."""


def interrupt(thread: threading.Thread) -> None:
    """Raises `Interrupted` in `thread` before its next line of Python."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupted))


def whereabouts(thread: threading.Thread) -> str:
    """The functions that `thread` is in now, the innermost last, as `fit_window > run_step`; "?" if it has ended."""
    frame = None if thread.ident is None else sys._current_frames().get(thread.ident)
    names: list[str] = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return " > ".join(names[:6][::-1]) or "?"
