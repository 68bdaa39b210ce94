"""A person's word, from a message to a `Prompt` in rectified pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.imagery.conversions import LARGEST_ID, labels_from_image
from motion4d_ros.imagery.validation import Rejection, check_image, nanoseconds
from motion4d_ros.types import Prompt

MAX_POINTS = 1000
MAX_NAME = 64


def check_prompt_size(message: Any) -> None:
    """Refuses what no prompt needs, before it waits for anybody. Cheap: no pixel is read. Raises `Rejection`."""
    if len(message.name) > MAX_NAME:
        raise Rejection("prompt", f"prompt: name of {len(message.name)} characters, at most {MAX_NAME}")
    if len(message.points) > MAX_POINTS or len(message.positive) > MAX_POINTS:
        count = max(len(message.points), len(message.positive))
        raise Rejection("prompt", f"prompt: {count} points, at most {MAX_POINTS}")
    if message.object_id > LARGEST_ID:
        raise Rejection("prompt", f"prompt: object id {message.object_id}, at most {LARGEST_ID}")
    if message.mask.width or message.mask.height:
        check_image(message.mask, "prompt's mask")
    elif len(message.mask.data):
        raise Rejection("prompt", f"prompt: {len(message.mask.data)} B in a mask without a size")


def prompt_from_message(message: Any, rectifier: Rectifier, newest_ns: int) -> Prompt:
    """`motion4d_ros/ObjectPrompt` -> `Prompt`. A stamp of zero means the newest image. Raises `Rejection`."""
    stamp = message.header.stamp
    stamp_ns = nanoseconds(stamp)
    if stamp.sec < 0 or stamp.nanosec >= 1_000_000_000:
        raise Rejection("prompt", f"prompt: impossible stamp sec={stamp.sec} nanosec={stamp.nanosec}")
    check_prompt_size(message)
    prompt = Prompt(
        stamp_ns=stamp_ns or newest_ns, object_id=int(message.object_id), name=message.name, delete=bool(message.remove)
    )
    if prompt.delete:
        if prompt.object_id == 0:
            raise Rejection("prompt", "prompt: remove needs the id of an object")
        return prompt
    _read_points(message, rectifier, prompt)
    _read_box(message, rectifier, prompt)
    if message.mask.width or message.mask.height:
        labels = labels_from_image(message.mask)
        if labels.shape != (rectifier.height, rectifier.width):
            size = f"{rectifier.width}x{rectifier.height}"
            raise Rejection("prompt", f"prompt: mask of {labels.shape[1]}x{labels.shape[0]} for an image of {size}")
        prompt.mask = rectifier.rectify(labels, nearest=True) > 0
        if not prompt.mask.any():
            raise Rejection("prompt", "prompt: the mask is empty")
    says_where = len(prompt.points_px) or prompt.box_px is not None or prompt.mask is not None
    if not says_where and not (prompt.name and prompt.object_id):
        raise Rejection("prompt", "prompt: neither points nor box nor mask, and no known object to rename")
    return prompt


def prompt_from_click(xyz_map: Any, newest_ns: int) -> Prompt:
    """A click in the scene, (3,) m in the map -> a `Prompt` for a new object there. Raises `Rejection`."""
    xyz = np.asarray(xyz_map, float)
    if not np.isfinite(xyz).all() or np.abs(xyz).max() > 1e7:
        raise Rejection("prompt", "clicked_point: not a finite, sane position")
    return Prompt(stamp_ns=newest_ns, xyz_map=xyz)


def _read_points(message: Any, rectifier: Rectifier, prompt: Prompt) -> None:
    count = len(message.points)
    if count == 0:
        return
    if len(message.positive) not in (0, count):
        raise Rejection("prompt", f"prompt: {count} points but {len(message.positive)} values in `positive`")
    uv = np.array([(point.x, point.y) for point in message.points])
    _check_inside(uv, rectifier)
    prompt.points_px = rectifier.rectify_points(uv)
    prompt.positive = np.array(message.positive, bool) if len(message.positive) else np.ones(count, bool)


def _read_box(message: Any, rectifier: Rectifier, prompt: Prompt) -> None:
    if len(message.box) == 0:
        return
    if len(message.box) != 4:
        raise Rejection("prompt", f"prompt: box of {len(message.box)} numbers, must be x0, y0, x1, y1")
    x0, y0, x1, y1 = (float(value) for value in message.box)
    if not all(math.isfinite(value) for value in (x0, y0, x1, y1)) or x1 <= x0 or y1 <= y0:
        raise Rejection("prompt", f"prompt: box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is empty or not finite")
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    corners = np.clip(corners, 0, (rectifier.width - 1, rectifier.height - 1))
    if np.ptp(corners[:, 0]) < 1 or np.ptp(corners[:, 1]) < 1:
        raise Rejection("prompt", "prompt: the box lies outside the image")
    straight = rectifier.rectify_points(corners)
    prompt.box_px = np.array([*straight.min(0), *straight.max(0)])


def _check_inside(uv: Any, rectifier: Rectifier) -> None:
    inside = np.isfinite(uv).all(-1)
    inside &= (uv >= -0.5).all(-1) & (uv[:, 0] <= rectifier.width - 0.5) & (uv[:, 1] <= rectifier.height - 0.5)
    if not inside.all():
        x, y = uv[~inside][0]
        size = f"{rectifier.width}x{rectifier.height}"
        raise Rejection("prompt", f"prompt: point ({x:g}, {y:g}) lies outside the {size} image")
