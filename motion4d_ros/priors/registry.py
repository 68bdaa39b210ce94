"""Which class stands behind each name of `masks.source`, `masks.discovery`, and of the other sources.

A source is added by one file and one line here. Its module is imported only when it is chosen, so that nobody needs
the networks' packages who doesn't use them. Every class is constructed with the whole `Config`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

from motion4d_ros.config import Config
from motion4d_ros.priors.guarded import GuardedDepth, GuardedDetections, GuardedMasks
from motion4d_ros.priors.interfaces import DepthSource, DetectionSource, MaskSource, PoseSource, TrackSource
from motion4d_ros.priors.masks.discovery.proposals import Discovery
from motion4d_ros.types import Motion4DError

TRACK_SOURCES: Mapping[str, str] = {
    "flow": "tracks.flow_tracks:FlowTracks",
    "tapir": "tracks.tapir:TapirTracks",
}
MASK_SOURCES: Mapping[str, str] = {
    "topic": "masks.given:GivenMasks",
    "none": "masks.given:NoMasks",
    "propagation": "masks.prompted:PromptedMasks",
    "sam2": "masks.video_network:VideoNetworkMasks",
    "edgetam": "masks.video_network:VideoNetworkMasks",
    "sam_onnx": "masks.sam_onnx:SamOnnxMasks",
}
DISCOVERIES: Mapping[str, str] = {
    "motion": "masks.discovery.motion:MotionDiscovery",
    "detections": "masks.discovery.detections:DetectionDiscovery",
}
DETECTION_SOURCES: Mapping[str, str] = {
    "onnx": "detections.network:NetworkDetections",
}
"""`given` has none: what a topic or a file says comes with the frames."""
DEPTH_SOURCES: Mapping[str, str] = {
    "topic": "depth.sensor:GivenDepth",
    "none": "depth.sensor:NoDepth",
    "geometry": "depth.multiview:GeometricDepth",
    "model": "depth.network:ModelDepth",
}
POSE_SOURCES: Mapping[str, str] = {
    "odometry": "pose.given:GivenPose",
    "tf": "pose.given:GivenPose",
    "static": "pose.given:StaticPose",
    "visual": "pose.visual_odometry:VisualPose",
}


def make_track_source(config: Config) -> TrackSource:
    """The source of 2D point tracks that `tracks.source` names."""
    return cast(TrackSource, _make(TRACK_SOURCES, "tracks.source", config))


def make_mask_source(config: Config) -> GuardedMasks:
    """What outlines objects (`masks.source`), behind what finds them (`masks.discovery`).

    What fails in it later does not end the run.
    """
    name, finder = config.masks.source, config.masks.discovery
    if (name, finder) == ("propagation", "motion"):  # one class does both: it corrects outlines by what moves
        from motion4d_ros.priors.masks.discovery.motion_masks import MotionMasks

        return GuardedMasks(MotionMasks(config), "masks.discovery=motion")
    source = cast(MaskSource, _make(MASK_SOURCES, "masks.source", config))
    if name in ("topic", "none") or finder == "none":
        return GuardedMasks(source, f"masks.source={name}")
    from motion4d_ros.priors.masks.discovered import DiscoveredMasks

    discovery = cast(Discovery, _make(DISCOVERIES, "masks.discovery", config))
    return GuardedMasks(DiscoveredMasks(config, source, discovery), f"masks.source={name}")


def make_detection_source(config: Config) -> GuardedDetections | None:
    """What looks at frames that come without detections; None where nobody does (`detections.source: given`)."""
    name = config.detections.source
    if name == "given":
        return None
    source = cast(DetectionSource, _make(DETECTION_SOURCES, "detections.source", config))
    return GuardedDetections(source, f"detections.source={name}")


def make_depth_source(config: Config) -> DepthSource:
    """The source of depth that `depth.source` names. What fails in it later does not end the run."""
    source = cast(DepthSource, _make(DEPTH_SOURCES, "depth.source", config))
    return GuardedDepth(source, f"depth.source={config.depth.source}")


def make_pose_source(config: Config) -> PoseSource:
    """The source of camera poses that `pose.source` names."""
    if config.pose.refine and config.pose.source in ("odometry", "tf"):
        from motion4d_ros.priors.pose.correction import RefinedPose

        return RefinedPose(config)
    return cast(PoseSource, _make(POSE_SOURCES, "pose.source", config))


def _make(sources: Mapping[str, str], path: str, config: Config) -> Any:
    """Imports and constructs the source named by the tunable at `path`.

    Raises `Motion4DError` for an unknown name and for a missing third-party package; a defect inside our own modules
    is raised as it is.
    """
    name = config.get(path)
    if name not in sources:
        raise Motion4DError(f"{path}={name!r}: choose one of {', '.join(sources)}")
    module_name, class_name = sources[name].split(":")
    try:
        module = importlib.import_module(f"motion4d_ros.priors.{module_name}")
        return getattr(module, class_name)(config)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("motion4d_ros"):
            raise
        raise Motion4DError(
            f"{path}={name} needs the Python package {error.name!r}: install it (docs/how-to/models.md) "
            f"or choose one of {', '.join(other for other in sources if other != name)}"
        ) from None
