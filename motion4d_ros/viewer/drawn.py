"""What a viewer is shown, as numbers: trails behind points, ellipsoids about uncertain places. Knows no viewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from motion4d_ros.types import FloatArray, IntArray, ObjectPhase, ObjectState, QueryTracks, StaticPoints

TRAIL_FRAMES = 14
MAX_TRACKS = 160
MAX_MOVING = 4000  # points on moving things, a frame
MAX_STATIC = 24_000
PICTURE_WIDTH = 640  # px at most, of the pictures kept to be looked at
PICTURE_QUALITY = 90  # of 100, JPEG
SIGMAS = 2.0  # half an ellipsoid's axis, in standard deviations


@dataclass(frozen=True)
class Trails:
    """Points of one frame that are seen, and where each was before."""

    rows: IntArray  # (P,) of the tracks
    uv: NDArray[np.float32]  # (P, 2) px
    xyz: NDArray[np.float32]  # (P, 3) m; NaN where the depth is unknown
    paths_uv: list[NDArray[np.float32]]  # P times (k, 2), k >= 1
    paths_xyz: list[NDArray[np.float32]]  # P times (k, 3), k >= 0


def chosen_tracks(count: int) -> IntArray:
    """Rows of at most `MAX_TRACKS` of `count` tracks, evenly spread."""
    return thinned(count, MAX_TRACKS)


def trails(tracks: QueryTracks, rows: IntArray, index: int) -> Trails:
    """The tracks `rows` at frame number `index`, with their last `TRAIL_FRAMES` frames as far as they were seen."""
    column = index - tracks.first_index
    start = max(0, column - TRAIL_FRAMES)
    seen = ~tracks.occluded[rows, start : column + 1] & np.isfinite(tracks.tracks[rows, start : column + 1]).all(-1)
    rows, seen = rows[seen[:, -1]], seen[seen[:, -1]]
    uv, xyz = tracks.tracks[rows, start : column + 1], tracks.tracks_xyz[rows, start : column + 1]
    placed = seen & np.isfinite(xyz).all(-1)
    return Trails(
        rows,
        uv[:, -1],
        xyz[:, -1],
        [path[there] for path, there in zip(uv, seen, strict=True)],
        [path[there] for path, there in zip(xyz, placed, strict=True)],
    )


def ellipsoids(states: Sequence[ObjectState]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """`SIGMAS` standard deviations about every object's position: half axes (N, 3) m, quaternions (N, 4) xyzw, centres
    (N, 3). What is not known (a covariance that is not finite) is a point.
    """
    half, turns, centres = np.zeros((len(states), 3)), np.tile([0.0, 0.0, 0.0, 1.0], (len(states), 1)), []
    for k, state in enumerate(states):
        centres.append(state.T_map_object[:3, 3])
        covariance = np.asarray(state.pose_covariance, float)[:3, :3]
        if not np.isfinite(covariance).all():
            continue
        variances, axes = np.linalg.eigh((covariance + covariance.T) / 2)
        half[k] = SIGMAS * np.sqrt(np.maximum(variances, 0.0))
        axes[:, 0] *= np.sign(np.linalg.det(axes))  # a rotation, not a mirror
        turns[k] = Rotation.from_matrix(axes).as_quat()
    return half, turns, np.reshape(centres, (-1, 3)).astype(float)


def present(states: Sequence[ObjectState]) -> list[ObjectState]:
    """Those that are not lost, in order of their ids."""
    return sorted((s for s in states if s.phase is not ObjectPhase.LOST), key=lambda s: s.object_id)


def thinned(count: int, most: int) -> IntArray:
    """At most `most` of `count` rows, evenly spread."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(int)


def up_direction(T_map_cams: dict[int, FloatArray]) -> FloatArray:
    """(3,) unit vector up in the map: +z where the cameras agree with REP-103, else the mean camera's up."""
    if not T_map_cams:
        return np.array([0.0, 0.0, 1.0])
    ups = np.stack([-T[:3, 1] for T in T_map_cams.values()]).mean(0)
    up = ups / max(float(np.linalg.norm(ups)), 1e-9)
    # a camera 40 degrees off the horizon still has its up within 50 degrees of the map's z
    return np.array([0.0, 0.0, 1.0]) if up[2] > 0.55 else up


def thin_static(static: StaticPoints) -> tuple[FloatArray, NDArray[np.uint8]]:
    """The surest `MAX_STATIC` points, without far outliers."""
    xyz, rgb = np.asarray(static.xyz_map, float), static.rgb
    if not len(xyz):
        return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    centre = np.median(xyz, 0)
    distance = np.linalg.norm(xyz - centre, axis=1)
    keep = np.isfinite(distance) & (distance <= 6.0 * np.median(distance) + 1e-9)
    index = np.flatnonzero(keep)
    if len(index) > MAX_STATIC:
        index = np.sort(index[np.argsort(-static.confidence[index], kind="stable")[:MAX_STATIC]])
    return xyz[index], rgb[index]


def picture_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image's small picture."""
    height, width = size
    scale = min(1.0, PICTURE_WIDTH / width)
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


def small_picture(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB -> (h, w, 3) BGR, at most `PICTURE_WIDTH` wide, with the even sides that video codecs want."""
    height, width = picture_size((rgb.shape[0], rgb.shape[1]))
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2BGR), np.uint8)


def jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) RGB as the small JPEG that a viewer is shown."""
    _, data = cv2.imencode(".jpg", small_picture(rgb), [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])
    return data.tobytes()
