"""Pictures worth showing: the overlay, a video with identities and trajectories, and a page that holds both."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.files import write_text
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.offline.report.overlay import data_uri, encode_video
from motion4d_ros.ros.outputs.overlay import draw_overlay, object_colour
from motion4d_ros.ros_tools.demo.results import STAGES, Said
from motion4d_ros.types import Camera, FloatArray

NAMES = {"live": "live", "window": "window fitted", "final": "refined"}
TRAIL = 15  # frames
TRAILS_PER_OBJECT = 12
JUMP = 4.0
"""A step so many times the trail's median one is a correction, not a motion: the trail begins anew."""
JUMP_SHARE = 1 / 50
"""Shorter steps, as a share of the image's width, never count as corrections."""
DRAWN_WIDTH = 640
"""Smaller images are enlarged to about this width, so that lines and ids stay fine."""
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "video,img{width:100%;border-radius:6px}table{border-collapse:collapse;margin:1em 0}"
    "td,th{padding:.3em .9em;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}"
    "p.note{color:#666}"
)


def draw_frame(
    image: NDArray[np.uint8], stamp: int, said: Said, camera: Camera, stage: str = "final"
) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: the image with masks, ids and the recent paths of some points, as the camera sees them now."""
    labels = {item.id: item.label for item in said.objects[stage].get(stamp, [])}
    masks = said.masks[stage].get(stamp)
    zoom = max(1, round(DRAWN_WIDTH / image.shape[1]))
    size = (image.shape[1] * zoom, image.shape[0] * zoom)
    picture = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    if masks is not None:
        picture = draw_overlay(picture, smooth_labels(masks, size), labels)
    if stamp in said.poses and stamp in said.clouds[stage]:
        _draw_trails(picture, stamp, said, camera.scaled(zoom), stage)
    return picture


def smooth_labels(masks: NDArray[np.uint16], size: tuple[int, int]) -> NDArray[np.uint16]:
    """(H, W) ids enlarged to `size` (width, height) with round outlines instead of steps."""
    out = np.zeros(size[::-1], np.uint16)
    for object_id in np.unique(masks[masks > 0]):
        area = cv2.resize((masks == object_id).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
        out[area > 0.5] = object_id
    return out


def draw_stages(image: NDArray[np.uint8], stamp: int, said: Said, camera: Camera) -> NDArray[np.uint8]:
    """(H, 3 W, 3) RGB: one frame as it was told live, when its window was fitted, and in the end."""
    tiles = [draw_frame(image, stamp, said, camera, stage) for stage in STAGES]
    for picture, stage in zip(tiles, STAGES, strict=True):
        told = stamp in said.masks[stage]
        _write(picture, NAMES[stage] if told else f"{NAMES[stage]}: nothing was said")
    return np.concatenate(tiles, 1)


def draw_all(images: dict[int, NDArray[np.uint8]], said: Said, camera: Camera) -> Iterator[NDArray[np.uint8]]:
    """Every frame, in order, at all stages."""
    for stamp in sorted(images):
        wide = draw_stages(images[stamp], stamp, said, camera)
        yield np.ascontiguousarray(wide[: wide.shape[0] // 2 * 2, : wide.shape[1] // 2 * 2])  # video wants even sides


def write_video(path: Path, images: dict[int, NDArray[np.uint8]], said: Said, camera: Camera, rate_hz: float) -> bool:
    """The video; False where no encoder is at hand."""
    return encode_video(path, draw_all(images, said, camera), rate_hz)


def write_picture(path: Path, images: dict[int, NDArray[np.uint8]], said: Said, camera: Camera) -> None:
    """Three moments of the run in one picture, at all stages."""
    stamps = sorted(images)
    chosen = [stamps[round(share * (len(stamps) - 1))] for share in (1 / 3, 2 / 3, 1.0)]
    rows = [draw_stages(images[stamp], stamp, said, camera) for stamp in chosen]
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def write_page(
    path: Path, title: str, sentences: list[str], rows: list[list[str]], video: Path | None, picture: Path
) -> None:
    """A self-contained page; the first of `rows` is the head of the table."""
    parts = [f"<!doctype html><meta charset='utf-8'><title>{html.escape(title)}</title><style>{_STYLE}</style>"]
    parts.append(f"<h1>{html.escape(title)}</h1>")
    if video is not None:
        parts.append(f"<video controls loop autoplay muted src='{data_uri(video.read_bytes(), 'video/mp4')}'></video>")
        parts.append(
            "<p class='note'>Left: the live estimates as they went out. Middle: when their window was fitted. "
            "Right: after the last refinement.</p>"
        )
    parts += [f"<p>{html.escape(sentence)}</p>" for sentence in sentences]
    if rows:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows[1:])
        parts.append(f"<table><tr>{head}</tr>{body}</table>")
    parts.append(f"<img alt='three moments' src='{data_uri(picture.read_bytes(), 'image/png')}'>")
    write_text(path, "\n".join(parts))


def _draw_trails(picture: NDArray[np.uint8], stamp: int, said: Said, camera: Camera, stage: str) -> None:
    stamps = said.stamps
    now = stamps.index(stamp)
    T_cam_map = np.linalg.inv(said.poses[stamp])
    recent = [said.clouds[stage].get(s) for s in stamps[max(0, now - TRAIL + 1) : now + 1]]
    tables = [{} if c is None else dict(zip(c.point_id.tolist(), c.xyz_map, strict=True)) for c in recent]
    cloud = said.clouds[stage][stamp]
    for object_id in np.unique(cloud.object_id):
        points = np.sort(cloud.point_id[cloud.object_id == object_id])
        step = max(1, len(points) // TRAILS_PER_OBJECT)
        colour = object_colour(int(object_id))
        for point in points[::step][:TRAILS_PER_OBJECT].tolist():
            path = np.array([table[point] for table in tables if point in table])
            if len(path) < 2:
                continue
            uv = camera.project(transform_points(T_cam_map, path))
            if np.isfinite(uv).all() and np.abs(uv).max() < 4 * camera.width:
                line = (since_correction(uv, camera.width) * 16).round().astype(np.int32).reshape(-1, 1, 2)
                cv2.polylines(picture, [line], False, colour, 1, cv2.LINE_AA, 4)


def since_correction(uv: FloatArray, width: int) -> FloatArray:
    """(K, 2) px, the path of a point as it was told -> its end, after the last time that it was put elsewhere.

    An object that is found again, or whose pose a window corrects, has not moved from where it was thought to be.
    """
    steps = np.linalg.norm(np.diff(uv, axis=0), axis=1)
    if len(steps) == 0:
        return uv
    jumps = np.flatnonzero(steps > max(JUMP_SHARE * width, JUMP * float(np.median(steps))))
    return uv[int(jumps[-1]) + 1 :] if len(jumps) else uv


def _write(picture: NDArray[np.uint8], text: str) -> None:
    scale = max(0.35, picture.shape[1] / 900)
    at = (6, round(30 * scale) + 2)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
