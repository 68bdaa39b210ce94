import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from motion4d_ros.scene.gaussians import GaussianBatch, neighbour_distance
from motion4d_ros.scene.posed import PosedGaussians
from motion4d_ros.scene.rotations import quat_to_matrix
from motion4d_ros.scene.scene import Scene
from motion4d_ros.types import Motion4DError

MS = 1_000_000


def matrices(quats: torch.Tensor) -> np.ndarray:
    return quat_to_matrix(quats).detach().numpy()


def one_body(times: int = 5, twist: tuple[float, ...] = (0.3, -0.1, 0.2, 0.1, 0.4, -0.2)) -> Scene:
    """Object 1: three Gaussians on a base of constant twist (m, rad per frame); frames 3, 4, … every 100 ms."""
    scene = Scene(1, dtype=torch.float64)
    scene.extend_times([k * 100 * MS for k in range(times)], first_index=3)
    steps = np.arange(times)[:, None]
    quats = Rotation.from_rotvec(steps * np.array(twist[3:])).as_quat(scalar_first=True)
    scene.append_bases(
        1, torch.tensor([1.0, 2.0, 3.0]), torch.tensor(quats)[None], torch.tensor(steps * np.array(twist[:3]))[None]
    )
    points = torch.tensor([[1.0, 2, 3], [1.5, 2, 3], [1, 2, 4]], dtype=torch.float64)
    scene.append(GaussianBatch.from_points(points, torch.zeros(3, 3), torch.zeros(3, 1), 1))
    return scene


def truth(time: float, points: np.ndarray, twist=(0.3, -0.1, 0.2, 0.1, 0.4, -0.2)) -> np.ndarray:
    center, age = np.array([1.0, 2, 3]), time - 3
    turn = Rotation.from_rotvec(age * np.array(twist[3:])).as_matrix()
    return (points - center) @ turn.T + center + age * np.array(twist[:3])


@pytest.mark.parametrize("time", [3, 4, 5.25, 6.9, 7, 7.5, 9.0, 2.5, 1])
def test_constant_twist_is_reproduced_between_and_beyond_frames(time):
    scene = one_body()
    canonical = scene.params["means"].detach().numpy()
    posed = scene.at(time)
    np.testing.assert_allclose(posed.means.detach(), truth(time, canonical), atol=1e-9)
    turn = Rotation.from_rotvec((time - 3) * np.array([0.1, 0.4, -0.2])).as_matrix()
    np.testing.assert_allclose(matrices(posed.quats), np.broadcast_to(turn, (3, 3, 3)), atol=1e-9)
    np.testing.assert_allclose(scene.positions_at([time, 4])[:, 0].detach(), truth(time, canonical), atol=1e-9)


def test_new_times_continue_the_motion():
    scene = one_body()
    scene.extend_times([500 * MS, 700 * MS])  # frames 8 and 9, at ages 5 and 7
    canonical = scene.params["means"].detach().numpy()
    for frame, age_time in ((8, 8.0), (9, 10.0)):
        np.testing.assert_allclose(scene.at(frame).means.detach(), truth(age_time, canonical), atol=1e-9)


def test_velocity_is_in_metres_per_second():
    scene = one_body(twist=(0.3, -0.1, 0.2, 0, 0, 0))
    for time in (3, 5, 7, 4.5, 9):  # frames are 0.1 s apart
        expected = np.tile([3.0, -1.0, 2.0], (3, 1))
        np.testing.assert_allclose(scene.velocities_at(time).detach(), expected, atol=1e-9)
    assert one_body(times=1).velocities_at(3).abs().max() == 0


def test_uneven_stamps_map_to_indices_and_back(scene):
    for stamp in (900, 1000, 1040, 1180, 1549, 1550, 1800):
        index = scene.bases.index_of_stamp(stamp * MS)
        assert scene.bases.seconds_at([index])[0] == pytest.approx(stamp / 1000 - 1.0, abs=1e-9)
    assert scene.bases.index_of_stamp(1180 * MS) == pytest.approx(12)
    assert scene.bases.index_of_stamp(1240 * MS) == pytest.approx(12.5)


def test_whole_frames_give_the_stored_poses(scene):
    for k, frame in enumerate(scene.bases.indices):
        poses = scene.bases.poses_at([frame])
        np.testing.assert_allclose(matrices(poses.quats[:, 0]), matrices(scene.bases.quats[:, k]), atol=1e-12)
        torch.testing.assert_close(poses.trans[:, 0], scene.bases.trans[:, k])
    near = scene.at(12 + 1e-9).means
    torch.testing.assert_close(near, scene.at(12).means, atol=1e-7, rtol=0)


def test_only_an_objects_own_bases_carry_it(scene):
    weights = scene.motion_weights().detach()
    owner, of = scene.bases.owner, scene.object_id[scene.moving_rows]
    assert weights[of[:, None] != owner[None]].abs().max() == 0
    np.testing.assert_allclose(weights.sum(1), 1)
    with torch.no_grad():
        before = scene.at(13).means.clone()
        scene.bases.trans[2] += 1.0  # object 2's only base
    moved = (scene.at(13).means - before).detach()
    np.testing.assert_allclose(moved[scene.object_id == 2], 1, atol=1e-12)
    assert moved[scene.object_id != 2].abs().max() == 0


def test_positions_are_the_blend_of_the_bases_images(scene):
    poses = scene.bases.poses_at([12.5])
    rotations, weights = quat_to_matrix(poses.quats[:, 0]), scene.motion_weights()
    x = scene.params["means"][scene.moving_rows]
    images = torch.einsum("bij,nbj->nbi", rotations, x[:, None] - poses.centers) + poses.centers + poses.trans[:, 0]
    expected = (weights[..., None] * images).sum(1)
    torch.testing.assert_close(scene.positions_at([12.5])[:, 0], expected)
    torch.testing.assert_close(scene.means_at([12.5])[scene.moving_rows, 0], expected)
    assert torch.equal(scene.at(12.5).means[:5], scene.params["means"][:5])  # the background stays


@pytest.mark.parametrize("time", [12, 12.4, 17.5, 9.0])
def test_gradients(scene, time):
    names = ("means", "quats", "log_scales", "opacity_logits", "motion_logits", "base_quats", "base_trans")

    def posed(*values):
        for name, value in zip(names, values):
            scene.params[name] = value
        result = scene.at(time)
        return (
            result.means, quat_to_matrix(result.quats), result.scales, result.opacities, scene.positions_at([11, time])
        )  # fmt: skip

    inputs = tuple(scene.params[name].detach().requires_grad_(True) for name in names)
    assert torch.autograd.gradcheck(posed, inputs, atol=1e-6)
    for value in posed(*inputs):  # gradcheck is content with zeros: make sure that something flows
        grads = torch.autograd.grad(value.square().sum(), inputs, allow_unused=True, retain_graph=True)
        assert any(grad is not None and grad.abs().max() > 0 for grad in grads)
    grads = torch.autograd.grad(posed(*inputs)[0].square().sum(), inputs, allow_unused=True)
    for name, grad in zip(names, grads):
        if name in ("means", "motion_logits", "base_quats", "base_trans"):
            assert grad.abs().max() > 0, name


def test_blend_of_rotations_does_not_depend_on_quaternion_signs(scene):
    before = matrices(scene.at(12).quats)
    with torch.no_grad():
        scene.bases.quats[1] *= -1
    np.testing.assert_allclose(matrices(scene.at(12).quats), before, atol=1e-12)


def test_an_object_without_bases_stays(scene):
    scene.append_bases(9, torch.zeros(3), scene.bases.quats.detach()[:1], scene.bases.trans.detach()[:1])
    scene.keep_bases(scene.bases.owner != 2)
    two = scene.object_id == 2
    torch.testing.assert_close(scene.at(14).means[two], scene.params["means"][two])
    assert scene.objects() == [1, 2, 9]
    np.testing.assert_array_equal(scene.object_pose(2, 14), np.eye(4))


def test_a_base_that_joins_hardly_moves_the_object(scene):
    one = scene.object_id == 1
    before = scene.at(13).means[one].detach()
    quats, trans = scene.bases.quats.detach()[:1], scene.bases.trans.detach()[:1]
    scene.append_bases(1, torch.zeros(3), quats, trans + 0.5)
    weights = scene.motion_weights().detach()[:, -1]
    of = scene.object_id[scene.moving_rows]
    np.testing.assert_allclose(weights[of == 1], 0.02 / 1.02, rtol=1e-9)
    assert (scene.at(13).means[one] - before).norm(dim=1).max() < 0.03


def test_object_pose_is_the_rigid_motion_of_its_gaussians():
    scene = one_body()
    for time in (3, 5.5, 8):
        pose = scene.object_pose(1, time)
        canonical = scene.params["means"].detach().numpy()
        moved = canonical @ pose[:3, :3].T + pose[:3, 3]
        np.testing.assert_allclose(moved, truth(time, canonical), atol=1e-9)


def test_object_pose_carries_the_centre_of_a_bending_object_exactly(scene):
    rows = (scene.object_id == 1).nonzero().squeeze(1)
    pose = scene.object_pose(1, 13.0)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    with torch.no_grad():
        scene.params["motion_logits"][rows] = 0.0  # all alike: the mean of the images is the image of the mean
    pose = scene.object_pose(1, 13.0)
    center = scene.params["means"][rows].detach().mean(0).numpy()
    image = scene.at(13.0).means[rows].detach().mean(0).numpy()
    np.testing.assert_allclose(pose[:3, :3] @ center + pose[:3, 3], image, atol=1e-12)


def test_dropped_times_are_archived(scene):
    now = scene.at(14).means.detach()
    archived = scene.drop_times_before(13)
    assert (archived.first_index, len(archived.stamps_ns)) == (10, 3)
    assert list(scene.bases.indices) == [13, 14, 15]
    torch.testing.assert_close(scene.at(14).means.detach(), now)


def test_the_last_time_never_leaves_the_horizon(scene):
    archived = scene.drop_times_before(100)
    assert list(scene.bases.indices) == [15] and len(archived.stamps_ns) == 5
    assert scene.drop_times_before(3).stamps_ns == []
    assert scene.at(15.7).means.isfinite().all()


def test_an_empty_scene():
    scene = Scene(3)
    scene.extend_times([0, 100 * MS], first_index=4)
    assert scene.at(4.5).means.shape == (0, 3)
    assert scene.positions_at([4, 4.5, 9]).shape == (0, 3, 3)
    scene.append(GaussianBatch.from_points(torch.ones(1, 3), torch.ones(1, 3), torch.ones(1, 3)))
    assert scene.at(7).means.tolist() == [[1, 1, 1]]


def test_misuse_is_told(scene):
    with pytest.raises(ValueError, match="semantics has shape"):
        scene.append(GaussianBatch.from_points(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 5)))
    with pytest.raises(ValueError, match="ascending"):
        scene.extend_times([5])
    with pytest.raises(ValueError, match="6 times"):
        scene.append_bases(1, torch.zeros(3), torch.zeros(1, 5, 4), torch.zeros(1, 5, 3))
    with pytest.raises(ValueError, match="bool mask"):
        scene.prune(torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="no times"):
        Scene(1).bases.poses_at([0])


def test_grown_channels_start_at_zero(scene):
    before = scene.params["semantics"].detach().clone()
    scene.grow_channels(4)
    assert torch.equal(scene.params["semantics"][:, :2], before)
    assert scene.params["semantics"][:, 2:].abs().max() == 0 and scene.channels == 4


def test_from_points_measures_its_neighbours():
    grid = torch.stack(torch.meshgrid(*[torch.arange(4.0)] * 3, indexing="ij"), -1).reshape(-1, 3) * 0.1
    torch.testing.assert_close(neighbour_distance(grid), torch.full((64,), 0.1), atol=1e-6, rtol=0)
    new = GaussianBatch.from_points(grid, grid, grid, torch.arange(64) % 2)
    torch.testing.assert_close(new.opacity_logits.sigmoid(), torch.full((64,), 0.7))
    assert new.dynamic.tolist() == [False, True] * 32
    with pytest.raises(Motion4DError, match="NaN"):
        neighbour_distance(torch.full((3, 3), torch.nan))


def test_posed_gaussians_select_and_cat(scene):
    posed = scene.at(12)
    mask = torch.arange(posed.count) % 3 == 0
    both = PosedGaussians.cat([posed.select(mask), posed.select(~mask)])
    assert both.count == posed.count
    assert torch.equal(both.means[: int(mask.sum())], posed.means[mask])
