import numpy as np
import pytest
import torch

from motion4d_ros.objects.observe import observe_scene
from motion4d_ros.scene.gaussians import GaussianBatch
from motion4d_ros.scene.scene import Scene
from motion4d_ros.types import UNKNOWN_LABEL, Camera

CAMERA = Camera(300.0, 300.0, 159.5, 119.5, 320, 240)
POSE = np.eye(4)


def plate(width: float, height: float, depth: float, spacing: float = 0.02, left: float = 0.0) -> torch.Tensor:
    """(N, 3) points of an upright plate before the camera, centred but for `left`, m."""
    x = torch.arange(-width / 2, width / 2 + 1e-9, spacing) + left
    y = torch.arange(-height / 2, height / 2 + 1e-9, spacing)
    xs, ys = torch.meshgrid(x, y, indexing="xy")
    return torch.stack([xs, ys, torch.full_like(xs, depth)], -1).reshape(-1, 3)


@pytest.fixture
def scene() -> Scene:
    """Object 1, a plate of 0.8 x 0.4 m at 2 m, moving right by 0.1 m per frame, before a wall at 4 m."""
    scene = Scene(1)
    scene.extend_times([0, 10**8, 2 * 10**8])
    quats = torch.tensor([1.0, 0, 0, 0]).expand(1, 3, 4)
    trans = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0]]])
    scene.append_bases(1, torch.tensor([0.0, 0, 2]), quats, trans)
    for points, object_id in ((plate(6, 4, 4, 0.1), 0), (plate(0.8, 0.4, 2), 1)):
        count = len(points)
        scene.append(GaussianBatch.from_points(points, torch.full((count, 3), 0.5), torch.zeros(count, 1), object_id))
    return scene


def images(hidden_columns: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Masks and depth: the plate covers columns 100..219 and rows 90..149, its left ones hidden by a thing at 1 m."""
    masks, depth = np.zeros((240, 320), int), np.full((240, 320), 4.0)
    masks[90:150, 100:220], depth[90:150, 100:220] = 1, 2.0
    masks[:, 100 : 100 + hidden_columns], depth[:, 100 : 100 + hidden_columns] = 0, 1.0
    return masks, depth


def test_a_plate_in_full_view(scene):
    masks, depth = images()
    (seen,) = observe_scene(scene, 0, CAMERA, POSE, masks, depth)
    assert seen.object_id == 1 and seen.in_view and seen.visible_pixels == 7200
    assert seen.expected_pixels == pytest.approx(7200, rel=0.12)
    assert seen.hidden_share < 0.02
    assert len(seen.points_map) == len(seen.colors) == len(seen.point_weights) == 41 * 21


def test_it_moves_with_its_bases(scene):
    masks, depth = images()
    (seen,) = observe_scene(scene, 1.5, CAMERA, POSE, masks, depth)
    np.testing.assert_allclose(seen.points_map.mean(0), [0.15, 0, 2], atol=1e-5)
    np.testing.assert_allclose(seen.T_map_base[:3, 3], [0.15, 0, 0], atol=1e-6)


@pytest.mark.parametrize("columns", [30, 60, 120])
def test_the_hidden_share_follows_what_stands_before_it(scene, columns):
    masks, depth = images(columns)
    (seen,) = observe_scene(scene, 0, CAMERA, POSE, masks, depth)
    assert seen.hidden_share == pytest.approx(columns / 120, abs=0.05)
    assert seen.expected_pixels == pytest.approx(7200, rel=0.12)  # what it would cover if nothing stood there


def test_another_objects_mask_hides_too_but_the_unknown_does_not(scene):
    masks, _ = images()
    masks[:, 100:160] = 5
    assert observe_scene(scene, 0, CAMERA, POSE, masks)[0].hidden_share == pytest.approx(0.5, abs=0.05)
    masks[:, 100:160] = UNKNOWN_LABEL
    (seen,) = observe_scene(scene, 0, CAMERA, POSE, masks)
    assert seen.hidden_share == 0 and seen.visible_pixels == 3600


def test_out_of_view(scene):
    masks, depth = np.zeros((240, 320), int), np.full((240, 320), np.nan)
    away = np.diag([-1.0, 1, -1, 1])  # looks the other way
    (seen,) = observe_scene(scene, 0, CAMERA, away, masks, depth)
    assert (seen.in_view, seen.expected_pixels, seen.visible_pixels, seen.hidden_share) == (False, 0, 0, 0.0)
    assert len(seen.points_map) == 41 * 21  # where it is remains known


def test_faint_gaussians_are_no_points(scene):
    with torch.no_grad():
        scene.params["opacity_logits"].fill_(-5.0)
    masks, depth = images()
    (seen,) = observe_scene(scene, 0, CAMERA, POSE, masks, depth)
    assert len(seen.points_map) == 0 and not seen.in_view and seen.visible_pixels == 7200
