"""What a person should know before believing the numbers: sources, what was missing, what to distrust, scale."""

from __future__ import annotations

from typing import Any

from motion4d_ros.types import Scale

FLAT_CONFIDENCE = 0.1  # between the 5th and the 95th percentile of the frames

_SCALE = {
    Scale.METRIC.value: (
        "Lengths are <b>metres</b> and speeds metres per second, as far as the given depth or poses are."
    ),
    Scale.RELATIVE.value: (
        "Lengths are <b>relative</b>: consistent over the run, but one unit is no known number of metres. Compare "
        "sizes and speeds with each other, never with the real world. A known camera height, odometry or one known "
        "distance fixes it. Without a depth sensor or a depth network, speed is that across the line of sight: along "
        "it nothing tells."
    ),
    Scale.UNKNOWN.value: (
        "The scale is <b>unknown</b>: the camera gave no parallax, and no depth said how far things are, so lengths "
        "along the viewing direction mean little and sizes and speeds must not be compared between objects at "
        "different distances. Speed is that across the line of sight: along it nothing tells."
    ),
}

_PRIORS = {
    "masks": {
        "topic": "object masks given with the frames",
        "none": "no objects",
        "propagation": "outlines carried along the flow",
        "sam2": "outlines by SAM 2",
        "edgetam": "outlines by EdgeTAM",
        "sam_onnx": "outlines by a SAM network",
    },
    "depth": {
        "topic": "depth given with the frames, aligned to the scene",
        "geometry": "depth triangulated from the camera's own motion",
        "model": "depth guessed by a network, aligned to the scene",
        "none": "no depth",
    },
    "pose": {
        "odometry": "camera poses given with the frames",
        "tf": "camera poses from TF",
        "static": "a camera that is assumed to stand still",
        "visual": "camera poses found from the images",
    },
}


_FOUND = {
    "motion": "objects found by their own motion",
    "detections": "objects found by a detector",
    "none": "objects marked by a person",
}


def unit(scale: str) -> str:
    """What to write behind a length."""
    return Scale(scale).unit


def scale_sentence(scale: str) -> str:
    """What lengths mean (HTML)."""
    return _SCALE[scale]


def sources(configuration: dict[str, Any]) -> list[str]:
    """Which prior each part of the fit started from."""
    found = []
    for part, names in _PRIORS.items():
        value = str(configuration.get(f"{part}.source", ""))
        found.append(names.get(value, f"{part}: {value}"))
    if configuration.get("masks.source") not in ("topic", "none", None):
        found[0] = f"{_FOUND.get(str(configuration.get('masks.discovery')), 'objects')}, {found[0]}"
    return found


def distrust(metrics: dict[str, Any]) -> list[str]:
    """What to be careful with, most serious first (plain text)."""
    return _left_out(metrics) + _camera_doubts(metrics) + _source_doubts(metrics) + _scene_doubts(metrics)


def _left_out(metrics: dict[str, Any]) -> list[str]:
    """What the results do not hold."""
    found: list[str] = []
    if metrics["failure"]:
        found.append(f"The analysis ended before the end of the recording: {metrics['failure']}")
    if metrics["interrupted"]:
        found.append(
            "The analysis was interrupted: what came later and the last global refinement are missing or cut short."
        )
    if failed := metrics["failed"]:
        told = "; ".join(f"{name} ({reason})" for name, reason in failed.items())
        found.append(f"These files could not be written: {told}")
    return found


def _camera_doubts(metrics: dict[str, Any]) -> list[str]:
    """What to doubt of the camera's path and of its lens."""
    found: list[str] = []
    counts, configuration = metrics["counts"], metrics["configuration"]
    poses, frames = counts["poses"], counts["frames"]
    if lost := poses.get("lost", 0):
        found.append(
            f"The camera pose was lost in {lost} of {frames} frames: nothing in 3D holds there. After a cut it stays "
            "lost until something known is seen again, or until a new scene begins (pose.restart_after)."
        )
    groundless = counts["frames_without_ground"]
    if groundless:
        found.append(
            f"In {groundless} of {frames} frames too little of the picture agrees on what stands still: what was taken "
            "for still may itself move there, and what rests on it (camera path, depth, objects) may be wrong."
        )
    if later := metrics["scenes"][1:]:
        told = ", ".join(f"frame {scene['first_frame']} ({scene['began']})" for scene in later)
        found.append(
            f"New scenes begin with {told}: positions, lengths and ids cannot be compared across. The map and the 3D "
            "view show the last one."
        )
    if predicted := poses.get("predicted", 0):
        found.append(f"The camera pose was only predicted in {predicted} of {frames} frames.")
    if "camera intrinsics" in metrics["input"]["missing"]:
        found.append("The focal length is a guess: depth, and speed towards the camera, scale with it.")
    if configuration.get("pose.source") == "static":
        found.append("The camera was assumed to stand still: if it moved, the world seems to move instead.")
    if configuration.get("pose.source") == "visual" and frames > 1 and not groundless:
        found.append(
            "The camera's path was found in the images: what most of the picture agrees on was taken to stand still. "
            "If one thing fills the picture and moves, path, depth and objects are wrong, and nothing here shows it."
        )
    return found


def _source_doubts(metrics: dict[str, Any]) -> list[str]:
    """What was not given and had to be found."""
    found: list[str] = []
    configuration = metrics["configuration"]
    if configuration.get("depth.source") in ("geometry", "none"):
        found.append(
            "There was no depth sensor: moving objects are placed by geometry alone. Their distance, and how far their "
            "boxes reach along the viewing direction, are the least certain numbers here."
        )
    finds = configuration.get("masks.source") not in ("topic", "none")
    if finds and configuration.get("masks.discovery") == "motion":
        found.append(
            "Objects were found by motion: what never moved is background, and things that move alike may share an id."
        )
    return found


def _scene_doubts(metrics: dict[str, Any]) -> list[str]:
    """What to doubt of the scene and the tracks."""
    found: list[str] = []
    counts, configuration = metrics["counts"], metrics["configuration"]
    frames = counts["frames"]
    if counts["objects"] == 0:
        found.append("No moving object was found.")
    visible, confidence = metrics["tracks"]["visible_share"], metrics["tracks"]["mean_confidence"]
    if confidence is not None and confidence < 0.4:
        found.append(
            f"The scene contradicts its 2D sources often (mean confidence of visible tracks {confidence:.2f})."
        )
    if visible is not None and visible < 0.3:
        found.append(f"Tracked points are hidden most of the time (visible in {100 * visible:.0f} % of the frames).")
    if frames == 1:
        found.append("There was only one frame: nothing is known about motion.")
    elif frames < 2 * int(configuration.get("window.length", 8)):
        found.append(f"Only {frames} frames: too few for the scene to settle.")
    return found


def confidence_note(means: list[float]) -> str:
    """What to read from the curve of each frame's mean confidence (NaN = none); empty if it speaks for itself."""
    known = sorted(value for value in means if value == value)
    if len(known) < 8:
        return ""
    low, high = known[len(known) // 20], known[-1 - len(known) // 20]
    if high - low > FLAT_CONFIDENCE:
        return ""
    return (
        f"It hardly changes over this recording ({low:.2f} to {high:.2f}): here it tells points from each other, "
        "not good frames from bad ones."
    )
