"""The input images with outlines, ids and trails drawn on them, as a video or as pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.offline.queries import objects_of_queries
from motion4d_ros.offline.results.frame_log import FrameLog
from motion4d_ros.types import QueryTracks
from motion4d_ros.viewer import palette
from motion4d_ros.viewer.drawn import MAX_TRACKS, TRAIL_FRAMES

_ENCODER_OPTIONS = ["-crf", "24", "-preset", "veryfast", "-movflags", "+faststart", "-threads", "1", "-bitexact"]
MAX_PICTURES = 90  # where no video can be made


@dataclass(frozen=True)
class Overlay:
    """Either a video or pictures, as data URIs."""

    video: str | None
    pictures: list[str]
    frames: list[int]  # frame index of every picture (all frames for a video)
    rate: float  # frames per second at which it plays


def make_overlay(log: FrameLog, tracks: QueryTracks, spool: Path, rate: float) -> Overlay:
    """Draws every frame; H.264 if `imageio-ffmpeg` is there, else JPEG pictures."""
    rate = float(np.clip(rate, 2.0, 30.0))
    indices = list(range(log.finished))
    path = spool / "overlay.mp4"
    if encode_video(path, drawn_frames(log, tracks, indices), rate):
        video = data_uri(path.read_bytes(), "video/mp4")
        path.unlink()  # its room may be needed for the page
        return Overlay(video, [], indices, rate)
    path.unlink(missing_ok=True)
    chosen = np.unique(np.linspace(0, len(indices) - 1, min(MAX_PICTURES, len(indices))).round().astype(int)).tolist()
    pictures = [jpeg_uri(image) for image in drawn_frames(log, tracks, chosen)]
    return Overlay(None, pictures, chosen, rate * len(chosen) / len(indices))


def encode_video(path: Path, frames: Iterator[NDArray[np.uint8]], rate: float) -> bool:
    """Writes (H, W, 3) RGB frames as H.264; False where no encoder is at hand."""
    try:
        import imageio_ffmpeg
    except ImportError:
        return False
    first = next(frames)
    height, width = first.shape[:2]
    try:
        writer = imageio_ffmpeg.write_frames(
            str(path), (width, height), fps=rate, codec="libx264", pix_fmt_out="yuv420p", macro_block_size=1,
            output_params=_ENCODER_OPTIONS, ffmpeg_log_level="quiet",
        )  # fmt: skip
        writer.send(None)
        writer.send(np.ascontiguousarray(first))
        count = 1
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
            count += 1
        writer.close()
        return bool(imageio_ffmpeg.count_frames_and_secs(str(path))[0] == count)  # a full disk cuts it short
    except (OSError, RuntimeError):  # no ffmpeg binary, or one without libx264
        return False


def drawn_frames(log: FrameLog, tracks: QueryTracks, indices: list[int]) -> Iterator[NDArray[np.uint8]]:
    """(h, w, 3) RGB of the chosen frames."""
    rows = np.linspace(0, len(tracks.query_points) - 1, min(MAX_TRACKS, len(tracks.query_points))).round().astype(int)
    rows = np.unique(rows)
    colours = _track_colours(log, tracks, rows)
    for index in indices:
        bgr = cv2.imread(str(log.picture(index)), cv2.IMREAD_COLOR)
        assert bgr is not None, "written by ourselves"
        labels = log.masks(index)
        scale = bgr.shape[1] / labels.shape[1]
        draw_masks(bgr, labels)
        _draw_trails(bgr, tracks, rows, colours, index, scale)
        _draw_ids(bgr, labels, log, index, scale)
        yield np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def draw_masks(bgr: NDArray[np.uint8] | cv2.typing.MatLike, labels: NDArray[np.uint16]) -> None:
    """Tints and outlines every object of a label image, which may be of another size, in the colour of its id."""
    small = cv2.resize(labels, (bgr.shape[1], bgr.shape[0]), interpolation=cv2.INTER_NEAREST)
    for object_id in np.unique(small[small > 0]).tolist():
        inside = small == object_id
        colour = np.array(palette.rgb(object_id)[::-1], float)
        bgr[inside] = (0.68 * bgr[inside] + 0.32 * colour).astype(np.uint8)
        outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(bgr, outlines, -1, colour.tolist(), 2 if bgr.shape[1] > 400 else 1, cv2.LINE_AA)


def _draw_trails(
    bgr: cv2.typing.MatLike,
    tracks: QueryTracks,
    rows: NDArray[np.intp],
    colours: list[tuple[int, int, int]],
    index: int,
    scale: float,
) -> None:
    """Where each point was during the last frames; older pieces are thinner in colour."""
    start = max(0, index - TRAIL_FRAMES)
    shift = 4  # OpenCV's fixed-point sub-pixel coordinates
    for row, colour in zip(rows, colours, strict=True):
        seen = ~tracks.occluded[row, start : index + 1] & np.isfinite(tracks.tracks[row, start : index + 1]).all(1)
        uv = np.nan_to_num((tracks.tracks[row, start : index + 1] + 0.5) * scale - 0.5)
        fixed = np.clip(uv * (1 << shift), -1e6, 1e6).round().astype(int)
        for k in range(1, len(fixed)):
            if seen[k] and seen[k - 1] and np.abs(uv[k] - uv[k - 1]).max() < 0.2 * bgr.shape[1]:
                fade = 0.25 + 0.75 * k / len(fixed)
                line = tuple(int(fade * c + (1 - fade) * 90) for c in colour[::-1])
                cv2.line(bgr, fixed[k - 1].tolist(), fixed[k].tolist(), line, 1, cv2.LINE_AA, shift)
        if seen[-1]:
            cv2.circle(bgr, fixed[-1].tolist(), 2 << shift, colour[::-1], -1, cv2.LINE_AA, shift)


def _draw_ids(bgr: cv2.typing.MatLike, labels: NDArray[np.uint16], log: FrameLog, index: int, scale: float) -> None:
    names = {state.object_id: state.named for state in log.facts[index].estimate.objects}
    for object_id in np.unique(labels[labels > 0]).tolist():
        rows, columns = np.nonzero(labels == object_id)
        if len(rows) < 30:
            continue
        text = f"{object_id} {names.get(object_id, '')}".strip()
        (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        x = int(np.clip(columns.mean() * scale - width / 2, 2, max(2, bgr.shape[1] - width - 6)))
        y = int(np.clip(rows.min() * scale - 5, height + 4, bgr.shape[0] - base - 2))
        colour = palette.rgb(object_id)[::-1]
        cv2.rectangle(bgr, (x - 3, y - height - 3), (x + width + 3, y + base), colour, -1)
        cv2.putText(bgr, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)


def _track_colours(log: FrameLog, tracks: QueryTracks, rows: NDArray[np.intp]) -> list[tuple[int, int, int]]:
    """The colour of the object each track starts on; a light grey for the background."""
    ids = objects_of_queries(tracks.query_points[rows], log.masks, log.finished)
    return [palette.rgb(object_id) if object_id else (225, 225, 220) for object_id in ids]


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a URI that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def jpeg_uri(rgb: NDArray[np.uint8], quality: int = 82) -> str:
    """(H, W, 3) RGB as a JPEG data URI."""
    good, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert good, "OpenCV always encodes 8-bit JPEG"
    return data_uri(data.tobytes(), "image/jpeg")
