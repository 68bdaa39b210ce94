"""Revised motion leaves Gaussians where they were seen."""

import torch
from torch.nn.functional import normalize

from motion4d_ros.scene.gaussians import GaussianBatch
from motion4d_ros.scene.scene import Scene

T = 6


def batch(count, object_id, seed):
    random = torch.Generator().manual_seed(seed)
    return GaussianBatch(
        means=torch.randn(count, 3, generator=random),
        quats=normalize(torch.randn(count, 4, generator=random), dim=-1),
        log_scales=torch.full((count, 3), -3.0),
        opacity_logits=torch.zeros(count),
        colors=torch.rand(count, 3, generator=random),
        semantics=torch.zeros(count, 2),
        confidence_logits=torch.zeros(count),
        motion_logits=None,
        object_id=torch.full((count,), object_id),
        dynamic=torch.full((count,), object_id > 0),
    )


def poses(bases, seed):
    random = torch.Generator().manual_seed(seed)
    return (
        normalize(torch.randn(bases, T, 4, generator=random) * 0.2 + torch.tensor([1.0, 0, 0, 0]), dim=-1),
        torch.randn(bases, T, 3, generator=random) * 0.3,
    )


def scene(bases=1):
    made = Scene(2, dtype=torch.float64)
    made.extend_times([k * 100 for k in range(T)], first_index=10)
    made.append_bases(1, torch.ones(3), *(x.double() for x in poses(bases, 0)))
    made.append_bases(2, torch.zeros(3), *(x.double() for x in poses(1, 1)))
    for born in (10, 13):
        made.append(batch(5, 1, born), born)
    made.append(batch(4, 1, 7), 7)  # lifted before the horizon began
    made.append(batch(4, 2, 8), 12)
    made.append(batch(3, 0, 9), 12)
    return made


def at_birth(made):
    posed = made.at_many(list(range(10, 10 + T)))
    column = (made.born - 10).clamp(0)
    each = torch.arange(made.count)
    means = torch.stack([p.means for p in posed], 1)[each, column]
    quats = normalize(torch.stack([p.quats for p in posed], 1)[each, column], dim=-1)
    return means.detach().clone(), quats.detach().clone()


def test_gaussians_stay_where_they_were_lifted():
    for bases in (1, 2):
        made = scene(bases)
        canonical = made.params["means"].detach().clone()
        means, quats = at_birth(made)
        made.revise_bases(torch.arange(bases), *(x.double() for x in poses(bases, 5)))
        new_means, new_quats = at_birth(made)
        inside = made.born >= 10
        assert torch.allclose(new_means[inside], means[inside], atol=1e-9)
        assert torch.allclose((new_quats * quats).sum(1).abs()[inside], torch.ones(int(inside.sum())).double())
        mine = (made.object_id == 1) & inside
        assert ((made.params["means"] - canonical).norm(dim=1)[mine] > 1e-3).all()  # so the canonical place changed
        assert torch.equal(made.params["means"][~mine], canonical[~mine])


def test_unchanged_poses_change_nothing():
    made = scene()
    canonical = made.params["means"].detach().clone()
    made.revise_bases(torch.arange(1), made.bases.quats[:1].detach().clone(), made.bases.trans[:1].detach().clone())
    assert torch.allclose(made.params["means"], canonical, atol=1e-12)


def test_birth_survives_pruning():
    made = scene()
    keep = made.born != 13
    made.prune(keep)
    assert 13 not in made.born.tolist() and len(made.born) == made.count
