"""The verdict of a soak says what grows; the world is the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from motion4d_ros.ros_tools.load import Case, row
from motion4d_ros.ros_tools.soak.day import Course, Sample
from motion4d_ros.ros_tools.soak.verdict import judge, slope
from motion4d_ros.ros_tools.soak.world import HIDDEN_S, HIDE_S, World
from motion4d_ros.types import Motion4DError


def course(growth_mib_per_h: float = 0.0, files_per_h: float = 0.0) -> Course:
    rng = np.random.default_rng(0)
    made = Course()
    for minute in range(1, 181):
        hours = minute / 60
        warm = 50 * (1 - np.exp(-hours * 20))  # what is loaded first is no growth
        rss = 300 + warm + growth_mib_per_h * hours + rng.normal(0, 0.01)
        files = round(20 + files_per_h * hours)
        books, live_s = (1, 1, 0, 0, 0, 1, 100), (0.02, 0.03, 0.04)
        made.samples.append(Sample(hours, 60 * hours, rss, rss - 100, files, 24, *books, *live_s))
    return made


def test_a_flat_node_passes_and_each_growth_is_named() -> None:
    assert judge(course(), 1000, 0).faults == []
    (fault,) = judge(course(growth_mib_per_h=0.5), 1000, 0).faults
    assert "memory grows by 0.5" in fault
    (fault,) = judge(course(files_per_h=4.0), 1000, 0).faults
    assert "open files grow" in fault
    reused = course()
    reused.ids_reused, reused.failures = 1, ["reset: no answer", "reset: no answer"]
    assert len(judge(reused, 1000, 3).faults) == 3


def test_windows_are_counted_over_activations() -> None:
    made = course()
    for sample, windows in zip(made.samples, [3, 7, 12, 2, 6] + [6] * 175, strict=True):
        sample.windows = windows
    assert "1000 statuses, 18 windows" in judge(made, 1000, 0).text


def test_the_slope_knows_how_sure_it_is() -> None:
    hours = np.linspace(0, 2, 100)
    noise = np.random.default_rng(1).normal(0, 1, 100)
    growth, error = slope(hours, 3.0 * hours + noise)
    assert abs(growth - 3.0) < 3 * error and 0.1 < error < 0.3


def test_the_world_has_objects_that_hide_and_return() -> None:
    world = World(3)
    assert world.at(1.0, 10**9).messages["image"].data == World(3).at(1.0, 10**9).messages["image"].data
    ids = [set(np.frombuffer(world.at(t, 1).messages["masks"].data, np.uint16).tolist()) - {0} for t in range(600)]
    assert len(set.union(*ids)) >= 6, "they go, and others come"
    hidden = int(HIDE_S - HIDDEN_S / 2)
    assert 1 in ids[5] and 1 not in ids[hidden] and 1 in ids[int(HIDE_S) + 5], "the same id returns"
    assert not set(np.frombuffer(world.at(5, 1, capped=True).messages["masks"].data, np.uint16).tolist()) - {0}


def test_cases_of_load_are_read() -> None:
    case = Case.parse("640x480@60,objects=64,nodes=4")
    assert (case.width, case.height, case.rate_hz, case.objects, case.nodes) == (640, 480, 60.0, 64, 4)
    assert "**no**" in row(case), "without a status nothing adds up"
    for text in ("640x480", "x@1", "640x480@1,colour=3", "640x480@fast"):
        with pytest.raises(Motion4DError, match="a case is"):
            Case.parse(text)
