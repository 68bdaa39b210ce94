"""What is there to fit a scene on the GPU, and does gsplat draw there as it should?

`look` only looks (a second, no CUDA context). `prove_gpu` then lets gsplat compile its kernels and draw the reference
picture, in a process of its own: a crash, a hang or pages of compiler output cost a line there and nothing here.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import torch

from motion4d_ros.children import environment, module_command
from motion4d_ros.remedies import apt_install, pip_install

LOG = logging.getLogger(__name__)

INSTALL_GSPLAT = "BUILD_NO_CUDA=1 pip install gsplat==1.5.3 packaging"
"""BUILD_NO_CUDA: else its set-up imports PyTorch, which pip hides from it; the kernels are compiled at first use."""
SHOW = "python -m motion4d_ros.render.gpu_probe shows all of it"
LIMIT_S = 3600.0  # a small Jetson compiles for more than half an hour
PATIENCE_S = 20.0  # loading and drawing take a few seconds: what takes longer is told
JOB_BYTES = 2 * 2**30  # of memory for one compiler: nvcc 13.0 takes .74 GiB for a large kernel and one kind of GPU
DEVICES = ("/proc/driver/nvidia/version", "/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")
"""One of these is there where an NVIDIA GPU has a driver: PC, Jetson, Windows' Linux."""


@dataclass(frozen=True)
class GpuReport:
    """What was found. `problem` is empty if gsplat drew the reference picture on the GPU as the reference does."""

    hardware: bool = False  # the driver of an NVIDIA GPU is there
    cuda: str = ""  # the CUDA that PyTorch is built for; "" = none
    visible: bool = False  # PyTorch sees a CUDA GPU
    gpu: str = ""  # its name, once asked for
    gsplat: str = ""  # version; "" = not installed
    compiled: bool = False  # its kernels lie ready
    problem: str = ""  # why the scene cannot be fitted on the GPU
    remedy: str = ""  # what helps: one command where there is one


@dataclass(frozen=True)
class Toolchain:
    """What compiling and loading gsplat's kernels needs; True or a path where it is there."""

    nvcc: bool = True
    compiler: bool = True
    headers: bool = True  # Python.h
    ninja: bool = True
    modules: tuple[str, ...] = ()  # Python modules that are missing


def tool_problem(tools: Toolchain, cuda: str) -> tuple[str, str]:
    """Problem and remedy of a toolchain, ("", "") if nothing is missing; `cuda` is PyTorch's, such as 13.0."""
    missing: list[str] = []
    pip: list[str] = []
    apt: list[str] = []
    for name, there, where, package in (
        ("nvcc (CUDA toolkit)", tools.nvcc, apt, f"cuda-toolkit-{cuda.replace('.', '-')}"),
        ("a C++ compiler", tools.compiler, apt, "g++"),
        ("Python.h", tools.headers, apt, "python3-dev"),
        ("ninja", tools.ninja, pip, "ninja"),
        *((name, False, pip, name) for name in tools.modules),
    ):
        if not there:
            missing.append(name)
            where.append(package)
    if not missing:
        return "", ""
    commands = [pip_install(" ".join(pip))] if pip else []
    commands += [apt_install(*apt)] if apt else []
    remedy = " && ".join(commands)
    if not tools.nvcc:
        remedy += " (from NVIDIA's apt repository; a toolkit elsewhere: set CUDA_HOME)"
    return f"gsplat cannot compile its CUDA kernels, {', '.join(missing)} missing", remedy


def look() -> GpuReport:
    """What can be seen without compiling or drawing anything; `problem` is then empty if it is worth trying."""
    report = GpuReport(hardware=any(Path(device).exists() for device in DEVICES))
    report = replace(report, cuda=torch.version.cuda or "")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        visible = torch.cuda.is_available()
    if not report.cuda:
        kind = "for ROCm" if getattr(torch.version, "hip", None) else "without CUDA"
        return replace(
            report,
            problem=f"this PyTorch ({torch.__version__}) is built {kind}",
            remedy="pip install --force-reinstall torch (on a Jetson: NVIDIA's wheel for your JetPack)",
        )
    if not visible:
        why = f": {first_line(told[0].message)}" if told else ""
        return replace(
            report,
            problem=f"PyTorch (CUDA {report.cuda}) sees no GPU{why}",
            remedy="check the driver with nvidia-smi, and CUDA_VISIBLE_DEVICES",
        )
    report = replace(report, visible=True, gsplat=_gsplat_version())
    if not report.gsplat:
        return replace(report, problem="CUDA is there but gsplat is not", remedy=INSTALL_GSPLAT)
    if _shipped_kernels():
        return replace(report, compiled=True)
    problem, remedy = tool_problem(_toolchain(), report.cuda)
    return replace(report, compiled=_built_kernels(), problem=problem, remedy=remedy)


@functools.cache
def prove_gpu() -> GpuReport:
    """`look`, then kernels compiled and the reference picture drawn by gsplat; says what takes long. Once a process."""
    report = look()
    if report.problem:
        return report
    if not report.compiled:
        LOG.info(
            "gsplat's CUDA kernels are compiled now, once on this machine: that may take from 3 to 40 minutes "
            "(%s compilers at a time; MAX_JOBS=n changes that)",
            max_jobs(),
        )
    began = time.monotonic()
    proven = run_probe(on_wait=None if not report.compiled else _told_to_wait)
    if not proven.problem and not report.compiled:
        LOG.info("gsplat's CUDA kernels were compiled in %.0f s", time.monotonic() - began)
    if proven.problem:
        return replace(proven, visible=True)  # it is, to this process: the reason is worth telling
    try:  # here, too: the kernels are loaded before the first frame
        ninja_on_path()
        from motion4d_ros.render.reference_picture import disagreement

        difference = disagreement("gsplat", "cuda")
    except Exception as error:
        return replace(proven, problem=f"gsplat failed ({first_line(error)})", remedy=SHOW)
    return with_difference(proven, difference)


def with_difference(report: GpuReport, difference: str) -> GpuReport:
    """The report of a picture that came out differently from the reference ("" = as it should)."""
    if not difference:
        return report
    return replace(
        report,
        problem=f"gsplat {report.gsplat} draws a wrong picture on the {report.gpu or 'GPU'}: {difference}",
        remedy="make gpu-check shows where; gsplat 1.5.3 is the version this was written for",
    )


def run_probe(
    *options: str,
    command: Sequence[str] = (),
    limit_s: float = LIMIT_S,
    on_wait: Callable[[], None] | None = None,
) -> GpuReport:
    """Runs `gpu_probe` (or `command`) in a process of its own; its report, or one that says how it failed.

    `on_wait` is called once if it takes longer than `PATIENCE_S`.
    """
    words = list(command) or module_command("motion4d_ros.render.gpu_probe", *options)
    given = environment(MAX_JOBS=str(max_jobs()))
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=given) as child:
            try:
                ended = _wait(child, limit_s, on_wait)
            finally:
                if child.poll() is None:
                    _kill(child.pid)
        log = _read(errors)
        if not ended:
            return GpuReport(visible=True, problem=f"gsplat did not finish within {limit_s:.0f} s", remedy=SHOW)
        return _report(child.returncode, _read(output), log)


def _wait(child: subprocess.Popen[bytes], limit_s: float, on_wait: Callable[[], None] | None) -> bool:
    """Whether the process has ended in time."""
    patience_s = min(PATIENCE_S, limit_s)
    for seconds in (patience_s, limit_s - patience_s):
        try:
            child.wait(seconds)
            return True
        except subprocess.TimeoutExpired:
            if on_wait is not None:
                on_wait()
                on_wait = None
    return False


def _report(status: int, output: str, log: str) -> GpuReport:
    """The last line of the probe's output, or what its end says."""
    try:
        content: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        known = {field.name for field in fields(GpuReport)}
        report = GpuReport(**{name: value for name, value in content.items() if name in known})
    except (IndexError, ValueError, TypeError, AttributeError):
        how = f"signal {-status}" if status < 0 else f"status {status}"
        said = f"; its last words: {last_words(log)}" if log.strip() else ""
        return GpuReport(visible=True, problem=f"the check of gsplat died ({how}{said})", remedy=SHOW)
    if report.problem and "error" in log.lower():  # the compiler's own words are worth more than Python's
        folder = Path(tempfile.mkdtemp(prefix="motion4d_gsplat_"))
        (folder / "build.log").write_text(log, encoding="utf-8")
        report = replace(report, problem=f"{report.problem}; {last_words(log)} (all of it: {folder / 'build.log'})")
    return report


def last_words(log: str) -> str:
    """The line of a log that names the cause: the first with an error, else the last; at most 200 characters."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    named = [line for line in lines if "error" in line.lower()]
    return (named or lines or ["nothing"])[0 if named else -1][:200]


def first_line(error: object) -> str:
    """The first line of an error, at most 200 characters."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def max_jobs() -> int:
    """How many compilers may run at a time: MAX_JOBS, else what cores and free memory bear (gsplat would take ten)."""
    given = os.environ.get("MAX_JOBS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    cores = len(os.sched_getaffinity(0))
    try:
        import psutil

        free = int(psutil.virtual_memory().available)
    except ImportError:
        free = 0
    return max(1, min(cores, free // JOB_BYTES))


def ninja_on_path() -> None:
    """PyTorch looks for ninja on the PATH only, where pip's lies in no environment that is not activated."""
    if shutil.which("ninja"):
        return
    beside = Path(sys.executable).parent
    if (beside / "ninja").exists():
        os.environ["PATH"] = os.pathsep.join([str(beside), os.environ.get("PATH", "")])


def as_json(report: GpuReport) -> str:
    """One line, which `run_probe` reads."""
    return json.dumps(asdict(report))


def _told_to_wait() -> None:
    LOG.info("gsplat takes long to load: it may be compiling its kernels again (minutes), as after a new PyTorch")


def _gsplat_version() -> str:
    try:
        return version("gsplat") if importlib.util.find_spec("gsplat") else ""
    except (ImportError, ValueError, PackageNotFoundError):
        return ""


def _shipped_kernels() -> bool:
    """Whether gsplat was installed with kernels in it."""
    found = importlib.util.find_spec("gsplat")
    places = list(found.submodule_search_locations or []) if found else []
    return any(next(Path(place).glob("csrc*.so"), None) for place in places)


def _built_kernels() -> bool:
    """Whether gsplat has compiled its kernels on this machine, for this Python and this PyTorch's CUDA."""
    try:
        from torch.utils.cpp_extension import _get_build_directory

        return (Path(_get_build_directory("gsplat_cuda", False)) / "gsplat_cuda.so").exists()
    except Exception:  # a private function, and a folder that may not be writable
        return False


def _toolchain() -> Toolchain:
    ninja_on_path()
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return Toolchain(
        nvcc=bool(shutil.which("nvcc")) or (Path(home) / "bin" / "nvcc").is_file(),
        compiler=bool(shutil.which(os.environ.get("CXX", "c++"))),
        headers=(Path(sysconfig.get_path("include")) / "Python.h").is_file(),
        ninja=bool(shutil.which("ninja")),
        modules=tuple(name for name in ("packaging", "rich", "setuptools") if not importlib.util.find_spec(name)),
    )


def _kill(pid: int) -> None:
    """Ends a process and the compilers it has started."""
    import psutil

    try:
        parent = psutil.Process(pid)
        for process in [*parent.children(recursive=True), parent]:
            process.kill()
    except psutil.NoSuchProcess:
        return


def _read(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode("utf-8", "replace")
