"""A result that is on the disk, told to a stream from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.offline.queries import objects_of_queries
from motion4d_ros.offline.results.saved_result import SavedResult
from motion4d_ros.offline.sources import FrameSource, SourceOptions, open_source
from motion4d_ros.types import Camera, Motion4DError
from motion4d_ros.viewer import drawn
from motion4d_ros.viewer.rerun_stream import RerunStream, small_camera


def show_result(
    result: SavedResult, stream: RerunStream, say: Callable[[str], None], recording: Path | None = None
) -> int:
    """Tells `stream` everything in a result; how many frames. Pictures come from the recording that was analysed
    (`recording`: where it lies by now); where it is gone, `say` tells, and all else is shown.
    """
    for name in result.missing:
        say(f"{name} is not there: what it would show is left out")
    camera = result.camera
    small = _shown_camera(camera)
    if (static := result.static_points()) is not None:
        first = min(index for index in result.T_map_cams if index >= result.newest_start)
        stream.static(static, first, result.stamps_ns[first], result.T_map_cams[first])
    for index, jpeg in _pictures(result, recording, say):
        if index in result.T_map_cams:
            stream.image(index, result.stamps_ns[index], jpeg, small, result.T_map_cams[index])
    shown = []
    for estimate in result.estimates():  # one at a time in memory
        stream.estimate(estimate, small)
        shown.append(estimate.index)
    _show_tracks(result, stream, shown, small.width / camera.width)
    for index, seconds, mib in result.costs():
        stream.cost(index, seconds, mib)
    return len(shown)


def _show_tracks(result: SavedResult, stream: RerunStream, indices: list[int], factor: float) -> None:
    if (tracks := result.tracks) is None or not len(tracks.query_points):
        return
    rows = drawn.chosen_tracks(len(tracks.query_points))
    ids = np.zeros(len(tracks.query_points), int)
    ids[rows] = objects_of_queries(tracks.query_points[rows], result.labels, len(result.stamps_ns))
    for index in indices:
        shown = drawn.trails(tracks, rows, index)
        stream.tracks(shown, ids[shown.rows].tolist(), index, factor)


def _shown_camera(camera: Camera) -> Camera:
    """Of the pictures that are shown, which are made smaller as those of the report."""
    return small_camera(camera, drawn.picture_size(camera.size))


def _pictures(result: SavedResult, recording: Path | None, say: Callable[[str], None]) -> Iterator[tuple[int, bytes]]:
    """Frame number and JPEG of the frames of the recording, as far as it can be read."""
    try:
        source = _recording(result, recording)
    except (Motion4DError, OSError) as error:
        say(f"no pictures: {error}; if the recording lies elsewhere now: --input PATH")
        return
    count = len(result.stamps_ns)
    try:
        for index, frame in enumerate(source):
            if frame.image.shape[:2] != result.camera.size:
                raise Motion4DError(
                    f"its images are {frame.image.shape[1]}x{frame.image.shape[0]} px, not those analysed"
                )
            yield index, drawn.jpeg(frame.image)
            if index + 1 == count:
                return
    except Motion4DError as error:
        say(f"the recording could not be read to its end: {error}")
    finally:
        source.close()


def _recording(result: SavedResult, recording: Path | None) -> FrameSource:
    """What was analysed, opened in the same way."""
    from motion4d_ros.offline.analyze import with_settings

    about = result.metrics.get("input", {})
    options = about.get("options")
    if not isinstance(options, dict):
        raise Motion4DError("the result is of an older version, which did not note how its recording was read")
    config = Config()
    for path, value in result.metrics.get("configuration", {}).items():
        config.set(path, str(value))
    known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
    try:
        given = SourceOptions(**known)
    except TypeError:
        raise Motion4DError("its metrics.json tells of options that this version does not know") from None
    return open_source(recording or Path(about["path"]), with_settings(given, config))
