"""Where a scene is fitted: the GPU only where gsplat has proved that it draws rightly there."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import torch

from motion4d_ros.errors import Motion4DError
from motion4d_ros.render.gpu import GpuReport, prove_gpu

LOG = logging.getLogger(__name__)


def choose_device(wanted: str, prove: Callable[[], GpuReport] | None = None) -> torch.device:
    """The device for `run.device` (auto, cpu, cuda). Compiles gsplat's kernels where they are missing: minutes.

    Why a GPU that is there is left alone is said once, as a warning of this module's logger.
    Raises `Motion4DError` when CUDA is demanded and does not work.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    device, note = decide(wanted, (prove or prove_gpu)())
    if note:
        _say_once(note)
    return torch.device(device)


def decide(wanted: str, report: GpuReport) -> tuple[str, str]:
    """Device for `run.device` = auto or cuda, and what to tell ("" = nothing). Raises `Motion4DError` as above."""
    if not report.problem:
        return "cuda", ""
    if wanted == "cuda":
        raise Motion4DError(f"run.device=cuda, but {report.problem}: {report.remedy}; or set run.device=cpu")
    if not (report.visible or report.hardware):
        return "cpu", ""  # a machine without a GPU: nothing to mend
    return "cpu", f"the scene is fitted on the CPU: {report.problem}; to use the GPU: {report.remedy}"


@functools.cache
def _say_once(text: str) -> None:
    LOG.warning("%s", text)
