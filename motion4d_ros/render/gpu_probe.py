"""The process in which gsplat is tried out: ``python -m motion4d_ros.render.gpu_probe [--no-compile]``.

Prints one line of JSON, a `GpuReport`. With `--no-compile`, kernels that are not there yet are a problem.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from motion4d_ros.render.gpu import SHOW, GpuReport, as_json, first_line, look, with_difference

NOT_COMPILED = "gsplat's CUDA kernels are not compiled yet (minutes, at the first start)"
COMPILE = "motion4d doctor --compile"


def main(words: Sequence[str]) -> int:
    """The command; always 0 if it lives to answer."""
    answer = os.dup(1)
    os.dup2(2, 1)  # gsplat and compilers print where the answer belongs
    report = look()
    if not report.problem and not report.compiled and "--no-compile" in words:
        report = replace(report, problem=NOT_COMPILED, remedy=COMPILE)
    if not report.problem:
        report = _try_out(report)
    with os.fdopen(answer, "w") as stream:
        stream.write(as_json(report) + "\n")
    return 0


def _try_out(report: GpuReport) -> GpuReport:
    """Compiles the kernels if need be, and draws."""
    import torch

    from motion4d_ros.render.reference_picture import disagreement

    try:
        report = replace(report, gpu=torch.cuda.get_device_name())
        from gsplat.cuda import _backend

        if _backend._C is None:
            return replace(report, problem="gsplat found no CUDA toolkit", remedy="install nvcc and set CUDA_HOME")
        return with_difference(replace(report, compiled=True), disagreement("gsplat", "cuda"))
    except Exception as error:  # compilers, linkers, drivers: each fails in its own way
        return replace(report, problem=f"gsplat failed on {report.gpu or 'the GPU'} ({first_line(error)})", remedy=SHOW)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
