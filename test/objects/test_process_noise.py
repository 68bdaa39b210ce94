"""How freely a body moves is learnt from how it has moved."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from motion4d_ros.objects.motion import PoseMeasurement, ProcessNoise, advance, again, begin, smooth
from motion4d_ros.objects.process_noise import learn_process_noise

EXPECTED = ProcessNoise(velocity=1.5, rate=2.0)
NOISE_M, NOISE_RAD = 0.002, 0.005


def walk(velocity: float, rate: float, frames: int = 60, seed: int = 0, kick: int = -1):
    """Measurements at 10 Hz of a body whose velocities change at random, by so much within one second."""
    rng = np.random.default_rng(seed)
    place, speed, turn, spin = np.zeros(3), np.array([0.3, 0.0, 0.1]), np.eye(3), np.array([0.0, 0.4, 0.0])
    measured = []
    for k in range(frames):
        if k == kick:
            speed = -3 * speed
        speed = speed + velocity * np.sqrt(0.1) * rng.standard_normal(3)
        spin = spin + rate * np.sqrt(0.1) * rng.standard_normal(3)
        place = place + 0.1 * speed
        turn = Rotation.from_rotvec(0.1 * spin).as_matrix() @ turn
        seen = Rotation.from_rotvec(NOISE_RAD * rng.standard_normal(3)).as_matrix() @ turn
        measured.append(
            (
                k * 100_000_000,
                PoseMeasurement(
                    place + NOISE_M * rng.standard_normal(3), NOISE_M**2 * np.eye(3), seen, NOISE_RAD**2 * np.eye(3)
                ),
            )
        )
    return measured


def usual(measured) -> ProcessNoise:
    """The middle of what is learnt of the steps."""
    steps = learn_process_noise(measured, EXPECTED).steps
    return ProcessNoise(*(float(np.median([getattr(each, name) for each in steps])) for name in ("velocity", "rate")))


@pytest.mark.parametrize(("velocity", "rate"), [(0.03, 0.05), (0.3, 0.5), (1.5, 2.0)])
def test_it_is_found(velocity: float, rate: float) -> None:
    found = [usual(walk(velocity, rate, seed=seed)) for seed in range(4)]
    assert np.mean([each.velocity for each in found]) == pytest.approx(velocity, rel=0.5)
    assert np.mean([each.rate for each in found]) == pytest.approx(rate, rel=0.5)


def test_a_kick_is_no_unrest() -> None:
    calm, kicked = (learn_process_noise(walk(0.03, 0.05, kick=kick), EXPECTED) for kick in (-1, 30))
    assert kicked.ahead.velocity < 2 * calm.ahead.velocity, "it is steady again"
    at_kick = max(each.velocity for each in kicked.steps[28:31])
    assert at_kick > 10 * calm.ahead.velocity
    assert kicked.at(30 * 100_000_000).velocity == kicked.steps[29].velocity
    assert kicked.at(10**12) == kicked.ahead


def test_little_data_stays_cautious() -> None:
    assert learn_process_noise(walk(0.03, 0.05, frames=2), EXPECTED).ahead == EXPECTED
    few, many = (learn_process_noise(walk(0.03, 0.05, frames=n), EXPECTED).ahead for n in (4, 60))
    assert few.velocity > 3 * many.velocity


def overstated(measured, by: float):
    """The same measurements, whose variances say `by` times as much."""
    return [(stamp, each.scaled(by, by)) for stamp, each in measured]


def test_how_much_poses_jitter_is_found() -> None:
    """An adjustment that says too much of its jitter would make steady velocities look uncertain."""
    said, too_much = (
        [learn_process_noise(overstated(walk(0.03, 0.05, seed=seed), by), EXPECTED).jitter for seed in range(4)]
        for by in (1.0, 16.0)
    )
    assert np.exp(np.mean(np.log(said), axis=0)) == pytest.approx([1.0, 1.0], rel=0.5)
    assert (np.exp(np.mean(np.log(too_much), axis=0)) < 0.15).all()


def test_the_smoother_believes_the_jitter_that_was_found() -> None:
    sure, unsure = [smooth_velocity_sigma(overstated(walk(0.03, 0.05), by)) for by in (1.0, 16.0)]
    assert unsure < 1.5 * sure


def smooth_velocity_sigma(measured) -> float:
    """m/s, one standard deviation of a velocity in the middle of the run."""
    learnt = learn_process_noise(measured, EXPECTED)
    steps = [begin(*measured[0], EXPECTED)]
    for stamp, each in measured[1:]:
        steps.append(advance(steps[-1].updated, stamp, each, EXPECTED))
    middle = smooth(again(steps, learnt.at, learnt.jitter))[len(measured) // 2]
    return float(np.sqrt(middle.linear.covariance[3, 3]))
