"""Antialiasing: edges and intersections by hand, the twin, derivatives; areas are in test_mesh_gradients.py."""

from __future__ import annotations

import pytest
import torch
from raster_scenes import join, random_triangles, rotation, sphere
from thread_counts import check_same_bits

from kernels.antialias import antialias
from kernels.face_neighbors import face_neighbors
from kernels.gpu.face_neighbors import face_neighbors as face_neighbors_on_gpu
from kernels.rasterize_mesh import rasterize_mesh
from kernels.reference.antialias import antialias as reference
from kernels.reference.antialias import neighbors_of


def view(vertices: torch.Tensor, seed: int) -> torch.Tensor:
    """Turn vertices and put them before a camera: (1, V, 4)."""
    turned = vertices @ rotation(torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).T
    w = 0.3 * turned[:, 2:] + 1.3
    return torch.cat([0.8 * turned[:, :2], 0.5 * turned[:, 2:], w], dim=1)[None].float()


def half(x: float, width: int, z: float = 0.0) -> list[list[float]]:
    """A triangle that covers the image left of column position x."""
    ndc = 2 * x / width - 1
    return [[ndc, -9.0, z, 1], [ndc, 9, z, 1], [-30, 0, z, 1]]


@pytest.mark.parametrize("function", [antialias, reference])
@pytest.mark.parametrize(("x", "expected"), [(2.75, [1, 1, 0.75, 0]), (2.25, [1, 1, 0.25, 0]), (3.4, [1, 1, 1, 0.4])])
def test_an_upright_edge_covers_its_part_of_a_pixel(function, x, expected):
    """White left of x on black: the pixel on the edge is as white as it is covered, and moves with the edge."""
    positions = torch.tensor([half(x, 4)], requires_grad=True)
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    rast, _ = rasterize_mesh(positions, faces, 4, 1)
    seen = function((rast[..., 3:] > 0).float(), rast, positions, faces)
    torch.testing.assert_close(seen.flatten().tolist(), [float(v) for v in expected], atol=1e-5, rtol=0)
    gradient = torch.autograd.grad(seen.sum(), positions)[0]
    # The edge from y = -9 to 9 crosses the row in its middle: each end moves it by half; two pixels wide is one of NDC.
    torch.testing.assert_close(gradient[0, :2, 0], torch.tensor([1.0, 1.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("function", [antialias, reference])
def test_a_level_edge_is_looked_for_in_columns(function):
    positions = torch.tensor([[[y, x, z, w] for x, y, z, w in half(2.25, 4)]])
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    rast, _ = rasterize_mesh(positions, faces, 3, 4)
    seen = function((rast[..., 3:] > 0).float(), rast, positions, faces)
    torch.testing.assert_close(seen[0, :, 1, 0], torch.tensor([1, 1, 0.25, 0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("function", [antialias, reference])
def test_two_planes_meet(function):
    """z = s (X - x₀) and z = -s (X - x₀), no edge in sight: the nearer one changes at x₀."""
    x0, width, slope = 2.3, 4, 0.1

    def plane(sign: float) -> list[list[float]]:
        corners = [(-40.0, -40.0), (60.0, -40.0), (-40.0, 60.0)]
        z = [sign * slope * ((x + 1) / 2 * width - x0) for x, _ in corners]
        scale = 100  # keeps the far corners within the depth's range, whose slope is then as many times smaller
        return [[x, y, d / scale, 1] for (x, y), d in zip(corners, z, strict=True)]

    positions = torch.tensor([plane(1) + plane(-1)], requires_grad=True)
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]], dtype=torch.int32)
    rast, _ = rasterize_mesh(positions, faces, width, 1)
    assert rast[0, 0, :, 3].tolist() == [1, 1, 2, 2]
    seen = function((rast[..., 3:] == 1).float(), rast, positions, faces)
    torch.testing.assert_close(seen.flatten(), torch.tensor([1, 1, 0.3, 0]), atol=2e-4, rtol=0)
    gradient = torch.autograd.grad(seen.sum(), positions)[0]
    # Pushing the first plane back by dz moves the line where they meet by -dz / (2 slope / 100).
    torch.testing.assert_close(gradient[0, :3, 2].sum().item(), -100 / (2 * slope), rtol=1e-3, atol=0)
    torch.testing.assert_close(gradient[0, 3:, 2].sum().item(), 100 / (2 * slope), rtol=1e-3, atol=0)


def test_edges_of_triangles_that_no_centre_hits():
    """A strip of slivers ends in a pixel: the surface is followed to its end."""
    xs = torch.tensor([-9.0, 0, 2.0, 2.55, 2.6, 2.65, 2.7, 2.75])
    columns = torch.stack([2 * xs / 4 - 1, torch.zeros(8)], dim=1)
    vertices = torch.cat([columns + torch.tensor([0.0, -9]), columns + torch.tensor([0.0, 9])])
    positions = torch.cat([vertices, torch.zeros(16, 1), torch.ones(16, 1)], dim=1)[None]
    i = torch.arange(7)
    faces = torch.cat([torch.stack([i, i + 1, i + 9], 1), torch.stack([i, i + 9, i + 8], 1)]).int()
    rast, _ = rasterize_mesh(positions, faces, 4, 1)
    for function in (antialias, reference):
        seen = function((rast[..., 3:] > 0).float(), rast, positions, faces)
        torch.testing.assert_close(seen.flatten(), torch.tensor([1, 1, 0.75, 0]), atol=1e-5, rtol=0)


def test_smooth_surfaces_are_left_alone():
    """A sphere's inside: colours change from triangle to triangle, but no edge is a silhouette."""
    vertices, faces = sphere(1.0, (0, 0, 0))
    positions = view(3 * vertices, 0)
    rast, _ = rasterize_mesh(positions, faces, 30, 30)
    assert (rast[..., 3] > 0).all()
    color = torch.rand(1, 30, 30, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(antialias(color, rast, positions, faces), color)


def scenes() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    one, two = sphere(0.8, (0, 0, 0), 2), join(sphere(0.6, (-0.3, 0, 0), 1), sphere(0.6, (0.3, 0.1, 0.1), 2))
    soup, faces = random_triangles(0, 24)
    soup[..., 3] = 1.5 + 0.3 * soup[..., 2].abs()
    soup[..., 2] *= 0.5
    doubled = torch.cat([faces, faces[:3, [1, 0, 2]], faces[:1, [0, 0, 1]]])
    return {"sphere": (view(one[0], 1), one[1]), "two": (view(two[0], 2), two[1]), "soup": (soup, doubled)}


@pytest.fixture
def wide_programs(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a program have more pairs of pixels than a GPU would: Triton's interpreter is faster so."""
    if device == "gpu" and not torch.cuda.is_available():
        monkeypatch.setattr("kernels.gpu.antialias.PAIRS", 256)


@pytest.mark.usefixtures("wide_programs")
@pytest.mark.parametrize("name", scenes())
def test_is_its_twin_with_gradients(name):
    positions, faces = scenes()[name]
    positions = positions.expand(2, -1, -1) + torch.tensor([0.0, 0.05]).view(2, 1, 1)
    rast, _ = rasterize_mesh(positions, faces, 23, 17)
    color = torch.rand(2, 17, 23, 3, generator=torch.Generator().manual_seed(3))
    results = []
    for function, dtype in ((antialias, torch.float32), (reference, torch.float64)):
        leaves = [t.to(dtype).requires_grad_() for t in (color, positions)]
        seen = function(leaves[0], rast.to(dtype), leaves[1], faces)
        weights = torch.randn(seen.shape, generator=torch.Generator().manual_seed(4))
        results.append([seen, *torch.autograd.grad((seen * weights).sum(), leaves)])
    assert (results[1][0] != color).any(dim=-1).sum() > 20
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5 * other.abs().max().item(), rtol=1e-4)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 37), (1, 67, 1), (3, 5, 2)])
def test_images_of_any_size(size):
    """An upright and a level edge, in images that end within a GPU program's pixels, or within which it ends."""
    batch, height, width = size
    corners = [(-0.15, -3.0), (-0.01, 3.0), (-30.0, 0.0), (-30.0, 0.1), (30.0, 0.1)]
    positions = torch.tensor([[x + 0.05 * image, y, 0, 1] for image in range(batch) for x, y in corners])
    positions = positions.view(batch, 5, 4)
    faces = torch.tensor([[0, 1, 2], [3, 4, 1]], dtype=torch.int32)
    rast, _ = rasterize_mesh(positions, faces, width, height)
    color = torch.rand(batch, height, width, 2, generator=torch.Generator().manual_seed(0))
    results = []
    for function in (antialias, reference):
        leaves = [t.clone().requires_grad_() for t in (color, positions)]
        seen = function(leaves[0], rast, leaves[1], faces)
        gradients = torch.autograd.grad((seen**2).sum(), leaves, allow_unused=True)
        results.append([seen, *(torch.zeros(1) if g is None else g for g in gradients)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other.expand_as(one), atol=1e-5 * max(1, other.abs().max().item()), rtol=1e-4)
    assert torch.equal(results[0][0], color) == (size == (1, 1, 1))


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("height", "faces"), [(0, 5), (4, 0)])
def test_nothing_to_antialias(height, faces):
    positions, every = random_triangles(1, 5)
    positions.requires_grad_()
    color = torch.rand(1, height, 3, 2).requires_grad_()
    seen = antialias(color, torch.ones(1, height, 3, 4), positions, every[:faces])
    assert torch.equal(seen, color)
    to_color, to_positions = torch.autograd.grad(seen.sum(), (color, positions))
    assert torch.equal(to_color, torch.ones_like(color))
    assert not to_positions.any()


@pytest.mark.usefixtures("wide_programs")
@pytest.mark.filterwarnings("ignore:invalid value")  # numpy's, of Triton's interpreter
def test_numbers_that_are_no_triangle_and_vertices_that_are_not_finite():
    positions, faces = scenes()["soup"]
    rast, _ = rasterize_mesh(positions, faces, 9, 7)
    rast[..., 3] *= torch.rand(rast.shape[:3], generator=torch.Generator().manual_seed(0)) < 0.8
    color = torch.rand(1, 7, 9, 2, generator=torch.Generator().manual_seed(0))
    background = (rast[..., 3] == 0).nonzero()[:4]
    expected = antialias(color, rast, positions, faces)
    rast[*background.T, 3] = torch.tensor([-1.0, len(faces) + 1, float("nan"), float("inf")])
    assert torch.equal(antialias(color, rast, positions, faces), expected)
    positions = positions.clone()
    positions[0, :20, 1] = float("inf")
    positions[0, 20:30] = float("nan")
    assert antialias(color, rast, positions, faces).isfinite().all()


@pytest.mark.usefixtures("wide_programs")
def test_gradients_are_the_same_when_they_must_be_deterministic():
    positions, faces = scenes()["two"]
    rast, _ = rasterize_mesh(positions, faces, 15, 14)
    color = torch.rand(1, 14, 15, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    leaves = (color, positions.requires_grad_())
    torch.use_deterministic_algorithms(True)
    try:
        loss = (antialias(color, rast, positions, faces) ** 2).sum()
        one, again = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    for first, second, other in zip(one, again, torch.autograd.grad(loss, leaves), strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, other, atol=1e-5 * other.abs().max().item(), rtol=1e-5)


@pytest.mark.parametrize("name", scenes())
def test_twins_gradients_are_finite_differences(name):
    """With what each centre sees fixed, the image is smooth while no crossing passes a pixel's end."""
    positions, faces = scenes()[name]
    rast, _ = rasterize_mesh(positions, faces, 14, 12)
    g = torch.Generator().manual_seed(5)
    color, weights = (torch.rand(1, 12, 14, 2, generator=g, dtype=torch.float64) for _ in range(2))
    leaf = positions.double().requires_grad_()
    gradient = torch.autograd.grad((weights * reference(color, rast.double(), leaf, faces)).sum(), leaf)[0]
    direction = torch.randn(leaf.shape, generator=g, dtype=torch.float64)
    sides = [
        (weights * reference(color, rast.double(), leaf.detach() + s * direction, faces)).sum() for s in (1e-6, -1e-6)
    ]
    slope = (sides[0] - sides[1]) / 2e-6
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-4, atol=1e-6)


FAN = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4], [2, 1, 5]], dtype=torch.int32)
COLLAPSED = torch.tensor([[0, 1, 2], [0, 1, 1], [0, 0, 1], [1, 0, 3], [1, 1, 1], [2, 2, 2]], dtype=torch.int32)
"""Two triangles with a common edge, and triangles collapsed onto that edge, a corner of it and both."""


def test_neighbors():
    for _, faces in scenes().values():
        assert face_neighbors(faces).tolist() == neighbors_of(faces.tolist())
    assert face_neighbors(FAN).tolist() == [[3, -1, -1], [-1, -1, -1], [-1, -1, -1], [-1, -1, 0]]
    assert face_neighbors(FAN[:0]).shape == (0, 3)
    nothing = [-1, -1, -1]
    assert face_neighbors(COLLAPSED).tolist() == [[-1, -1, 3], nothing, nothing, [-1, -1, 0], nothing, nothing]
    assert face_neighbors(COLLAPSED[1:3]).tolist() == [nothing, nothing]
    assert neighbors_of(COLLAPSED.tolist()) == face_neighbors(COLLAPSED).tolist()
    with pytest.raises(ValueError, match="faces must be int32"):
        face_neighbors(torch.zeros(1, 3))


def test_neighbors_found_on_a_gpu_are_the_same():
    for faces in (*(faces for _, faces in scenes().values()), FAN, FAN[:0], COLLAPSED, COLLAPSED[1:3]):
        assert torch.equal(face_neighbors_on_gpu(faces), face_neighbors(faces))


def test_same_bits_with_any_number_of_threads_and_given_neighbors():
    positions, faces = random_triangles(6, 300, vertices=100)
    rast, _ = rasterize_mesh(positions, faces, 90, 80)
    color = torch.rand(1, 80, 90, 3, generator=torch.Generator().manual_seed(0))

    def run() -> list[torch.Tensor]:
        leaf = positions.clone().requires_grad_()
        seen = antialias(color, rast, leaf, faces)
        return [seen, *torch.autograd.grad((seen**2).sum(), leaf)]

    seen = check_same_bits(run)[0]
    assert not torch.equal(seen, color)
    assert torch.equal(antialias(color, rast, positions, faces, face_neighbors(faces)), seen)


def test_operator_is_well_formed():
    positions, faces = scenes()["two"]
    rast, _ = rasterize_mesh(positions, faces, 9, 7)
    color = torch.rand(1, 7, 9, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    arguments = (color, rast, positions.requires_grad_(), faces, face_neighbors(faces))
    torch.library.opcheck(torch.ops.egregium.antialias.default, arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color": torch.zeros(1, 7, 8, 2)}, "color must have shape"),
        ({"color": torch.zeros(1, 7, 9, 2, dtype=torch.float64)}, "color is torch.float64"),
        ({"rast": torch.zeros(7, 9, 4)}, "rast must have shape"),
        ({"positions": torch.zeros(2, 50, 4)}, "positions holds 2 sets"),
        ({"positions": torch.zeros(3, 4)}, "faces names vertex"),
        ({"faces": torch.zeros(4, 3)}, "faces must be int32"),
        ({"neighbors": torch.zeros(4, 3, dtype=torch.int32)}, "neighbors must be int32"),
        ({"neighbors": torch.full((400, 3), 400, dtype=torch.int32)}, "neighbors names triangle 400, but they are -1"),
        ({"neighbors": torch.full((400, 3), -2, dtype=torch.int32)}, "neighbors names triangle -2, but they are -1"),
    ],
)
def test_bad_arguments_are_named(change, message):
    positions, faces = scenes()["two"]
    arguments = {"color": torch.zeros(1, 7, 9, 2), "rast": torch.zeros(1, 7, 9, 4), "positions": positions}
    with pytest.raises(ValueError, match=message):
        antialias(**{**arguments, "faces": faces, **change})
