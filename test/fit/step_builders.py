"""A small scene, frames and tracks, and the trainer that fits it: what tests of gradient steps begin with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from motion4d_ros.config import Config
from motion4d_ros.fit.optimisation.targets import Target, TrackTargets
from motion4d_ros.fit.optimisation.trainer import APPEARANCE, MOTION, SEMANTICS, Trainer
from motion4d_ros.scene.gaussians import GaussianBatch
from motion4d_ros.scene.scene import Scene
from motion4d_ros.types import Camera

CAMERA = Camera(60.0, 64.0, 33.5, 20.5, 70, 45)
FIRST, LENGTH, CHANNELS = 5, 4, 3
ALL = APPEARANCE + MOTION + SEMANTICS


def make_scene(dtype: torch.dtype, count: int = 900) -> Scene:
    """A wall and two objects before it, one on three bases and one on one; turned and moved at random."""
    random = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    scene = Scene(CHANNELS, dtype=dtype)
    scene.extend_times([10**9 + 10**8 * k for k in range(LENGTH)], first_index=FIRST)
    for owner, bases in ((1, 3), (2, 1)):
        turned = torch.tensor([1.0, 0, 0, 0]) + 0.1 * normal(bases, LENGTH, 4)
        turned[-1] *= -1.3  # not of unit length, and of the other sign
        scene.append_bases(owner, torch.tensor([0.1, -0.1, 1.5]), turned, 0.03 * normal(bases, LENGTH, 3))
    uv = torch.rand(count, 2, generator=random, dtype=torch.float64)
    owner = (torch.arange(count) % 3).to(torch.int64)
    depth = torch.where(owner > 0, 1.5, 2.0) + 0.1 * normal(count)
    side = torch.stack([(uv[:, 0] - 0.5) * 1.3, (uv[:, 1] - 0.5) * 0.9], 1)
    scene.append(
        GaussianBatch(
            means=torch.cat([side * depth[:, None], depth[:, None]], 1),
            quats=normal(count, 4),
            log_scales=0.4 * normal(count, 3) - 3.0,
            opacity_logits=normal(count),
            colors=normal(count, 3).sigmoid(),
            semantics=normal(count, CHANNELS),
            confidence_logits=normal(count),
            object_id=owner,
            dynamic=owner > 0,
            motion_logits=normal(count, 4),
        ),
        FIRST,
    )
    return scene


def make_target(index: int, dtype: torch.dtype, camera: Camera = CAMERA) -> Target:
    random = np.random.default_rng(index)
    shift = np.eye(4)
    shift[:3, 3] = 0.02 * random.standard_normal(3)
    size = camera.size
    arrays = (
        random.uniform(0, 1, (*size, 3)),
        random.integers(0, CHANNELS, size),
        random.uniform(0, 1, size),
        random.uniform(1.4, 2.2, size),
        random.uniform(0, 1, size),
        shift,
    )
    image, channels, *rest = (torch.as_tensor(array) for array in arrays)
    return Target(index, image.to(dtype), channels, *(each.to(dtype) for each in rest))


def make_tracks(dtype: torch.dtype, count: int = 60) -> TrackTargets:
    random = np.random.default_rng(9)
    uv = random.uniform((-2, -2), (CAMERA.width + 1, CAMERA.height + 1), (count, 2))  # some of them outside
    there = uv + random.normal(0, 5, uv.shape)
    return TrackTargets(*(torch.as_tensor(each, dtype=dtype) for each in (uv, there, random.uniform(0.5, 2, count))))


def make_trainer(dtype: torch.dtype, threads: int = 1, **options: float) -> Trainer:
    config = Config()
    config = replace(
        config,
        run=replace(config.run, threads=threads),
        loss=replace(config.loss, scale_spread=0.3),
        lr=replace(config.lr, bases=1e-3),
        fit=replace(config.fit, **options),
    )
    return Trainer(make_scene(dtype), config)
