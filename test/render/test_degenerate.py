"""Input no camera should ever give: defined output, zero gradients, no crash."""

from __future__ import annotations

import math

import pytest
import torch

from motion4d_ros.evaluation.splat_scenes import INPUTS, SplatScene, gradients, random_image_gradients, random_scene
from motion4d_ros.render import render
from motion4d_ros.scene.posed import PosedGaussians
from motion4d_ros.types import Camera, Motion4DError

BACKENDS = ["cpu", "reference"]
CAMERA = Camera(40.0, 40.0, 15.5, 11.5, 32, 24)
NAN, INF = math.nan, math.inf

BAD = {
    "mean nan": ("means", [NAN, 0.0, 2.0]),
    "mean inf": ("means", [0.0, INF, 2.0]),
    "behind": ("means", [0.0, 0.0, -2.0]),
    "in the camera": ("means", [0.0, 0.0, 0.0]),
    "nearer than near": ("means", [0.0, 0.0, 0.049]),
    "quaternion zero": ("quats", [0.0, 0.0, 0.0, 0.0]),
    "quaternion nan": ("quats", [NAN, 0.0, 0.0, 1.0]),
    "quaternion inf": ("quats", [INF, 0.0, 0.0, 1.0]),
    "scale nan": ("scales", [NAN, 0.1, 0.1]),
    "scale inf": ("scales", [INF, 0.1, 0.1]),
    "scale negative": ("scales", [-0.1, 0.1, 0.1]),
    "opacity nan": ("opacities", NAN),
    "opacity zero": ("opacities", 0.0),
    "opacity negative": ("opacities", -1.0),
    "feature nan": ("features", [NAN, 0.0]),
    "feature inf": ("features", [0.0, -INF]),
}


def level(scene: SplatScene) -> SplatScene:
    """The scene with the camera at the origin, so that positions above mean what they say."""
    scene.means = scene.means @ scene.T_cam_map[:3, :3].T + scene.T_cam_map[:3, 3]
    scene.T_cam_map = torch.eye(4)
    return scene


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", BAD)
def test_a_bad_gaussian_is_as_if_it_were_not_there(backend, case):
    name, value = BAD[case]
    scene = level(random_scene(1, 20, 2, CAMERA))
    without = SplatScene(CAMERA, *(t[1:] for t in scene.inputs()[:5]), scene.T_cam_map, scene.background)
    getattr(scene, name)[0] = torch.tensor(value)
    given = random_image_gradients(scene, 2)
    image, found = gradients(scene, backend, given)
    expected_image, expected = gradients(without, backend, given)
    assert torch.equal(image.features, expected_image.features)
    assert torch.equal(image.alpha, expected_image.alpha) and image.radii[0] == 0
    for key in INPUTS[:5]:
        assert (found[key][0] == 0).all(), key
        torch.testing.assert_close(found[key][1:], expected[key], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["T_cam_map"], expected["T_cam_map"], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e4, 1e18])
def test_extreme_scales_stay_finite(backend, value):
    scene = level(random_scene(1, 5, 2, CAMERA))
    scene.scales[0, 1] = value
    scene.scales[1] = value
    if backend == "reference":
        scene = scene.to(torch.float64)
    image, found = gradients(scene, backend, random_image_gradients(scene, 2))
    assert torch.isfinite(image.features).all() and torch.isfinite(image.depth).all()
    assert all(torch.isfinite(found[name]).all() for name in INPUTS)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("position", [[1e20, 0.0, 1.0], [-1e20, 1e20, 0.06], [3e38, 0.0, 3e38], [0.0, 1e9, 2.0]])
def test_far_outside(backend, position):
    scene = level(random_scene(1, 5, 2, CAMERA))
    scene.means[0] = torch.tensor(position)
    if backend == "reference":
        scene = scene.to(torch.float64)
    image, found = gradients(scene, backend, random_image_gradients(scene, 2))
    assert torch.isfinite(image.features).all()
    assert all(torch.isfinite(found[name]).all() for name in INPUTS)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("count", "channels", "width", "height"),
    [(0, 3, 32, 24), (0, 0, 1, 1), (5, 0, 32, 24), (5, 3, 1, 1), (5, 3, 1, 40), (1, 1, 17, 16)],
)
def test_small_sizes(backend, count, channels, width, height):
    camera = Camera(20.0, 20.0, (width - 1) / 2, (height - 1) / 2, width, height)
    scene = level(random_scene(1, count, channels, camera, size=0.3))
    image, found = gradients(scene, backend, random_image_gradients(scene, 2))
    assert image.features.shape == (height, width, channels)
    assert image.alpha.shape == image.depth.shape == (height, width)
    assert image.radii.shape == (count,)
    assert all(found[name].shape == getattr(scene, name).shape for name in INPUTS)
    if count == 0:
        assert (image.alpha == 0).all() and (image.depth == 0).all()
        assert torch.equal(image.features, scene.background.expand(height, width, channels))
    else:
        assert image.alpha.max() > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_opacity_above_one_is_clipped(backend):
    scene = level(random_scene(1, 1, 1, CAMERA, size=0.3))
    scene.means[0] = torch.tensor([0.0, 0.0, 2.0])
    scene.opacities[0] = 3.0
    image, found = gradients(scene, backend, random_image_gradients(scene, 2))
    assert image.alpha.max().item() == pytest.approx(0.999)
    assert all(torch.isfinite(found[name]).all() for name in INPUTS)


def call(**changes):
    scene = random_scene(1, 4, 2, CAMERA)
    values = {name: changes.get(name, getattr(scene, name)) for name in INPUTS}
    return render(
        PosedGaussians(values["means"], values["quats"], values["scales"], values["opacities"]),
        CAMERA,
        values["T_cam_map"],
        values["features"],
        background=values["background"],
        backend=changes.get("backend", "cpu"),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quats": torch.zeros(3, 4)}, "quats"),
        ({"scales": torch.ones(4)}, "scales"),
        ({"opacities": torch.ones(4, 1)}, "opacities"),
        ({"features": torch.ones(5, 2)}, "features"),
        ({"background": torch.ones(3)}, "background"),
        ({"T_cam_map": torch.eye(3)}, "T_cam_map"),
        ({"T_cam_map": torch.full((4, 4), NAN)}, "T_cam_map"),
        ({"backend": "opengl"}, "opengl"),
    ],
)
def test_wrong_calls_say_what_is_wrong(changes, message):
    with pytest.raises(Motion4DError, match=message) as caught:
        call(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="only without a GPU")
def test_gsplat_without_cuda_says_so():
    with pytest.raises(Motion4DError, match="CUDA"):
        call(backend="gsplat")
