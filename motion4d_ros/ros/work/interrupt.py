"""The last resort against a thread that does not end by itself."""

from __future__ import annotations

import ctypes
import threading


class Interrupted(BaseException):
    """Raised inside a worker that would not end by itself."""


def interrupt(thread: threading.Thread) -> None:
    """Raises `Interrupted` in `thread` before its next line of Python."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupted))
