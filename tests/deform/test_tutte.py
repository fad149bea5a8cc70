"""Injective deformations: embeddings by hand, no triangle turned around, exact inverses, fits."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recon.deform import planar
from recon.deform.planar import Grid, PlanarMap
from recon.deform.tutte import RATIO, TutteNet
from recon.errors import InputError

SIZE = 11


def doubles(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def some_net(spread: float, layers: int = 8, size: int = SIZE, seed: int = 0) -> TutteNet:
    """Normal parameters; of a spread of 20 nearly all weights are at their bounds."""
    generator, net = torch.Generator().manual_seed(seed), TutteNet(layers, size)
    with torch.no_grad():
        net.edges.normal_(0, spread, generator=generator)
    return net


def some_points(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)


def lattice(count: int) -> Tensor:
    """(count³, 3) of the closed cube; of 11 a side, the vertices of all layers' prisms."""
    axis = torch.linspace(0, 1, count, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis, axis)


# ---- in the plane


def test_a_vertex_by_hand() -> None:
    """Three vertices a side: the middle one is the mean of six, with weights 1 to 6."""
    grid = Grid(3)
    assert len(grid.edges) == 6
    weights = torch.ones(1, 6, dtype=torch.float64)
    for edge, (a, b) in enumerate(grid.edges.tolist()):
        weights[0, edge] = {0: 1, 1: 2, 3: 3, 5: 4, 7: 5, 8: 6}[a + b - 4]
    at = grid.embed(weights)[0]
    neighbours = doubles((0, 0), (0, 0.5), (0.5, 0), (0.5, 1), (1, 0.5), (1, 1))
    middle = doubles((1, 2, 3, 4, 5, 6))[0] @ neighbours / 21
    torch.testing.assert_close(at[1, 1], middle)
    below = doubles((0.5, 0))[0]
    torch.testing.assert_close(at[1, 0], below)
    (planar_map,) = PlanarMap.of(at[None])
    # The vertex, the middle of the edge below it, the centroid of the triangle to the left of that, and outside.
    u, v = doubles((0.5, 0.5, 1 / 3, 0.3), (0.5, 0.25, 1 / 6, 1.2))
    x, y, jacobian = planar_map(u, v)
    expected = torch.stack([middle, (middle + below) / 2, (middle + below) / 3, doubles((0.3, 1.2))[0]])
    torch.testing.assert_close(torch.stack([x, y], 1), expected)
    columns = torch.stack([below, middle - below], 1) / 0.5
    torch.testing.assert_close(torch.stack([t[2] for t in jacobian]).view(2, 2), columns)
    torch.testing.assert_close(torch.stack([t[3] for t in jacobian]), doubles((1, 0, 0, 1))[0])
    torch.testing.assert_close(torch.stack(planar_map.inverse(x, y)), torch.stack([u, v]))


@pytest.mark.parametrize("size", [3, 4, 11])
def test_no_triangle_is_turned_around(size: int) -> None:
    """Whatever the weights: also at the bounds that the network sets."""
    grid, generator = Grid(size), torch.Generator().manual_seed(0)
    weights = RATIO ** (2 * torch.rand(500, len(grid.edges), generator=generator, dtype=torch.float64) - 1)
    weights[200:] = torch.where(weights[200:] > 1, RATIO, 1 / RATIO)
    at = grid.embed(weights)
    near, right, far, up = at[:, :-1, :-1], at[:, 1:, :-1], at[:, 1:, 1:], at[:, :-1, 1:]
    total = 0
    for a, b in ((right - near, far - near), (far - near, up - near)):
        area = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]) / 2
        assert area.min() > 1e-7
        total = total + area.sum((1, 2))
    torch.testing.assert_close(total, torch.ones(500, dtype=torch.float64))


def test_walks_end_in_the_triangle_of_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    points = some_points(5000)
    (_, planar_map), *_ = some_net(20)._layers(points.T)
    walked = planar_map.inverse(*points[:, :2].T)
    monkeypatch.setattr(planar, "STEPS", 0)
    monkeypatch.setattr(planar, "CHUNK", 1000)
    searched = planar_map.inverse(*points[:, :2].T)
    torch.testing.assert_close(walked, searched, rtol=0, atol=1e-13)


# ---- in space


def test_at_first_the_identity() -> None:
    net, points = TutteNet(), torch.cat([lattice(6), some_points(100)])
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(net(points), points, rtol=0, atol=1e-14)
    torch.testing.assert_close(net.jacobian(points), eye.expand(len(points), 3, 3), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("spread", "dtype", "tolerance"),
    [(0.5, torch.float64, 1e-13), (20, torch.float64, 1e-11), (0.5, torch.float32, 1e-5), (20, torch.float32, 1e-3)],
)
def test_there_and_back(spread: float, dtype: torch.dtype, tolerance: float) -> None:
    """From inside the unit cube and outside; what is far from all squares stays."""
    for seed in range(3):
        net, points = some_net(spread, seed=seed), some_points(6000, dtype)
        points[5000:] = 4 * points[5000:] - 1.5
        with torch.no_grad():
            moved = net(points)
            assert (moved - points).abs().max() > 0.15
            assert (net.inverse(moved) - points).abs().max() < tolerance
            assert (net(net.inverse(points)) - points).abs().max() < tolerance
            assert (torch.linalg.det(net.jacobian(points)) > 0).all()
            far = torch.tensor([[90.0, 70, 40]], dtype=dtype)
            assert torch.equal(net(far), far)
            assert torch.equal(net.inverse(far), far)


def test_where_pieces_meet() -> None:
    """On vertices, edges and sides of the square, where rounding decides which triangle a point is in."""
    net = some_net(0.5)
    ticks = torch.linspace(0, 1, SIZE, dtype=torch.float64)
    for plane, planar_map in net._layers(torch.zeros(3, 1, dtype=torch.float64)):
        u, v = torch.cartesian_prod(ticks, ticks).T
        x, y, _ = planar_map(u, v)
        torch.testing.assert_close(planar_map.inverse(x, y), (u, v), rtol=0, atol=1e-13)
        left, right = planar_map(ticks - 1e-12, ticks), planar_map(ticks + 1e-12, ticks)
        torch.testing.assert_close(left[:2], right[:2], rtol=0, atol=1e-10)
        assert plane.shape == (2, 3)


def test_tetrahedra_of_a_dense_lattice_keep_their_orientation() -> None:
    count = 30
    number = torch.arange(count**3).view(count, count, count)
    corner = [number[i : count - 1 + i, j : count - 1 + j, k : count - 1 + k].flatten() for i, j, k in lattice(2).int()]
    paths = ((4, 6), (6, 2), (2, 3), (3, 1), (1, 5), (5, 4))  # around the diagonal from corner 0 to 7
    tets = torch.cat([torch.stack([corner[0], corner[a], corner[b], corner[7]], 1) for a, b in paths])
    points = lattice(count)
    with torch.no_grad():
        for seed in range(3):
            volumes = []
            for at in (points, some_net(0.3, seed=seed)(points)):
                a, b, c, d = at[tets].unbind(1)
                volumes.append(torch.linalg.det(torch.stack([b - a, c - a, d - a], 1)))
            assert (volumes[0] > 0).all()
            assert (volumes[1] > 0).all()


def test_derivatives() -> None:
    """By points and by parameters; of the inverse too, as f⁻¹(f(p)) = p whatever these are."""
    net, points = some_net(0.5, layers=4, size=4), some_points(20)
    jacobian = net.jacobian(points)
    points.requires_grad_()
    moved = net(points)
    by_point = torch.stack([torch.autograd.grad(moved[:, k].sum(), points, retain_graph=True)[0] for k in range(3)], 1)
    torch.testing.assert_close(by_point, jacobian)

    def of_parameters(edges: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(net, {"edges": edges}, points[:4].detach())
        return result

    assert torch.autograd.gradcheck(of_parameters, (net.edges,))
    weights = torch.randn(20, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    there = torch.autograd.grad((net.inverse(moved.detach()) * weights).sum(), net.edges)[0]
    nowhere = torch.autograd.grad((net.inverse(moved) * weights).sum(), [points, net.edges])
    assert there.abs().max() > 0.1
    torch.testing.assert_close(nowhere[0], weights)
    assert nowhere[1].abs().max() < 1e-12
    # Within a piece f(p + h) − f(p) is J h.
    step = 1e-4 * weights
    products, differences = (jacobian @ step[..., None])[..., 0], net(points + step) - net(points)
    same = (products - differences).abs().amax(1) < 1e-14
    assert same.sum() > 15
    gradients = [torch.autograd.grad((t[same] * weights[same]).sum(), net.edges)[0] for t in (products, differences)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)


def test_bad_input_is_refused() -> None:
    net = TutteNet()
    for bad in (math.nan, math.inf):
        points = some_points(5)
        points[3, 1] = bad
        for call in (net, net.inverse, net.jacobian):
            with pytest.raises(InputError, match="point 3 is not finite"):
                call(points)
    with pytest.raises(InputError, match=r"\(5, 2\), not \(P, 3\)"):
        net(some_points(5)[:, :2])
    assert net(some_points(0)).shape == net.inverse(some_points(0)).shape == (0, 3)
    with pytest.raises(ValueError, match="3 vertices"):
        TutteNet(size=2)


LONG = 0.9
"""Length of the bars, a third as wide and high."""


def bent(points: Tensor) -> Tensor:
    """A bar along x, bent by a right angle."""
    x, y, z = (points - 0.5).unbind(1)
    radius = 2 * LONG / math.pi
    angle = x / radius
    return torch.stack([(radius - z) * angle.sin(), y, radius - (radius - z) * angle.cos() - 0.15], 1) + 0.5


def twisted(points: Tensor) -> Tensor:
    """A bar along x, whose ends are turned by a right angle against each other."""
    x, y, z = (points - 0.5).unbind(1)
    angle = x * (math.pi / 2 / LONG)
    return torch.stack([x, y * angle.cos() - z * angle.sin(), y * angle.sin() + z * angle.cos()], 1) + 0.5


@pytest.mark.parametrize("target", [bent, twisted])
def test_fits_a_bar(target: Callable[[Tensor], Tensor]) -> None:
    points = 0.5 + LONG * (some_points(1200) - 0.5) * doubles((1, 1 / 3, 1 / 3))
    seen, unseen = points[:1000], points[1000:]
    net = TutteNet()
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    for step in range(60):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 60)
        loss = (net(seen) - target(seen)).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        before, after = ((at - target(unseen)).square().sum(1).mean().sqrt() for at in (unseen, net(unseen)))
        assert after < 0.02 * LONG
        assert after < before / 5
        assert (net.inverse(net(points)) - points).abs().max() < 1e-12
        assert (torch.linalg.det(net.jacobian(points)) > 0).all()
