"""Sources that pass on what frames bring, and chained flow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from motion4d_ros.config import Config
from motion4d_ros.priors.depth.sensor import GivenDepth, NoDepth
from motion4d_ros.priors.flow.guided_flow import guided
from motion4d_ros.priors.flow.optical_flow import dis_flow
from motion4d_ros.priors.masks.given import GivenMasks, NoMasks
from motion4d_ros.priors.pose.given import MAX_BRIDGED, GivenPose, StaticPose
from motion4d_ros.priors.tracks.flow_tracks import FlowTracks
from motion4d_ros.types import UNKNOWN_LABEL, Camera, Frame, PoseStatus, Prompt, Scale

CAMERA = Camera(100.0, 100.0, 63.5, 47.5, 128, 96)
BACKDROP = np.asarray(
    cv2.normalize(
        cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (220, 260)).astype(np.float32), (0, 0), 2.0),
        None, 0, 255, cv2.NORM_MINMAX,
    ),
    np.uint8,
)  # fmt: skip


def frame(index: int = 0, gray: np.ndarray | None = None, **values: Any) -> Frame:
    gray = np.zeros(CAMERA.size, np.uint8) if gray is None else gray
    return replace(Frame((index + 1) * 10**8, np.repeat(gray[..., None], 3, -1), CAMERA, index=index), **values)


def config(**values: Any) -> Config:
    result = Config()
    result.update(values)
    return result


# -- masks, depth, pose ------------------------------------------------------------------------------------------------


def test_given_masks_pass_and_missing_ones_are_unknown() -> None:
    source = GivenMasks(Config())
    ids = np.arange(96 * 128).reshape(96, 128).astype(np.uint16)
    assert (source.masks(frame(masks=ids), None) == ids).all()
    assert (source.masks(frame(), None) == UNKNOWN_LABEL).all()
    assert not source.accepts_prompts and source.refresh(frame(), [Prompt(0, 1)]) is None
    assert (NoMasks(Config()).masks(frame(masks=ids), None) == 0).all()


def test_given_depth_is_metric_and_keeps_to_its_range() -> None:
    source = GivenDepth(config(**{"depth.minimum": 0.5, "depth.maximum": 5.0}))
    depth = np.full(CAMERA.size, 2.0, np.float32)
    depth[0, :4] = [0.0, np.nan, 0.4, 5.1]
    pose = StaticPose(Config()).pose(frame(), None)
    prior = source.depth(frame(depth_m=depth), pose, None)
    assert prior is not None and prior.scale is Scale.METRIC
    assert np.isnan(prior.depth[0, :4]).all() and (prior.depth[1:] == 2.0).all()
    assert source.depth(frame(), pose, None) is None
    assert source.depth(frame(depth_m=np.full(CAMERA.size, np.nan, np.float32)), pose, None) is None
    assert NoDepth(Config()).depth(frame(depth_m=depth), pose, None) is None


def walked(k: int) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_rotvec([0, 0.1 * k, 0]).as_matrix(), [0.2 * k, 0, 0]
    return T


def test_short_gaps_are_bridged_at_constant_velocity_and_long_ones_are_lost() -> None:
    source = GivenPose(Config())
    for k in range(3):
        assert source.pose(frame(k, T_map_cam=walked(k)), None).status is PoseStatus.OK
    step = walked(2) @ np.linalg.inv(walked(1))
    expected = walked(2)
    for k in range(3, 3 + MAX_BRIDGED):
        expected = step @ expected
        bridged = source.pose(frame(k), None)
        assert bridged.status is PoseStatus.PREDICTED and bridged.sigma_m > 0
        assert bridged.T_map_cam == pytest.approx(expected)
    lost = source.pose(frame(9), None)
    assert lost.status is PoseStatus.LOST and lost.T_map_cam == pytest.approx(expected)
    assert source.pose(frame(10, T_map_cam=walked(10)), None).status is PoseStatus.OK


def test_without_any_pose_the_camera_is_lost_at_the_origin() -> None:
    source = GivenPose(Config())
    source.pose(frame(0, T_map_cam=walked(5)), None)
    source.reset()
    prior = source.pose(frame(1), None)
    assert prior.status is PoseStatus.LOST and (prior.T_map_cam == np.eye(4)).all()
    assert StaticPose(Config()).pose(frame(T_map_cam=walked(3)), None).T_map_cam == pytest.approx(np.eye(4))


# -- chained flow ------------------------------------------------------------------------------------------------------


def panned(k: int, step: int = 3) -> np.ndarray:
    """The backdrop through a window that goes `step` px to the left per frame: things go right."""
    x = 100 - step * k
    return np.ascontiguousarray(BACKDROP[40 : 40 + 96, x : x + 128])


def tracked(length: int = 6, masks: np.ndarray | None = None, **values: Any) -> FlowTracks:
    source = FlowTracks(config(**{"window.horizon": 16, "window.length": 4, **values}))
    for k in range(length):
        source.push(frame(k, panned(k)), masks)
    return source


def test_chains_follow_the_image() -> None:
    tracks = tracked().tracks(0, 5)
    assert tracks.count > 60 and tracks.length == 6
    whole = tracks.visible.all(1)
    assert whole.sum() > 30
    travelled = tracks.uv_px[whole, 5] - tracks.uv_px[whole, 0]
    assert np.median(np.abs(travelled - [15, 0])) < 0.2
    assert (np.diff(tracks.sigma_px[whole & (tracks.query_index == 0)], axis=1) > 0).all()  # drift
    assert len(np.unique(tracks.ids)) == tracks.count


def test_queries_run_both_ways_and_end_at_the_border() -> None:
    source = tracked()
    tracks = source.query(np.array([[3.0, 48.0, 60.0], [3.0, 50.0, 6.0]]))
    assert tracks.visible[0].all()
    assert tracks.uv_px[0, :, 0] == pytest.approx(60 + 3 * (np.arange(6) - 3), abs=0.5)
    assert tracks.uv_px[0, 3].tolist() == [60, 48]
    assert not tracks.visible[1, 0] and tracks.visible[1, 5]  # it came in from the left


def test_flow_between_kept_frames_and_where_it_is_trusted() -> None:
    flow, trusted = tracked().flow(2, 3)
    assert np.median(flow[20:-20, 20:-20], axis=(0, 1)) == pytest.approx([3, 0], abs=0.2)
    assert trusted[20:-20, 20:-20].mean() > 0.95 and not trusted[:, -1].any()


def test_objects_get_denser_chains() -> None:
    masks = np.zeros(CAMERA.size, np.int32)
    masks[:, 64:] = 1
    source = FlowTracks(Config())
    source.push(frame(0, panned(0)), masks)
    source.push(frame(1, panned(1)), masks)
    start = source.tracks(0, 1)
    first = start.uv_px[start.query_index == 0, 0]
    assert (first[:, 0] >= 64).sum() > 2.5 * (first[:, 0] < 64).sum()


def test_a_cut_ends_most_chains() -> None:
    source = tracked(4)
    other = np.ascontiguousarray(BACKDROP[::-1, ::-1][:96, :128])
    source.push(frame(4, other), None)
    tracks = source.tracks(0, 4)
    older = tracks.query_index < 4
    assert tracks.visible[older, 3].mean() > 0.9
    assert tracks.visible[older, 4].mean() < 0.4  # smooth blobs can look alike


def test_a_gap_in_the_numbers_starts_anew() -> None:
    source = tracked(4)
    source.push(frame(9, panned(9)), None)
    source.push(frame(10, panned(10)), None)
    assert source.tracks(9, 10).count > 30
    with pytest.raises(ValueError):
        source.tracks(0, 10)


def test_memory_stays_bounded_and_ids_are_never_reused() -> None:
    source = tracked(4, **{"tracks.max_tracks": 60})
    ids = set(source.tracks(0, 3).ids.tolist())
    for k in range(4, 12):
        source.push(frame(k, panned(k)), None)
        source.forget_before(k - 3)
        kept = source.tracks(k - 3, k)
        assert kept.length == 4 and kept.visible[:, -1].sum() <= 60
        assert len(source.flows.indices) <= 4
    source.reset()
    source.push(frame(50, panned(0)), None)
    source.push(frame(51, panned(1)), None)
    assert not ids & set(source.tracks(50, 51).ids.tolist())


# -- guided flow -------------------------------------------------------------------------------------------------------


def thrown(x: int) -> tuple[np.ndarray, np.ndarray]:
    """A textured ball of 12 px at column `x` before the backdrop, and its mask."""
    image = BACKDROP[40:136, 100:228].copy()
    y, u = np.mgrid[:96, :128]
    inside = (u - x) ** 2 + (y - 48) ** 2 < 6.5**2
    texture = BACKDROP[170:210, 10:50]
    image[inside] = 255 - texture[(y - 28)[inside] % 40, (u - x + 20)[inside] % 40]
    return image, inside.astype(np.int32)


def test_masks_guide_the_flow_of_a_fast_ball() -> None:
    (a, mask_a), (b, mask_b) = thrown(30), thrown(62)  # farther than it is wide
    plain = dis_flow(a, b)
    mended = guided(plain, a, b, mask_a, mask_b)
    core = cv2.erode(mask_a.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert np.abs(np.median(plain[core], axis=0) - [32, 0]).max() > 5
    assert np.median(mended[core], axis=0) == pytest.approx([32, 0], abs=0.7)
    far = cv2.dilate(mask_a.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    assert (mended[far] == plain[far]).all()


def test_a_wrong_mask_does_no_harm() -> None:
    (a, mask_a), (b, _) = thrown(30), thrown(30)
    plain = dis_flow(a, b)
    wrong = np.roll(mask_a, (20, 40), (0, 1))
    mended = guided(plain, a, b, mask_a, wrong)
    assert np.abs(mended - plain).max() < 1.0


def test_slow_small_and_unequal_masks_leave_the_flow_alone() -> None:
    (a, mask_a), (b, mask_b) = thrown(30), thrown(32)
    plain = dis_flow(a, b)
    assert guided(plain, a, b, mask_a, mask_b) is plain  # slow
    speck = np.zeros_like(mask_a)
    speck[40:45, 90:95] = 1
    assert guided(plain, a, b, mask_a, speck) is plain  # small
    leak = np.zeros_like(mask_a)
    leak[:, 60:] = 1
    assert guided(plain, a, b, mask_a, leak) is plain  # a leak
