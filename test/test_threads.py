"""Several threads: the same results to the bit, exceptions that go through, and none that is left behind."""

from __future__ import annotations

import threading
from itertools import chain
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from engine_builders import given

from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.evaluation.synthetic.scene import SyntheticScene
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.threads import AHEAD, bound_threads, in_order, thread_count, torch_threads
from motion4d_ros.types import Estimate


@pytest.fixture(autouse=True)
def as_before() -> Any:
    """What the libraries were bound to before a test, they are bound to after it; nor is a thread left behind."""
    bounds = cv2.getNumThreads(), torch.get_num_threads()
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("motion4d_fit")]
    cv2.setNumThreads(bounds[0])
    torch.set_num_threads(bounds[1])


# -- jobs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_the_jobs(threads: int) -> None:
    turn = threading.Semaphore(0)
    pauses: list[int] = []

    def job(number: int) -> int:
        if threads > 1 and number == 0:
            assert turn.acquire(timeout=60)  # the first ends after the second
        elif number == 1:
            turn.release()
        return number * number

    assert in_order(job, range(9), threads, lambda: pauses.append(threading.get_ident())) == [k * k for k in range(9)]
    assert pauses == [threading.get_ident()] * 9  # one before each result, always in the caller's thread
    assert in_order(job, [], threads) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_job_raises_goes_through_and_ends_the_work(threads: int) -> None:
    begun: list[int] = []

    def job(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ArithmeticError("three")
        return number

    with pytest.raises(ArithmeticError, match="three"):
        in_order(job, range(100), threads)
    assert len(begun) <= 4 + AHEAD * threads


@pytest.mark.parametrize("threads", [1, 2])
def test_a_pause_that_raises_abandons_the_work(threads: int) -> None:
    begun: list[int] = []
    pauses: list[None] = []

    def between() -> None:
        pauses.append(None)
        if len(pauses) > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_order(begun.append, range(100), threads, between)
    assert len(begun) <= 6 + AHEAD * threads


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_libraries_are_bound_and_networks_get_their_threads() -> None:
    bound_threads(3)
    assert cv2.getNumThreads() == 3 and torch.get_num_threads() == 1
    with torch_threads(2):
        assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError), torch_threads(2):
        raise RuntimeError
    assert torch.get_num_threads() == 1
    assert thread_count(0) >= 1 and thread_count(5) == 5


# -- the engine --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return make_scene("bounce", seed=1, frames=9, size=(72, 96))


def engine(threads: int) -> Motion4D:
    config = given(
        window={"length": 4, "horizon": 16, "global_every": 1},
        fit={"motion_iterations": 4, "semantic_iterations": 4, "global_iterations": 4, "final_iterations": 6},
        geometry={"iterations": 3, "static_points": 80, "object_points": 60},
    )
    config.update({"run.threads": threads})
    return Motion4D(config)


def said(estimates: list[Estimate]) -> list[bytes]:
    """All numbers of estimates, to the bit."""
    arrays = [(e.masks, e.T_map_cam, e.points.xyz_map, e.points.velocity, e.points.confidence) for e in estimates]
    poses = [object_.T_map_object for e in estimates for object_ in e.objects]
    return [np.ascontiguousarray(array).tobytes() for array in chain(*arrays, poses)]


def test_an_engine_says_the_same_with_one_thread_and_with_several(scene: SyntheticScene) -> None:
    results = []
    for threads in (1, 2):
        one = engine(threads)
        estimates = [estimate for frame in scene.frames() for estimate in one.push(frame)]
        results.append(said(estimates + one.flush()))
        assert len(one.mapper.geometry.motions) == 2 and one.mapper.geometry.keyframes.count > 1
    assert results[0] == results[1]


def test_an_engine_pauses_in_its_owners_thread_and_can_be_abandoned(scene: SyntheticScene) -> None:
    one, frames = engine(2), scene.frames()
    for frame in frames[:4]:
        one.add_frame(frame)
    threads: set[int] = set()
    one.process_window(between=lambda: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}
    for frame in frames[4:8]:
        one.add_frame(frame)
    pauses: list[None] = []

    def abandon() -> None:
        pauses.append(None)
        if len(pauses) > 12:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        one.process_window(between=abandon)
    one.reset("abandoned")
    assert [estimate.index for frame in frames for estimate in one.push(frame)]
