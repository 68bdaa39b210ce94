import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from motion4d_ros.objects.motion import PoseMeasurement, ProcessNoise, advance, begin, predict, smooth

AGILITY = ProcessNoise(velocity=1.0, rate=1.0)
NOISE, TURN_NOISE = 0.01, 0.02
DT = 0.1


def measure(position, rotation=None, noise=NOISE, turn_noise=TURN_NOISE) -> PoseMeasurement:
    turn = None if rotation is None else np.eye(3) * turn_noise**2
    return PoseMeasurement(np.asarray(position, float), np.eye(3) * noise**2, rotation, turn)


def stamp(k: int) -> int:
    return round(k * DT * 1e9)


def run(measurements, process_noise=AGILITY):
    steps = [begin(stamp(0), measurements[0], process_noise)]
    for k, measurement in enumerate(measurements[1:], 1):
        steps.append(advance(steps[-1].updated, stamp(k), measurement, process_noise))
    return steps


def test_constant_twist_is_found_exactly():
    velocity, rate = np.array([0.5, -0.2, 0.1]), np.array([0.3, 1.2, -0.5])
    steps = run([measure(velocity * DT * k, Rotation.from_rotvec(rate * DT * k).as_matrix()) for k in range(40)])
    state = steps[-1].updated
    np.testing.assert_allclose(state.linear.rate, velocity, atol=2e-3)
    np.testing.assert_allclose(state.angular.rate, rate, atol=5e-3)
    for each in smooth(steps)[5:]:
        np.testing.assert_allclose(each.linear.rate, velocity, atol=2e-3)
        np.testing.assert_allclose(each.angular.rate, rate, atol=1e-2)
    ahead = predict(state, stamp(49), AGILITY)
    np.testing.assert_allclose(ahead.linear.value, velocity * 4.9, atol=5e-3)
    error = Rotation.from_matrix(ahead.angular.value @ Rotation.from_rotvec(rate * 4.9).as_matrix().T).magnitude()
    assert error < 0.02


def random_walk(rng, count=60):
    """A body that moves as the filter assumes, and noisy measurements of it."""
    velocity, rate = rng.normal(0, 1, 3), rng.normal(0, 1, 3)
    position, rotation = rng.normal(0, 1, 3), Rotation.random(random_state=rng.integers(2**31))
    truth, measurements = [], []
    for _ in range(count):
        truth.append((position, rotation.as_matrix(), velocity, rate))
        noisy = Rotation.from_rotvec(rng.normal(0, TURN_NOISE, 3)) * rotation
        measurements.append(measure(position + rng.normal(0, NOISE, 3), noisy.as_matrix()))
        fine = 10
        for _ in range(fine):  # white noise on the rates, integrated finely
            position = position + velocity * DT / fine
            rotation = Rotation.from_rotvec(rate * DT / fine) * rotation
            velocity = velocity + rng.normal(0, AGILITY.velocity * np.sqrt(DT / fine), 3)
            rate = rate + rng.normal(0, AGILITY.rate * np.sqrt(DT / fine), 3)
    return truth, measurements


def normalised_errors(states, truth):
    """Mean squared error of (position, velocity) and (rotation, rate), each over its covariance: 6 when honest."""
    linear, angular = [], []
    for state, (position, rotation, velocity, rate) in zip(states, truth):
        error = np.concatenate([state.linear.value - position, state.linear.rate - velocity])
        linear.append(error @ np.linalg.solve(state.linear.covariance, error))
        turn = Rotation.from_matrix(rotation @ state.angular.value.T).as_rotvec()
        error = np.concatenate([turn, rate - state.angular.rate])
        angular.append(error @ np.linalg.solve(state.angular.covariance, error))
    return np.mean(linear), np.mean(angular)


def test_covariances_are_honest_and_smoothing_helps():
    rng = np.random.default_rng(0)
    filtered, smoothed, gains = [], [], []
    for _ in range(12):
        truth, measurements = random_walk(rng)
        steps = run(measurements)
        forward, both = [step.updated for step in steps], smooth(steps)
        filtered.append(normalised_errors(forward[10:], truth[10:]))
        smoothed.append(normalised_errors(both[10:-5], truth[10:-5]))
        rms = [
            np.sqrt(np.mean([(s.linear.rate - t[2]) ** 2 for s, t in zip(states[10:], truth[10:])]))
            for states in (forward, both)
        ]
        gains.append(rms[1] / rms[0])
    for errors in (filtered, smoothed):
        np.testing.assert_allclose(np.mean(errors, axis=0), 6.0, rtol=0.3)
    assert np.mean(gains) < 0.8


def test_a_bounce_is_followed_at_once():
    position = [np.array([0, 0, abs(2.0 - 0.4 * k)]) for k in range(12)]  # falls at 4 m/s, hits at k = 5, rises
    calm = ProcessNoise(velocity=0.2, rate=0.2)
    steps = run([measure(p, np.eye(3)) for p in position], calm)
    assert steps[5].updated.linear.rate[2] == pytest.approx(-4, abs=0.1)
    for step, truth in zip(steps[6:], position[6:]):
        assert abs(step.updated.linear.value[2] - truth[2]) < 3 * NOISE
    assert steps[8].updated.linear.rate[2] == pytest.approx(4, abs=0.3)


def test_uncertainty_grows_while_nothing_is_measured_and_shrinks_again():
    seen = [measure([0.05 * k, 0, 0], np.eye(3)) for k in range(10)]
    steps = run([*seen, *[None] * 20, measure([0.05 * 30, 0, 0], np.eye(3))])
    traces = [np.trace(step.updated.pose_covariance) for step in steps]
    assert np.all(np.diff(traces[9:30]) > 0)
    assert traces[29] > 100 * traces[9] and traces[30] < traces[29] / 100
    in_gap = np.trace(smooth(steps)[20].pose_covariance)
    assert traces[9] < in_gap < traces[20]  # hindsight knows where it came out again


def test_without_orientation_only_the_position_is_updated():
    steps = run([measure([0.05 * k, 0, 0]) for k in range(20)])
    state = steps[-1].updated
    assert state.linear.rate[0] == pytest.approx(0.5, abs=0.01)
    np.testing.assert_array_equal(state.angular.value, np.eye(3))
    assert np.trace(state.angular.covariance[:3, :3]) >= 3 * np.pi**2


def test_nothing_to_smooth():
    assert smooth([]) == []
