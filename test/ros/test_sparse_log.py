"""What strangers send must not fill the disk by the log."""

from __future__ import annotations

import random
import string

from motion4d_ros.ros.sparse_log import AT_ONCE, MOST_KINDS, PERIOD_S, SparseLog


def test_one_kind_of_trouble_is_a_line_every_few_seconds() -> None:
    lines, now = [], [0.0]
    log = SparseLog(lines.append, lambda: now[0])
    for k in range(1000):
        now[0] = 0.01 * k
        log(f"frame {k} rejected")
    assert lines == ["frame 0 rejected", f"frame {round(PERIOD_S / 0.01)} rejected"]


def test_ever_new_nonsense_is_few_lines_too_and_it_is_said_how_many_are_missing() -> None:
    rng, lines, now = random.Random(0), [], [0.0]
    log = SparseLog(lines.append, lambda: now[0])
    for _ in range(5000):
        log(f"image rejected: {''.join(rng.choices(string.ascii_letters, k=20))}")
    assert len(lines) == AT_ONCE
    log("worker: out of memory")
    assert lines[AT_ONCE:] == [f"too much to say: {5000 - AT_ONCE} lines were left out", "worker: out of memory"]
    for _ in range(5000):
        log("".join(rng.choices(string.ascii_letters, k=20)))  # no kind is known of these
    assert len(lines) < MOST_KINDS + 2 * AT_ONCE + 10
