"""The yardstick of uncertainty measures what it says, on recordings made by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from motion4d_ros.evaluation.calibration.__main__ import main, nees_table, reliability_table
from motion4d_ros.evaluation.calibration.consistency import consistency, geometric_mean, match
from motion4d_ros.evaluation.calibration.recording import Recording, frames_of
from motion4d_ros.evaluation.calibration.reliability import Forecasts
from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.types import ObjectPhase, ObjectState, Stage

FRAMES = 40
SIGMA_M, SIGMA_RAD, SIGMA_V, SIGMA_W = 0.004, 0.01, 0.02, 0.05


def truth() -> dict[str, np.ndarray]:
    """A turning body of four points, and its mask."""
    body = np.array([[0.1, 0, 0], [-0.1, 0.05, 0], [0, -0.1, 0.1], [0, 0.05, -0.1]])
    turns = Rotation.from_rotvec(np.arange(FRAMES)[:, None] * np.array([0.0, 0.05, 0.02])).as_matrix()
    path = np.array([0, 0, 2.0]) + np.arange(FRAMES)[:, None] * np.array([0.02, -0.01, 0.005])
    points = np.einsum("tij,nj->nti", turns, body) + path
    masks = np.zeros((FRAMES, 8, 8), np.int64)
    masks[:, 2:5, 2:5] = 1
    return {
        "query_object": np.ones(4, np.int64),
        "tracks_xyz": points,
        "visible": np.ones((4, FRAMES), bool),
        "masks": masks,
        "turns": turns,
        "path": path + np.einsum("tij,j->ti", turns, body.mean(0)),
    }


def recorded(world: dict[str, np.ndarray], exaggeration: float = 1.0) -> Recording:
    """Poses with errors `exaggeration` times as large as is stated, of a box that grows while it is watched."""
    rng = np.random.default_rng(0)
    period = 0.1
    velocity = np.gradient(world["path"], period, axis=0)
    objects = {}
    for k in range(FRAMES):
        box = np.eye(4)
        box[:3, 3] = [0.001 * k, 0, 0]  # in the body's frame
        error = exaggeration * rng.standard_normal(12)
        base = np.eye(4)
        base[:3, :3] = Rotation.from_rotvec(SIGMA_RAD * error[3:6]).as_matrix() @ world["turns"][k]
        base[:3, 3] = world["path"][k] + SIGMA_M * error[:3]
        turned = world["turns"][min(k + 1, FRAMES - 1)] @ world["turns"][max(k - 1, 0)].T
        steps = min(k + 1, FRAMES - 1) - max(k - 1, 0)
        rate = Rotation.from_matrix(turned).as_rotvec() / (steps * period) + SIGMA_W * error[9:]
        speed = velocity[k] + SIGMA_V * error[6:9] + np.cross(rate, base[:3, :3] @ box[:3, 3])
        objects[k] = [
            ObjectState(
                5, "", ObjectPhase.TRACKED, 0.99, base @ box,
                np.diag([SIGMA_M**2] * 3 + [SIGMA_RAD**2] * 3), np.concatenate([speed, rate]),
                np.diag([SIGMA_V**2] * 3 + [SIGMA_W**2] * 3), np.ones(3), 10, 0, 0, T_body_object=box,
            )
        ]  # fmt: skip
    return Recording({Stage.GLOBAL: objects}, {k: 5 * world["masks"][k] for k in range(FRAMES)})


def test_honest_covariances_have_a_nees_of_one_though_the_box_grows() -> None:
    world = truth()
    assert match(world, recorded(world)) == {1: 5}
    (row,) = consistency("made", world, recorded(world))
    assert (row.stage, row.state, row.frames) == ("global", "tracked", FRAMES)
    for name in ("position", "rotation", "velocity", "rate"):
        assert row.nees[name] == pytest.approx(1.0, abs=0.35), name
        assert row.coverage[name] == pytest.approx(0.95, abs=0.05)
    assert "global | tracked | 1" in nees_table([row])


def test_overconfidence_is_measured_as_much_as_there_is() -> None:
    world = truth()
    honest, (row,) = consistency("made", world, recorded(world)), consistency("made", world, recorded(world, 3.0))
    assert geometric_mean([row], "position") == pytest.approx(9 * geometric_mean(honest, "position"), rel=0.1)
    assert row.coverage["velocity"] < 0.7


def test_who_comes_back_in_another_frame_errs() -> None:
    """A canonical frame is one for a whole run: half a second out of sight does not excuse a new one."""
    world = truth()
    run = recorded(world)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0.0, 0.0, 20 * SIGMA_RAD]).as_matrix()
    for k, (told,) in run.objects[Stage.GLOBAL].items():
        phase = ObjectPhase.OCCLUDED if 20 <= k < 25 else told.phase
        moved = told.T_map_object @ np.linalg.inv(told.T_body_object) @ turn @ told.T_body_object
        pose = moved if k >= 25 else told.T_map_object
        run.objects[Stage.GLOBAL][k] = [dataclasses.replace(told, phase=phase, T_map_object=pose)]
    rows = {row.state: row for row in consistency("made", world, run)}
    assert set(rows) == {"tracked", "occluded", "returned"}
    assert min(rows[state].nees["rotation"] for state in ("tracked", "returned")) > 20


def test_calibration_error_of_probabilities() -> None:
    rng = np.random.default_rng(1)
    probability = rng.random(20_000)
    honest = Forecasts(probability, rng.random(20_000) < probability)
    sure = Forecasts(np.full(1000, 0.95), rng.random(1000) < 0.75)
    assert honest.error < 0.02
    assert sure.error == pytest.approx(0.2, abs=0.05)
    assert sure.joined(honest).error < sure.error
    assert "| tracks | 1000 | 0.950 |" in reliability_table({"tracks": sure})


def test_frames_of_a_truth_are_its_inputs() -> None:
    scene = make_scene("bounce", 0, 2, (48, 64))
    frames = list(frames_of(scene.truth()))
    assert len(frames) == 2 and frames[0].camera.size == (48, 64)
    assert (frames[1].masks == scene.in_masks[1]).all()
    assert frames[1].depth_m == pytest.approx(scene.in_depth_m[1], rel=2e-3)


def test_an_empty_folder_is_one_line(tmp_path, capsys) -> None:
    assert main(["--tables", "--out", str(tmp_path)]) == 2
    assert "holds no scene" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_scene_is_played_and_drawn(tmp_path, capsys) -> None:
    page = tmp_path / "page.md"
    names = ("calibration", "reliability", "depth")
    page.write_text("\n".join(f"<!-- {name} -->\n<!-- /{name} -->" for name in names))
    words = ["--only", "bounce", "--frames", "16", "--out", str(tmp_path / "out")]
    assert main([*words, "--docs", str(page), "--plots", str(tmp_path / "img")]) == 0
    said = capsys.readouterr().out
    assert (
        "| global | tracked | 2 |" in said
        and "| tracks |" in said
        and "| points |" in said
        and "| background |" in said
    )
    assert "| window |" in page.read_text()
    assert all((tmp_path / "img" / name).stat().st_size > 5000 for name in ("nees.png", "reliability.png"))
