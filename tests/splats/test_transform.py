"""Moving splats: what a camera that moves along sees does not change."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from kernels.reference.spherical_harmonics import spherical_harmonics
from recon.errors import InputError
from recon.splats.model import Splats
from recon.splats.transform import transform, turn_harmonics


def some_splats(degree: int, n: int = 20) -> Splats:
    g = torch.Generator().manual_seed(degree)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return Splats(normal(n, 3), normal(n, 3), normal(n, 4), normal(n), normal(n, (degree + 1) ** 2, 3))


def some_similarity(mirror: bool = False) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = 2.5 * Rotation.from_rotvec([0.4, -1.9, 0.8]).as_matrix()
    if mirror:
        matrix[:3, 0] *= -1
    matrix[:3, 3] = [3, -7, 0.5]
    return matrix


def covariances(splats: Splats) -> np.ndarray:
    rotation = Rotation.from_quat(splats.quats.numpy(), scalar_first=True).as_matrix()
    axes = rotation * splats.scales.numpy()[:, None, :]
    return axes @ axes.swapaxes(1, 2)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_everything_turns_together(degree, mirror):
    splats, matrix = some_splats(degree), some_similarity(mirror)
    moved = transform(splats, matrix)
    linear = matrix[:3, :3]
    np.testing.assert_allclose(moved.means, splats.means.numpy() @ linear.T + matrix[:3, 3], atol=1e-12)
    np.testing.assert_allclose(covariances(moved), linear @ covariances(splats) @ linear.T, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(moved.logits, splats.logits)
    torch.testing.assert_close(moved.quats.norm(dim=1), splats.quats.norm(dim=1))
    directions = torch.randn(len(splats), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    seen = spherical_harmonics(degree, directions, splats.sh)
    turned = directions @ torch.from_numpy(linear).T
    torch.testing.assert_close(spherical_harmonics(degree, turned, moved.sh), seen, atol=1e-12, rtol=0)


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_each_colour_by_its_own_turn(degree: int) -> None:
    splats, turns = some_splats(degree, 5), Rotation.random(5, random_state=0)
    found = turn_harmonics(splats.sh, torch.from_numpy(turns.as_matrix()))
    for i, turn in enumerate(turns):
        matrix = np.eye(4)
        matrix[:3, :3] = turn.as_matrix()
        torch.testing.assert_close(found[i], transform(splats, matrix).sh[i])


def test_quarter_turn_by_hand():
    """A quarter turn about z takes x to y: the coefficient of −x (index 3) becomes that of −y (index 1)."""
    sh = torch.zeros(1, 4, 3)
    sh[0, 3] = 1
    splats = Splats(torch.tensor([[1.0, 0, 0]]), torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.zeros(1), sh)
    turn = np.array([[0, -2, 0, 0], [2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
    moved = transform(splats, turn)
    torch.testing.assert_close(moved.means, torch.tensor([[0.0, 2, 0]]))
    torch.testing.assert_close(moved.log_scales, torch.full((1, 3), math.log(2)))
    half = math.sqrt(0.5)
    torch.testing.assert_close(moved.quats * moved.quats[:, :1].sign(), torch.tensor([[half, 0, 0, half]]))
    torch.testing.assert_close(moved.sh[0, :, 0], torch.tensor([0.0, 1, 0, 0]), atol=1e-6, rtol=0)


def test_there_and_back():
    splats, matrix = some_splats(3), some_similarity()
    back = transform(transform(splats, matrix), np.linalg.inv(matrix))
    back.quats = back.quats * (back.quats * splats.quats).sum(1, keepdim=True).sign()
    for name, tensor in splats.tensors().items():
        torch.testing.assert_close(back.tensors()[name], tensor, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([1.0, 2, 1, 1]),
        np.diag([0.0, 0, 0, 1]),
        np.diag([1.0, 1, 1, 2]),
        np.full((4, 4), np.nan),
        np.eye(3),
    ],
)
def test_refuses_what_is_no_similarity(matrix):
    with pytest.raises(InputError, match="similarity") as error:
        transform(some_splats(0), matrix)
    assert error.value.code == "not-a-similarity"
