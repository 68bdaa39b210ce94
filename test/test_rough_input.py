"""One camera and nothing else, on input as it should not be: stated degraded modes, no crash, no made-up metre."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.types import NO_GROUND, Camera, Estimate, Frame, PoseStatus, Scale, Stage

SIZE = (120, 160)
LENGTH = 14
PERIOD_NS = 100_000_000

Images = list[NDArray[np.uint8]]


def camera_only() -> Config:
    """The defaults (visual, geometry, motion) with hardly any steps."""
    config = Config()
    config.update(
        {
            "run": {"threads": 1, "device": "cpu"},
            "window": {"length": 4, "horizon": 16, "global_every": 0},
            "fit": {"motion_iterations": 2, "semantic_iterations": 2, "final_iterations": 2},
            "geometry": {"iterations": 2, "static_points": 80, "object_points": 60, "max_parts": 1},
        }
    )
    return config


def frames_of(images: Images) -> list[Frame]:
    """Images as they come from a camera."""
    frames = []
    for k, image in enumerate(images):
        height, width = image.shape[:2]
        camera = Camera(width, width, (width - 1) / 2, (height - 1) / 2, width, height)
        frames.append(Frame((k + 1) * PERIOD_NS, image, camera))
    return frames


def run(images: Images, config: Config | None = None) -> dict[int, Estimate]:
    """The last word on every frame, after checking what holds for any input."""
    return run_engine(images, config or camera_only())[0]


def run_engine(images: Images, config: Config) -> tuple[dict[int, Estimate], Motion4D]:
    """The same, and the engine."""
    engine = Motion4D(config)
    last: dict[int, Estimate] = {}
    for frame in frames_of(images):
        if engine.reason_to_restart(frame):
            last.update({estimate.index: estimate for estimate in engine.flush()})
        estimates = engine.push(frame)
        assert estimates[0].stage is Stage.LIVE
        last.update({estimate.index: estimate for estimate in estimates})
    last.update({estimate.index: estimate for estimate in engine.flush()})
    assert sorted(last) == list(range(len(images)))
    for k, estimate in last.items():
        assert estimate.masks.shape == images[k].shape[:2]
        assert np.isfinite(estimate.T_map_cam).all() and np.isfinite(estimate.points.xyz_map).all()
        assert estimate.scale is not Scale.METRIC  # nothing that was given has a length
    return last, engine


@pytest.fixture(scope="module")
def drive() -> Images:
    """A camera that moves past things that move."""
    return list(make_scene("tabletop_like", seed=2, frames=LENGTH, size=SIZE).images)


@pytest.fixture(scope="module")
def room(drive: Images) -> NDArray[np.uint8]:
    """A large still picture to look around in."""
    return cv2.resize(drive[0], (640, 480), interpolation=cv2.INTER_CUBIC)


def objects(last: dict[int, Estimate]) -> set[int]:
    return {int(label) for estimate in last.values() for label in np.unique(estimate.masks) if label}


def test_a_drive_as_it_should_be(drive: Images) -> None:
    last = run(drive)
    assert all(estimate.pose_status is PoseStatus.OK for estimate in last.values())
    assert not groundless(last)


def brightness_rolls(images: Images) -> Images:
    return [np.clip(image * (1 + 0.35 * np.sin(0.9 * k)), 0, 255).astype(np.uint8) for k, image in enumerate(images)]


def every_third_is_blurred(images: Images) -> Images:
    return [cv2.blur(image, (25, 1)) if k % 3 == 2 else image for k, image in enumerate(images)]


def frames_are_dropped(images: Images) -> Images:
    return [image for k, image in enumerate(images) if k % 4 not in (1, 2)]


def rows_tear(images: Images) -> Images:
    """A stripe of every frame belongs to the one before."""
    return [np.concatenate([images[max(0, k - 1)][:40], image[40:]]) for k, image in enumerate(images)]


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [brightness_rolls, every_third_is_blurred, frames_are_dropped, rows_tear])
def test_a_spoilt_drive_goes_on(drive: Images, spoil: Callable[[Images], Images]) -> None:
    run(spoil(drive))


@pytest.mark.slow
def test_a_lens_cap_is_reported_as_loss_and_poses_come_back(drive: Images) -> None:
    black = np.zeros_like(drive[0])
    last = run([*drive[:8], *[black] * 6, *drive[8:]])
    assert last[13].pose_status is not PoseStatus.OK
    assert any("lost" in warning for k in range(8, 14) for warning in last[k].warnings)
    assert last[len(drive) + 5].pose_status is PoseStatus.OK


def test_black_from_the_start(drive: Images) -> None:
    last = run([np.zeros_like(drive[0])] * 6)
    assert all(
        estimate.scale is Scale.UNKNOWN and estimate.pose_status is not PoseStatus.OK for estimate in last.values()
    )
    assert last[5].pose_status is PoseStatus.LOST and not objects(last)


@pytest.mark.slow
def test_noise_only() -> None:
    rng = np.random.default_rng(0)
    last = run([rng.integers(0, 256, (*SIZE, 3), np.uint8) for _ in range(8)])
    assert all(estimate.scale is Scale.UNKNOWN for estimate in last.values())


def test_after_a_cut_the_pose_is_lost_and_not_guessed(drive: Images) -> None:
    elsewhere = list(make_scene("leave_return", seed=7, frames=8, size=SIZE).images)
    last = run([*drive[:10], *elsewhere])
    assert last[17].pose_status is PoseStatus.LOST and last[17].warnings


def restarting(after: int) -> Config:
    config = camera_only()
    config.set("pose.restart_after", str(after))
    return config


def test_long_after_a_cut_a_new_scene_begins(drive: Images) -> None:
    elsewhere = list(make_scene("tabletop_like", seed=31, frames=16, size=SIZE).images)
    last, engine = run_engine([*drive[:10], *elsewhere], restarting(5))
    assert engine.health.warnings == {"restarted: camera lost": 1}
    statuses = [last[k].pose_status for k in range(26)]
    assert all(status is PoseStatus.OK for status in statuses[:10]), "what was before the cut stays"
    anew = statuses.index(PoseStatus.OK, 11)
    assert statuses[anew - 1] is PoseStatus.LOST and anew == 16  # at the sixth frame after five that see something else
    assert all(status is PoseStatus.OK for status in statuses[anew:])
    assert np.allclose(last[anew].T_map_cam, np.eye(4)), "the map begins at the new scene's first camera"
    assert last[25].scale is Scale.RELATIVE, "the rest of the recording is analysed"
    before, after = ({k: e for k, e in last.items() if (k < anew) == early} for early in (True, False))
    assert not objects(before) & objects(after), "ids are never used twice"
    assert engine.query(np.array([[20.0, 60.0, 80.0]])).first_index == anew


def test_without_a_limit_the_pose_stays_lost(drive: Images) -> None:
    elsewhere = list(make_scene("tabletop_like", seed=31, frames=10, size=SIZE).images)
    last, engine = run_engine([*drive[:10], *elsewhere], restarting(0))
    assert not engine.health.warnings and last[19].pose_status is PoseStatus.LOST


def test_darkness_and_noise_are_waited_out_however_long(drive: Images) -> None:
    """Nothing to see is no other place: the camera may be where it was when it sees again."""
    rng = np.random.default_rng(3)
    black = [np.zeros_like(drive[0])] * 8
    noise = [rng.integers(0, 256, (*SIZE, 3), np.uint8) for _ in range(4)]
    last, engine = run_engine([*drive[:8], *black, *noise, *drive[6:]], restarting(3))
    assert not engine.health.warnings and last[27].pose_status is PoseStatus.OK


def test_turning_on_the_spot_has_no_scale_and_no_objects(room: NDArray[np.uint8]) -> None:
    height, width = SIZE
    images = []
    for k in range(12):
        yaw = cv2.Rodrigues(np.array([0.0, 0.012 * k, 0.0]))[0]
        K = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])
        big = np.array([[640.0, 0, 160], [0, 640, 239.5], [0, 0, 1]])
        H = big @ yaw @ np.linalg.inv(K)
        images.append(cv2.warpPerspective(room, H, (width, height), flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP))
    last = run(images)
    assert all(estimate.scale is Scale.UNKNOWN for estimate in last.values())
    assert not objects(last)


def test_nothing_moves_at_all(drive: Images) -> None:
    last = run([drive[0]] * 8)
    assert all(estimate.scale is Scale.UNKNOWN for estimate in last.values())
    assert not objects(last)
    assert np.allclose(last[7].T_map_cam, last[0].T_map_cam, atol=1e-6)


def everything_moves(length: int) -> Images:
    """Tiles that slide each their own way: no still ground to stand on."""
    rng = np.random.default_rng(1)
    tiles = rng.integers(0, 256, (12, 15, 20, 3), np.uint8)
    steps = rng.uniform(-3, 3, (12, 2))
    images = []
    for k in range(length):
        image = np.zeros((*SIZE, 3), np.uint8)
        for tile, step, at in zip(tiles, steps, np.ndindex(3, 4), strict=True):
            texture = cv2.resize(tile, (80, 80), interpolation=cv2.INTER_CUBIC)
            shift = np.float32([[1, 0, k * step[0] - 20], [0, 1, k * step[1] - 20]])
            moved = cv2.warpAffine(texture, shift, (40, 40), borderMode=cv2.BORDER_WRAP)
            image[at[0] * 40 : at[0] * 40 + 40, at[1] * 40 : at[1] * 40 + 40] = moved
        images.append(image)
    return images


def groundless(last: dict[int, Estimate]) -> list[int]:
    return [k for k, estimate in last.items() if any(text.startswith(NO_GROUND) for text in estimate.warnings)]


def test_everything_moves() -> None:
    last, engine = run_engine(everything_moves(LENGTH), camera_only())
    assert len(groundless(last)) == LENGTH, "it is said of all frames once it is noticed"
    (text,) = [text for text in engine.status().warnings if text.startswith(NO_GROUND)]
    assert text == engine.status().doubt and text.endswith("poses, depth, masks are doubtful")


def test_no_metre_is_claimed_where_everything_moves() -> None:
    config = camera_only()
    config.set("pose.known_distance", "2.0")
    last, _ = run_engine(everything_moves(LENGTH), config)
    assert groundless(last)  # `run_engine` has checked that no frame is METRIC


@pytest.mark.slow
def test_a_metre_is_claimed_where_the_ground_is_still(drive: Images) -> None:
    config = camera_only()
    config.set("pose.known_distance", "2.0")
    engine = Motion4D(config)
    told = [estimate for frame in frames_of(drive) for estimate in engine.push(frame)] + engine.flush()
    assert told[-1].scale is Scale.METRIC and not groundless(dict(enumerate(told)))


@pytest.mark.slow
def test_large_video_is_worked_on_small_and_answered_large(drive: Images) -> None:
    last = run([cv2.resize(image, (3840, 2880)) for image in drive[:5]])
    assert last[4].masks.shape == (2880, 3840)
