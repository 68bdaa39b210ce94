"""gsplat on CUDA against the reference and the C++ library: ``python -m motion4d_ros.evaluation.gpu_check``.

Values and gradients of every input on the same scenes. Prints a table, exits with 1 when they disagree, and with 0 and
a line that starts with SKIP where there is no GPU.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from motion4d_ros.evaluation.splat_scenes import (
    INPUTS,
    SplatScene,
    gradients,
    random_image_gradients,
    random_scene,
    relative_difference,
)
from motion4d_ros.failures import guarded
from motion4d_ros.logs import told
from motion4d_ros.render import RenderOutput
from motion4d_ros.render.gpu import prove_gpu
from motion4d_ros.types import Camera, Motion4DError

TOLERANCE_IMAGE = 1e-4  # of the largest value; pixels on a threshold are left out, see `compare`
TOLERANCE_GRADIENT = 1e-3  # of the largest entry; float32 atomics on the GPU add up in any order
THRESHOLD_JUMP = 1.5 / 255.0  # what one Gaussian on the 1/255 threshold may change
THRESHOLD_SHARE = 1e-3  # pixels that may lie on a threshold

CAMERA = Camera(90.0, 100.0, 61.0, 40.0, 120, 90)


def scenes() -> dict[str, SplatScene]:
    """What is compared, by name: sizes, channel counts beyond one chunk of gsplat, Gaussians that cannot be drawn."""
    found = {
        "small Gaussians": random_scene(1, 2000, 3, CAMERA, size=0.02),
        "large Gaussians": random_scene(2, 300, 3, CAMERA, size=0.4),
        "opaque": random_scene(3, 2000, 3, CAMERA, size=0.08, opacity=1.0),
        "no channels": random_scene(4, 300, 0, CAMERA),
        "16 channels": random_scene(5, 500, 16, CAMERA),
        "40 channels": random_scene(6, 500, 40, CAMERA),
        "no Gaussians": random_scene(7, 0, 3, CAMERA),
        "one pixel": random_scene(8, 20, 3, Camera(20.0, 20.0, 0.0, 0.0, 1, 1), size=0.3),
        "undrawable": random_scene(9, 300, 3, CAMERA),
    }
    bad = found["undrawable"]
    bad.means[0], bad.quats[1], bad.scales[2], bad.opacities[3] = torch.nan, 0.0, -1.0, torch.nan
    bad.means[4] = -10.0 * bad.T_cam_map[2, :3]  # behind the camera
    bad.features[5] = torch.inf
    return found


def compare(scene: SplatScene, backend: str) -> dict[str, float]:
    """Largest relative difference of gsplat from `backend`, by image and by input.

    Pixels where the images differ by about what one Gaussian at the 1/255 threshold adds are set aside: there, float32
    on two machines rightly disagrees. They must be few, and the gradients are those of all other pixels.
    """
    truth_scene = scene.to(torch.float64) if backend == "reference" else scene
    on_gpu = scene.to("cuda")
    truth = truth_scene.render(backend)
    clear = _clear(on_gpu.render("gsplat"), truth)
    given = [g * (clear[..., None] if g.ndim == 3 else clear) for g in random_image_gradients(truth_scene, 1)]
    truth, expected = gradients(truth_scene, backend, (given[0], given[1], given[2]))
    on = [g.float().cuda() for g in given]
    image, found = gradients(on_gpu, "gsplat", (on[0], on[1], on[2]))
    result = {"set aside": float(1.0 - clear.double().mean())}
    for name in ("features", "alpha", "depth_sum"):
        value, other = getattr(image, name).cpu().double(), getattr(truth, name).double()
        mask = clear[..., None] if value.ndim == 3 else clear
        result[name] = relative_difference(value * mask, other * mask)
    for name in INPUTS:
        result[f"d {name}"] = relative_difference(found[name], expected[name])
    return result


def _clear(image: RenderOutput, truth: RenderOutput) -> Tensor:
    difference = (image.alpha.detach().cpu().double() - truth.alpha.detach().double()).abs()
    return (difference < 1e-5) | (difference > THRESHOLD_JUMP)


def failures(result: dict[str, float]) -> list[str]:
    """The entries of a comparison that are not within tolerance."""
    bad = []
    for name, value in result.items():
        limit = TOLERANCE_GRADIENT if name.startswith("d ") else TOLERANCE_IMAGE
        if name == "set aside":
            limit = THRESHOLD_SHARE
        if not value <= limit:
            bad.append(name)
    return bad


def main() -> int:
    """The command; returns its exit status."""
    if not torch.cuda.is_available():
        print("SKIP: PyTorch sees no CUDA GPU, so gsplat was not compared with the other renderers")
        return 0
    with told(lambda level, text: print(text)):
        report = prove_gpu()
    if not report.compiled:
        print(f"{report.problem}: {report.remedy}", file=sys.stderr)
        return 2
    disagreements = 0
    try:
        print(
            f"{report.gpu}, CUDA {report.cuda}, gsplat {report.gsplat}: {report.problem or 'the test picture is right'}"
        )
        for backend in ("reference", "cpu"):
            for name, scene in scenes().items():
                result = compare(scene, backend)
                bad = failures(result)
                disagreements += len(bad)
                print(f"{'FAIL' if bad else 'ok  '} gsplat against {backend}, {name}:")
                print("     " + ", ".join(f"{key} {value:.1e}" for key, value in result.items()))
    except (Motion4DError, RuntimeError) as error:  # CUDA's are RuntimeErrors
        print(error, file=sys.stderr)
        return 2
    print("all agree" if disagreements == 0 else f"{disagreements} disagreements")
    return int(disagreements > 0)


if __name__ == "__main__":
    sys.exit(guarded("gpu_check", main))
