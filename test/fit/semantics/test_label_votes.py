"""Label votes: Gaussians that frames contradict are found, good ones are kept, labels follow the votes."""

from __future__ import annotations

import pytest
import torch
from fit_builders import CAMERA, PERIOD_NS

from motion4d_ros.fit.optimisation.targets import Target
from motion4d_ros.fit.semantics.label_votes import (
    LabelVotes,
    adopt_votes,
    contradicted,
    count_label_votes,
    horizon_sample,
)
from motion4d_ros.scene.gaussians import GaussianBatch
from motion4d_ros.scene.scene import Scene

LENGTH = 6
HEIGHT, WIDTH = CAMERA.size


def target(index: int, split: int = 32, depth_m: float = 2.0) -> Target:
    """A wall at `depth_m`; left of column `split` it is called 1."""
    channels = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    channels[:, :split] = 1
    return Target(
        index,
        torch.zeros(HEIGHT, WIDTH, 3),
        channels,
        torch.ones(HEIGHT, WIDTH),
        torch.full((HEIGHT, WIDTH), depth_m),
        torch.ones(HEIGHT, WIDTH),
        torch.eye(4),
    )


def scene_of(places: list[tuple[float, float, float]], owners: list[int], moving: bool = False) -> Scene:
    """Gaussians at pixels (u, v) and depths; with `moving`, those of object 1 go 2 px to the right per frame."""
    uvz = torch.tensor(places, dtype=torch.float64)
    means = (
        torch.stack([(uvz[:, 0] - CAMERA.cx) / CAMERA.fx, (uvz[:, 1] - CAMERA.cy) / CAMERA.fy, torch.ones(len(uvz))], 1)
        * uvz[:, 2:]
    )
    scene = Scene(2)
    scene.extend_times([(k + 1) * PERIOD_NS for k in range(LENGTH)], first_index=0)
    if moving:
        trans = torch.zeros(1, LENGTH, 3)
        trans[0, :, 0] = torch.arange(LENGTH) * 2 * 2.0 / CAMERA.fx
        scene.append_bases(1, torch.zeros(3), torch.tensor([1.0, 0, 0, 0]).repeat(1, LENGTH, 1), trans)
    count = len(places)
    owner = torch.tensor(owners)
    scene.append(
        GaussianBatch(
            means=means.float(),
            quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
            log_scales=torch.full((count, 3), -4.0),
            opacity_logits=torch.ones(count),
            colors=torch.ones(count, 3),
            semantics=torch.zeros(count, 2),
            confidence_logits=torch.zeros(count),
            object_id=owner,
            dynamic=(owner > 0) & moving,
        )
    )
    return scene


def verdict(scene: Scene, targets: list[Target], minimum: int = 4) -> list[bool]:
    return contradicted(count_label_votes(scene, targets, CAMERA), scene.object_id.clone(), minimum).tolist()


def test_ghosts_and_misnamed_go_and_good_ones_stay() -> None:
    places = [(10, 20, 2.0), (50, 20, 2.0), (50, 20, 2.02), (50, 30, 1.0), (50, 30, 3.0), (500, 20, 2.0)]
    owners = [1, 0, 1, 0, 0, 0]
    # good object, good wall, wall that is called an object, ghost in free space, hidden behind, out of view
    assert verdict(scene_of(places, owners), [target(k) for k in range(LENGTH)]) == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]


def test_counts_are_counts() -> None:
    scene = scene_of([(10, 20, 2.0), (50, 30, 1.0), (50, 30, 3.0)], [1, 0, 0])
    label_votes = count_label_votes(scene, [target(k) for k in range(LENGTH)], CAMERA)
    assert label_votes.votes.tolist() == [[0, 6], [0, 0], [0, 0]]
    assert label_votes.visible.tolist() == [6, 0, 0]
    assert label_votes.seen_through.tolist() == [0, 6, 0]
    assert label_votes.looked_at.tolist() == [6, 6, 0]


def test_few_witnesses_condemn_nobody() -> None:
    scene = scene_of([(50, 20, 2.0), (50, 30, 1.0)], [1, 0])
    assert verdict(scene, [target(k) for k in range(3)]) == [False, False]


def test_moving_gaussians_are_asked_where_they_are_then() -> None:
    scene = scene_of([(10, 20, 2.0), (10, 25, 2.0)], [1, 0], moving=True)
    edges = [target(k, split=12 + 2 * k) for k in range(LENGTH)]
    for k, item in enumerate(edges):
        item.channels[:, : 8 + 2 * k] = 0  # a stripe of label 1 that moves with the Gaussian
    assert verdict(scene, edges) == [False, False]
    frozen = scene_of([(10, 20, 2.0)], [1])
    assert verdict(frozen, edges) == [True]  # the same Gaussian without its motion is left behind


def test_unknown_pixels_and_unknown_depth_say_nothing() -> None:
    scene = scene_of([(10, 20, 2.0), (50, 30, 1.0)], [0, 0])
    silent = [target(k) for k in range(LENGTH)]
    for item in silent:
        item.known[:] = 0
        item.depth_weight[:, 40:] = 0
    label_votes = count_label_votes(scene, silent, CAMERA)
    assert label_votes.visible.sum() == 0
    assert label_votes.seen_through.tolist() == [0, 0]


def test_adopted_labels_are_shares_of_votes_with_some_doubt() -> None:
    scene = scene_of([(10, 20, 2.0), (50, 30, 1.0)], [1, 0])
    label_votes = LabelVotes(
        torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([4.0, 0.0]), torch.zeros(2), torch.zeros(2)
    )
    adopt_votes(scene, label_votes, doubt=1.0)
    shares = scene.params["semantics"].detach().softmax(-1)
    assert shares[0].tolist() == pytest.approx([1.5 / 5, 3.5 / 5], rel=1e-4)
    assert shares[1].tolist() == pytest.approx([0.5, 0.5])  # nobody saw it: as before


def test_a_sample_of_the_horizon_holds_its_ends() -> None:
    targets = {k: target(k) for k in (4, 5, 6, 7, 8, 9, 10)}
    assert [item.index for item in horizon_sample(targets, 3)] == [4, 7, 10]
    assert [item.index for item in horizon_sample(targets, 99)] == sorted(targets)
