"""Poses over time: interpolation, gaps, transform chains, text files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from motion4d_ros.offline.sources.camera.pose_files import read_trajectory, stamps_ns
from motion4d_ros.offline.trajectory import PoseBuffer, TransformTree, format_tum, interpolate, pose_matrix
from motion4d_ros.types import Motion4DError


def pose(angle_deg, x=0.0):
    return pose_matrix((x, 0.0, 0.0), Rotation.from_euler("z", angle_deg, degrees=True).as_quat())


@given(st.floats(-179, 179), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_slerp_turns_evenly(angle, share):
    T = interpolate(pose(0), pose(angle, 2.0), share)
    assert np.allclose(T, pose(angle * share, 2.0 * share), atol=1e-9)


def test_buffer_bridges_short_gaps_only():
    buffer = PoseBuffer(max_gap_ns=100, max_extrapolation_ns=10)
    assert buffer.at(0) is None
    for stamp in (0, 100, 250):
        buffer.add(stamp, pose(0, stamp))
    buffer.add(200, pose(90))  # late: ignored
    assert buffer.at(50)[0, 3] == 50.0
    assert buffer.at(100)[0, 3] == 100.0
    assert buffer.at(175) is None  # inside a gap of 150
    assert buffer.at(258)[0, 3] == 250.0 and buffer.at(261) is None
    assert buffer.at(-9)[0, 3] == 0.0 and buffer.at(-11) is None


def test_buffer_forgets_what_is_not_needed():
    buffer = PoseBuffer(max_gap_ns=100)
    for stamp in range(0, 1000, 10):
        buffer.add(stamp, pose(0, stamp))
    buffer.forget_before(905)
    assert len(buffer) < 15 and buffer.at(905)[0, 3] == 905.0


def test_chain_of_transforms():
    tree = TransformTree()
    tree.add("base", "camera", 0, pose(90, 1.0), static=True)
    tree.add("map", "odom", 0, pose(0, 10.0), static=True)
    for stamp in (0, 100):
        tree.add("odom", "base", stamp, pose(0, stamp / 100), static=False)
    assert np.allclose(tree.lookup("map", "camera", 50), pose(90, 11.5))
    assert np.allclose(tree.lookup("camera", "map", 50), np.linalg.inv(pose(90, 11.5)))
    assert np.allclose(tree.lookup("base", "camera", 10**12), pose(90, 1.0))  # static: at any time
    assert tree.lookup("map", "camera", 10**12) is None
    assert tree.lookup("map", "elsewhere", 50) is None
    assert tree.newest_for("map", "camera") == 100


def test_siblings_are_linked_through_their_parent():
    tree = TransformTree()
    tree.add("base", "left", 0, pose(0, 1.0), static=True)
    tree.add("base", "right", 0, pose(0, -1.0), static=True)
    assert tree.lookup("left", "right", 0)[0, 3] == -2.0


def test_circle_of_transforms_ends():
    tree = TransformTree()
    tree.add("a", "b", 0, np.eye(4), static=True)
    tree.add("b", "a", 0, np.eye(4), static=True)
    assert tree.lookup("nowhere", "a", 0) is None


def test_text_keeps_nanoseconds(tmp_path):
    poses = {1_700_000_000_123_456_789: pose(30, 1.5), 1_700_000_001_000_000_001: pose(-170, -2.0)}
    (tmp_path / "t.tum").write_text(format_tum(poses))
    read = read_trajectory(tmp_path / "t.tum")
    assert stamps_ns(read, "s") == list(poses)
    for T, expected in zip(read.poses, poses.values(), strict=True):
        assert np.allclose(T, expected, atol=1e-6)


def test_nothing_to_read(tmp_path):
    (tmp_path / "t.tum").write_text("# only this\n")
    with pytest.raises(Motion4DError, match="holds no poses"):
        read_trajectory(tmp_path / "t.tum")
    with pytest.raises(Motion4DError, match="cannot be read"):
        read_trajectory(tmp_path / "none.tum")
