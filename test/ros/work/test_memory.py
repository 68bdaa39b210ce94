"""Memory that was freed goes back to the system, so that a node does not grow by holes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from motion4d_ros.children import environment
from motion4d_ros.ros.work.memory import FreedMemory

HOLES = """
import gc, numpy as np, psutil
from motion4d_ros.ros.work.memory import release_freed_memory
def rss(): return psutil.Process().memory_info().rss / 2**20
before, pins, arrays = rss(), [], []
for _ in range(2000):
    arrays.append(np.ones(60_000, np.uint8))
    pins.append(bytes(1000))  # each keeps the heap from shrinking
arrays.clear(); gc.collect()
held = rss() - before
print(held, release_freed_memory(), rss() - before)
"""


def test_freed_memory_between_what_is_held_is_handed_back() -> None:
    words = [sys.executable, "-c", "import sys; sys.path[:] = [p for p in sys.path if p]\n" + HOLES]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120, check=True)
    held, released, left = done.stdout.split()
    if float(held) < 60 or released == "False":
        pytest.skip("this C library hands memory back by itself, or never")
    assert float(left) < 0.3 * float(held), done.stdout


ARENAS = """
import ctypes, sys, threading
from motion4d_ros.ros.work.memory import MOST_ARENAS, share_arenas
libc = ctypes.CDLL(None)
if not hasattr(libc, "malloc_info") or not share_arenas():
    sys.exit("skip")
gate = threading.Barrier(8)
def ask():
    gate.wait(30)
    blocks = [ctypes.create_string_buffer(5000) for _ in range(200)]
    gate.wait(30)
threads = [threading.Thread(target=ask) for _ in range(8)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
libc.fopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, stream), libc.fclose(stream)
print(open(sys.argv[1]).read().count("<heap nr="), MOST_ARENAS)
"""


def test_threads_share_few_arenas(tmp_path: Path) -> None:
    code = "import sys; sys.path[:] = [p for p in sys.path if p]\n" + ARENAS
    words = [sys.executable, "-c", code, str(tmp_path / "arenas")]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    if done.stderr.strip() == "skip":
        pytest.skip("this C library has no arenas to share")
    arenas, most = map(int, done.stdout.split())
    assert arenas <= most


def test_it_is_handed_back_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, now = [], [0.0]
    monkeypatch.setattr("motion4d_ros.ros.work.memory.release_freed_memory", lambda: calls.append(now[0]))
    freed = FreedMemory(60.0, lambda: now[0])
    for second in range(181):
        now[0] = float(second)
        freed.look()
    assert calls == [60.0, 120.0, 180.0]
