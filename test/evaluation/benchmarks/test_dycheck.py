"""DyCheck: its files, keypoints, and views over what training saw."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from data_sets import write_dycheck

from motion4d_ros.evaluation.benchmarks import novel_views
from motion4d_ros.evaluation.benchmarks.artefacts import read_tum
from motion4d_ros.evaluation.benchmarks.dycheck import DyCheck, keypoint_queries, pck_t
from motion4d_ros.evaluation.benchmarks.dycheck_files import open_recording, read_camera, read_depth, read_keypoints
from motion4d_ros.evaluation.benchmarks.interfaces import Place
from motion4d_ros.evaluation.metrics import masked_ssim, psnr, ssim
from motion4d_ros.evaluation.synthetic import SyntheticScene
from motion4d_ros.types import Motion4DError

FRAMES, ANNOTATED = 8, (0, 3, 7)


@pytest.fixture
def root(small_scene: SyntheticScene, tmp_path: Path) -> Path:
    write_dycheck(tmp_path, "spin", small_scene, FRAMES, ANNOTATED)
    return tmp_path


def test_files_say_what_the_scene_is(root: Path, small_scene: SyntheticScene) -> None:
    assert DyCheck().sequences(root) == ["spin"]
    recording = open_recording(Place(root, "spin"))
    assert len(recording.names) == FRAMES and recording.rate == 10.0 and recording.factor == 1
    camera, T_map_cam = read_camera(recording, recording.names[3])
    assert camera.is_like(small_scene.camera) and camera.cx == pytest.approx(small_scene.camera.cx)
    assert np.allclose(T_map_cam, small_scene.T_map_cam[3])
    assert np.allclose(read_depth(recording, recording.names[2]), small_scene.depth_m[2])
    assert sorted(read_keypoints(recording)) == list(ANNOTATED)
    assert open_recording(Place(root, "spin", limit=5)).names == recording.names[:5]


def test_depth_in_millimetres_is_recognised(root: Path) -> None:
    recording = open_recording(Place(root, "spin"))
    before = read_depth(recording, recording.names[0])
    np.save(root / "spin/depth/1x/0_00000.npy", 1000 * before)
    assert np.allclose(read_depth(recording, recording.names[0]), before)


def test_what_an_analysis_is_given(root: Path, small_scene: SyntheticScene, tmp_path: Path) -> None:
    words = DyCheck().prepare(Place(root, "spin"), tmp_path / "given")
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert len(list(Path(words[0]).glob("*.png"))) == len(list(Path(given["--depth"]).glob("*.npy"))) == FRAMES
    poses = read_tum(Path(given["--poses"]))
    assert np.allclose(poses.T_map_cam, small_scene.T_map_cam[:FRAMES], atol=1e-5)
    assert given["--fps"] == "10" and given["--set"] == "window.horizon=64"
    queries = np.load(given["--queries"])
    assert len(queries) == small_scene.visible[:, ANNOTATED].sum() and set(queries[:, 0]) == set(ANNOTATED)
    assert "val" not in " ".join(words) and not [
        path for path in Path(words[0]).glob("*") if "1_" in path.resolve().name
    ]


def save_tracks(out: Path, root: Path, scene: SyntheticScene, *, wrong_px: float = 0.0, wrong_m: float = 0.0) -> Path:
    """The true tracks of the keypoints, spoilt."""
    keypoints = read_keypoints(open_recording(Place(root, "spin")))
    rows = [j for t in keypoints for j in range(len(keypoints[t])) if keypoints[t][j, 2]]
    out.mkdir(parents=True)
    np.savez(
        out / "tracks.npz",
        tracks=scene.tracks_yx[rows, :FRAMES, ::-1] + [wrong_px, 0],
        tracks_xyz=scene.tracks_xyz[rows, :FRAMES] + [0, 0, wrong_m],
        occluded=~scene.visible[rows, :FRAMES],
    )
    return out


def test_keypoints_by_hand(root: Path, small_scene: SyntheticScene, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(novel_views, "novel_view_figures", lambda *_: {})
    benchmark, place = DyCheck(), Place(root, "spin")
    good = benchmark.score(place, save_tracks(tmp_path / "a", root, small_scene))
    assert [good[name] for name in ("PCK-T", "AJ", "davg", "OA")] == pytest.approx([1, 1, 1, 1])
    assert good["EPE"] < 0.03 and good["d05"] > 0.9, "the lidar's pixel is not quite the point's"
    # 7 px of 160 are within 5 % of the longer side (8 px), 9 are not; a frame paired with itself always arrives
    near = benchmark.score(place, save_tracks(tmp_path / "b", root, small_scene, wrong_px=7))
    far = benchmark.score(place, save_tracks(tmp_path / "c", root, small_scene, wrong_px=9, wrong_m=0.2))
    assert near["PCK-T"] == 1.0 and far["PCK-T"] == pytest.approx(3 / 9)
    assert 0.15 < far["EPE"] < 0.25 and far["d10"] < 0.1
    with pytest.raises(Motion4DError, match="tracks for other keypoints"):
        benchmark.score(Place(root, "spin", limit=5), tmp_path / "a")


def test_pairs_of_frames_count_alike() -> None:
    # two queries in frame 0 (one arrives in frame 1), one in frame 1 (arrives in frame 0)
    true = np.zeros((3, 2, 2))
    xy = true.copy()
    xy[1, 1] = (50, 0)
    visible = np.ones((3, 2), bool)
    asked = np.array([0, 0, 1])
    assert pck_t(xy, true, visible, asked, (80, 100)) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    visible[:2, 1] = False  # nothing in common from 0 to 1
    assert pck_t(xy, true, visible, asked, (80, 100)) == pytest.approx(1.0)
    xy[2, 0] = np.nan
    assert pck_t(xy, true, visible, asked, (80, 100)) == pytest.approx((1 + 0 + 1) / 3)
    assert keypoint_queries({4: np.array([[1, 2, 1], [3, 4, 0]])}).tolist() == [[4, 2, 1]]


def test_similarity_over_a_mask() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)
    image = np.clip(truth + rng.normal(0, 30, truth.shape), 0, 255).astype(np.uint8)
    everywhere = np.ones((40, 50), bool)
    assert masked_ssim(image, truth, everywhere) == pytest.approx(ssim(image, truth), abs=1e-9)
    half = everywhere.copy()
    half[:, 25:] = False
    spoilt = image.copy()
    spoilt[:, 25:] = 0  # what is left out has no part in it
    assert masked_ssim(spoilt, truth, half) == pytest.approx(masked_ssim(image, truth, half), abs=1e-12)
    assert masked_ssim(truth, truth, half) == pytest.approx(1.0)
    assert psnr(spoilt, truth, where=half) == psnr(image[:, :25], truth[:, :25])


def test_similarity_over_a_mask_is_a_partial_convolution() -> None:
    """Windows computed one by one, rows first."""
    rng = np.random.default_rng(4)
    image, truth = rng.uniform(0, 255, (2, 13, 14, 1))
    where = rng.uniform(size=(13, 14)) > 0.4
    where[:, :11] &= np.arange(13)[:, None] != 6  # a row of which the first windows see nothing
    kernel = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    kernel /= kernel.sum()

    def blurred(z: np.ndarray) -> np.ndarray:
        m = where.astype(float)
        for axis in (1, 0):
            z, m = np.moveaxis(z, axis, 0), np.moveaxis(m, axis, 0)
            count = len(z) - 10
            there = np.array([m[k : k + 11].sum(0) for k in range(count)])
            value = np.array([np.tensordot(kernel, z[k : k + 11] * m[k : k + 11], 1) for k in range(count)])
            z = np.moveaxis(np.where(there > 0, value * 11 / np.maximum(there, 1), 0), 0, axis)
            m = np.moveaxis((there > 0).astype(float), 0, axis)
        return z

    x, y = image[..., 0], truth[..., 0]
    mx, my = blurred(x), blurred(y)
    vx, vy = np.maximum(blurred(x * x) - mx**2, 0), np.maximum(blurred(y * y) - my**2, 0)
    cov = blurred(x * y) - mx * my
    cov = np.sign(cov) * np.minimum(np.sqrt(vx * vy), np.abs(cov))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    assert masked_ssim(image, truth, where) == pytest.approx(expected, abs=1e-9)


def test_similarity_against_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is installed on demand")
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 255, (60, 70, 3)).astype(np.uint8)
    image = np.clip(truth + rng.normal(0, 25, truth.shape), 0, 255).astype(np.uint8)
    _, values = metrics.structural_similarity(
        image, truth, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255,
        full=True,
    )  # fmt: skip
    assert ssim(image, truth) == pytest.approx(values[5:-5, 5:-5].mean(), abs=2e-4)
    assert psnr(image, truth) == pytest.approx(metrics.peak_signal_noise_ratio(truth, image), abs=1e-9)


def test_one_view() -> None:
    truth = np.full((20, 30, 3), 100, np.uint8)
    seen = truth.copy()
    seen[:, 20:] = 200
    covisible = np.zeros((20, 30), bool)
    covisible[:, :22] = True
    figures = novel_views.view_figures(seen, truth, covisible, None)
    assert figures["mPSNR"] == pytest.approx(10 * np.log10(255**2 / (100**2 * 2 / 22)))
    assert 0 < figures["mSSIM"] < 1 and "mLPIPS" not in figures
    assert novel_views.view_figures(seen, truth, ~covisible & False, None) == {}
    with pytest.raises(Motion4DError, match="masks of"):
        novel_views.view_figures(seen, truth, covisible[:5], None)


def test_lpips_where_it_and_its_weights_are(tmp_path: Path, monkeypatch) -> None:
    class Double:
        """As `lpips.LPIPS(spatial=True)`: a map of distances, here of absolute differences."""

        def __init__(self, net: str, spatial: bool, verbose: bool) -> None:
            assert net == "alex" and spatial

        def __call__(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            assert one.shape == (1, 3, 12, 16) and one.min() >= -1 and one.max() <= 1
            return (one - other).abs().mean(1, keepdim=True)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Double))
    assert novel_views.lpips_distance() is None, "nothing is downloaded"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    distance = novel_views.lpips_distance()
    image = np.zeros((12, 16, 3), np.uint8)
    half = np.zeros((12, 16), bool)
    half[:, :8] = True
    seen = image.copy()
    seen[:, :4] = 51
    assert distance is not None and distance(seen, image, half) == pytest.approx(0.2, abs=1e-6)
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert novel_views.lpips_distance() is None


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("splits/train.json", "{", "cannot be read"),
        ("splits/train.json", "{}", "expected frame_names and time_ids"),
        ("camera/0_00002.json", "{}", "no camera in the format of Nerfies"),
        ("keypoint/1x/train/0_00003.json", "[[1, 2]]", "expected x, y, visible"),
        ("depth/1x/0_00001.npy", "no array", "cannot be read"),
    ],
)
def test_files_that_are_none(root: Path, tmp_path: Path, file: str, content: str, said: str) -> None:
    (root / "spin" / file).write_text(content, encoding="utf-8")
    with pytest.raises(Motion4DError, match=said) as caught:
        DyCheck().prepare(Place(root, "spin"), tmp_path / "given")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_recording_from_end_to_end(root: Path, tmp_path: Path) -> None:
    from motion4d_ros.cli import main

    words = ["benchmark", "dycheck", "--root", str(root), "--out", str(tmp_path / "out"), "--preset", "fast"]
    assert main(words) == 0
    content = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    figures = content["sequences"]["spin"]["figures"]
    assert figures["PCK-T"] > 0.8 and figures["EPE"] < 0.1
    assert figures["mPSNR"] > 15 and figures["mSSIM"] > 0.3, "the fitted scene, seen by cameras that did not train it"
    assert not (tmp_path / "out" / "spin" / "input").exists()
