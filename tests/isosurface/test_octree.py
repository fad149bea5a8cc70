"""The octree of FlexiCubes: closed and manifold for any values, the uniform grid's surface where sizes are alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from surface_scenes import check_closed, random_field, volume, with_zeros
from torch import Tensor

from kernels.nearest import nearest
from recon.isosurface import FlexiCubes, LeafLoss, Octree, OctreeSurface, sign_loss


def refined_at_random(
    resolution: int | tuple[int, int, int], rounds: int, seed: int, dtype: torch.dtype = torch.float32
) -> Octree:
    """Some leaves are split again and again, others never."""
    octree, generator = Octree(resolution, dtype=dtype), torch.Generator().manual_seed(seed)
    for _ in range(rounds):
        count = len(octree.levels)
        octree, _ = octree.refined(torch.randperm(count, generator=generator)[: max(1, count // 8)])
    return octree


def random_parameters(octree: Octree, seed: int, size: float = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(len(octree.positions),), octree.positions.shape, (len(octree.levels), 21)]
    dtype = octree.positions.dtype
    field, deform, weights = (torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    return field, deform * size, weights * size


def check(surface: OctreeSurface) -> int:
    assert surface.faces.dtype == torch.int32
    assert surface.vertices.isfinite().all()
    return check_closed(surface.faces.numpy(), len(surface.vertices))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("resolution", [(1, 1, 2), (2, 3, 4), (4, 4, 3)])
@pytest.mark.parametrize("seed", range(6))
def test_any_values_on_any_octree_give_a_closed_manifold(
    resolution: tuple[int, int, int], training: bool, seed: int
) -> None:
    octree = refined_at_random(resolution, 1 + seed % 4, seed)
    assert octree.hanging > 0 or len(octree.levels.unique()) == 1
    field, deform, weights = random_parameters(octree, seed, 3)
    for each in (field, field - 0.5, field + 0.5, with_zeros(field), field - 9):
        surface = octree(each, deform, weights, training)
        check(surface)
        inner, outer = octree.values(each)[surface.contour.samples][surface.contour.edges].unbind(dim=1)
        assert (inner < 0).all()
        assert (outer >= 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_leaves_fill_the_box_and_neighbours_differ_by_one_level(seed: int) -> None:
    octree = refined_at_random((2, 3, 2), 4, seed, torch.float64)
    assert octree.levels.max() >= 3
    at = octree.deformed()[octree.corners]
    low, high = at[:, 0], at[:, 7]
    assert (high - low).prod(dim=1).sum() == pytest.approx(8)
    touch = ((low[:, None] <= high + 1e-9) & (low <= high[:, None] + 1e-9)).all(dim=2)
    assert (octree.levels[:, None] - octree.levels)[touch].abs().max() == 1
    overlap = ((low[:, None] < high - 1e-9) & (low < high[:, None] - 1e-9)).all(dim=2)
    assert overlap.sum() == len(low)  # each with itself
    grid = octree._grid
    assert len(grid.samples) - len(grid.edges) + len(grid.face_axis) - len(grid.places) == 1  # a ball


def test_a_sample_hangs_exactly_where_a_leaf_has_it_between_corners_and_is_bilinear_there() -> None:
    octree = refined_at_random((2, 2, 3), 3, 1, torch.float64)
    field = random_parameters(octree, 1)[0]
    values, at = octree.values(field), octree.deformed()
    free = len(field)
    assert octree.hanging == len(at) - free > 50
    low, high = at[octree.corners[:, 0]], at[octree.corners[:, 7]]
    found = set()
    for leaf in range(len(low)):
        t = (at - low[leaf]) / (high[leaf] - low[leaf])
        within = ((t > -1e-9) & (t < 1 + 1e-9)).all(dim=1)
        within[octree.corners[leaf]] = False
        for sample in within.nonzero()[:, 0].tolist():
            x, y, z = t[sample]
            c = values[octree.corners[leaf]].view(2, 2, 2)  # z, y, x
            plane = c[0] * (1 - z) + c[1] * z
            line = plane[0] * (1 - y) + plane[1] * y
            torch.testing.assert_close(values[sample], line[0] * (1 - x) + line[1] * x)
            found.add(sample)
    assert found == set(range(free, len(at)))


def _canonical(vertices: Tensor, faces: Tensor) -> np.ndarray:
    """Rows of nine coordinates, each face from its lowest corner on, sorted."""
    corners = (vertices.detach().numpy() * 1e6).round().astype(np.int64)[faces.numpy()]
    lowest = [min(range(3), key=lambda k: tuple(face[k])) for face in corners]
    rows = [np.roll(face, -k, axis=0).ravel() for face, k in zip(corners, lowest, strict=True)]
    return np.array(sorted(map(tuple, rows)))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("scene", ["noise", "ball"])
def test_leaves_of_one_size_give_the_surface_of_the_uniform_grid(scene: str, training: bool) -> None:
    resolution = (6, 8, 4)
    cubes = FlexiCubes(resolution, dtype=torch.float64)
    for octree in (
        Octree(resolution, dtype=torch.float64),
        Octree((3, 4, 2), dtype=torch.float64).refined(torch.arange(24))[0],
    ):
        torch.testing.assert_close(octree.positions, cubes.positions.view(-1, 3))
        assert octree.hanging == 0
        _, deform, weights = random_parameters(octree, 2)
        field = cubes.positions.norm(dim=-1) - 0.7 if scene == "ball" else random_field(resolution, 3)
        wanted = cubes(field, deform.view(cubes.positions.shape), weights, training)
        found = octree(field.flatten(), deform, weights, training)
        assert len(found.vertices) == len(wanted.vertices) > 50
        assert (_canonical(found.vertices, found.faces) == _canonical(wanted.vertices, wanted.faces)).all()
        torch.testing.assert_close(found.deviation, wanted.deviation)
        if scene == "ball":  # the noise reaches the border, where a grid without a list keeps values
            loss = sign_loss(octree.values(field.flatten()), found.contour)
            torch.testing.assert_close(loss, sign_loss(field, wanted.contour))


@pytest.mark.parametrize("shape", ["ball", "torus"])
@pytest.mark.parametrize("seed", range(3))
def test_balls_and_tori_keep_their_genus_and_face_out(shape: str, seed: int) -> None:
    octree = refined_at_random(14, 2, seed)
    x, y, z = octree.positions.unbind(dim=1)
    if shape == "ball":
        surface = octree(octree.positions.norm(dim=1) - 0.7)
        euler, size = 2, 4 / 3 * np.pi * 0.7**3
    else:
        surface = octree(((x**2 + y**2).sqrt() - 0.55).square().add(z**2).sqrt() - 0.3)
        euler, size = 0, 2 * np.pi**2 * 0.55 * 0.3**2
    assert len(surface.contour.triangles) > 100
    assert check(surface) == euler
    assert volume(surface.vertices.numpy(), surface.faces.numpy()) == pytest.approx(size, rel=0.07)
    # Every vertex lies in its leaf.
    corners = octree.deformed()[octree.corners[surface.leaves]]
    assert (surface.vertices >= corners[:, 0] - 1e-6).all()
    assert (surface.vertices <= corners[:, 7] + 1e-6).all()


def test_a_plane_between_leaves_of_all_sizes_is_reproduced() -> None:
    """Hanging values of a linear function are its own, so that each vertex lies on the plane."""
    octree = refined_at_random(6, 2, 0, torch.float64)
    normal = torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64)
    surface = octree(octree.positions @ normal - 0.07)
    inner = (surface.vertices.abs() < 0.66).all(dim=1)  # away from where the box cuts it off
    assert inner.sum() > 100
    assert (surface.vertices[inner] @ normal - 0.07).abs().max() < 1e-12


def test_what_reaches_the_border_ends_there() -> None:
    octree = refined_at_random(3, 2, 0)
    surface = octree(torch.full((len(octree.positions),), -1.0))
    assert check(surface) == 2
    assert surface.vertices.abs().max() == 1


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_finite_differences(training: bool) -> None:
    octree = refined_at_random(2, 2, 1, torch.float64)
    assert octree.hanging > 0
    field, deform, weights = random_parameters(octree, 5)
    field = field + 0.3 * field.sign()

    def results(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        surface = octree(*tensors, training=training)
        return surface.vertices, surface.deviation, sign_loss(octree.values(tensors[0]), surface.contour)

    assert (octree.values(field).abs() > 1e-4).logical_or(octree.values(field) == 0).all()  # no sign changes
    inputs = tuple(each.requires_grad_() for each in (field, deform, weights))
    assert torch.autograd.gradcheck(results, inputs, eps=1e-7, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_parameters_are_carried_over_by_interpolation() -> None:
    octree = refined_at_random(3, 1, 0, torch.float64)
    field, deform, weights = random_parameters(octree, 0, 0.3)
    weights[:] = weights[0]
    weights[:, :8] = octree.deformed()[octree.corners] @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)  # linear
    border = (octree.positions.abs() == 1).any(dim=1)
    field = torch.where(border, field.abs(), field)
    finer, carry = octree.refined(torch.arange(0, len(octree.levels), 3))
    new_field, new_deform, new_weights = carry(field, deform, weights)
    assert all(each.requires_grad and each.is_leaf for each in (new_field, new_deform, new_weights))
    # What was a sample stays where it was, with its value; moves beyond the new reach excepted.
    apart = torch.cdist(finer.deformed(), octree.deformed())
    new_at, old_at = (apart < 1e-6).nonzero().unbind(dim=1)
    assert len(old_at) == apart.shape[1]
    torch.testing.assert_close(finer.values(new_field)[new_at], octree.values(field)[old_at])
    near = (finer.deformed(new_deform)[new_at] - octree.deformed(deform)[old_at]).abs()
    torch.testing.assert_close(near, torch.zeros_like(near), atol=0.2 / 3, rtol=0)
    assert (near < 1e-9).float().mean() > 0.9
    # New samples have the trilinear value of the leaf around them.
    parts = (finer.levels == 2).nonzero()[:, 0]
    places = finer.deformed()
    whole = octree.deformed()[octree.corners]
    values = octree.values(field)[octree.corners].view(-1, 2, 2, 2)
    for part in parts[::37].tolist():
        middle = places[finer.corners[part]].mean(dim=0)
        leaf = int(((whole[:, 0] < middle) & (middle < whole[:, 7])).all(dim=1).nonzero())
        for sample in finer.corners[part].tolist():
            x, y, z = (places[sample] - whole[leaf, 0]) / (whole[leaf, 7] - whole[leaf, 0])
            plane = values[leaf, 0] * (1 - z) + values[leaf, 1] * z
            line = plane[0] * (1 - y) + plane[1] * y
            torch.testing.assert_close(finer.values(new_field)[sample], line[0] * (1 - x) + line[1] * x)
    linear = places[finer.corners] @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(new_weights[:, :8].detach(), linear)
    unsplit = finer.levels == 0
    torch.testing.assert_close(new_weights[unsplit, 20], weights[:1, 20].expand(int(unsplit.sum())))


def test_a_parts_edges_take_the_mean_of_the_edges_that_they_lie_between() -> None:
    octree = Octree(1, dtype=torch.float64)
    weights = torch.arange(21, dtype=torch.float64)[None]
    finer, carry = octree.refined(torch.tensor([0]))
    _, _, new = carry(torch.ones(8, dtype=torch.float64), torch.zeros(8, 3, dtype=torch.float64), weights)
    beta = weights[0, 8:20].view(3, 4)
    part = new.detach()[0, 8:20].view(3, 4)  # the lowest of the eight
    torch.testing.assert_close(part[:, 0], beta[:, 0])
    torch.testing.assert_close(part[:, 1], (beta[:, 0] + beta[:, 1]) / 2)
    torch.testing.assert_close(part[:, 2], (beta[:, 0] + beta[:, 2]) / 2)
    torch.testing.assert_close(part[:, 3], beta.mean(dim=1))
    assert (new[:, 20] == 20).all()
    assert len(finer.levels) == 8


def test_the_loss_of_leaves_is_a_running_mean() -> None:
    loss = LeafLoss(Octree(2), decay=0.75)
    loss.add(torch.tensor([[3, 3], [5, -1]]), torch.tensor([[1.0, 3.0], [8.0, 99.0]]))
    assert loss.mean.tolist() == [0, 0, 0, 2, 0, 8, 0, 0]
    loss.add(torch.tensor([3, 0]), torch.tensor([6.0, 1.0]))
    assert loss.mean.tolist() == [1, 0, 0, 3, 0, 8, 0, 0]


DETAIL = torch.tensor([0.36, 0.36, 0.36])
"""Where a small ball sits on a larger one."""


def _points() -> tuple[Tensor, Tensor]:
    """Points of the larger ball and of the small one, where each is outside the other."""
    around = torch.nn.functional.normalize(torch.randn(1500, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    large, small = 0.6 * around, DETAIL + 0.1 * around
    return large[(large - DETAIL).norm(dim=1) > 0.1][:1000], small[small.norm(dim=1) > 0.6][:1000]


def _distance(points: Tensor) -> Tensor:
    return torch.minimum(points.norm(dim=-1) - 0.6, (points - DETAIL).norm(dim=-1) - 0.1)


def _fitted(octree: Octree, parameters: tuple[Tensor, Tensor, Tensor], steps: int = 50) -> LeafLoss:
    optimiser, loss, points = torch.optim.Adam(parameters, lr=0.01), LeafLoss(octree, 0.8), torch.cat(_points())
    for _ in range(steps):
        surface = octree(*parameters, training=True)
        squared, face, _ = nearest(points, surface.vertices, surface.faces)
        fit = squared.mean() + _distance(surface.vertices).square().mean() + 1e-4 * surface.deviation
        fit = fit + 1e-5 * sign_loss(octree.values(parameters[0]), surface.contour)
        optimiser.zero_grad()
        fit.backward()
        optimiser.step()
        loss.add(surface.leaves[surface.faces[face.long()].long()], squared.detach().sqrt()[:, None])
    return loss


def _start(octree: Octree) -> tuple[Tensor, Tensor, Tensor]:
    return (octree.positions.norm(dim=1) - 0.55).requires_grad_(), *octree.new_parameters()


def _error_at_detail(surface: OctreeSurface) -> float:
    return float(nearest(_points()[1], surface.vertices.detach(), surface.faces)[0].sqrt().mean())


def test_a_fit_refines_where_the_detail_is() -> None:
    octree = Octree(8)
    parameters = _start(octree)
    errors = []
    for level in range(3):
        loss = _fitted(octree, parameters)
        surface = octree(*parameters)
        assert check(surface) == 2
        errors.append(_error_at_detail(surface))
        if level < 2:
            octree, carry = octree.refined(loss.mean > 0.015)
            parameters = carry(*parameters)
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.4 * errors[0]
    centres = octree.deformed()[octree.corners].mean(dim=1)
    near = (centres - DETAIL).norm(dim=1) < 0.3
    assert near[octree.levels == 2].float().mean() > 0.7
    assert near.float().mean() < 0.15
    assert len(octree.levels) < 32**3 / 30
    # Better there than a uniform grid of four times as many cells, for as many steps.
    uniform = Octree(16)
    assert len(uniform.levels) > 4 * len(octree.levels)
    parameters = _start(uniform)
    _fitted(uniform, parameters, 150)
    assert errors[2] < _error_at_detail(uniform(*parameters))


def test_no_surface_is_no_error() -> None:
    octree = refined_at_random(2, 1, 0)
    field = torch.ones(len(octree.positions), requires_grad=True)
    deform, weights = octree.new_parameters()
    surface = octree(field, deform, weights, training=True)
    assert len(surface.vertices) == len(surface.faces) == 0
    (surface.deviation + surface.vertices.sum() + sign_loss(octree.values(field), surface.contour)).backward()
    assert field.grad is not None
    assert (field.grad == 0).all()


def test_bad_input_is_named() -> None:
    octree = Octree(2)
    with pytest.raises(ValueError, match=r"field must be torch.float32 of shape \(27,\)"):
        octree(torch.zeros(26))
    with pytest.raises(ValueError, match="deform must be"):
        octree(torch.zeros(27), torch.zeros(27, 2))
    with pytest.raises(ValueError, match=r"weights must be .* \(8, 21\)"):
        octree(torch.zeros(27), None, torch.zeros(8, 20))
    with pytest.raises(ValueError, match="low < high"):
        Octree(2, low=1, high=1)
    with pytest.raises(ValueError, match="below 8"):
        octree.refined(torch.tensor([8]))
    with pytest.raises(ValueError, match="below 8"):
        octree.refined(torch.zeros(7, dtype=torch.bool))
    with pytest.raises(ValueError, match="decay"):
        LeafLoss(octree, 1)
