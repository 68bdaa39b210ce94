"""The synthetic scene's truth is checked against itself in independent ways, its faults against what they promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from motion4d_ros.evaluation.metrics import score_masks
from motion4d_ros.evaluation.synthetic import (
    PRESETS,
    UNSTEADY,
    DepthFaults,
    MaskFaults,
    SyntheticScene,
    degrade_depth,
    degrade_masks,
    make_scene,
    motion,
    write_bag,
)
from motion4d_ros.evaluation.synthetic.__main__ import main
from motion4d_ros.evaluation.synthetic.shapes import BendingTube, Box, Flag, Shape, Sphere, Torus
from motion4d_ros.evaluation.synthetic.textures import KINDS, make_texture
from motion4d_ros.types import Motion4DError

SHAPES: dict[str, Shape] = {
    "sphere": Sphere(0.4),
    "box": Box(np.array([0.3, 0.2, 0.25])),
    "torus": Torus(0.3, 0.1),
    "tube": BendingTube(0.7, 0.08, lambda t: 3.0 * np.sin(2 * t)),
    "capsule": BendingTube(0.5, 0.1, lambda t: 0.0),
    "flag": Flag(0.4, 0.3, 0.06, 0.5, 0.7),
}


def rays_at(shape: Shape, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """An eye outside and rays towards the inside of the bounding sphere."""
    rng = np.random.default_rng(3)
    origin = np.array([0.4, -1.3, 0.9])
    inside = rng.normal(size=(count, 3)) * shape.radius * 0.3
    return origin, inside - origin


@pytest.mark.parametrize("name", SHAPES)
def test_a_hit_lies_on_the_material_it_names(name: str) -> None:
    shape, time_s = SHAPES[name], 0.6
    origin, rays = rays_at(shape)
    multiple = shape.intersect(origin, rays, time_s)
    hit = np.isfinite(multiple)
    assert hit.sum() > 30
    points = origin + multiple[hit, None] * rays[hit]
    material = shape.material(points, time_s)
    np.testing.assert_allclose(shape.place(material, time_s), points, atol=2e-4)
    assert np.linalg.norm(points, axis=-1).max() <= shape.radius + 1e-3
    np.testing.assert_allclose(np.linalg.norm(shape.normal(points, time_s), axis=-1), 1, atol=1e-9)


@pytest.mark.parametrize("name", SHAPES)
def test_the_nearest_point_is_hit_and_the_normal_faces_it(name: str) -> None:
    shape, time_s = SHAPES[name], 0.6
    origin, rays = rays_at(shape)
    multiple = shape.intersect(origin, rays, time_s)
    hit = np.isfinite(multiple)
    if name != "flag":  # a sheet has two sides
        points = origin + multiple[hit, None] * rays[hit]
        assert ((shape.normal(points, time_s) * rays[hit]).sum(-1) < 1e-3).all()
    # nothing of the shape lies before a hit: rays that stop short miss
    again = shape.intersect(origin, rays[hit] * 0.5, time_s)
    np.testing.assert_allclose(again, 2 * multiple[hit], rtol=1e-3)


def test_sphere_by_hand() -> None:
    hits = Sphere(1.0).intersect(np.array([0.0, 0.0, -3.0]), np.array([[0, 0, 2.0], [0, 1.0, 0]]), 0.0)
    assert hits[0] == pytest.approx(1.0)
    assert hits[1] == np.inf


def test_a_bent_bar_keeps_its_length() -> None:
    tube = BendingTube(0.8, 0.05, lambda t: 3.0 * t)
    s = np.linspace(-0.4, 0.4, 2001)
    centre_line = np.stack([s, 0 * s, 0 * s, 0 * s], -1)
    for time_s in (0.0, 0.5, 1.0):
        placed = tube.place(centre_line, time_s)
        assert np.linalg.norm(np.diff(placed, axis=0), axis=-1).sum() == pytest.approx(0.8, rel=1e-5)


def test_bouncing_conserves_what_it_should() -> None:
    path = motion.bounce((0, 0, 1.0), (0.5, 0, 0), floor_z=0.0, restitution=0.8)
    times = np.linspace(0, 2.5, 2501)
    xyz = np.array([path(t) for t in times])
    assert xyz[:, 2].min() >= 0
    first_impact = np.sqrt(2 * 1.0 / motion.GRAVITY)
    assert path(first_impact)[2] == pytest.approx(0, abs=1e-9)
    after = xyz[(times > first_impact) & (times < first_impact * 2.5), 2].max()
    assert after == pytest.approx(0.8**2, abs=1e-4)  # height goes with the square of the speed
    np.testing.assert_allclose(xyz[:, 0], 0.5 * times)


def test_waypoints_stand_still_at_each_one() -> None:
    path = motion.waypoints([1.0, 2.0, 3.0], [(0, 0, 0), (1, 0, 0), (1, 2, 0)])
    assert path(0.0).tolist() == [0, 0, 0]
    assert path(1.5)[0] == pytest.approx(0.5)
    assert path(9.0).tolist() == [1, 2, 0]
    assert np.linalg.norm(path(2.001) - path(1.999)) < 1e-4


def test_look_at_puts_the_target_in_the_middle_and_upright() -> None:
    T = motion.look_at(np.array([1.0, -2.0, 1.5]), np.array([0.2, 0.1, 0.4]))
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1)
    target = T[:3, :3].T @ (np.array([0.2, 0.1, 0.4]) - T[:3, 3])
    np.testing.assert_allclose(target[:2], 0, atol=1e-12)
    assert target[2] > 0
    assert (T[:3, :3].T @ [0, 0, 1])[1] < 0  # up in the map is up in the image


@pytest.mark.parametrize("kind", KINDS)
def test_textures_are_rich_and_without_seams(kind: str) -> None:
    texture = make_texture(kind, 4, extent_m=0.5)
    image = texture.pyramid[0]
    assert 0.05 < image.std() < 0.4
    assert make_texture(kind, 4, 0.5).pyramid[0].tobytes() == image.tobytes()
    inside = np.abs(np.diff(image, axis=1)).mean()
    seam = np.abs(image[:, 0] - image[:, -1]).mean()
    assert seam < 4 * inside
    uv = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    near = np.full(50, 1e-4)
    np.testing.assert_allclose(texture.sample(uv, near), texture.sample(uv + 0.5, near), atol=1e-4)
    assert texture.sample(uv, near + 1).std() < texture.sample(uv, near).std()  # far away: the coarsest level


def test_tracks_agree_with_masks_depth_and_projection(small_scene: SyntheticScene) -> None:
    scene = small_scene
    rows = np.arange(len(scene.queries))
    t, y, x = scene.queries.astype(int).T
    np.testing.assert_allclose(scene.tracks_yx[rows, t], scene.queries[:, 1:], atol=2e-2)
    assert (scene.masks[t, y, x] == scene.query_object).all()
    assert scene.visible[rows, t].mean() > 0.99
    xyz_cam = np.stack([(scene.tracks_xyz[:, k] - T[:3, 3]) @ T[:3, :3] for k, T in enumerate(scene.T_map_cam)], axis=1)
    np.testing.assert_allclose(scene.camera.project(xyz_cam), scene.tracks_yx[..., ::-1], atol=1e-2)
    np.testing.assert_allclose(xyz_cam[rows, t, 2], scene.depth_m[t, y, x], rtol=1e-3)
    # wherever a visible point lands, the depth image agrees, but for pixels on a silhouette
    q, k = np.nonzero(scene.visible)
    v, u = np.round(scene.tracks_yx[q, k]).astype(int).T
    gap = np.abs(scene.depth_m[k, v, u] - xyz_cam[q, k, 2])
    assert (gap < 0.05).mean() > 0.97
    # and static points stay where they are while those on objects move
    travel = np.ptp(scene.tracks_xyz, axis=1).max(-1)
    assert travel[scene.query_object == 0].max() < 1e-6
    assert travel[scene.query_object > 0].max() > 0.05


def test_visible_points_keep_their_colour(small_scene: SyntheticScene) -> None:
    """An independent witness of the tracks: the images themselves."""
    scene = small_scene
    q, k = np.nonzero(scene.visible & (np.arange(12) == 1 + scene.queries[:, :1]) & (scene.query_object > 0)[:, None])
    start = scene.queries[q].astype(int)
    now = np.round(scene.tracks_yx[q, k]).astype(int)
    before = scene.images[start[:, 0], start[:, 1], start[:, 2]].astype(float)
    after = scene.images[k, now[:, 0], now[:, 1]].astype(float)
    shuffled = np.roll(after, 7, axis=0)
    assert np.abs(before - after).mean() < 0.6 * np.abs(before - shuffled).mean()


def test_occluded_points_are_not_visible() -> None:
    scene = make_scene("pillar", frames=26, size=(60, 80))
    hidden = [int((scene.masks[t] == i).sum()) == 0 for i in (1, 2) for t in range(26)]
    assert any(hidden), "nothing ever hides behind the pillar"
    for i in (1, 2):
        gone = [t for t in range(26) if not (scene.masks[t] == i).any()]
        assert not scene.visible[scene.query_object == i][:, gone].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_what_it_says(name: str) -> None:
    scene = make_scene(name, seed=5, frames=48, size=(60, 80))
    sizes = {int(i): (scene.masks == i).sum((1, 2)) for i in np.unique(scene.masks) if i}
    assert len(sizes) >= 2
    assert all((area > 0).any() for area in sizes.values())
    centre = scene.T_map_cam[:, :3, 3]
    span = float(np.linalg.norm(centre - centre[0], axis=-1).max())
    if name == "pillar":
        assert all((area[8:40] == 0).any() and area[:6].min() > 0 and area[-1] > 0 for area in sizes.values())
    if name == "leave_return":
        assert sizes[1].min() == 0
        assert sizes[1][0] > 0
        assert sizes[1][-1] > 0
    if name == "small_baseline":
        assert span == pytest.approx(0.15, rel=0.05)
    if name in ("leave_return", "stop_and_go"):
        assert span < 1e-9


@pytest.mark.parametrize("name", UNSTEADY)
def test_most_of_an_unsteady_scene_moves(name: str) -> None:
    scene = make_scene(name, seed=5, frames=24, size=(60, 80))
    assert ((scene.masks > 0).mean((1, 2)) > 0.6).all()
    ids, counts = np.unique(scene.masks, return_counts=True)
    assert (counts.max() > 0.8 * counts.sum()) == name.endswith("wall"), ids
    span = np.linalg.norm(scene.T_map_cam[:, :3, 3] - scene.T_map_cam[0, :3, 3], axis=-1).max()
    assert (span > 0.02) == (name == "crowd")  # before all others the camera stands still


def test_the_same_seed_gives_the_same_scene_and_another_a_different_one() -> None:
    one, same, other = (make_scene("bounce", seed, frames=2, size=(40, 60)) for seed in (0, 0, 1))
    for name, array in one.truth().items():
        assert array.tobytes() == same.truth()[name].tobytes(), name
    assert np.abs(one.images.astype(int) - other.images).mean() > 5
    assert (one.in_depth_m != other.in_depth_m).any()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(Motion4DError, match="choose one of tabletop_like"):
        make_scene("nowhere")
    with pytest.raises(Motion4DError, match="at least 1"):
        make_scene("bounce", frames=0)


def test_frames_carry_the_degraded_inputs(small_scene: SyntheticScene) -> None:
    frames = small_scene.frames()
    assert len(frames) == 12
    assert frames[1].stamp_ns - frames[0].stamp_ns == 100_000_000
    assert frames[3].masks is not None
    assert (frames[3].masks == small_scene.in_masks[3]).all()
    assert frames[3].depth_m is small_scene.in_depth_m[3] or (frames[3].depth_m == small_scene.in_depth_m[3]).all()


def discs(frames: int = 60) -> np.ndarray:
    """Two discs that stand still, 120 x 160."""
    y, x = np.mgrid[:120, :160]
    labels = np.zeros((frames, 120, 160), np.uint16)
    labels[:, (y - 60) ** 2 + (x - 40) ** 2 < 28**2] = 1
    labels[:, (y - 60) ** 2 + (x - 118) ** 2 < 28**2] = 2
    return labels


def test_each_fault_of_masks_does_what_it_says() -> None:
    clean = MaskFaults(0, 0, 1e9, 3, 1e9, 3, 0, 0)
    truth = discs()

    def degraded(**changes: float) -> np.ndarray:
        faults = MaskFaults(**{**clean.__dict__, **changes})
        return degrade_masks(truth, np.random.default_rng(0), faults)

    assert score_masks(degraded(), truth).J > 0.97
    areas = (degraded(boundary_px=3.0) == 1).sum((1, 2))
    assert areas.min() < (truth[0] == 1).sum() < areas.max()
    assert (degraded(gap_every=10.0) == 1).any((1, 2)).mean() < 0.95
    assert score_masks(degraded(swap_every=10.0), truth).flips >= 2
    assert (degraded(leak_share=1.0) > 0).sum() > 1.02 * (truth > 0).sum()
    assert (degraded(hole_share=1.0) > 0).sum() < 0.98 * (truth > 0).sum()


def test_faults_of_depth_follow_their_model() -> None:
    truth = np.full((40, 60, 80), 2.0, np.float32)
    truth[:, :, 40:] = 4.0
    truth[:, :5] = 0.0  # unknown stays unknown
    given = degrade_depth(truth, np.random.default_rng(0), DepthFaults(0.038, 8.5, 0, 0, 0, 22, 0, 0, 5.0))
    assert (given[:, :5] == 0).all()
    near, far = given[:, 30, 10], given[:, 30, 70]
    np.testing.assert_allclose(far / near, 2.0, rtol=1e-4)  # only the scale breathes
    assert 0.03 < np.std(near) / 2.0 * np.sqrt(2) < 0.045
    assert 1.1 * near[0] < given[0, 30, 40] < 0.9 * far[0]  # a flying pixel
    shifted = degrade_depth(truth, np.random.default_rng(0), DepthFaults(0, 8.5, 0, 0.01, 0, 22, 0, 0, 0.1))
    assert np.std(1 / shifted[:, 30, 10] - 1 / shifted[:, 30, 70]) < 1e-5  # a shift moves all disparities alike
    assert np.std(1 / shifted[:, 30, 10]) > 2e-3


def test_severity_matches_the_shared_scene(shared_scene: Path) -> None:
    """Our faults on the shared truth are about as bad as the faults it came with."""
    with np.load(shared_scene / "gt.npz") as truth:
        masks, depth = truth["masks"], truth["depth"].astype(np.float32)
        theirs = np.log(truth["in_depth"].astype(np.float32) / depth)
        their_j = score_masks(truth["in_masks"].astype(int), masks.astype(int)).J
    ours = np.log(degrade_depth(depth, np.random.default_rng(0)) / depth)
    our_j = score_masks(degrade_masks(masks, np.random.default_rng(0)).astype(int), masks.astype(int)).J
    assert our_j == pytest.approx(their_j, abs=0.12)
    assert ours.mean((1, 2)).std() == pytest.approx(theirs.mean((1, 2)).std(), rel=0.35)
    assert ours.std((1, 2)).mean() == pytest.approx(theirs.std((1, 2)).mean(), rel=0.35)


def test_bag_holds_what_the_scene_holds(small_scene: SyntheticScene, tmp_path: Path) -> None:
    write_bag(small_scene, tmp_path / "bag")
    with AnyReader([tmp_path / "bag"]) as reader:
        assert {c.topic for c in reader.connections} == {
            "/camera/image_raw",
            "/camera/camera_info",
            "/camera/depth",
            "/camera/mask",
            "/odom",
        }
        depth, poses, stamps = [], [], set()
        for connection, stamp_ns, raw in reader.messages():
            message: Any = reader.deserialize(raw, connection.msgtype)
            stamps.add(stamp_ns)
            assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == stamp_ns
            if connection.topic == "/camera/depth":
                assert message.encoding == "32FC1"
                depth.append(message.data.view("<f4").reshape(message.height, message.width))
            if connection.topic == "/odom":
                assert (message.header.frame_id, message.child_frame_id) == ("map", "camera_optical")
                p = message.pose.pose.position
                poses.append([p.x, p.y, p.z])
    assert sorted(stamps) == small_scene.stamps_ns.tolist()
    assert (np.stack(depth) == small_scene.in_depth_m).all()
    np.testing.assert_allclose(poses, small_scene.T_map_cam[:, :3, 3])
    with pytest.raises(Motion4DError, match="exists already"):
        write_bag(small_scene, tmp_path / "bag")


def test_command_writes_everything_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bounce", "--out", str(tmp_path / "out"), "--frames", "2", "--size", "40", "60"]
    assert main(words) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"bag", "gt.npz", "queries.npy", "sheet.png"}
    with np.load(tmp_path / "out" / "gt.npz", allow_pickle=False) as truth:
        assert (truth["queries"] == np.load(tmp_path / "out" / "queries.npy")).all()
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
