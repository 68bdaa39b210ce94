import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from motion4d_ros.scene.rotations import (
    orthonormalise,
    quat_multiply,
    quat_to_matrix,
    quat_to_rotvec,
    rotvec_to_quat,
    slerp,
)

seeds = st.integers(0, 2**31)


def random_rotvecs(seed: int, count: int = 20, longest: float = 3.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * rng.uniform(0, longest, (count, 1))


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_agrees_with_scipy(seed):
    a, b = random_rotvecs(seed), random_rotvecs(seed + 1)
    qa, qb = rotvec_to_quat(torch.tensor(a)), rotvec_to_quat(torch.tensor(b))
    ra, rb = Rotation.from_rotvec(a), Rotation.from_rotvec(b)
    np.testing.assert_allclose(quat_to_matrix(qa).numpy(), ra.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(quat_to_matrix(quat_multiply(qa, qb)).numpy(), (ra * rb).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(quat_to_rotvec(qa).numpy(), a, atol=1e-9)
    np.testing.assert_allclose(quat_to_rotvec(-qa).numpy(), a, atol=1e-9)  # q and -q are the same rotation


def test_small_turns_are_exact_and_differentiable():
    for size in (0.0, 1e-12, 1e-7, 1e-5, 1e-3):
        rotvec = torch.tensor([size, -2 * size, size / 2], dtype=torch.float64, requires_grad=True)
        np.testing.assert_allclose(quat_to_rotvec(rotvec_to_quat(rotvec)).detach(), rotvec.detach(), rtol=1e-10, atol=0)
        (jacobian,) = torch.autograd.functional.jacobian(lambda r: quat_to_rotvec(rotvec_to_quat(r)), (rotvec,))
        np.testing.assert_allclose(jacobian, np.eye(3), atol=1e-9)


def test_matrix_ignores_length_of_the_quaternion():
    q = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(quat_to_matrix(q), quat_to_matrix(-7.0 * q))


def test_orthonormalise_keeps_rotations_and_mends_others():
    rotations = torch.tensor(Rotation.from_rotvec(random_rotvecs(3)).as_matrix())
    torch.testing.assert_close(orthonormalise(rotations), rotations)
    noise = torch.randn(20, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mended = orthonormalise(rotations * 0.7 + 0.1 * noise)
    identity = torch.eye(3, dtype=torch.float64).expand(20, 3, 3)
    torch.testing.assert_close(mended @ mended.transpose(1, 2), identity)
    torch.testing.assert_close(torch.linalg.det(mended), torch.ones(20, dtype=torch.float64))


@given(seeds, st.floats(-1.5, 2.5))
@settings(max_examples=50, deadline=None)
def test_slerp_turns_at_constant_rate(seed, fraction):
    start, turn = random_rotvecs(seed, 1), random_rotvecs(seed + 1, 1, longest=2.9)
    a = torch.tensor(Rotation.from_rotvec(start).as_quat(scalar_first=True))
    b = torch.tensor((Rotation.from_rotvec(turn) * Rotation.from_rotvec(start)).as_quat(scalar_first=True))
    expected = (Rotation.from_rotvec(turn * fraction) * Rotation.from_rotvec(start)).as_matrix()
    for sign in (1, -1):
        actual = quat_to_matrix(slerp(a, sign * b, torch.full((1,), fraction, dtype=torch.float64)))
        np.testing.assert_allclose(actual.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, 3.0])
def test_slerp_gradients(angle):
    a = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    b = rotvec_to_quat(torch.tensor([[angle, 0, 0]], dtype=torch.float64))
    fraction = torch.tensor([0.3], dtype=torch.float64)
    inputs = tuple(x.requires_grad_(True) for x in (a, b, fraction))
    assert torch.autograd.gradcheck(slerp, inputs, eps=1e-7, atol=1e-5)
