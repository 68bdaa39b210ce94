"""The compiled library: threads, instruction sets, where it is found."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from motion4d_ros import raster_library as library
from motion4d_ros.evaluation.splat_scenes import INPUTS, gradients, random_image_gradients, random_scene
from motion4d_ros.types import Camera, Motion4DError

CAMERA = Camera(100.0, 100.0, 79.5, 59.5, 160, 120)


def test_bit_equal_for_any_number_of_threads():
    scene = random_scene(1, 3000, 5, CAMERA, size=0.08)  # several chunks of Gaussians, 80 tiles
    given = random_image_gradients(scene, 2)
    image, found = gradients(scene, "cpu", given, threads=1)
    statistics = scene.render("cpu", threads=1, stats=True)
    assert image.alpha.mean() > 0.5
    for threads in (2, 3, 8, 0):
        other_image, other = gradients(scene, "cpu", given, threads=threads)
        for name in ("features", "alpha", "depth_sum", "radii"):
            assert torch.equal(getattr(image, name), getattr(other_image, name)), (threads, name)
        for name in INPUTS:
            assert torch.equal(found[name], other[name]), (threads, name)
        other_statistics = scene.render("cpu", threads=threads, stats=True)
        assert torch.equal(statistics.weight_sum, other_statistics.weight_sum)
        assert torch.equal(statistics.weight_max, other_statistics.weight_max)
        assert statistics.pairs == other_statistics.pairs


def test_python_threads_may_render_at_once():
    scene = random_scene(1, 500, 3, CAMERA)
    given = random_image_gradients(scene, 2)
    _, alone = gradients(scene, "cpu", given, threads=1)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: gradients(scene, "cpu", given, threads=2)[1], range(12)))
    assert all(torch.equal(alone[name], found[name]) for found in together for name in INPUTS)


def test_other_python_threads_run_meanwhile():
    """The GIL is released: a second thread must make progress during one long call."""
    scene = random_scene(1, 20000, 3, Camera(800.0, 800.0, 639.5, 479.5, 1280, 960), size=0.05)
    ticks: list[int] = []
    started, finished = threading.Event(), threading.Event()

    def tick() -> None:
        started.set()
        while not finished.is_set():
            ticks.append(1)
            finished.wait(0.001)

    helper = threading.Thread(target=tick)
    helper.start()
    started.wait()
    interval = sys.getswitchinterval()
    with torch.no_grad():
        before = len(ticks)
        scene.render("cpu", threads=1)
        during = len(ticks) - before
    finished.set()
    helper.join()
    assert during > 3, f"one tick a millisecond was due, a switch takes {interval} s"


SCRIPT = """
import sys, torch
from motion4d_ros.evaluation.splat_scenes import gradients, random_image_gradients, random_scene
from motion4d_ros.raster_library import load_library
from motion4d_ros.types import Camera
scene = random_scene(3, 400, 9, Camera(55.0, 50.0, 34.0, 21.0, 70, 45), size=0.1)
_, found = gradients(scene, "cpu", random_image_gradients(scene, 4), threads=1)
torch.save({"isa": load_library().m4d_raster_isa().decode(), **found}, sys.argv[1])
"""


@pytest.fixture(scope="module")
def gradients_by(tmp_path_factory):
    """Runs SCRIPT with the given kernels, in a process of its own: they are chosen by an environment variable."""
    results = {}

    def run(isa: str):
        if isa not in results:
            path = tmp_path_factory.mktemp("isa") / "gradients.pt"
            environment = {**os.environ, "MOTION4D_RASTER_ISA": isa, "PYTHONPATH": os.pathsep.join(sys.path)}
            subprocess.run([sys.executable, "-c", SCRIPT, str(path)], env=environment, check=True)
            results[isa] = torch.load(path, weights_only=True)
        return results[isa]

    return run


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_every_instruction_set_draws_the_same(isa, gradients_by):
    found, plain = gradients_by(isa), gradients_by("baseline")
    assert plain["isa"] == "baseline"
    if found["isa"] != isa:
        pytest.skip(f"this machine has no {isa}")
    for name in INPUTS:
        assert (found[name] - plain[name]).abs().max() < 2e-5 * plain[name].abs().max(), name


@pytest.fixture
def fresh_loader():
    library.load_library.cache_clear()
    yield
    library.load_library.cache_clear()


def test_a_missing_library_says_how_to_build_it(monkeypatch, tmp_path, fresh_loader):
    monkeypatch.setenv(library.ENVIRONMENT_VARIABLE, str(tmp_path / "nothing.so"))
    with pytest.raises(Motion4DError, match="cmake") as caught:
        library.load_library()
    assert "\n" not in str(caught.value)


def test_a_broken_library_says_so(monkeypatch, tmp_path, fresh_loader):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setenv(library.ENVIRONMENT_VARIABLE, str(broken))
    with pytest.raises(Motion4DError, match="cannot be loaded"):
        library.load_library()


def test_the_library_is_looked_for_in_the_ament_prefix(monkeypatch):
    monkeypatch.delenv(library.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/opt/a{os.pathsep}/opt/b")
    places = [str(place) for place in library.candidates()]
    assert places[-1] == f"/opt/b/lib/motion4d_ros/{library.FILE_NAME}"
    assert places[0].endswith(f"render/{library.FILE_NAME}")
