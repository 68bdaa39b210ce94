"""Which node is waited for, and which is given up."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from motion4d_ros.ros_tools.demo import patience
from motion4d_ros.ros_tools.demo.patience import Patience, computes


@pytest.mark.parametrize(("work", "busy"), [("while True: pass", True), ("time.sleep(600)", False)])
def test_only_a_process_that_waits_is_idle(work: str, busy: bool) -> None:
    sleeper = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    code = f"{sleeper}\nprint(1, flush=True)\n{work}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout and child.stdout.readline() == b"1\n"
            while not busy and computes(child.pid):  # it has said so, and is about to fall asleep
                time.sleep(0.01)
            assert {computes(child.pid) for _ in range(20)} == {busy}
        finally:
            child.kill()
    assert not computes(child.pid)


def test_time_counts_only_while_the_process_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    now, busy = [0.0], [True]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    waiting = Patience(1, lambda pid: busy[0])
    now[0] = 1000.0
    assert waiting.idle_s() == 0
    busy[0], now[0] = False, 1003.0
    assert waiting.idle_s() == 3
    now[0] = 1005.0
    assert waiting.idle_s() == 5
    waiting.restart()
    assert waiting.idle_s() == 0
