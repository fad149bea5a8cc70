"""Meshes and splats under deformations of space: what a linear map does is known exactly, what any map does nearly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from kernels.geometry import rotation_matrices
from recon.deform.gaussians import polar, quaternions, splats_of
from recon.deform.tutte import TutteNet
from recon.deform.warp import warp_mesh, warp_splats
from recon.errors import InputError
from recon.mesh.mesh import Mesh


@dataclass
class Affine:
    """p ↦ A p + t."""

    linear: Tensor
    offset: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        return points @ self.linear.T + self.offset

    def jacobian(self, points: Tensor) -> Tensor:
        return self.linear.expand(len(points), 3, 3)


def some_splats(count: int = 50, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Means, quats of any length, log_scales, of which the last twenty splats' are equal and the ten before flat."""
    g = torch.Generator().manual_seed(0)
    means, quats, log_scales = (torch.randn(count, n, generator=g, dtype=torch.float64) for n in (3, 4, 3))
    log_scales[-20:] = log_scales[-20:, :1]
    log_scales[-30:-20, 1] -= 8
    return means.to(dtype), quats.to(dtype), (log_scales - 3).to(dtype)


def turn() -> Tensor:
    return torch.from_numpy(Rotation.from_rotvec([0.4, -1.9, 0.8]).as_matrix())


def covariances(quats: Tensor, log_scales: Tensor) -> Tensor:
    axes = rotation_matrices(quats) * log_scales.exp()[:, None]
    return axes @ axes.mT


def same_rotations(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether quaternions are the same up to sign and length."""
    cosines = (a * b).sum(1).abs() / (a.norm(dim=1) * b.norm(dim=1))
    return bool((cosines > 1 - tolerance).all())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_shear(dtype: torch.dtype, tolerance: float) -> None:
    linear = torch.tensor([[1, 0.8, 0], [0, 1.5, -0.3], [0.2, 0, 0.6]], dtype=torch.float64)
    offset = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    means, quats, log_scales = some_splats(dtype=dtype)
    found = warp_splats(means, quats, log_scales, Affine(linear.to(dtype), offset.to(dtype)))
    assert all(t.dtype == dtype for t in found)
    torch.testing.assert_close(found[0].double(), means.double() @ linear.T + offset, atol=tolerance, rtol=tolerance)
    expected = linear @ covariances(quats.double(), log_scales.double()) @ linear.T
    size = expected.norm(dim=(1, 2))[:, None, None]
    moved = covariances(found[1].double(), found[2].double())
    torch.testing.assert_close(moved / size, expected / size, atol=tolerance, rtol=0)
    # The thin axis of a flat splat too, which the covariance hardly shows.
    torch.testing.assert_close(
        found[2].double().sum(1), log_scales.double().sum(1) + torch.linalg.det(linear).log(), atol=1e-4, rtol=0
    )


def test_a_similarity_keeps_the_axes_in_order() -> None:
    """Round splats keep theirs, too: nothing turns them about."""
    means, quats, log_scales = some_splats()
    _, turned, grown = warp_splats(means, quats, log_scales, Affine(2 * turn(), torch.zeros(3).double()))
    torch.testing.assert_close(grown, log_scales + math.log(2), atol=1e-13, rtol=0)
    torch.testing.assert_close(rotation_matrices(turned), turn() @ rotation_matrices(quats))
    still = warp_splats(means, quats, log_scales, Affine(torch.eye(3).double(), torch.zeros(3).double()))
    assert torch.equal(still[0], means)
    torch.testing.assert_close(still[2], log_scales, atol=1e-14, rtol=0)
    assert same_rotations(still[1], quats, 1e-14)


def test_a_tutte_deformation_moves_small_splats_as_it_moves_their_points() -> None:
    net, g = TutteNet(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        net.edges.normal_(0, 0.3, generator=g)
    means, quats, log_scales = some_splats()
    means, log_scales = means.sigmoid(), log_scales - 10
    with torch.no_grad():
        moved, turned, scales = warp_splats(means, quats, log_scales, net)
        axes = rotation_matrices(quats) * log_scales.exp()[:, None]
        ends = torch.stack([net(means + axes[:, :, k]) - moved for k in range(3)], 2)
    expected, found = ends @ ends.mT, covariances(turned, scales)
    torch.testing.assert_close(moved, net(means))
    close = (found - expected).norm(dim=(1, 2)) < 1e-6 * expected.norm(dim=(1, 2))
    assert close.double().mean() > 0.9, "but for those astride two pieces"


def test_gradients() -> None:
    """Exact where the axes differ; finite where they do not, and where nothing is deformed."""
    g = torch.Generator().manual_seed(1)
    axes = torch.randn(6, 3, 3, generator=g, dtype=torch.float64).requires_grad_()

    def covariance_and_scales(axes: Tensor) -> tuple[Tensor, Tensor]:
        quats, log_scales = splats_of(axes)
        return covariances(quats, log_scales), log_scales

    assert torch.autograd.gradcheck(covariance_and_scales, (axes,))
    assert torch.autograd.gradcheck(polar, (axes,))
    round_ones = (0.1 * torch.eye(3)).repeat(4, 1, 1).requires_grad_()
    quats, log_scales = splats_of(round_ones)
    (gradient,) = torch.autograd.grad(quats.sum() + log_scales.sum(), round_ones)
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(gradient.diagonal(dim1=1, dim2=2), torch.full((4, 3), 10.0))


def test_quaternions_of_half_turns() -> None:
    for axis in torch.eye(3, dtype=torch.float64):
        half = 2 * torch.outer(axis, axis) - torch.eye(3, dtype=torch.float64)
        q = quaternions(half[None])[0]
        torch.testing.assert_close(q.abs(), torch.cat([torch.zeros(1).double(), axis]))


def test_polar() -> None:
    """Turned by the rotation of J = Q S; where J flattens or mirrors there is none to speak of."""
    stretch = torch.diag(torch.tensor([3.0, 0.01, 1])).double()
    skew = turn().mT @ stretch @ turn()
    found = polar(torch.stack([turn() @ skew, 1e-6 * turn(), torch.diag(torch.tensor([1.0, 1, 0])).double()]))
    torch.testing.assert_close(found, torch.stack([turn(), turn(), torch.eye(3).double()]))


def test_a_splat_without_thickness_stays_finite() -> None:
    axes = torch.tensor([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 0]])[None]
    quats, log_scales = splats_of(axes)
    torch.testing.assert_close(covariances(quats, log_scales), axes @ axes.mT)


def test_a_mesh() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.int32)
    mesh = Mesh(vertices, faces, colours=vertices, uvs=np.zeros((4, 3, 2), np.float32))
    moved = warp_mesh(mesh, Affine(2 * torch.eye(3).double(), torch.ones(3).double()))
    np.testing.assert_array_equal(moved.vertices, 2 * vertices + 1)
    assert moved.vertices.dtype == np.float32
    assert moved.faces is faces
    assert moved.colours is mesh.colours
    assert moved.uvs is mesh.uvs
    with pytest.raises(InputError):
        warp_mesh(Mesh(vertices * np.nan, faces), TutteNet())
