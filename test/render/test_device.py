"""Where a scene is fitted: decided without a GPU, from what was found on machines of all kinds."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from motion4d_ros.config import Config
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.render import device, gpu, gpu_probe, reference_picture
from motion4d_ros.render.gpu import GpuReport, Toolchain
from motion4d_ros.types import Motion4DError

WELL = GpuReport(hardware=True, cuda="13.0", visible=True, gpu="a GPU", gsplat="1.5.3", compiled=True)
BARE = GpuReport(problem="this PyTorch is built without CUDA", remedy="pip install torch")


@pytest.fixture(autouse=True)
def _fresh():
    gpu.prove_gpu.cache_clear()
    device._say_once.cache_clear()


def on_cuda_machine(monkeypatch, *, gsplat="1.5.3", tools=None, built=False):
    """As if PyTorch saw a GPU."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "_gsplat_version", lambda: gsplat)
    monkeypatch.setattr(gpu, "_shipped_kernels", lambda: False)
    monkeypatch.setattr(gpu, "_built_kernels", lambda: built)
    monkeypatch.setattr(gpu, "_toolchain", lambda: tools or Toolchain())


def test_auto_takes_cuda_only_where_gsplat_has_drawn():
    assert device.decide("auto", WELL) == ("cuda", "")
    chosen, note = device.decide("auto", replace(WELL, problem="gsplat draws badly", remedy="do this"))
    assert chosen == "cpu" and "gsplat draws badly" in note and note.endswith("do this")


def test_a_machine_without_a_gpu_is_told_nothing():
    assert device.decide("auto", BARE) == ("cpu", "")


def test_a_gpu_that_pytorch_cannot_use_is_worth_a_line():
    chosen, note = device.decide("auto", replace(BARE, hardware=True))
    assert chosen == "cpu" and "without CUDA" in note and "pip install torch" in note


@pytest.mark.parametrize("report", [BARE, replace(WELL, problem="CUDA is there but gsplat is not", remedy="pip …")])
def test_cuda_that_is_demanded_and_does_not_work_is_an_error(report):
    with pytest.raises(Motion4DError) as caught:
        device.decide("cuda", report)
    text = str(caught.value)
    assert "run.device=cuda" in text and report.problem in text and report.remedy in text and "\n" not in text


def test_the_cpu_is_taken_without_looking_at_the_gpu():
    def prove() -> GpuReport:
        raise AssertionError("not asked")

    assert device.choose_device("cpu", prove).type == "cpu"


def test_the_reason_is_said_once_in_a_process(caplog):
    for _ in range(3):
        assert device.choose_device("auto", lambda: replace(WELL, problem="kaputt", remedy="mend")).type == "cpu"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "kaputt" in caplog.text and "mend" in caplog.text


def test_gsplat_missing_names_a_command_that_pip_can_run(monkeypatch):
    on_cuda_machine(monkeypatch, gsplat="")
    report = gpu.look()
    assert report.problem == "CUDA is there but gsplat is not"
    anywhere = report.remedy.replace("--user --break-system-packages ", "")  # which the system's own Python needs
    assert anywhere.startswith("BUILD_NO_CUDA=1 pip install gsplat==1.5.3")  # else its set-up needs torch, hidden


@pytest.mark.parametrize(
    ("tools", "problem", "remedy"),
    [
        (Toolchain(nvcc=False), "nvcc", "cuda-toolkit-13-0"),
        (Toolchain(ninja=False), "ninja", "pip install ninja"),
        (Toolchain(compiler=False), "C++ compiler", "apt-get install -y g++"),
        (Toolchain(headers=False), "Python.h", "python3-dev"),
        (Toolchain(modules=("packaging",)), "packaging", "pip install packaging"),
        (Toolchain(ninja=False, compiler=False), "a C++ compiler, ninja missing", "pip install ninja && "),
    ],
)
def test_what_compiling_lacks_is_named_with_its_command(monkeypatch, tools, problem, remedy):
    on_cuda_machine(monkeypatch, tools=tools)
    report = gpu.look()
    anywhere = report.remedy.replace("--user --break-system-packages ", "")  # which the system's own Python needs
    assert problem in report.problem and remedy in anywhere
    assert device.decide("auto", report)[0] == "cpu"


def test_a_driver_that_is_too_old_gives_its_own_reason(monkeypatch):
    def is_available() -> bool:
        import warnings

        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    report = gpu.look()
    assert "driver on your system is too old" in report.problem and "nvidia-smi" in report.remedy


def test_compiling_is_announced_before_and_timed_after(monkeypatch, caplog):
    on_cuda_machine(monkeypatch)
    told_before: list[str] = []

    def run_probe(**_: object) -> GpuReport:
        told_before.extend(record.getMessage() for record in caplog.records)
        return WELL

    monkeypatch.setattr(gpu, "run_probe", run_probe)
    monkeypatch.setattr(reference_picture, "disagreement", lambda backend, place: "")
    with caplog.at_level(logging.INFO):
        assert gpu.prove_gpu() == WELL
        assert gpu.prove_gpu() == WELL  # once in a process
    assert len(told_before) == 1 and "are compiled now" in told_before[0] and "minutes" in told_before[0]
    assert len(caplog.records) == 2 and "were compiled in" in caplog.text


def test_kernels_that_lie_ready_are_not_announced(monkeypatch, caplog):
    on_cuda_machine(monkeypatch, built=True)
    monkeypatch.setattr(gpu, "run_probe", lambda **_: WELL)
    monkeypatch.setattr(reference_picture, "disagreement", lambda backend, place: "")
    with caplog.at_level(logging.INFO):
        assert not gpu.prove_gpu().problem
    assert not caplog.records


def test_a_probe_that_sees_less_than_we_do_is_told(monkeypatch):
    on_cuda_machine(monkeypatch)
    monkeypatch.setattr(gpu, "run_probe", lambda **_: BARE)
    assert device.decide("auto", gpu.prove_gpu())[1]


def test_a_picture_that_is_wrong_in_this_process_counts_too(monkeypatch):
    on_cuda_machine(monkeypatch, built=True)
    monkeypatch.setattr(gpu, "run_probe", lambda **_: WELL)

    def fails(backend: str, place: str) -> str:
        raise RuntimeError("CUDA error: no kernel image is available\nlong story")

    monkeypatch.setattr(reference_picture, "disagreement", fails)
    assert "no kernel image is available" in gpu.prove_gpu().problem
    gpu.prove_gpu.cache_clear()
    monkeypatch.setattr(reference_picture, "disagreement", lambda backend, place: "50% of its alpha are wrong")
    assert "50% of its alpha" in gpu.prove_gpu().problem


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os; os.abort()", "signal 6"),
        ("import sys; sys.exit('error: nvcc fatal')", "error: nvcc fatal"),
        ("print('nonsense')", "died (status 0"),
        ("print('[1]')", "died (status 0"),
    ],
)
def test_a_probe_that_dies_costs_a_line(code, problem):
    report = gpu.run_probe(command=[sys.executable, "-c", code])
    assert problem in report.problem and report.remedy and device.decide("auto", report)[0] == "cpu"


def test_a_probe_that_hangs_is_ended():
    report = gpu.run_probe(command=[sys.executable, "-c", "import time; time.sleep(600)"], limit_s=0.5)
    assert "did not finish" in report.problem


def test_the_compilers_words_are_kept():
    code = "import sys; sys.stderr.write('step 1\\nx.cu(3): error: no glm\\nninja: stopped\\n'); print(sys.argv[1])"
    given = gpu.as_json(replace(WELL, problem="gsplat failed", remedy="look"))
    report = gpu.run_probe(command=[sys.executable, "-c", code, given])
    assert "x.cu(3): error: no glm" in report.problem
    log = Path(report.problem.partition("all of it: ")[2].rstrip(")"))
    assert log.read_text().startswith("step 1")
    log.unlink()
    log.parent.rmdir()


@pytest.mark.skipif(torch.cuda.is_available(), reason="only without a GPU")
def test_the_real_probe_answers_here():
    report = gpu.run_probe()
    assert report == gpu.look() and report.problem


def test_the_probe_does_not_compile_unless_it_may(monkeypatch, capfd):
    monkeypatch.setattr(gpu_probe, "look", lambda: replace(WELL, compiled=False))
    saved = os.dup(1)
    try:
        assert gpu_probe.main(["--no-compile"]) == 0
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    answer = json.loads(capfd.readouterr().out)
    assert "not compiled yet" in answer["problem"] and answer["remedy"] == "motion4d doctor --compile"


def test_not_more_compilers_than_memory_bears(monkeypatch):
    import psutil

    monkeypatch.delenv("MAX_JOBS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    for free_gib, jobs in ((64, 12), (7, 3), (1, 1)):
        memory = type("Memory", (), {"available": free_gib * 2**30})
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        assert gpu.max_jobs() == jobs
    monkeypatch.setenv("MAX_JOBS", "5")
    assert gpu.max_jobs() == 5


def test_the_reference_picture_tells_right_from_wrong():
    assert reference_picture.disagreement("cpu", "cpu") == ""
    truth = reference_picture.draw("reference", torch.device("cpu"))
    found = reference_picture.draw("cpu", torch.device("cpu"), torch.float32)
    shifted = replace_image(found, "alpha", found.images["alpha"].roll(1, 1))
    assert "alpha" in reference_picture.difference(shifted, truth)
    assert "depth_sum" in reference_picture.difference(replace_image(found, "depth_sum", torch.nan), truth)
    for name in found.gradients:
        wrong = reference_picture.Picture(found.images, found.gradients | {name: 0.9 * found.gradients[name]})
        assert name in reference_picture.difference(wrong, truth)


def replace_image(picture, name, value):
    image = value if isinstance(value, torch.Tensor) else torch.full_like(picture.images[name], value)
    return reference_picture.Picture(picture.images | {name: image}, picture.gradients)


def test_the_engine_says_where_it_fits_and_refuses_before_any_frame(monkeypatch):
    monkeypatch.setattr(device, "prove_gpu", lambda: BARE)
    assert Motion4D(Config()).status().device == "cpu"
    config = Config()
    config.set("run.device", "cuda")
    with pytest.raises(Motion4DError, match=r"run\.device=cuda, but this PyTorch is built without CUDA"):
        Motion4D(config)
