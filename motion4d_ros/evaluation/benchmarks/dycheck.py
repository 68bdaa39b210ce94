"""DyCheck's iPhone recordings (Gao et al., NeurIPS 2022): keypoints followed, and views from other cameras.

- PCK-T: of keypoints seen in both of two annotated frames, the share that goes from one to within 5 % of the image's
  longer side of its place in the other; mean over all ordered pairs of frames, a frame with itself included.
- AJ, <delta_avg, OA of the same tracks, judged in the annotated frames other than the query's;
  EPE and shares within 5 and 10 cm against the keypoints lifted by the lidar's depth.
- mPSNR, mSSIM and, where the package `lpips` is installed with its weights, mLPIPS of the validation cameras' images
  over the pixels that the training frames saw (`covisible/`), mean over images.

Camera poses, calibration and lidar depth are given; keypoints and validation images are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from motion4d_ros.evaluation.benchmarks.artefacts import Tracks, link, read_tracks, write_npy
from motion4d_ros.evaluation.benchmarks.dycheck_files import (
    Recording,
    open_recording,
    read_camera,
    read_depth,
    read_keypoints,
)
from motion4d_ros.evaluation.benchmarks.interfaces import Column, Figures, Place, mean_of
from motion4d_ros.evaluation.metrics.points3d import point_errors
from motion4d_ros.evaluation.metrics.tracking import score_tracks
from motion4d_ros.files import write_text
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.offline.trajectory import format_tum
from motion4d_ros.types import BoolArray, FloatArray, Motion4DError

PCK_SHARE = 0.05  # of the longer side
LONGEST_HORIZON = 1024  # frames that a scene can keep


class DyCheck:
    """The iPhone recordings."""

    name = "dycheck"
    title = "DyCheck iPhone"
    layout = "recordings with camera/, rgb/2x/, depth/2x/, keypoint/2x/train/, splits/ and extra.json"
    columns = (
        Column("PCK-T", "share of keypoints transferred to within 5 % of the image"),
        Column("AJ", "average Jaccard of keypoints"),
        Column("davg", "share of keypoints within 1, 2, 4, 8, 16 px of 256"),
        Column("OA", "accuracy of visibility"),
        Column("EPE", "3D error of keypoints, m"),
        Column("d05", "share within 5 cm"),
        Column("d10", "share within 10 cm"),
        Column("mPSNR", "novel views, dB, co-visible pixels", 2),
        Column("mSSIM", "the same, structural similarity"),
        Column("mLPIPS", "the same, LPIPS (AlexNet)"),
    )

    def sequences(self, root: Path) -> list[str]:
        return sorted(path.parent.parent.name for path in root.glob("*/splits/train.json"))

    def prepare(self, place: Place, folder: Path) -> list[str]:
        recording = open_recording(place)
        poses, cameras = {}, []
        for index, name in enumerate(recording.names):
            camera, poses[round(index * 1e9 / recording.rate)] = read_camera(recording, name)
            cameras.append(camera)
            link(folder / "rgb" / f"{index:06d}.png", recording.folder / f"rgb/{recording.factor}x/{name}.png")
            if (depth := read_depth(recording, name)) is not None:
                write_npy(folder / "depth" / f"{index:06d}.npy", depth.astype(np.float32))
        write_text(folder / "poses.tum", format_tum(poses))
        write_npy(folder / "queries.npy", keypoint_queries(read_keypoints(recording)))
        lens = np.median([[c.fx, c.fy, c.cx, c.cy] for c in cameras], axis=0)
        words = [str(folder / "rgb"), "--fps", f"{recording.rate:g}", "--poses", str(folder / "poses.tum")]
        words += ["--intrinsics", ",".join(f"{value:.4f}" for value in lens), "--queries", str(folder / "queries.npy")]
        words += ["--depth", str(folder / "depth")] if (folder / "depth").is_dir() else ["--depth", "none"]
        return [*words, "--set", f"window.horizon={min(LONGEST_HORIZON, max(64, len(recording.names)))}"]

    def score(self, place: Place, out: Path) -> Figures:
        from motion4d_ros.evaluation.benchmarks.novel_views import novel_view_figures  # torch

        recording = open_recording(place)
        return {**keypoint_figures(recording, read_tracks(out)), **novel_view_figures(recording, out)}

    def mean(self, rows: Sequence[Figures]) -> Figures:
        return mean_of(rows)


# --- keypoints ------------------------------------------------------------------------------------------------------


def keypoint_queries(keypoints: dict[int, FloatArray]) -> FloatArray:
    """(Q, 3) t, y, x: every keypoint in every frame that shows it, frame by frame."""
    rows = [[t, y, x] for t, points in keypoints.items() for x, y, seen in points if seen]
    return np.array(rows, float).reshape(-1, 3)


def keypoint_figures(recording: Recording, tracks: Tracks) -> Figures:
    """PCK-T, AJ, <delta_avg, OA, EPE and shares of 5 and 10 cm; empty where nothing is annotated."""
    keypoints = read_keypoints(recording)
    if len(tracks.xy) != len(keypoint_queries(keypoints)):
        raise Motion4DError(f"{recording.folder.name}: {len(tracks.xy)} tracks for other keypoints")
    if not len(tracks.xy):
        return {}
    camera, _ = read_camera(recording, recording.names[0])
    frames, number = sorted(keypoints), [(t, j) for t, p in keypoints.items() for j in range(len(p)) if p[j, 2]]
    true_xy = np.stack([[keypoints[t][j, :2] for t in frames] for _, j in number])
    visible = np.stack([[bool(keypoints[t][j, 2]) for t in frames] for _, j in number])
    asked = np.array([frames.index(t) for t, _ in number])
    xy, occluded = tracks.xy[:, frames], tracks.occluded[:, frames]
    scores = score_tracks(xy, occluded, true_xy, visible, asked, camera.size, "strided")
    figures = {"PCK-T": pck_t(xy, true_xy, visible, asked, camera.size)}
    figures |= {"AJ": scores.AJ, "davg": scores.davg, "OA": scores.OA}
    true_xyz = np.stack([_lifted(recording, t, true_xy[:, k]) for k, t in enumerate(frames)], 1)
    judged = visible & np.isfinite(true_xyz).all(-1) & (np.arange(len(frames)) != asked[:, None])
    errors = point_errors(tracks.xyz[:, frames], true_xyz, judged)
    return {**figures, "EPE": errors.epe_m, "d05": errors.d05, "d10": errors.d10}


def pck_t(xy: FloatArray, true_xy: FloatArray, visible: BoolArray, asked: FloatArray, size: tuple[int, int]) -> float:
    """Mean over ordered pairs of frames of the share of their common keypoints that arrive: (Q, K, 2) px tracks of
    queries `asked` (Q,) in one of K frames, `visible` (Q, K); `size` (H, W). A pair without common keypoints does not
    count.
    """
    arrived = np.linalg.norm(np.asarray(xy, float) - true_xy, axis=-1) < PCK_SHARE * max(size)  # False for NaN
    arrived[np.arange(len(asked)), np.asarray(asked, int)] = True  # where a query is asked it is
    shares = []
    for frame in np.unique(asked).astype(int):
        mine = np.asarray(asked) == frame
        for other in range(xy.shape[1]):
            common = mine & visible[:, other]
            if common.any():
                shares.append(float(arrived[common, other].mean()))
    return float(np.mean(shares)) if shares else float("nan")


def _lifted(recording: Recording, frame: int, xy: FloatArray) -> FloatArray:
    """(Q, 3) m in the map, of points (Q, 2) px of a frame; NaN where the lidar says nothing."""
    depth = read_depth(recording, recording.names[frame])
    found = np.full((len(xy), 3), np.nan)
    if depth is None:
        return found
    camera, T_map_cam = read_camera(recording, recording.names[frame])
    columns, rows = np.round(xy).astype(int).T
    inside = (columns >= 0) & (rows >= 0) & (columns < depth.shape[1]) & (rows < depth.shape[0])
    there = np.where(inside, depth[np.where(inside, rows, 0), np.where(inside, columns, 0)], 0.0)
    good = inside & np.isfinite(there) & (there > 0)
    found[good] = transform_points(T_map_cam, camera.unproject(xy[good], there[good]))
    return found
