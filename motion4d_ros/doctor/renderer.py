"""What draws: the C++ library on the CPU, gsplat on the GPU."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from motion4d_ros.children import module_command
from motion4d_ros.doctor.ask import LIMIT_S, Answer, run
from motion4d_ros.doctor.packages import missing
from motion4d_ros.doctor.rows import Row, State
from motion4d_ros.remedies import apt_install

GROUP = "renderer"
COMPILE_LIMIT_S = 3600.0  # as long as gsplat may take to compile on a small Jetson
PROBE = "motion4d_ros.render.gpu_probe"


def rows(answers: Mapping[str, Answer], gpu: Mapping[str, Any]) -> list[Row]:
    """`gpu` is the content of a `render.gpu.GpuReport`, or {"error": why there is none}."""
    return [raster_row(answers), compiler_row(), *gpu_rows(answers, gpu)]


def raster_row(answers: Mapping[str, Answer]) -> Row:
    """The C++ library, without which nothing is drawn on the CPU."""
    name = "raster library"
    if lacking := missing(("NumPy", "PyTorch"), answers):
        return Row(GROUP, name, State.WARN, f"not looked at: needs {lacking}", f"mend {lacking} first")
    answer = answers.get("raster_library", Answer(error="not looked at"))
    if answer.well:
        return Row(GROUP, name, State.OK, answer.found)
    remedy = "reinstall the package where a C++ compiler is: pip install --force-reinstall --no-deps . (or make build)"
    return Row(GROUP, name, State.FAIL, answer.error, remedy)


def compiler_row() -> Row:
    """Builds the raster library, and gsplat's kernels."""
    command = os.environ.get("CXX", "c++")
    path = shutil.which(command)
    if path:
        return Row(GROUP, "C++ compiler", State.OK, path)
    found = f"no {command} (only to build this package or gsplat's kernels)"
    return Row(GROUP, "C++ compiler", State.WARN, found, apt_install("g++", "cmake"))


def gpu_rows(answers: Mapping[str, Answer], gpu: Mapping[str, Any]) -> list[Row]:
    """CUDA, then gsplat. A machine without a GPU lacks nothing."""
    if lacking := missing(("NumPy", "PyTorch"), answers):
        found, remedy = f"not looked at: needs {lacking}", f"mend {lacking} first"
        return [Row(GROUP, name, State.WARN, found, remedy) for name in ("CUDA", "gsplat")]
    if "error" in gpu:
        found = f"the check of CUDA failed: {gpu['error']}"
        remedy = f"python -m {PROBE} shows all of it; run.device=cpu works meanwhile"
        return [Row(GROUP, name, State.WARN, found, remedy) for name in ("CUDA", "gsplat")]
    problem, remedy = str(gpu.get("problem", "")), str(gpu.get("remedy", ""))
    if not gpu.get("visible"):
        if not gpu.get("hardware"):
            return [
                Row(GROUP, "CUDA", State.OK, "no NVIDIA GPU: the CPU is used"),
                Row(GROUP, "gsplat", State.OK, "not needed without a GPU"),
            ]
        cuda = Row(GROUP, "CUDA", State.WARN, f"an NVIDIA GPU is there, but {problem}", remedy)
        return [cuda, Row(GROUP, "gsplat", State.WARN, "not looked at: needs CUDA", remedy)]
    cuda = Row(GROUP, "CUDA", State.OK, f"{gpu.get('cuda')} {gpu.get('gpu') or ''}".strip())
    if problem:
        return [cuda, Row(GROUP, "gsplat", State.WARN, f"{problem}: scenes are fitted on the CPU", remedy)]
    return [cuda, Row(GROUP, "gsplat", State.OK, f"{gpu.get('gsplat')}, draws the reference picture rightly")]


def ask_gpu(compile_kernels: bool) -> dict[str, Any]:
    """Lets gsplat draw in a process of its own; compiling its kernels first (minutes) only if told so."""
    options: Sequence[str] = () if compile_kernels else ("--no-compile",)
    limit_s = COMPILE_LIMIT_S if compile_kernels else LIMIT_S
    output, how = run(module_command(PROBE, *options), limit_s)
    try:
        content = json.loads(output.strip().splitlines()[-1])
        return content if isinstance(content, dict) else {"error": how or "no answer"}
    except (IndexError, ValueError):
        return {"error": how or "no answer"}
