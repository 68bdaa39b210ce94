"""Looking at the scene at any time, now or long ago: full-size views, the archive, and query tracks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from motion4d_ros.fit.optimisation.mapper import Mapper
from motion4d_ros.fit.output.depth_uncertainty import depth_sigma
from motion4d_ros.fit.output.query_tracks import MovingGaussians, Snapshot, trace
from motion4d_ros.fit.output.scene_readout import known_motion, masks, pose_covariance, rendered_labels
from motion4d_ros.fit.output.track_correction import TrackCorrections
from motion4d_ros.fit.window.archive import Archive, ArchivedFrame, RetiredObject
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.fit.window.scene_scale import sight_of
from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.scene.storage import PLY_FILE, SCENE_FILE, export_ply, save_scene
from motion4d_ros.types import FloatArray, Motion4DError, QueryTracks, Rendered, Scale

EMPTY_ALPHA = 0.3  # less than this: nothing is there


def scene_view(mapper: Mapper, state: FrameState) -> Rendered:
    """Images of one frame at the input's size."""
    view = mapper.view(state)
    size = (state.output_camera.width, state.output_camera.height)

    def enlarge(array: FloatArray) -> FloatArray:
        same = array.shape[:2] == size[::-1]
        return array if same else np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_LINEAR))

    alpha = enlarge(view.output.alpha.cpu().numpy())
    depth = enlarge(view.output.depth.cpu().numpy()).astype(np.float32)
    seen_masks = masks(mapper, view, state, state.output_camera)

    def known(label: int) -> tuple[PoseCovariance | None, float]:
        sight = sight_of(state, label)
        return pose_covariance(mapper, label, state.index), 0.0 if sight is None else sight.sigma

    sigma = depth_sigma(depth, enlarge(state.depth_sigma), seen_masks, state.T_map_cam, state.output_camera, known)
    confidence = enlarge((view.confidence / view.output.alpha.clamp_min(1e-3)).clamp(0, 1).cpu().numpy())
    rgb = enlarge(view.rgb.clamp(0, 1).cpu().numpy())
    return Rendered(
        (rgb * 255).round().astype(np.uint8),
        np.where(alpha > EMPTY_ALPHA, depth, np.nan).astype(np.float32),
        np.where(alpha > EMPTY_ALPHA, sigma, np.nan).astype(np.float32),
        alpha.astype(np.float32),
        confidence.astype(np.float32),
        seen_masks,
    )


def snapshot(mapper: Mapper, state: FrameState) -> Snapshot:
    """One frame of the horizon as rendered at working size."""
    view = mapper.view(state)
    alpha = view.output.alpha.cpu().numpy()
    depth = np.where(alpha > EMPTY_ALPHA, view.output.depth.cpu().numpy(), np.nan).astype(np.float64)
    labels = masks(mapper, view, state, state.frame.camera)
    unlike = labels != rendered_labels(mapper, view, state.frame.camera)
    depth = np.where(unlike, state.depth_m, depth)  # where the scene is not believed, nor is its depth
    return Snapshot(state.frame.stamp_ns, state.T_map_cam, labels, depth)


def archive_frames(archive: Archive, mapper: Mapper, dropped: Sequence[FrameState]) -> None:
    """Keeps what queries will need of frames that leave the horizon; call before their times leave the scene."""
    for state in dropped:
        shot = snapshot(mapper, state)
        archive.frames[state.index] = ArchivedFrame.pack(
            state.index, shot.stamp_ns, shot.T_map_cam, shot.labels, shot.depth_m
        )


def query_scene(points_tyx: FloatArray, mapper: Mapper, horizon: Horizon, archive: Archive) -> QueryTracks:
    """Tracks of (Q, 3) queries in pixels of the input image, over all frames from the oldest archived one on.

    Raises `Motion4DError` for queries that are none, and while no frame has been fitted.
    """
    points_tyx = np.asarray(points_tyx, float)
    if points_tyx.ndim != 2 or points_tyx.shape[1] != 3 or not np.isfinite(points_tyx).all():
        raise Motion4DError(f"queries must be finite (Q, 3) rows of t, y, x; got shape {points_tyx.shape}")
    if not len(horizon):
        raise Motion4DError("no frame has been fitted yet: push frames, then flush, before asking for tracks")
    output, camera = horizon.frames[-1].output_camera, horizon.camera
    ratio = np.array([camera.height / output.height, camera.width / output.width])
    working = points_tyx.copy()
    working[:, 1:] = (points_tyx[:, 1:] + 0.5) * ratio - 0.5
    first = min(archive.frames, default=horizon.first_index)
    count = horizon.frames[-1].index - first + 1
    cache: dict[int, Snapshot] = {}
    corrections = TrackCorrections(mapper.geometry, horizon)

    def shot(index: int) -> Snapshot:
        if index in archive.frames:
            old = archive.frames[index]
            return Snapshot(old.stamp_ns, old.T_map_cam, old.labels(), old.depth_m())
        if index not in cache:
            cache[index] = snapshot(mapper, horizon.get(index))
            cache[index].corrections = corrections.at(index)
        return cache[index]

    result = trace(
        working,
        first,
        count,
        shot,
        lambda label, index: _moving(mapper, archive, label, index, first, count),
        camera,
        lambda label, column: known_motion(mapper, label, first + column),
        horizon.frames[-1].scale is Scale.METRIC,
    )
    result.query_points, result.first_index = points_tyx.copy(), first
    result.tracks = ((result.tracks + 0.5) / ratio[::-1] - 0.5).astype(np.float32)
    return result


def write_scene(mapper: Mapper, folder: Path) -> list[str]:
    """Writes the scene (reloadable) and `scene.ply`; the paths written. Raises `Motion4DError` where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Motion4DError(f"{folder}: cannot be made ({error.strerror}): name another folder") from None
    extra = {"objects": {str(label): channel for label, channel in mapper.channel_of.items()}}
    save_scene(mapper.scene, folder / SCENE_FILE, extra)
    export_ply(mapper.scene, folder / PLY_FILE)
    return [str(folder / SCENE_FILE), str(folder / PLY_FILE)]


def retire(archive: Archive | None, mapper: Mapper, label: int) -> None:
    """Takes an object that nobody sees any more out of the scene; `archive` keeps what queries need of it."""
    owned, means, weights = _gaussians(mapper, label)
    if archive is not None and len(owned):
        base_ids = mapper.scene.bases.ids[owned].tolist()
        archive.retired.setdefault(label, []).append(RetiredObject(base_ids, means, weights))
    mapper.remove_object(label)


def _gaussians(mapper: Mapper, label: int) -> tuple[Tensor, FloatArray, FloatArray]:
    """Rows of an object's bases (B,), canonical means (M, 3) and shares (M, B) of its Gaussians."""
    scene = mapper.scene
    owned = (scene.bases.owner == label).nonzero().squeeze(1)
    mine = scene.object_id[scene.moving_rows] == label
    means = scene.params["means"][scene.moving_rows[mine]].detach().double().cpu().numpy()
    weights = scene.motion_weights()[mine][:, owned].detach().double().cpu().numpy()
    return owned, means, weights


def _moving(mapper: Mapper, archive: Archive, label: int, index: int, first: int, count: int) -> MovingGaussians | None:
    """The Gaussians of an object as it was alive at frame `index`, with the motions of its bases over the whole run."""
    bases = mapper.scene.bases
    for life in archive.retired.get(label, []):
        if any(index in archive.motions.get(base_id, {}) for base_id in life.base_ids):
            return MovingGaussians(life.means, life.weights, _archived(archive, life.base_ids, first, count))
    owned, means, weights = _gaussians(mapper, label)
    if len(owned) == 0:
        return None
    motions = _archived(archive, bases.ids[owned].tolist(), first, count)
    now = bases.poses_at(list(bases.indices)).transforms()[owned].detach().double().cpu().numpy()
    start = bases.first_index - first
    motions[:, start : start + now.shape[1]] = now
    return MovingGaussians(means, weights, motions)


def _archived(archive: Archive, base_ids: list[int], first: int, count: int) -> FloatArray:
    """(B, T, 3, 4) archived motions of some bases over `count` frames from `first`; NaN where there are none."""
    motions = np.full((len(base_ids), count, 3, 4), np.nan)
    for row, base_id in enumerate(base_ids):
        for index, matrix in archive.motions.get(base_id, {}).items():
            if 0 <= index - first < count:
                motions[row, index - first] = matrix
    return motions
