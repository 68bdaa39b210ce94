import random

import pytest
import torch

from motion4d_ros.scene.gaussians import GAUSSIAN_PARAMETERS
from motion4d_ros.scene.optimizer import SceneOptimizer
from motion4d_ros.scene.scene import Scene

MS = 1_000_000
RATES = dict.fromkeys((*GAUSSIAN_PARAMETERS, "base_quats", "base_trans"), 0.01)


def fill_gradients(scene: Scene, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in scene.params.values():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def test_is_adam_while_nothing_comes_or_goes(scene):
    optimizer = SceneOptimizer(scene, RATES)
    copies = [torch.nn.Parameter(p.detach().clone()) for p in scene.params.values()]
    reference = torch.optim.Adam(copies, lr=0.01, eps=1e-15)
    for step in range(25):
        fill_gradients(scene, step)
        for copy, parameter in zip(copies, scene.params.values()):
            copy.grad = parameter.grad.clone()
        optimizer.step()
        reference.step()
    for copy, parameter in zip(copies, scene.params.values()):
        torch.testing.assert_close(parameter.data, copy.data, atol=1e-9, rtol=0)


def test_a_newcomer_takes_the_same_steps_as_one_that_started_alone(scene, make_scene, make_batch):
    """Its moments are as young as it is, however long the others have been trained."""
    old = SceneOptimizer(scene, RATES)
    for step in range(200):
        fill_gradients(scene, step)
        old.step()
    alone = Scene(2, dtype=torch.float64)
    young = SceneOptimizer(alone, RATES)
    scene.append(make_batch(3, 2, 0, seed=9))
    alone.append(make_batch(3, 2, 0, seed=9))
    names = [name for name in GAUSSIAN_PARAMETERS if name != "motion_logits"]
    for step in range(5):
        fill_gradients(scene, step)
        for name in names:
            alone.params[name].grad = scene.params[name].grad[-3:].clone()
        old.step()
        young.step()
    for name in names:
        torch.testing.assert_close(scene.params[name][-3:], alone.params[name][:], atol=1e-12, rtol=0)


def test_frozen_parameters_and_zero_rates_stay(scene):
    optimizer = SceneOptimizer(scene, RATES | {"colors": 0.0})
    before = {name: p.detach().clone() for name, p in scene.params.items()}
    with optimizer.training_only(["semantics", "colors"]):
        assert {name for name, p in scene.params.items() if p.requires_grad} == {"semantics", "colors"}
        (scene.at(12).means.sum() * 0 + scene.params["semantics"].square().sum()).backward()
        assert scene.params["means"].grad is None
        optimizer.step()
    changed = {name for name, p in scene.params.items() if not torch.equal(p.data, before[name])}
    assert changed == {"semantics"}
    assert all(p.requires_grad for p in scene.params.values())


def test_rates_are_scaled_by_name(scene):
    """Adam's first step is as long as the rate, whatever the gradient."""
    optimizer = SceneOptimizer(scene, RATES)
    before = {name: p.detach().clone() for name, p in scene.params.items()}
    fill_gradients(scene, 0)
    optimizer.step(3.0, ["means"])
    for name, length in (("means", 0.03), ("colors", 0.01)):
        steps = (scene.params[name] - before[name]).abs()
        torch.testing.assert_close(steps, torch.full_like(steps, length), atol=1e-9, rtol=1e-6)


def test_freezing_survives_structural_changes(scene, make_batch):
    optimizer = SceneOptimizer(scene, RATES)
    optimizer.freeze(["means", "base_trans"])
    scene.append(make_batch(2, 2, 0, seed=5))
    scene.extend_times([3_000 * MS])
    assert not scene.params["means"].requires_grad and not scene.params["base_trans"].requires_grad
    assert scene.params["quats"].requires_grad


def test_bad_gradients_do_no_harm(scene):
    optimizer = SceneOptimizer(scene, RATES)
    fill_gradients(scene, 0)
    scene.params["means"].grad[2, 1] = torch.nan
    scene.params["base_trans"].grad[0, 0, 0] = torch.inf
    before = scene.params["means"].detach().clone()
    optimizer.step()
    assert optimizer.bad_gradients == 2
    assert all(p.isfinite().all() for p in scene.params.values())
    moved = (scene.params["means"].detach() - before).abs() > 0
    assert not moved[2, 1] and moved.sum() == moved.numel() - 1


def test_scale_multiplies_all_rates(scene, make_scene):
    other = make_scene()
    fast, slow = SceneOptimizer(scene, RATES), SceneOptimizer(other, RATES)
    start = scene.params["means"].detach().clone()
    for each, optimizer, scale in ((scene, fast, 1.0), (other, slow, 0.25)):
        fill_gradients(each, 0)
        optimizer.step(scale)
    torch.testing.assert_close((scene.params["means"] - start) * 0.25, other.params["means"] - start)


def test_rates_are_given_for_every_parameter_and_for_nothing_else(scene):
    with pytest.raises(ValueError, match="colour"):
        SceneOptimizer(scene, RATES | {"colour": 0.1})
    with pytest.raises(ValueError, match="base_trans"):
        SceneOptimizer(scene, {name: rate for name, rate in RATES.items() if name != "base_trans"})


def test_forget_and_close(scene, make_batch):
    optimizer = SceneOptimizer(scene, RATES)
    fill_gradients(scene, 0)
    optimizer.step()
    optimizer.forget("means", torch.tensor([1, 3]))
    assert optimizer.state["means"].steps[:, 0].tolist() == [0 if k in (1, 3) else 1 for k in range(scene.count)]
    optimizer.forget("quats")
    assert optimizer.state["quats"].square.abs().max() == 0
    optimizer.close()
    scene.append(make_batch(2, 2, 0, seed=5))
    assert len(optimizer.state["means"].mean) == scene.count - 2


class Shadow:
    """What every slot of every parameter should hold, as a plain dictionary: (name, keys of its dims) -> numbers."""

    def __init__(self, scene: Scene, optimizer: SceneOptimizer) -> None:
        self.scene, self.optimizer = scene, optimizer
        self.slots: dict[tuple, list[float]] = {}
        self.ever_ids: set[int] = set()
        self.ever_bases: set[int] = set()
        self.record()

    def read(self) -> dict[tuple, list[float]]:
        scene, bases = self.scene, self.scene.bases
        ids, base_ids, frames = scene.ids.tolist(), bases.ids.tolist(), list(bases.indices)
        slots: dict[tuple, list[float]] = {}
        for name, parameter in scene.params.items():
            state = self.optimizer.state[name]
            assert parameter.shape == state.mean.shape == state.square.shape
            packed = torch.stack([parameter.detach(), state.mean, state.square])
            if name.startswith("base_"):
                for b, base in enumerate(base_ids):
                    for t, frame in enumerate(frames):
                        key = (name, base, frame)
                        slots[key] = [*packed[:, b, t].flatten().tolist(), state.steps[b, t].item()]
            elif name == "motion_logits":
                for n, one in enumerate(ids):
                    for b, base in enumerate(base_ids):
                        slots[(name, one, base)] = packed[:, n, b].tolist()
            else:
                for n, one in enumerate(ids):
                    slots[(name, one)] = [*packed[:, n].flatten().tolist(), state.steps[n].item()]
        for n, one in enumerate(ids):
            slots[("labels", one)] = [scene.object_id[n].item(), scene.dynamic[n].item()]
        for b, base in enumerate(base_ids):
            slots[("base", base)] = [bases.owner[b].item(), *bases.centers[b].tolist()]
        return slots

    def record(self) -> None:
        self.slots = self.read()
        self.ever_ids |= set(self.scene.ids.tolist())
        self.ever_bases |= set(self.scene.bases.ids.tolist())

    def check_change(self, gone: set[tuple], new_ids: list[int], new_bases: list[int], new_frames: list[int]) -> None:
        """All slots but those `gone` hold what they held; every new slot belongs to something new, with no moments."""
        now = self.read()
        survivors = self.slots.keys() - gone
        assert survivors <= now.keys() and not (gone & now.keys())
        for key in survivors:
            assert now[key] == self.slots[key], key
        for key in now.keys() - survivors:
            assert key[1] in new_ids or key[1] in new_bases or key[-1] in new_bases or key[-1] in new_frames, key
            if key[0] not in ("labels", "base"):
                width = 1 if key[0] == "motion_logits" else (len(now[key]) - 1) // 3
                assert not any(now[key][width:]), key
        assert not self.ever_ids & set(new_ids) and not self.ever_bases & set(new_bases)
        self.record()


@pytest.mark.parametrize("seed", range(4))
def test_200_random_changes_keep_ids_and_state(seed, make_scene, make_batch, make_trajectories):
    scene = make_scene()
    optimizer = SceneOptimizer(scene, RATES)
    shadow = Shadow(scene, optimizer)
    rng = random.Random(seed)
    frame = scene.bases.last_index
    done = dict.fromkeys(("append", "prune", "extend", "drop", "base", "unbase"), 0)
    for step in range(200):
        fill_gradients(scene, step)
        optimizer.step()
        shadow.record()
        action = rng.choice(["append", "append", "prune", "extend", "drop", "base", "unbase"])
        gone: set[tuple] = set()
        new_ids, new_bases, new_frames = [], [], []
        bases = scene.bases
        if action == "append" and scene.count < 40:
            new = make_batch(rng.randint(0, 4), 2, rng.randint(0, 3), step, bases.count)
            new_ids = scene.append(new).tolist()
            assert len(new_ids) == new.count
        elif action == "prune":
            keep = torch.tensor([rng.random() < 0.9 for _ in range(scene.count)], dtype=torch.bool)
            dead = set(scene.ids[~keep].tolist())
            gone = {key for key in shadow.slots if not key[0].startswith("base") and key[1] in dead}
            scene.prune(keep)
        elif action == "extend" and bases.length < 10:
            frame += 1
            new_frames = [frame]
            scene.extend_times([bases.stamps_ns[-1] + rng.randint(50, 150) * MS])
        elif action == "drop":
            first = rng.randint(bases.first_index, bases.last_index)
            gone = {key for key in shadow.slots if key[0] in ("base_quats", "base_trans") and key[2] < first}
            archived = scene.drop_times_before(first)
            assert archived.first_index + len(archived.stamps_ns) == bases.first_index == first
        elif action == "base" and bases.count < 8:
            count = rng.randint(1, 2)
            poses = make_trajectories(count, bases.length, step)
            new_bases = scene.append_bases(rng.randint(1, 3), torch.ones(3), *poses).tolist()
        elif action == "unbase" and bases.count > 1:
            keep = torch.ones(bases.count, dtype=torch.bool)
            keep[rng.randrange(bases.count)] = False
            (dead_base,) = bases.ids[~keep].tolist()
            gone = {key for key in shadow.slots if key[0].startswith("base") and key[1] == dead_base}
            gone |= {key for key in shadow.slots if key[0] == "motion_logits" and key[2] == dead_base}
            scene.keep_bases(keep)
        else:
            continue
        done[action] += 1
        shadow.check_change(gone, new_ids, new_bases, new_frames)
        assert scene.at(frame + 0.5).means.isfinite().all()
        assert len(scene.ids.unique()) == scene.count
    assert min(done.values()) >= 5, done
