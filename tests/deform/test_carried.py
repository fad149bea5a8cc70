"""Splats on a surface: they go where it goes, exactly where that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from kernels.geometry import rotation_matrices
from kernels.nearest import nearest
from recon.deform.carried import Carried, bind
from recon.errors import InputError
from recon.mesh.mesh import Mesh


def sheet(side: int = 20) -> Mesh:
    """The unit square at z = 0, its faces upward."""
    axis = np.linspace(0, 1, side + 1)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1).astype(np.float32)
    number = np.arange(x.size).reshape(x.shape)
    a, b, c, d = (t.ravel() for t in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]))
    return Mesh(vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]).astype(np.int32))


def some_splats(dtype: torch.dtype = torch.float64, count: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """Above and below the sheet, some beyond its border."""
    g = torch.Generator().manual_seed(0)
    means, quats, log_scales = (torch.randn(count, n, generator=g, dtype=torch.float64) for n in (3, 4, 3))
    means = means * torch.tensor([0.3, 0.3, 0.02]) + torch.tensor([0.5, 0.5, 0])
    return means.to(dtype), quats.to(dtype), (log_scales - 4).to(dtype)


def at_rest(carried: Carried) -> Tensor:
    return carried.template.clone()


def turn() -> Tensor:
    return torch.from_numpy(Rotation.from_rotvec([0.4, -1.9, 0.8]).as_matrix())


def covariances(quats: Tensor, log_scales: Tensor) -> Tensor:
    axes = rotation_matrices(quats) * log_scales.exp()[:, None]
    return axes @ axes.mT


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_at_rest_they_are_as_they_were(dtype: torch.dtype, tolerance: float) -> None:
    means, quats, log_scales = some_splats(dtype)
    carried = bind(means, quats, log_scales, sheet())
    found = carried.at(at_rest(carried).to(dtype))
    assert all(t.dtype == dtype for t in found)
    torch.testing.assert_close(found[0], means, atol=tolerance, rtol=0)
    torch.testing.assert_close(found[2], log_scales, atol=tolerance, rtol=0)
    cosines = (found[1] * quats).sum(1).abs() / quats.norm(dim=1)
    torch.testing.assert_close(cosines, torch.ones_like(cosines), atol=tolerance, rtol=0)


def test_the_coordinates_by_hand() -> None:
    """A right triangle with legs 2: its frame's third axis is 2 long."""
    triangle = Mesh(np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0]], np.float32), np.array([[0, 1, 2]], np.int32))
    carried = bind(torch.tensor([[0.5, 1, 3]]), torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[0.0, 1, 2]]), triangle)
    torch.testing.assert_close(carried.local, torch.tensor([[0.25, 0.5, 1.5]]))
    torch.testing.assert_close(carried.axes, torch.diag(torch.tensor([0.0, 1, 2]).exp() / 2)[None])


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_a_similarity_of_the_surface_is_one_of_the_splats(scale: float) -> None:
    means, quats, log_scales = some_splats()
    carried = bind(means, quats, log_scales, sheet())
    vertices = scale * at_rest(carried) @ turn().T + 1
    found = carried.at(vertices)
    torch.testing.assert_close(found[0], scale * means @ turn().T + 1)
    torch.testing.assert_close(found[2], log_scales + math.log(scale))
    torch.testing.assert_close(rotation_matrices(found[1]), turn() @ rotation_matrices(quats))
    torch.testing.assert_close(carried.rotations(vertices), turn().expand(len(means), 3, 3))


def test_a_stretch_along_one_axis() -> None:
    """Four times as long, twice as thick: by the root of the area. Nothing turns."""
    means, quats, log_scales = some_splats()
    carried = bind(means, quats, log_scales, sheet())
    stretch = torch.tensor([4.0, 1, 2], dtype=torch.float64)
    found = carried.at(at_rest(carried) * stretch)
    torch.testing.assert_close(found[0], means * stretch)
    expected = covariances(quats, log_scales) * stretch * stretch[:, None]
    torch.testing.assert_close(covariances(*found[1:]), expected)
    eye = torch.eye(3, dtype=torch.float64).expand(len(means), 3, 3)
    torch.testing.assert_close(carried.rotations(at_rest(carried) * stretch), eye)


def test_rolled_into_a_cylinder_they_keep_their_distance_and_shape() -> None:
    means, quats, log_scales = some_splats()
    means[:, :2] = means[:, :2].clamp(0.01, 0.99)
    mesh = sheet(100)
    carried = bind(means, quats, log_scales, mesh)
    angle = 2 * math.pi * at_rest(carried)[:, 0] * 0.98
    radius = 1 / (2 * math.pi * 0.98)
    vertices = torch.stack([radius * angle.sin(), at_rest(carried)[:, 1], radius * (1 - angle.cos())], 1)
    found = carried.at(vertices)
    above = means[:, 2]
    inside = above.abs() < 0.03  # of those farther in, another part of the cylinder may be as near
    distance = nearest(found[0], vertices, torch.from_numpy(mesh.faces))[0].sqrt()
    torch.testing.assert_close(distance[inside], above.abs()[inside], rtol=2e-3, atol=1e-5)
    axis = torch.tensor([0, 0, radius], dtype=torch.float64)
    outward = (found[0] - axis) * torch.tensor([1.0, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(outward.norm(dim=1), radius - above, atol=2e-4, rtol=0)
    torch.testing.assert_close(found[2], log_scales, atol=2e-3, rtol=0)
    # Turned as the surface is where they sit, about −y.
    there = 2 * math.pi * 0.98 * means[:, 0]
    expected = torch.from_numpy(Rotation.from_rotvec(np.outer(-there.numpy(), [0, 1, 0])).as_matrix())
    torch.testing.assert_close(carried.rotations(vertices), expected, atol=0.04, rtol=0)


def test_gradients_by_the_vertices() -> None:
    means, quats, log_scales = some_splats(count=6)
    carried = bind(means, quats, log_scales, sheet(2))
    g = torch.Generator().manual_seed(3)
    vertices = at_rest(carried) + 0.1 * torch.randn(9, 3, generator=g, dtype=torch.float64)

    def outputs(vertices: Tensor) -> tuple[Tensor, ...]:
        means, quats, log_scales = carried.at(vertices)
        return means, covariances(quats, log_scales), log_scales, carried.rotations(vertices)

    assert torch.autograd.gradcheck(outputs, (vertices.requires_grad_(),))
    round_ones = bind(means.float(), quats.float(), torch.full((6, 3), -3.0), sheet(2))
    rest = at_rest(round_ones).float().requires_grad_()
    (gradient,) = torch.autograd.grad(sum(t.sum() for t in round_ones.at(rest)), rest)
    assert torch.isfinite(gradient).all()


def test_triangles_without_an_area() -> None:
    """In the template they carry nothing; one that collapses later flattens what it carries."""
    mesh = sheet(2)
    faces = np.concatenate([mesh.faces[:1] * 0 + 4, [[0, 4, 8]], mesh.faces]).astype(np.int32)
    means, quats, log_scales = some_splats(torch.float32)
    carried = bind(means, quats, log_scales, Mesh(mesh.vertices, faces))
    torch.testing.assert_close(carried.at(at_rest(carried).float())[0], means)
    flat = at_rest(carried).float()
    flat[4] = flat[0]
    found = (*carried.at(flat), carried.rotations(flat))
    assert all(torch.isfinite(t).all() for t in found)


def test_bad_input_is_refused() -> None:
    means, quats, log_scales = some_splats()
    carried = bind(means, quats, log_scales, sheet())
    with pytest.raises(InputError, match="do not fit"):
        carried.at(at_rest(carried)[1:])
    with pytest.raises(InputError, match="not finite"):
        carried.rotations(at_rest(carried) * math.nan)
    with pytest.raises(InputError, match="not finite"):
        bind(means * math.nan, quats, log_scales, sheet())
    with pytest.raises(InputError, match="No triangle"):
        bind(means, quats, log_scales, Mesh(sheet().vertices, np.zeros((2, 3), np.int32)))
