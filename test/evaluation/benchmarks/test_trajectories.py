"""ATE and RPE by hand and against evo; the files of TUM, Bonn and 7-Scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_sets import tum_text
from scipy.spatial.transform import Rotation

from motion4d_ros.evaluation.benchmarks.interfaces import Place
from motion4d_ros.evaluation.benchmarks.registry import BENCHMARKS
from motion4d_ros.evaluation.benchmarks.trajectories import SevenScenes, trajectory_figures
from motion4d_ros.evaluation.metrics import absolute_trajectory_error, associate, relative_pose_error
from motion4d_ros.types import Motion4DError


def path(count: int = 40, seed: int = 0) -> np.ndarray:
    """(T, 4, 4) poses that wander."""
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, 3] = np.cumsum(rng.normal(0, 0.05, (count, 3)), 0)
    poses[:, :3, :3] = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.03, (count, 3)), 0)).as_matrix()
    return poses


def noisy(poses: np.ndarray, seed: int = 1) -> np.ndarray:
    """The same elsewhere, with errors."""
    rng = np.random.default_rng(seed)
    out = poses.copy()
    out[:, :3, 3] += rng.normal(0, 0.02, (len(poses), 3))
    out[:, :3, :3] = out[:, :3, :3] @ Rotation.from_rotvec(rng.normal(0, 0.01, (len(poses), 3))).as_matrix()
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = Rotation.from_rotvec([0.3, -1.0, 0.5]).as_matrix(), (3, -2, 1)
    return moved @ out


def save(folder: Path, stamps: np.ndarray, poses: np.ndarray, scale: str = "metric") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trajectory.tum").write_text(tum_text(stamps, poses), encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps({"scenes": [{"scale": scale}]}), encoding="utf-8")
    return folder


def test_relative_error_by_hand() -> None:
    truth = np.tile(np.eye(4), (3, 1, 1))
    truth[:, 0, 3] = (0, 1, 2)
    found = truth.copy()
    found[2, 0, 3] = 2.3
    found[2, :3, :3] = Rotation.from_rotvec([0, 0, np.radians(10)]).as_matrix()
    assert relative_pose_error(found, truth) == pytest.approx((np.sqrt(0.3**2 / 2), np.sqrt(10**2 / 2)))
    halved = truth.copy()
    halved[:, :3, 3] /= 2
    assert relative_pose_error(halved, truth, scale=2.0) == pytest.approx((0, 0))
    assert np.isnan(relative_pose_error(truth[:1], truth[:1])).all()


def test_stamps_belong_to_each_other_once() -> None:
    rows, others = associate(np.array([0.0, 0.1, 0.2, 0.5]), np.array([0.005, 0.011, 0.195, 0.53]))
    assert rows.tolist() == [0, 2] and others.tolist() == [0, 2]
    assert len(associate(np.zeros(0), np.ones(2))[0]) == 0


@pytest.mark.parametrize("scaled", [False, True])
def test_against_evo(scaled: bool) -> None:
    pytest.importorskip("evo", reason="evo is installed on demand")
    from evo.core import metrics, trajectory

    truth, found = path(), noisy(path())
    found[:, :3, 3] *= 0.4 if scaled else 1.0
    reference, other = (trajectory.PosePath3D(poses_se3=list(poses)) for poses in (truth, found))
    other.align(reference, correct_scale=scaled)
    ape = metrics.APE(metrics.PoseRelation.translation_part)
    ape.process_data((reference, other))
    figures = trajectory_figures(found, truth, len(truth), metric=not scaled)
    assert figures["ATE"] == pytest.approx(ape.get_statistic(metrics.StatisticsType.rmse), rel=1e-6)
    for name, relation in (
        ("RPE", metrics.PoseRelation.translation_part),
        ("RPE deg", metrics.PoseRelation.rotation_angle_deg),
    ):
        rpe = metrics.RPE(relation, delta=1, delta_unit=metrics.Unit.frames, all_pairs=False)
        rpe.process_data((reference, other))
        assert figures[name] == pytest.approx(rpe.get_statistic(metrics.StatisticsType.rmse), rel=1e-6), name


def test_files_of_tum_and_bonn(tmp_path: Path) -> None:
    benchmark = BENCHMARKS["bonn"]
    stamps, truth = 100.0 + np.arange(40) / 30, path()
    folder = tmp_path / "rgbd_bonn_balloon"
    folder.mkdir()
    (folder / "rgb.txt").write_text("# color images\n", encoding="utf-8")
    extra = tum_text(stamps + 0.004, truth) + "200.0 nan nan nan nan nan nan nan\n201.0 0 0 0 0 0 0 0\n"
    (folder / "groundtruth.txt").write_text(extra, encoding="utf-8")
    assert benchmark.sequences(tmp_path) == ["rgbd_bonn_balloon"]
    place = Place(tmp_path, "rgbd_bonn_balloon")
    assert benchmark.prepare(place, tmp_path / "given") == [str(folder), "--poses", "none"], "its path is no help"
    figures = benchmark.score(place, save(tmp_path / "out", stamps[5:25], noisy(truth)[5:25]))
    assert figures["ATE"] == pytest.approx(absolute_trajectory_error(noisy(truth)[5:25], truth[5:25]), abs=1e-5)
    assert figures["judged"] == 1.0 and figures["scaled"] == 0.0
    shrunk = truth.copy()
    shrunk[:, :3, 3] *= 0.1
    assert benchmark.score(place, save(tmp_path / "out", stamps, shrunk, "relative"))["ATE"] < 1e-5
    with pytest.raises(Motion4DError, match="0 of 40 frames have a true pose"):
        benchmark.score(place, save(tmp_path / "out", stamps + 50, truth))


def test_files_of_7_scenes(tmp_path: Path) -> None:
    benchmark, truth = SevenScenes(), path(12)
    folder = tmp_path / "chess" / "seq-03"
    folder.mkdir(parents=True)
    (tmp_path / "chess" / "TestSplit.txt").write_text("sequence3\nsequence5\n", encoding="utf-8")
    (tmp_path / "fire" / "seq-01").mkdir(parents=True)
    assert benchmark.sequences(tmp_path) == ["chess/seq-03", "chess/seq-05", "fire/seq-01"]
    for t, T in enumerate(truth):
        np.savetxt(folder / f"frame-{t:06d}.pose.txt", np.full((4, 4), np.nan) if t == 4 else T)
    assert benchmark.sequences(folder) == ["seq-03"]
    assert benchmark.prepare(Place(folder, "seq-03"), tmp_path) == [str(folder), "--poses", "none"]
    place = Place(tmp_path, "chess/seq-03", limit=10)
    found = noisy(truth)[:10]
    figures = benchmark.score(place, save(tmp_path / "out", np.arange(10) / 10, found))
    kept = [t for t in range(10) if t != 4]
    assert figures["ATE"] == pytest.approx(absolute_trajectory_error(found[kept], truth[kept]), abs=1e-5)
    assert figures["judged"] == pytest.approx(0.9)
    with pytest.raises(Motion4DError, match="12 poses found for 10 true ones"):
        benchmark.score(place, save(tmp_path / "out", np.arange(12) / 10, noisy(truth)))
