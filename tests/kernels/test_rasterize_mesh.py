"""The mesh rasterizer: triangles by hand, coverage, the twin, finite differences, degenerate input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from gpu_operators import as_on_gpu, needs_triton
from hypothesis import given, settings
from hypothesis import strategies as st
from raster_scenes import random_triangles
from thread_counts import check_same_bits

from kernels.rasterize_mesh import rasterize_mesh
from kernels.reference.rasterize_mesh import rasterize_mesh as reference


@dataclass(frozen=True)
class Implementation:
    render: Callable[..., Any]
    dtype: torch.dtype
    tolerance: float

    def __call__(self, positions: Any, faces: Any, *size: int, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        positions = torch.as_tensor(positions, dtype=self.dtype)
        return self.render(positions, torch.tensor(faces, dtype=torch.int32).view(-1, 3), *size, **options)


@pytest.fixture(params=["reference", "kernel", pytest.param("gpu", marks=needs_triton)])
def rasterize(request: pytest.FixtureRequest) -> Iterator[Implementation]:
    with as_on_gpu() if request.param == "gpu" else nullcontext():
        if request.param == "reference":
            yield Implementation(reference, torch.float64, 1e-12)
        else:
            yield Implementation(rasterize_mesh, torch.float32, 1e-6)


# A triangle with its right angle in the image's upper left corner: it covers x + y < 4 of 4 × 4 pixels.
CORNER = [[-1.0, -1, 0, 1], [1, -1, 0, 1], [-1, 1, 0, 1]]


def test_one_triangle(rasterize):
    """Centres at x + y = 4 lie on the slanted edge, a right one: not covered."""
    rast, rast_db = rasterize(CORNER, [0, 1, 2], 4, 4)
    x, y = torch.meshgrid(torch.arange(4) + 0.5, torch.arange(4) + 0.5, indexing="xy")
    inside = (x + y < 4).to(rast.dtype)
    u, v = 1 - (x + y) / 4, x / 4
    expected = torch.stack([u, v, torch.zeros_like(u), torch.ones_like(u)], dim=-1) * inside[..., None]
    torch.testing.assert_close(rast[0], expected.to(rast.dtype), atol=rasterize.tolerance, rtol=0)
    slopes = torch.tensor([-0.25, -0.25, 0.25, 0]) * inside[..., None]
    torch.testing.assert_close(rast_db[0], slopes.to(rast.dtype), atol=rasterize.tolerance, rtol=0)


def test_rows_are_top_down(rasterize):
    """NDC y = -1 is row 0."""
    rast, _ = rasterize([[-1.0, -1, 0, 1], [1, -1, 0, 1], [0, -0.5, 0, 1]], [0, 1, 2], 8, 8)
    rows = (rast[0, ..., 3] > 0).any(dim=1)
    assert rows.tolist() == [True, True] + [False] * 6


def test_both_orientations_are_drawn(rasterize):
    one, _ = rasterize(CORNER, [0, 1, 2], 5, 3)
    other, _ = rasterize(CORNER, [0, 2, 1], 5, 3)
    assert (one[..., 3] == other[..., 3]).all()
    assert one[..., 3].sum() > 0


def test_two_triangles_share_an_edge(rasterize):
    """A square of two triangles over the whole image; the diagonal belongs to the one on its right."""
    square = [[-1.0, -1, 0, 1], [1, -1, 0, 1], [1, 1, 0, 1], [-1, 1, 0, 1]]
    rast, _ = rasterize(square, [0, 1, 2, 0, 2, 3], 5, 5)
    x, y = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="xy")
    assert (rast[0, ..., 3] == torch.where(x >= y, 1, 2)).all()


def test_ties_go_by_the_rule_whatever_the_corners_depths(rasterize):
    """Along the diagonal both products of the side's sign are the same, and inexact: zero only without rounding."""
    for w in torch.rand(20, 4, generator=torch.Generator().manual_seed(0)) + 0.5:
        square = torch.tensor([[-1.0, -1, 0, 1], [1, -1, 0, 1], [1, 1, 0, 1], [-1, 1, 0, 1]]) * w[:, None]
        rast, _ = rasterize(square, [0, 1, 2, 0, 2, 3], 7, 7)
        assert (rast[0, ..., 3].diagonal() == 1).all()


def test_the_nearer_is_seen_whatever_the_order(rasterize):
    near, far = [[x, y, -0.5, w] for x, y, _, w in CORNER], CORNER
    for points, nearest in ((near + far, 1), (far + near, 2)):
        rast, _ = rasterize(points, [0, 1, 2, 3, 4, 5], 4, 4)
        assert set(rast[..., 3].unique().tolist()) == {0, nearest}
        assert set(rast[..., 2].unique().tolist()) == {0, -0.5}


def test_perspective(rasterize):
    """Corners at w = 1 and 3: halfway in the image is a quarter of the way along the triangle."""
    points = [[-1.0, -1, 0, 1], [3, -3, 0, 3], [-1, 3, 0, 1]]
    rast, _ = rasterize(points, [0, 1, 2], 2, 1)
    clip = torch.tensor(points, dtype=torch.float64)
    u, v = rast[0, 0, 0, :2].double()
    point = u * clip[0] + v * clip[1] + (1 - u - v) * clip[2]
    torch.testing.assert_close(point[:2] / point[3], torch.tensor([-0.5, 0.0], dtype=torch.float64), atol=1e-6, rtol=0)
    rast, _ = rasterize([[-1.0, 0, 0, 1], [3, 0, 0, 3], [-1, 4, 0, 1]], [0, 1, 2], 1, 1)  # the centre is on the edge
    assert rast[0, 0, 0, 3] == 1
    torch.testing.assert_close(rast[0, 0, 0, 1].item(), 0.25, atol=1e-6, rtol=0)


def test_crosses_the_near_plane(rasterize):
    """A floor from behind the camera to before it: seen where z/w >= -1, as if it were cut there."""
    near, far = 0.5, 10.0

    def clip(x: float, y: float, z: float) -> list[float]:
        return [x, y, ((far + near) * z - 2 * far * near) / (far - near), z]

    whole = [clip(-9, 1, -4), clip(9, 1, -4), clip(0, 1, 8)]
    half = 9 * (8 - near) / 12  # its width at the near plane
    cut = [clip(-half, 1, near), clip(half, 1, near), clip(0, 1, 8)]
    one, slopes = rasterize(whole, [0, 1, 2], 24, 20)
    other, other_slopes = rasterize(cut, [0, 1, 2], 24, 20)
    assert (one[..., 3] == other[..., 3]).all()
    assert 50 < one[..., 3].sum() < 400
    torch.testing.assert_close(one[..., 2], other[..., 2], atol=1e-5, rtol=0)
    # u of the two triangles are affine functions of one another, as (u, v) are of the same plane's points
    seen = one[..., 3] > 0
    depth = [8 - 12 * (r[..., 0] + r[..., 1])[seen] for r in (one,)]
    depth += [8 - (8 - near) * (other[..., 0] + other[..., 1])[seen]]
    torch.testing.assert_close(depth[0], depth[1], atol=1e-4, rtol=0)
    sides = [12 * (s[..., 0] + s[..., 2])[seen] for s in (slopes,)] + [
        (8 - near) * (other_slopes[..., 0] + other_slopes[..., 2])[seen]
    ]
    torch.testing.assert_close(sides[0], sides[1], atol=1e-4, rtol=1e-4)


def test_beyond_near_and_far_is_not_seen(rasterize):
    for z in (-1.5, 1.5):
        rast, _ = rasterize([[x, y, z, w] for x, y, _, w in CORNER], [0, 1, 2], 4, 4)
        assert not rast.any()
    rast, _ = rasterize([[-x, -y, -z, -w] for x, y, z, w in CORNER], [0, 1, 2], 4, 4)
    assert not rast.any(), "behind the camera"


def test_layers(rasterize):
    points = [[x, y, z, w] for z in (0.5, -0.5, 0.0) for x, y, _, w in CORNER]
    rast, rast_db = rasterize(points, range(9), 4, 4, layers=4)
    assert rast.shape == rast_db.shape == (4, 1, 4, 4, 4)
    assert rast[:, 0, 0, 0, 3].tolist() == [2, 3, 1, 0]
    assert rast[:, 0, 3, 3, 3].tolist() == [0, 0, 0, 0]
    nearest, _ = rasterize(points, range(9), 4, 4)
    assert torch.equal(rast[0], nearest)


def test_layers_of_coplanar_triangles(rasterize):
    rast, _ = rasterize(CORNER, [0, 1, 2, 0, 1, 2, 0, 1, 2], 4, 4, layers=4)
    assert rast[:, 0, 0, 0, 3].tolist() == [1, 2, 3, 0]


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("size", [(1, 1), (17, 5), (100, 3), (3, 70), (33, 34)])
def test_is_its_twin(size):
    positions, faces = random_triangles(3, 50, batch=2)
    for layers in (1, 3):
        got, expected = (
            rasterize_mesh(positions, faces, *size, layers=layers),
            reference(positions.double(), faces, *size, layers=layers),
        )
        assert (got[0][..., 3] == expected[0][..., 3]).all()
        torch.testing.assert_close(got[0].double(), expected[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(got[1].double(), expected[1], atol=1e-6, rtol=1e-5)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("with_db", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_are_the_twins(with_db, layers):
    positions, faces = random_triangles(4, 60, batch=2)
    g = torch.Generator().manual_seed(0)
    gradients = []
    weights = None
    for render, dtype in ((rasterize_mesh, torch.float32), (reference, torch.float64)):
        leaf = positions.to(dtype).requires_grad_()
        rast, rast_db = render(leaf, faces, 21, 18, layers=layers)
        if weights is None:
            weights = torch.randn(rast.shape, generator=g), torch.randn(rast.shape, generator=g)
        loss = (rast * weights[0]).sum() + (rast_db * weights[1]).sum() * with_db
        gradients.append(torch.autograd.grad(loss, leaf)[0].double())
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6 * gradients[1].abs().max().item(), rtol=1e-5)


def test_twins_gradients_are_finite_differences():
    """Away from every edge: a triangle that covers all pixels, in perspective, moved by too little to uncover one."""
    positions = torch.tensor([[-9.0, -8, 0.5, 2], [8, -9, -0.4, 1.5], [1, 12, 0.2, 3]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    assert reference(positions, faces, 3, 2)[0][..., 3].all()
    torch.autograd.gradcheck(lambda p: reference(p, faces, 3, 2), positions.requires_grad_(), atol=1e-7)


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 40), st.booleans())
@settings(max_examples=40, deadline=None)
def test_shared_edges_are_covered_once(seed, width, height, on_centres):
    check_covered_once(seed, width, height, on_centres)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("seed", "on_centres"), [(0, False), (1, True), (2, True)])
def test_shared_edges_are_covered_once_on_any_device(seed, on_centres):
    check_covered_once(seed, 19, 21, on_centres)


def check_covered_once(seed: int, width: int, height: int, on_centres: bool) -> None:
    """Draw a triangulated sheet larger than the image, one layer thick: each pixel is covered once, never twice.

    With vertices on pixel centres every rule for ties is put to use.
    """
    g = torch.Generator().manual_seed(seed)
    n = int(torch.randint(2, 8, (), generator=g))
    grid = torch.stack(torch.meshgrid(torch.arange(n + 1.0), torch.arange(n + 1.0), indexing="xy"), dim=-1)
    inner = (grid > 0).all(dim=-1, keepdim=True) & (grid < n).all(dim=-1, keepdim=True)
    grid = (grid + inner * (torch.rand(grid.shape, generator=g) - 0.5) * 0.6) / n * 2.4 - 1.2  # still a planar sheet
    if on_centres:
        size = torch.tensor([width, height])
        grid = (((grid + 1) / 2 * size - 0.5).round() + 0.5) / size * 2 - 1
        grid[:, 0, 0], grid[:, -1, 0], grid[0, :, 1], grid[-1, :, 1] = -1.5, 1.5, -1.5, 1.5
    w = 0.5 + torch.rand(n + 1, n + 1, 1, generator=g)
    if on_centres:
        w = 2.0 ** torch.randint(-2, 3, (n + 1, n + 1, 1), generator=g)
    positions = torch.cat([grid * w, torch.zeros_like(w), w], dim=-1).view(-1, 4)
    i = (torch.arange(n)[:, None] * (n + 1) + torch.arange(n)).flatten()
    faces = torch.cat([torch.stack([i, i + 1, i + n + 2], dim=1), torch.stack([i, i + n + 2, i + n + 1], dim=1)]).int()
    faces = faces[torch.randperm(len(faces), generator=g)]
    rast, _ = rasterize_mesh(positions, faces, width, height, layers=2)
    if not on_centres:
        assert (rast[0, ..., 3] > 0).all()
        assert not rast[1].any()
        return
    # Rounding may fold the sheet or collapse triangles, but the signed number of layers is 1 wherever it is.
    layers, _ = rasterize_mesh(positions, faces, width, height, layers=2 * n)
    flat = (grid.view(-1, 2) * torch.tensor([width, height]))[faces.long()]
    one, two = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    orientation = torch.cat([torch.zeros(1), (one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]).sign()])
    assert (orientation[layers[..., 3].long()].sum(dim=0) == 1).all()


SPOILT = [0.0, -0.0, float("nan"), float("inf"), -float("inf"), 3e38, 1e-45, -1e30]


@given(st.integers(0, 2**31), st.sampled_from(SPOILT))
@settings(max_examples=40, deadline=None)
def test_degenerate_triangles_spoil_nothing(seed, value):
    check_spoils_nothing(seed, value)


@pytest.mark.usefixtures("device")
@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
@pytest.mark.parametrize("value", SPOILT)
def test_degenerate_triangles_spoil_nothing_on_any_device(value):
    check_spoils_nothing(3, value)


def check_spoils_nothing(seed: int, value: float) -> None:
    """Whatever a few vertices hold: no crash, finite results, and triangles without them are where they were."""
    positions, faces = random_triangles(seed, 60)
    g = torch.Generator().manual_seed(seed)
    bad = torch.randperm(40, generator=g)[:5]
    spoilt = positions.clone()
    spoilt[0, bad, torch.randint(0, 4, (5,), generator=g)] = value
    faces = torch.cat([faces, faces[:4, [0, 0, 1]], faces[:4, [2, 2, 2]]])
    leaf = spoilt.requires_grad_()
    rast, rast_db = rasterize_mesh(leaf, faces, 19, 23)
    assert rast.isfinite().all()
    # A triangle of the size 1e-30 may have slopes beyond what floats hold.
    usual = abs(value) in (0, float("inf")) or value != value
    assert rast_db.isfinite().all() or not usual
    if usual:
        gradient = torch.autograd.grad(rast.sum(), leaf)[0]
        assert gradient.isfinite().all()
    if not abs(value) < float("inf"):
        touched = torch.isin(faces, bad.int()).any(dim=1)
        assert not (rast[..., 3].unique() - 1)[1:].long().unsqueeze(1).eq(torch.nonzero(touched).flatten()).any()
        clean, _ = rasterize_mesh(positions, faces[~touched], 19, 23)
        number = torch.cat([torch.zeros(1), torch.nonzero(~touched).flatten() + 1.0])
        assert torch.equal(number[clean[..., 3].long()], rast[..., 3].detach())
        assert torch.equal(clean[..., :3], rast[..., :3].detach())


@pytest.mark.usefixtures("device")
def test_triangles_larger_than_the_image_and_many_in_a_tile():
    """Thousands of small ones behind one that covers all, and a floor from far behind the camera."""
    g = torch.Generator().manual_seed(8)
    corners = torch.rand(2000, 1, 4, generator=g) * 2 - 1 + 0.2 * torch.randn(2000, 3, 4, generator=g)
    corners = torch.cat([corners[..., :2], 0.3 * corners[..., 2:3] + 0.5, torch.ones(2000, 3, 1)], dim=-1)
    near = torch.tensor([[[-900.0, -700, -0.9, 1], [3e5, -4, 0.9, 1], [-8, 1e4, 0.9, 1]]])
    floor = torch.tensor([[[-40.0, 1, -51, -50], [40, 1, -51, -50], [0, 1, 19, 20]]])
    positions = torch.cat([corners, near, floor]).view(-1, 4)
    faces = torch.arange(len(positions), dtype=torch.int32).view(-1, 3)
    got, _ = rasterize_mesh(positions, faces, 15, 13, layers=2)
    expected, _ = reference(positions.double(), faces, 15, 13, layers=2)
    assert torch.equal(got[..., 3].double(), expected[..., 3])
    assert {2001, 2002} < set(got[..., 3].unique().tolist())


@needs_triton
def test_a_face_that_names_no_vertex_is_not_seen_on_a_gpu():
    """There faces are not looked through beforehand."""
    positions, faces = random_triangles(9, 30)
    wrong = torch.tensor([[0, 1, 40], [-1, 2, 3], [2**31 - 1, 0, 1]], dtype=torch.int32)
    expected, _ = rasterize_mesh(positions, faces, 9, 8)
    with as_on_gpu():
        got, _ = rasterize_mesh(positions, torch.cat([faces, wrong]), 9, 8)
    assert torch.equal(got[..., 3], expected[..., 3])


@needs_triton
def test_a_gpus_gradients_are_the_same_where_they_must_be():
    """In a fixed order under ``use_deterministic_algorithms``; as atomics come without."""
    positions, faces = random_triangles(10, 40, batch=2)
    positions.requires_grad_()
    gradients, before = [], torch.are_deterministic_algorithms_enabled()
    with as_on_gpu():
        rast, rast_db = rasterize_mesh(positions, faces, 20, 9)
        try:
            for deterministic in (True, True, False):
                torch.use_deterministic_algorithms(deterministic)
                loss = rast.square().sum() + rast_db.sum()
                gradients += torch.autograd.grad(loss, positions, retain_graph=True)
        finally:
            torch.use_deterministic_algorithms(before)
    assert torch.equal(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[2], gradients[0], atol=1e-5 * gradients[0].abs().max().item(), rtol=1e-5)


@pytest.mark.usefixtures("device")
def test_nothing_to_draw():
    rast, rast_db = rasterize_mesh(torch.zeros(0, 4), torch.zeros(0, 3, dtype=torch.int32), 5, 4)
    assert rast.shape == (1, 4, 5, 4)
    assert not rast.any()
    assert not rast_db.any()
    positions = torch.zeros(3, 4, requires_grad=True)
    rasterize_mesh(positions, torch.zeros(0, 3, dtype=torch.int32), 5, 4)[0].sum().backward()
    assert positions.grad is not None
    assert not positions.grad.any()


def test_same_bits_with_any_number_of_threads():
    positions, faces = random_triangles(5, 3000, vertices=400, batch=2)
    positions.requires_grad_()

    def run() -> list[torch.Tensor]:
        rast, rast_db = rasterize_mesh(positions, faces, 150, 70, layers=2)
        return [rast, rast_db, *torch.autograd.grad(rast.sum() + rast_db.sum(), positions)]

    check_same_bits(run)


@pytest.mark.usefixtures("device")
def test_strided_inputs():
    positions, faces = random_triangles(6, 30)
    one, _ = rasterize_mesh(positions, faces, 9, 8)
    other, _ = rasterize_mesh(positions[0].T.contiguous().T, faces.T.contiguous().T, 9, 8)
    assert torch.equal(one, other)


def test_operator_is_well_formed():
    positions, faces = random_triangles(7, 30, batch=2)
    torch.library.opcheck(torch.ops.egregium.rasterize_mesh.default, (positions.requires_grad_(), faces, 9, 7, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": torch.zeros(5, 3)}, "positions must have shape"),
        ({"positions": torch.zeros(0, 5, 4)}, "positions must have shape"),
        ({"positions": [1.0]}, "positions must be a tensor"),
        ({"positions": torch.zeros(5, 4, dtype=torch.float64)}, "takes float32, not torch.float64"),
        ({"faces": torch.zeros(2, 3)}, "faces must be int32"),
        ({"faces": torch.zeros(2, 4, dtype=torch.int32)}, "faces must be int32"),
        ({"faces": torch.tensor([[0, 1, 5]], dtype=torch.int32)}, "faces names vertex 5, but they are 0 to 4"),
        ({"faces": torch.tensor([[0, 1, -2]], dtype=torch.int32)}, "faces names vertex -2"),
        ({"width": 0}, "width = 0"),
        ({"height": 2.5}, "height = 2.5"),
        ({"layers": 0}, "layers = 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"positions": torch.zeros(5, 4), "faces": torch.zeros(1, 3, dtype=torch.int32), "width": 4, "height": 4}
    with pytest.raises(ValueError, match=message):
        rasterize_mesh(**{**arguments, **change})
