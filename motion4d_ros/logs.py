"""What our modules say through `logging`, brought to whoever runs them: the node's log, a terminal's progress bar."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

NAME = "motion4d_ros"


class _Handler(logging.Handler):
    def __init__(self, tell: Callable[[int, str], None]) -> None:
        super().__init__(logging.INFO)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.levelno, record.getMessage())


@contextmanager
def told(tell: Callable[[int, str], None]) -> Iterator[None]:
    """While the block runs, `tell(level, text)` gets every line from INFO on."""
    logger, handler = logging.getLogger(NAME), _Handler(tell)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
