"""A scene that was kept comes back where the camera shows it, is refused where not, and its ids are not given again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from engine_builders import given

from motion4d_ros.config import Config
from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.fit.checkpoint.saved import RESERVED_OBJECTS, RESERVED_POINTS, read_checkpoint
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.types import Camera, Frame, Motion4DError, PoseStatus, Prompt

HEIGHT, WIDTH, FOCAL = 48, 64, 64.0
CAMERA = Camera(FOCAL, FOCAL, WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5, WIDTH, HEIGHT)
WALL_M, NEAR_M = 2.0, 1.0
ROOM = 10**8


def frame(number: int, seed: int = 0, things: dict[int, int] | None = None, dark: bool = False) -> Frame:
    """A camera that slides along a wall; before it things, each a textured square: {object id: left edge, px}."""
    rng = np.random.default_rng(seed)
    wall = np.repeat(np.repeat(rng.integers(0, 255, (16, 64, 3), dtype=np.uint8), 3, 0), 3, 1)
    x = 0.006 * number
    shift = 40 + round(FOCAL * x / WALL_M)
    image = wall[:HEIGHT, shift : shift + WIDTH].copy()
    depth, masks = np.full((HEIGHT, WIDTH), WALL_M, np.float32), np.zeros((HEIGHT, WIDTH), np.int32)
    for label, left in (things or {}).items():
        left -= round(FOCAL * x / NEAR_M)
        skin = np.random.default_rng(100 + label).integers(0, 255, (5, 5, 3), dtype=np.uint8)
        skin = np.repeat(np.repeat(skin, 3, 0), 3, 1)[:14, :14]
        image[16:30, left : left + 14], masks[16:30, left : left + 14] = skin, label
        depth[16:30, left : left + 14] = NEAR_M
    T = np.eye(4)
    T[0, 3] = x
    if dark:
        image[:] = 3
    return Frame((number + 1) * 10**8, image, CAMERA, T, depth, masks)


def settings(**values: Any) -> Config:
    small = {
        "window.length": 4, "window.horizon": 12, "fit.motion_iterations": 12, "fit.semantic_iterations": 4,
        "fit.global_iterations": 4, "budget.max_static": 2500, "budget.max_dynamic": 600,
    }  # fmt: skip
    return given(**{**small, **values})


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Motion4D]:
    """The file of a run of twelve frames with two things, 3 and 4, and its engine."""
    engine = Motion4D(settings())
    for number in range(12):
        engine.push(frame(number, things={3: 18, 4: 42}))
    engine.prompt(Prompt(0, 3, name="cup"))
    path = tmp_path_factory.mktemp("kept") / "file"
    engine.save_checkpoint(str(path))
    return path, engine


def go_on(path: Path, frames: list[Frame], **values: Any) -> Motion4D:
    engine = Motion4D(settings(**values))
    engine.resume(str(path), ROOM)
    for each in frames:
        engine.push(each)
    return engine


def test_the_scene_comes_back_where_the_camera_shows_it(kept: tuple[Path, Motion4D]) -> None:
    path, before = kept
    engine = go_on(path, [frame(number, things={3: 18, 4: 42}) for number in range(12, 16)])
    assert (
        "went on from the saved scene" in engine.status().resumed and "objects 3, 4 in place" in engine.status().resumed
    )
    was, now = before.mapper.scene, engine.mapper.scene
    back = np.isin(now.ids.numpy(), was.ids.numpy())
    assert back.sum() > 0.7 * was.count, "its points have the ids they had"
    assert (now.ids[~back] >= was.next_id + RESERVED_POINTS).all(), "new ones have ids that nothing had"
    for label in (3, 4):
        mine = now.ids[now.object_id == label]
        assert np.isin(mine.numpy(), was.ids.numpy()).mean() > 0.5, f"object {label} has its points again"
    assert (
        next(each.label for each in engine.estimate_builder.tracker.predict(2 * 10**9) if each.object_id == 3) == "cup"
    )


def test_points_that_come_back_lie_where_they_lay(kept: tuple[Path, Motion4D]) -> None:
    path, before = kept
    engine = Motion4D(settings())
    engine.resume(str(path), ROOM)
    for number in range(12, 16):
        engine.add_frame(frame(number, things={3: 18, 4: 42}))
    engine._continuation.decide(engine.intake, engine.mapper, engine.horizon)
    was = before.mapper.scene
    places = dict(zip(was.ids.tolist(), was.at(was.bases.last_index).means.detach().numpy(), strict=True))
    now = engine.mapper.scene
    for point, place in zip(now.ids.tolist(), now.params["means"].detach().numpy(), strict=True):
        np.testing.assert_allclose(place, places[point], atol=1e-6)


def test_another_place_is_refused_in_one_line_and_ids_go_on(kept: tuple[Path, Motion4D]) -> None:
    path, before = kept
    engine = go_on(path, [frame(number, seed=7) for number in range(12, 20)])
    told = engine.status().resumed
    assert told.startswith("refused the saved scene: it is not what the camera sees") and "\n" not in told
    assert (engine.mapper.scene.ids >= before.mapper.scene.next_id).all()
    assert engine.intake.prompt(Prompt(0, 0, np.array([[20.0, 20.0]]), np.array([True])), engine.horizon) > 4


def test_the_same_wall_at_another_distance_is_refused(kept: tuple[Path, Motion4D]) -> None:
    """It looks the same, but is not where the scene says: the poses of the camera have begun anew."""
    path, _ = kept
    frames = [frame(number, things={3: 18, 4: 42}) for number in range(12, 20)]
    engine = go_on(path, [replace(each, depth_m=1.5 * each.depth_m) for each in frames])
    assert "refused" in engine.status().resumed


def test_a_lens_cap_decides_nothing(kept: tuple[Path, Motion4D]) -> None:
    path, _ = kept
    dark = [frame(number, dark=True) for number in range(12, 20)]
    engine = go_on(path, dark)
    assert "waits" in engine.status().resumed
    for number in range(20, 24):
        engine.push(frame(number, things={3: 18, 4: 42}))
    assert "went on" in engine.status().resumed


def test_what_moved_away_does_not_come_back(kept: tuple[Path, Motion4D]) -> None:
    path, _ = kept
    engine = go_on(path, [frame(number, things={3: 18}) for number in range(12, 16)])
    assert "objects 3 in place" in engine.status().resumed
    assert 4 not in engine.mapper.scene.objects()


def test_outlined_objects_are_followed_again_under_their_ids(kept: tuple[Path, Motion4D]) -> None:
    """Where no topic brings ids, the saved scene tells the source of masks which object is which."""
    path, _ = kept
    frames = [replace(frame(number, things={3: 18, 4: 42}), masks=None) for number in range(12, 20)]
    engine = go_on(path, frames, **{"masks.source": "propagation", "masks.discovery": "none"})
    assert "objects 3, 4 in place" in engine.status().resumed
    live = engine.add_frame(replace(frame(20, things={3: 18, 4: 42}), masks=None))
    truth = frame(20, things={3: 18, 4: 42}).masks
    assert truth is not None
    for label in (3, 4):
        union = ((live.masks == label) | (truth == label)).sum()
        assert ((live.masks == label) & (truth == label)).sum() > 0.5 * union, label


def test_other_settings_lend_only_the_ids(kept: tuple[Path, Motion4D]) -> None:
    path, before = kept
    engine = go_on(path, [frame(12)], **{"pose.source": "static"})
    assert "it was made with pose.source='odometry', now 'static'" in engine.status().resumed
    assert engine.ids_given[0] == before.mapper.scene.next_id + RESERVED_POINTS


def test_ids_that_may_have_been_given_since_are_taken_for_given(kept: tuple[Path, Motion4D]) -> None:
    saved = read_checkpoint(kept[0], ROOM)
    assert {3, 4, *range(5, 5 + RESERVED_OBJECTS)} <= saved.object_ids
    engine = Motion4D(settings())
    engine.resume(str(kept[0]), ROOM)
    engine.save_checkpoint(str(kept[0].with_name("again")))
    again = read_checkpoint(kept[0].with_name("again"), ROOM)
    assert again.count == 0 and again.next_point_id == saved.next_point_id + RESERVED_POINTS, "ids remain, no scene"


def _spoil(path: Path, name: str, change: Any) -> bytes:
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if name == "header":
        metadata["header"] = json.dumps(json.loads(metadata["header"]) | change)
    else:
        tensors[name] = change(tensors[name])
    return safetensors.numpy.save(tensors, metadata)


DAMAGE = {
    "NaN": ("means", lambda a: np.where(np.arange(len(a))[:, None] == 1, np.nan, a).astype(np.float32)),
    "too short": ("quats", lambda a: a[:-1].copy()),
    "an id twice": ("ids", lambda a: np.concatenate([a[:1], a[:1], a[2:]])),
    "an id of tomorrow": ("ids", lambda a: a + 10**9),
    "an object beyond 16 bits": ("object_id", lambda a: a + 70_000),
    "another type": ("colors", lambda a: a.astype(np.float64)),
    "a count of nothing": ("header", {"next_point_id": 0}),
    "words for numbers": ("header", {"object_ids": ["x"]}),
    "a camera without size": ("header", {"camera": {"fx": 1}}),
    "names that are none": ("header", {"names": 5}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_in_one_line(kept: tuple[Path, Motion4D], tmp_path: Path, damage: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(_spoil(kept[0], *DAMAGE[damage]))
    with pytest.raises(Motion4DError, match="damaged checkpoint") as caught:
        read_checkpoint(path, ROOM)
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_are_none_are_refused(kept: tuple[Path, Motion4D], tmp_path: Path) -> None:
    content = kept[0].read_bytes()
    for number, spoilt in enumerate((b"", b"\x80\x04K\x01.", content[:100], content[:-1], b"\xff" * 16 + content)):
        path = tmp_path / str(number)
        path.write_bytes(spoilt)
        with pytest.raises(Motion4DError, match=r"damaged|not a checkpoint"):
            read_checkpoint(path, ROOM)
    with pytest.raises(Motion4DError, match="at most 10 are allowed"):
        read_checkpoint(kept[0], 10)


@pytest.mark.slow
def test_where_poses_come_from_images_the_camera_is_found_in_the_saved_map(tmp_path: Path) -> None:
    """Nothing but pictures: the camera is lost in the map that was kept until it recognises something."""
    values = {"masks.source": "none", "depth.source": "geometry", "pose.source": "visual", "budget.max_static": 4000}
    scene = make_scene("tabletop_like", size=(120, 160))
    bare = [replace(each, T_map_cam=None, depth_m=None, masks=None) for each in scene.frames()]
    before = Motion4D(settings(**values))
    for each in bare[:32]:
        before.push(each)
    before.save_checkpoint(str(tmp_path / "file"))
    engine = go_on(tmp_path / "file", bare[32:40], **values)
    assert "went on from the saved scene" in engine.status().resumed
    was = before.T_map_cams
    step = np.linalg.norm(was[31][:3, 3] - was[30][:3, 3])
    assert np.linalg.norm(engine.T_map_cams[0][:3, 3] - was[31][:3, 3]) < 5 * step, "in the same map, in its units"

    dark = [replace(each, image=np.full_like(each.image, 3)) for each in bare[32:36]]
    engine = go_on(tmp_path / "file", dark, **values)
    assert engine.mapper.scene.count == 0 and "waits" in engine.status().resumed, "nobody knows where those frames are"

    elsewhere = [replace(each, image=np.ascontiguousarray(255 - each.image[:, ::-1])) for each in bare[32:48]]
    engine = go_on(tmp_path / "file", elsewhere, **values)
    assert "refused the saved scene" in engine.status().resumed
    assert engine.status().pose_status is PoseStatus.OK, "a map of its own has begun"
