"""Recordings as jobs, by submitit. There is no Slurm here: submitit's executor for this machine takes its place."""

from __future__ import annotations

import pytest
from batch_helpers import QUICK, summary

from motion4d_ros.batch.carriers import Needs
from motion4d_ros.batch.command import Batch, run_batch
from motion4d_ros.batch.launchers.slurm_launcher import SlurmLauncher

pytest.importorskip("submitit", reason="submitit (extra [batch]) is not installed")


@pytest.mark.slow
def test_jobs_bring_results_and_a_crash_costs_itself(breaker, make_recordings, tmp_path, capfd):
    recordings = make_recordings("ride", "crashes")
    needs = Needs(timeout_s=300.0)
    launcher = SlurmLauncher(needs, tmp_path / "jobs", {"partition": "long"}, jobs=2, cluster="local")
    batch = Batch([str(path) for path in recordings], str(tmp_path / "out"), list(QUICK), needs, retries=0)
    assert run_batch(batch, launcher) == 1
    found = summary(tmp_path / "out")
    assert {name: row["state"] for name, row in found.items()} == {"ride": "ok", "crashes": "failed"}
    assert "SIGSEGV" in found["crashes"]["reason"] and "crashes: failed:" in capfd.readouterr().err


def test_a_bad_setting_is_refused(tmp_path):
    from motion4d_ros.types import Motion4DError

    launcher = SlurmLauncher(Needs(), tmp_path, {"partitoin": "long"}, cluster="local")
    with pytest.raises(Motion4DError, match="--slurm"):
        launcher.__enter__()
