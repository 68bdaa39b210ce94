"""The unit of depth images: declared, recognised, or questioned; never silently taken."""

from __future__ import annotations

import numpy as np
import pytest

from motion4d_ros.imagery.depth_units import DepthUnits, recognise, to_metres
from motion4d_ros.offline.analyze import AnalyzeOptions, effective_config
from motion4d_ros.offline.sources import SourceOptions
from motion4d_ros.types import Motion4DError


def room(nearest=1.0, farthest=4.0, size=(48, 64), seed=0):
    """(H, W) m of a room with some noise."""
    ramp = np.linspace(nearest, farthest, size[0] * size[1]).reshape(size)
    return ramp + np.random.default_rng(seed).normal(0, 0.003, size)


@pytest.mark.parametrize(
    ("units", "dtype"), [(1000.0, np.uint16), (5000.0, np.uint16), (256.0, np.uint16), (1.0, np.float32), (1e3, float)]
)
def test_a_given_unit_is_believed(units, dtype):
    depth = room()
    assert np.allclose(DepthUnits(units).metres((depth * units).astype(dtype)), depth, atol=1.0 / units + 1e-3)


def test_millimetres_and_metres_are_read_without_a_word():
    for values in ((room() * 1000).astype(np.uint16), room().astype(np.float32), (room(0.4, 9.0) * 1e3).astype("u2")):
        units = DepthUnits()
        assert 0.3 < np.median(units.metres(values)) < 6.0 and not units.notes


def test_floating_point_millimetres_are_recognised_and_said():
    units = DepthUnits()
    assert np.allclose(units.metres((room() * 1000).astype(np.float32)), room(), atol=1e-3)
    assert "read as mm" in units.notes[0] and "--depth-scale 1 " in units.notes[0]


@pytest.mark.parametrize("factor", [4, 5])
def test_multiples_of_a_common_factor_are_millimetres_multiplied(factor):
    values = (np.round(room() * 1000) * factor).astype(np.uint16)
    units = DepthUnits()
    assert np.allclose(units.metres(values), room(), atol=1e-3)
    assert f"multiples of {factor}" in units.notes[0]


def test_the_layout_of_rgbd_data_sets_decides_between_two_units():
    """Wall at 4 m: 20000 units in TUM's convention, which no RGB-D camera in mm would measure."""
    values = (room(2.0, 4.0) * 5000).astype(np.uint16)
    unit = recognise([values], rgbd_layout=True)
    assert unit.units_per_metre == 5000.0 and "farther than RGB-D cameras" in unit.note
    assert recognise([(room(1.0, 4.0) * 1000).astype(np.uint16)], rgbd_layout=True).units_per_metre == 1000.0


def test_what_cannot_be_decided_is_questioned():
    unit = recognise([(room(3.0, 4.0) * 5000).astype(np.uint16)])
    assert unit.units_per_metre == 1000.0 and "--depth-scale" in unit.note and "17.5 m" in unit.note
    assert "--depth-scale" in recognise([np.full((20, 20), 90, np.uint16)]).note


def test_the_first_image_with_depth_decides_for_all():
    units = DepthUnits()
    assert not units.metres(np.zeros((48, 64), np.float32)).any() and units.unit is None
    units.metres((room() * 1000).astype(np.float32))
    assert np.allclose(units.metres(np.full((4, 4), 30.0, np.float32)), 0.03)


def test_what_is_unknown_is_zero():
    assert np.array_equal(to_metres(np.array([[0, 65535, 2000]], np.uint16), 1000.0), np.float32([[0, 0, 2.0]]))
    assert np.array_equal(to_metres(np.array([[np.nan, np.inf, -1.0]], np.float32), 1.0), np.zeros((1, 3), np.float32))


def test_the_option_is_a_setting():
    options = AnalyzeOptions("in", "out", SourceOptions(depth="/depth", depth_units_per_metre=5000.0))
    assert effective_config(options).depth.units_per_metre == 5000.0
    with pytest.raises(Motion4DError, match="--depth-scale"):
        SourceOptions(depth_units_per_metre=-1.0)
