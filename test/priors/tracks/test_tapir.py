"""`tracks.source: tapir`: bookkeeping around a stand-in that knows the motion, and the real network where it is."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.types import Camera, Frame, Motion4DError

torch = pytest.importorskip("torch")
try:
    from tapnet.torch import tapir_model
except ModuleNotFoundError:
    tapir_model = None
    # the adapter's bookkeeping is tested without the package: it only needs these names at import
    stub = types.ModuleType("tapnet.torch.tapir_model")
    stub.QueryFeatures = stub.FeatureGrids = stub.TAPIR = object  # type: ignore[attr-defined]
    parent = types.ModuleType("tapnet.torch")
    parent.tapir_model = stub  # type: ignore[attr-defined]
    sys.modules.update({"tapnet": types.ModuleType("tapnet"), "tapnet.torch": parent, "tapnet.torch.tapir_model": stub})

from motion4d_ros.models.tapir import Found, Tapir, load_tapir, read_checkpoint  # noqa: E402
from motion4d_ros.priors.tracks.tapir import TapirTracks  # noqa: E402

HEIGHT, WIDTH = 60, 80
CAMERA = Camera(60.0, 60.0, 40.0, 30.0, WIDTH, HEIGHT)
STEP = np.array([2.0, 1.0])  # px per frame, of everything
HIDDEN = range(4, 7)  # frames in which nothing is visible

needs_tapnet = pytest.mark.skipif(tapir_model is None, reason="tapnet is not installed (docs/how-to/models.md)")


@dataclass
class Known:
    """Points of the stand-in: where they are at time 0."""

    origin: np.ndarray

    @property
    def count(self) -> int:
        return len(self.origin)

    def select(self, rows: np.ndarray) -> Known:
        return Known(self.origin[rows])

    def joined(self, other: Known) -> Known:
        return Known(np.concatenate([self.origin, other.origin]))


class Oracle(Tapir):
    """A stand-in for the network: it reads the frame's number from the image and moves points accordingly."""

    def __init__(self) -> None:
        self.most = 0

    def grid(self, image: np.ndarray) -> Any:
        return int(image[0, 0, 0])

    def points(self, grid: Any, uv_px: Any, size: tuple[int, int]) -> Any:
        return Known(np.asarray(uv_px, float) - grid * STEP)

    def track(self, grids: Any, points: Any, size: tuple[int, int]) -> Any:
        self.most = max(self.most, points.count)
        uv = points.origin[:, None] + np.array(grids)[None, :, None] * STEP
        visible = np.array([0.1 if grid in HIDDEN else 0.9 for grid in grids], np.float32)
        seen = np.broadcast_to(visible, uv.shape[:2]).copy()
        return Found(uv.astype(np.float32), seen, 1 - seen), points


def frame(index: int, width: int = WIDTH) -> Frame:
    image = np.full((HEIGHT, width, 3), index, np.uint8)
    return Frame(index, image, Camera(60.0, 60.0, 40.0, 30.0, width, HEIGHT), index=index)


@pytest.fixture
def config() -> Config:
    made = Config()
    made.window.length, made.window.horizon = 3, 9
    made.tracks.max_tracks = 60
    return made


@pytest.fixture
def source(config: Config) -> TapirTracks:
    return TapirTracks(config, Oracle())


def test_points_are_followed_and_found_again_after_hiding(source: TapirTracks) -> None:
    for k in range(10):
        source.push(frame(k), None)
    found = source.tracks(0, 9)
    through = found.visible[:, :4].any(1) & found.visible[:, 7:].any(1)
    assert through.sum() > 10  # the same ids before and after
    assert not found.visible[:, list(HIDDEN)][found.query_index < 4].any()
    for column in range(10):
        rows = found.visible[:, column]
        expected = found.uv_px[:, 0] + column * STEP
        known = rows & np.isfinite(expected).all(1)
        np.testing.assert_allclose(found.uv_px[known, column], expected[known], atol=1e-3)
    assert len(np.unique(found.ids)) == found.count
    assert (found.sigma_px[found.visible] > 0).all() and np.isfinite(found.sigma_px[found.visible]).all()


def test_new_points_are_followed_back_over_the_window(source: TapirTracks) -> None:
    for k in range(5):
        source.push(frame(k), None)
    found = source.tracks(0, 4)
    late = found.query_index == 4  # nothing was visible there, so that new points were started
    assert late.any()
    inside = (found.uv_px[late, 2] >= 0).all(1)
    assert found.visible[late, 2][inside].all()  # two frames before its start
    assert not found.visible[late, 1].any()  # but no farther than the window is long


def test_objects_get_more_points(config: Config) -> None:
    config.tracks.max_tracks = 1000
    source = TapirTracks(config, Oracle())
    masks = np.zeros((HEIGHT, WIDTH), np.int32)
    masks[20:40, 30:60] = 1
    source.push(frame(0), masks)
    source.push(frame(1), masks)
    found = source.tracks(0, 1)
    x, y = found.uv_px[found.query_index == 0, 0].astype(int).T
    on_object = masks[y, x] > 0
    density = on_object.sum() / (masks > 0).sum(), (~on_object).sum() / (masks == 0).sum()
    assert density[0] > 2 * density[1]


def test_number_of_points_and_memory_are_bounded(source: TapirTracks) -> None:
    for k in range(60):
        source.push(frame(k), None)
    network = source._network
    assert isinstance(network, Oracle) and network.most <= 60
    assert len(source._indices) == len(source._grids) == 12  # horizon and window
    assert len(source._table.ids) < 60 * 12
    assert source._indices[0] == 48
    found = source.tracks(50, 59)
    assert found.first_index == 50 and found.length == 10


def test_query_goes_both_ways(source: TapirTracks) -> None:
    for k in range(3):
        source.push(frame(k), None)
    found = source.query(np.array([[1, 20.0, 30.0], [2, 10.0, 3.0], [40, 1.0, 1.0]]))
    np.testing.assert_allclose(found.uv_px[0], np.array([[30.0, 20.0]]) + (np.arange(3)[:, None] - 1) * STEP)
    assert found.visible[0].all()
    assert list(found.visible[1]) == [False, True, True]  # it came in from the left
    assert not found.visible[2].any()  # a frame nobody knows
    assert set(found.ids).isdisjoint(source.tracks(0, 2).ids)


def test_forgetting_keeps_what_is_alive(source: TapirTracks) -> None:
    for k in range(3):
        source.push(frame(k), None)
    before = source.tracks(1, 2)
    source.forget_before(1)
    after = source.tracks(1, 2)
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.uv_px, after.uv_px)
    source.push(frame(3), None)
    assert np.isin(source.tracks(2, 3).ids, before.ids).sum() > 10


def test_gap_and_new_size_start_afresh(source: TapirTracks) -> None:
    for k in (0, 1, 5):
        source.push(frame(k), None)
    assert source._indices == [5]
    source.push(frame(6, width=100), None)
    assert source._indices == [6]
    source.reset()
    assert source._indices == []


def test_missing_weights_say_what_to_do(config: Config, tmp_path: Any) -> None:
    config.models.folder = str(tmp_path)
    with pytest.raises(Motion4DError, match="motion4d models fetch bootstapir-online"):
        load_tapir(config)


@needs_tapnet
@pytest.mark.slow
def test_frame_by_frame_equals_all_at_once() -> None:
    """The real network with random weights: its memory makes the stream give what the whole clip gives."""
    torch.manual_seed(0)
    network = Tapir(tapir_model.TAPIR(pyramid_level=1, use_casual_conv=True))
    rng = np.random.default_rng(0)
    grids = [network.grid(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)) for _ in range(4)]
    start = np.array([[10.0, 20.0], [50.0, 30.0], [70.0, 5.0]])
    points = network.points(grids[0], start, (HEIGHT, WIDTH))
    whole, _ = network.track(grids, points, (HEIGHT, WIDTH))
    assert whole.uv_px.shape == (3, 4, 2) and ((whole.visible >= 0) & (whole.visible <= 1)).all()
    streamed = network.points(grids[0], start, (HEIGHT, WIDTH))
    for column, grid in enumerate(grids):
        found, streamed = network.track([grid], streamed, (HEIGHT, WIDTH))
        np.testing.assert_allclose(found.uv_px[:, 0], whole.uv_px[:, column], atol=0.02)
        np.testing.assert_allclose(found.visible[:, 0], whole.visible[:, column], atol=1e-3)
    some = streamed.select(np.array([2, 0])).joined(streamed.select(np.array([1])))
    again, _ = network.track([grids[1]], some, (HEIGHT, WIDTH))
    straight, _ = network.track([grids[1]], streamed, (HEIGHT, WIDTH))
    np.testing.assert_allclose(again.uv_px[[1, 2, 0]], straight.uv_px, atol=0.02)


@needs_tapnet
def test_foreign_checkpoint_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"something": torch.zeros(3)}, path)
    with pytest.raises(Motion4DError, match="not the weights"):
        read_checkpoint(path)
