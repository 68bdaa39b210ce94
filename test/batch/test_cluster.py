"""On a real Ray cluster of two nodes: nodes, disks, recordings and drivers fail, nothing is lost or done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from batch_helpers import QUICK, finish, start, summary, wait_for

pytest.importorskip("ray", reason="Ray (extra [batch]) is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(breaker, tmp_path, monkeypatch):
    """A head with one core; `add(tmp)` adds a node with one core and temporary files of its own."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()


def add_node(cluster, temporary: Path):
    temporary.mkdir(exist_ok=True)
    node = cluster.add_node(num_cpus=1, env_vars={"TMPDIR": str(temporary)})
    cluster.wait_for_nodes()
    return node


def states(out: Path) -> dict[str, str]:
    return {name: str(row["state"]) for name, row in summary(out).items()}


def reads(breaker: Path) -> Counter[str]:
    """How often each recording was read by an analysis (once for its thumbnail is not counted: the same process)."""
    return Counter(line.split()[0] for line in breaker.read_text().splitlines())


def test_a_node_that_dies_costs_only_time(cluster, breaker, make_recordings, tmp_path, reaped):
    """Results go to a URL, so that scratch folders lie in the nodes' own temporary folders: they tell who works."""
    node = add_node(cluster, tmp_path / "second")
    recordings = make_recordings("a", "b", "c", "d")
    process = start(*recordings, "--out", f"file://{tmp_path}/out", "--address", cluster.address, *QUICK)
    reaped.append(process)
    wait_for(lambda: list((tmp_path / "second").glob("*/results")), process)
    cluster.remove_node(node, allow_graceful=False)
    status, out, err = finish(process)
    assert status == 0, err
    assert states(tmp_path / "out") == dict.fromkeys("abcd", "ok") and out.startswith("4 ok in")
    attempts = Counter(row["attempts"] for row in summary(tmp_path / "out").values())
    assert attempts[2] == 1 and "died; tried again (1 of 1)" in err


def test_a_crash_and_a_full_disk_cost_themselves(cluster, breaker, make_recordings, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("no small file system can be mounted (needs root)")
    try:
        add_node(cluster, small)
        recordings = make_recordings("a", "b", "crashes", "c")
        words = [*recordings, "--out", f"file://{tmp_path}/out", "--address", cluster.address, "--retries", 1, *QUICK]
        status, _, err = finish(start(*words))
    finally:
        subprocess.run(["umount", "-l", small], check=True)
    assert status == 1
    found = summary(tmp_path / "out")
    assert states(tmp_path / "out") == {"a": "ok", "b": "ok", "crashes": "failed", "c": "ok"}
    assert "SIGSEGV" in found["crashes"]["reason"] and f"no space left on {small}" in err
    assert sum("failed:" in line for line in err.splitlines()) == 1
    done = json.loads((tmp_path / "out" / "crashes" / "done.json").read_text())
    assert done["state"] == "failed" and done["attempts"] == 2


def test_a_driver_that_is_killed_goes_on_where_it_was(cluster, breaker, make_recordings, tmp_path, reaped):
    add_node(cluster, tmp_path / "second")
    words = [*make_recordings("a", "b", "c", "d"), "--out", tmp_path / "out", "--address", cluster.address, *QUICK]
    process = start(*words)
    reaped.append(process)
    finished = lambda: sorted((tmp_path / "out").glob("*/done.json"))  # noqa: E731
    wait_for(finished, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    working = {int(line.split()[1]) for line in breaker.read_text().splitlines()}
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in working))  # nobody works for a dead driver
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in finished()}
    assert 1 <= len(before) < 4
    once = {path.parent.name for path in before}
    status, out, err = finish(start(*words))
    assert status == 0 and f"4 ok ({len(before)} of them before)" in out, err
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before
    assert states(tmp_path / "out") == dict.fromkeys("abcd", "ok")
    assert all(reads(breaker)[name] == 1 for name in once) and set(reads(breaker)) == set("abcd")


def test_a_head_node_that_goes_away_is_one_line(cluster, breaker, make_recordings, tmp_path, reaped):
    process = start(*make_recordings("a", "hangs"), "--out", tmp_path / "out", "--address", cluster.address, *QUICK)
    reaped.append(process)
    wait_for(lambda: "hangs" in reads(breaker), process)
    head = cluster.head_node
    for kind in ("gcs_server", "raylet"):
        for item in head.all_processes[kind]:
            os.kill(item.process.pid, signal.SIGKILL)
    status, out, err = finish(process)
    assert status == 1 and "1 ok" in out and "Traceback" not in err
    told = [line for line in err.splitlines() if "goes on with the rest" in line]
    assert len(told) == 1 and "is gone" in told[0]
    assert states(tmp_path / "out") == {"a": "ok", "hangs": "open"}
