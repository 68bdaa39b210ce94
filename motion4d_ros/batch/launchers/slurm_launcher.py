"""Recordings as jobs of Slurm, by submitit; its `local` and `debug` executors serve where there is no Slurm."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from motion4d_ros.batch.attempt import run_attempt
from motion4d_ros.batch.carriers import FAILED, Needs, Outcome, outcome_of
from motion4d_ros.children import environment
from motion4d_ros.errors import Motion4DError
from motion4d_ros.remedies import pip_install

LOOK_EVERY_S = 0.5
JOBS = 32  # at once, unless --jobs says how many
LIMIT_MIN = 24 * 60  # of a job, where --timeout sets none
SPARE_MIN = 5  # beyond --timeout, which the job watches itself


class SlurmLauncher:
    """A `Launcher`. `folder`: where submitit lays its files, seen by all nodes; `settings`: partition and so on."""

    def __init__(
        self, needs: Needs, folder: Path, settings: Mapping[str, str], jobs: int = 0, cluster: str = "slurm"
    ) -> None:
        self._needs, self._folder, self._settings, self._cluster = needs, folder, settings, cluster
        self._most = jobs or JOBS
        self._running: dict[int, Any] = {}
        self._executor: Any = None

    def __enter__(self) -> SlurmLauncher:
        if find_spec("submitit") is None:
            raise Motion4DError(f"--launcher slurm needs submitit: {pip_install('submitit')} (or motion4d_ros[batch])")
        if self._cluster == "slurm" and not shutil.which("sbatch"):
            raise Motion4DError("--launcher slurm: there is no sbatch here; run it on a machine that submits to Slurm")
        import submitit

        os.environ["PYTHONPATH"] = environment()["PYTHONPATH"]  # jobs inherit it
        needs, settings = self._needs, {f"slurm_{name}": value for name, value in self._settings.items()}
        minutes = math.ceil(needs.timeout_s / 60) + SPARE_MIN if needs.timeout_s else LIMIT_MIN
        settings |= {"slurm_mem": f"{math.ceil(needs.memory / 2**20)}M"} if needs.memory else {}
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # submitit's files are pickles
            self._executor = submitit.AutoExecutor(folder=self._folder, cluster=self._cluster)
            self._executor.update_parameters(
                name="motion4d", timeout_min=minutes, cpus_per_task=max(1, math.ceil(needs.cpus)),
                gpus_per_node=math.ceil(needs.gpus), **settings,
            )  # fmt: skip
        except OSError as error:
            raise Motion4DError(f"{self._folder}: cannot be written ({error.strerror})") from None
        except Exception as error:
            raise Motion4DError(f"--slurm: {' '.join(str(error).split())[:300]}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for job in self._running.values():
            with contextlib.suppress(Exception):
                job.cancel()
        for job in self._running.values():
            with contextlib.suppress(Exception):
                job.exception()  # until it has gone
        self._running.clear()

    def room(self) -> int:
        return self._most

    def submit(self, number: int, task: dict[str, Any]) -> None:
        try:
            self._running[number] = self._executor.submit(run_attempt, task)
        except Exception as error:
            raise Motion4DError(f"--launcher slurm: not submitted ({' '.join(str(error).split())[:300]})") from None

    def avoid(self, node_id: str) -> None:
        return  # Slurm knows its nodes better

    def notes(self) -> list[str]:
        return []

    def collect(self, wait_s: float) -> list[tuple[int, Outcome]]:
        end = time.monotonic() + wait_s
        while True:
            found = [number for number, job in self._running.items() if job.done()]
            if found or time.monotonic() >= end:
                return [(number, _outcome(self._running.pop(number))) for number in found]
            time.sleep(min(LOOK_EVERY_S, wait_s))


def _outcome(job: Any) -> Outcome:
    try:
        return outcome_of(job.result())
    except Exception as error:
        text = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
        state = str(getattr(job, "state", ""))
        why = f"{state or type(error).__name__}: {' '.join(text.split())[:160]}"
        return Outcome(FAILED, "lost", f"its job {job.job_id} gave no answer ({why})")
