from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from motion4d_ros.scene.gaussians import GaussianBatch
from motion4d_ros.scene.scene import Scene

MS = 1_000_000


def batch(count: int, channels: int, object_id: int, seed: int, bases: int = 0, spread: float = 0.3) -> GaussianBatch:
    """Random Gaussians, the same for the same arguments."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return GaussianBatch(
        means=spread * normal(count, 3),
        quats=normal(count, 4),
        log_scales=normal(count, 3) - 3,
        opacity_logits=normal(count),
        colors=normal(count, 3).sigmoid(),
        semantics=normal(count, channels),
        confidence_logits=normal(count),
        object_id=torch.full((count,), object_id),
        dynamic=torch.full((count,), object_id > 0),
        motion_logits=normal(count, bases) if bases else None,
    )


def trajectories(count: int, length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random smooth poses: quats (n, T, 4) and trans (n, T, 3)."""
    generator = torch.Generator().manual_seed(seed)
    quats = torch.cumsum(0.1 * torch.randn(count, length, 4, generator=generator, dtype=torch.float64), 1)
    quats[..., 0] += 1.5
    trans = torch.cumsum(0.1 * torch.randn(count, length, 3, generator=generator, dtype=torch.float64), 1)
    return quats, trans


def build(channels: int = 2, length: int = 6, dtype: torch.dtype = torch.float64) -> Scene:
    """Background of 5, object 1 of 7 Gaussians on two bases, object 2 of 4 on one; uneven stamps from frame 10 on."""
    scene = Scene(channels, dtype=dtype)
    stamps = torch.cumsum(torch.tensor([0, 100, 80, 120, 100, 150, 90, 110][:length]), 0)
    scene.extend_times([1_000 * MS + int(s) * MS for s in stamps], first_index=10)
    scene.append_bases(1, torch.tensor([0.1, 0.2, 0.3]), *trajectories(2, length, 1))
    scene.append_bases(2, torch.tensor([-0.1, 0.0, 0.5]), *trajectories(1, length, 2))
    for count, object_id in ((5, 0), (7, 1), (4, 2)):
        scene.append(batch(count, channels, object_id, seed=object_id, bases=3))
    return scene


@pytest.fixture
def scene() -> Scene:
    return build()


@pytest.fixture
def make_scene() -> Callable[..., Scene]:
    return build


@pytest.fixture
def make_batch() -> Callable[..., GaussianBatch]:
    return batch


@pytest.fixture
def make_trajectories() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    return trajectories
