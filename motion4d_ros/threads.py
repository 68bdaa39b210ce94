"""Who may use how many threads, and work for several of them whose results don't depend on their number.

`run.threads` bounds what runs at once: the rasteriser, OpenCV, the jobs of :func:`in_order`, and PyTorch inside
networks. Two are held at one thread whatever it says, because sums are split differently among threads and then round
differently: PyTorch in the fit, and the BLAS behind NumPy and SciPy. Neither is the slower for it. Their matrices are
small, and an OpenBLAS with two threads took twice the processor time for the geometry of a window.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import cv2
import torch

Job = TypeVar("Job")
Result = TypeVar("Result")

AHEAD = 2  # jobs a thread that wait or run: an abandoned fit finishes no more than these
BLAS_SETTERS = (
    *("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads"),  # as in the wheels
    *("openblas_set_num_threads64_", "openblas_set_num_threads"),  # as in distributions
)


def thread_count(threads: int) -> int:
    """How many threads `run.threads` means: all cores this process may use, if it is 0."""
    return threads or len(os.sched_getaffinity(0))


def bound_threads(threads: int) -> None:
    """Bounds the libraries of this process to `run.threads` (0: all cores), those whose sums depend on it to one."""
    cv2.setNumThreads(thread_count(threads))
    torch.set_num_threads(1)
    for library in _open_blas():
        for name in BLAS_SETTERS:
            setter = getattr(library, name, None)
            if setter is not None:
                setter(ctypes.c_int(1))


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Inside, PyTorch has `run.threads`: for networks on the CPU, which take seconds with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(thread_count(threads))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_order(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    threads: int = 1,
    between: Callable[[], None] = lambda: None,
) -> list[Result]:
    """`function` of every job, in the order of the jobs, done by `threads` threads (0: all cores).

    `function` must not write what another call reads: results are then the same for any number of threads. `between`
    runs in the calling thread before each result is waited for. What it or a job raises goes through, once the jobs
    that are running have ended; the others are never begun. No thread outlives the call.
    """
    workers = min(thread_count(threads), len(jobs))
    results: list[Result] = []
    if workers <= 1:
        for job in jobs:
            between()
            results.append(function(job))
        return results
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="motion4d_fit") as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(function, job))
                if len(waiting) == AHEAD * workers:
                    between()
                    results.append(waiting.popleft().result())
            while waiting:
                between()
                results.append(waiting.popleft().result())
        finally:
            for future in waiting:
                future.cancel()
    return results


def _open_blas() -> list[ctypes.CDLL]:
    """The OpenBLAS libraries that NumPy and SciPy have loaded; none where the system does not say (it is not Linux)."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return []
    paths = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if "openblas" in line}
    return [ctypes.CDLL(path) for path in sorted(paths) if "torch" not in path and Path(path).is_file()]
