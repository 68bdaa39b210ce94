"""Runs a scene through the engine and keeps everything that it says of certainty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.evaluation.score import Truth
from motion4d_ros.evaluation.synthetic.scene import FRAME_PERIOD_NS
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.types import Camera, Estimate, Frame, IntArray, ObjectState, QueryTracks, Stage, TrackedPoints


@dataclass
class Recording:
    """What was told of a scene: the last word of each stage on every frame."""

    objects: dict[Stage, dict[int, list[ObjectState]]] = field(default_factory=dict)  # stage -> frame -> objects
    masks: dict[int, IntArray] = field(default_factory=dict)  # frame -> (H, W), last word
    mask_confidence: dict[int, NDArray[np.uint8]] = field(default_factory=dict)  # frame -> (H, W), 255ths
    points: dict[int, TrackedPoints] = field(default_factory=dict)  # frame -> points, last word
    depth: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = field(default_factory=dict)
    """Frame -> rendered depth and its standard deviation (H, W), m, of the frames in view at the end."""
    tracks: QueryTracks | None = None

    def add(self, estimates: list[Estimate]) -> None:
        """Keeps what was just told."""
        for estimate in estimates:
            self.objects.setdefault(estimate.stage, {})[estimate.index] = estimate.objects
            if estimate.stage is not Stage.LIVE:
                self.masks[estimate.index] = estimate.masks
                self.points[estimate.index] = estimate.points
                if estimate.mask_confidence is not None:
                    self.mask_confidence[estimate.index] = estimate.mask_confidence


def record(truth: Truth, settings: dict[str, str]) -> Recording:
    """Plays the inputs of a scene (see `frames_of`) to an engine; `settings` are config values by key."""
    config = Config()
    config.update({"masks.source": "topic", "depth.source": "topic", "pose.source": "odometry"} | settings)
    engine, recording = Motion4D(config), Recording()
    for frame in frames_of(truth):
        recording.add([engine.add_frame(frame)])
        recording.add(engine.process_window())
    recording.add(engine.flush())
    recording.tracks = engine.query(truth["queries"])
    for index in [state.index for state in engine.horizon.frames]:
        rendered = engine.render(index)
        recording.depth[index] = rendered.depth_m, rendered.depth_sigma_m
    return recording


def frames_of(truth: Truth) -> Iterator[Frame]:
    """The inputs that a ``gt.npz`` holds: images and exact poses, degraded masks and depth."""
    K, (height, width) = truth["K"], truth["images"].shape[1:3]
    camera = Camera(float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]), width, height)
    for k, image in enumerate(truth["images"]):
        yield Frame(
            stamp_ns=(k + 1) * FRAME_PERIOD_NS,
            image=image,
            camera=camera,
            T_map_cam=truth["T_wc"][k],
            depth_m=truth["in_depth"][k].astype(np.float32),
            masks=truth["in_masks"][k].astype(np.int32),
        )
