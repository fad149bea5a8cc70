"""Closest points on triangles: against the twin that tries them all, by hand, and by finite differences."""

from __future__ import annotations

import pytest
import torch
from thread_counts import check_same_bits

from kernels.nearest import nearest
from kernels.reference.nearest import nearest as reference


def soup(n: int, faces: int, dtype: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return points, and triangles that share vertices, large and small; one is a needle, one an edge, one a point."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, 3, generator=generator, dtype=dtype)
    vertices = torch.randn(faces, 3, generator=generator, dtype=dtype)
    triangles = torch.randint(0, faces, (faces, 3), generator=generator, dtype=torch.int32)
    vertices[0] = 0.5 * (vertices[1] + vertices[2])
    triangles[:3] = torch.tensor([[0, 1, 2], [3, 3, 4], [5, 5, 5]])
    return points, vertices, triangles


@pytest.fixture
def lanes(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let any device do many points at once: of a program Triton's interpreter takes as long for few as for many."""
    if device == "gpu":
        monkeypatch.setattr("kernels.gpu.nearest.BLOCK", 256)


def placed(vertices: torch.Tensor, faces: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (vertices[faces[index.long()].long()] * weights[..., None]).sum(dim=1)


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("faces", [6, 150])
def test_is_its_twin(faces: int, dtype: torch.dtype, tolerance: float) -> None:
    points, vertices, triangles = soup(200, faces, dtype)
    squared, index, weights = nearest(points, vertices, triangles)
    expected = reference(points.double(), vertices.double(), triangles)[0]
    torch.testing.assert_close(squared.double().sqrt(), expected.sqrt(), atol=tolerance, rtol=0)
    # What is named is where it is said to be.
    distance = (placed(vertices, triangles, index, weights) - points).norm(dim=1)
    torch.testing.assert_close(distance, squared.sqrt(), atol=4 * tolerance, rtol=0)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(points), dtype=dtype))


@pytest.mark.usefixtures("device")
def test_face_edge_and_corner_by_hand() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]])
    points = torch.tensor([[1.0, 1, 3], [2, -2, 0], [-3, -4, 0], [4, 4, 1]])
    squared, index, weights = nearest(points, vertices, torch.tensor([[0, 1, 2]], dtype=torch.int32))
    torch.testing.assert_close(squared, torch.tensor([9.0, 4, 25, 9]))
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.5, 0], [1, 0, 0], [0, 0.5, 0.5]]))
    assert index.tolist() == [0, 0, 0, 0]


@pytest.mark.usefixtures("device")
def test_a_small_triangle_far_away_keeps_its_digits() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1e-3, 0, 0], [0, 1e-3, 0]]) + torch.tensor([100.0, 0, 0])
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    squared, _, weights = nearest(torch.tensor([[100.0 + 2.5e-4, 2.5e-4, 1.0]]), vertices, faces)
    expected = reference(torch.tensor([[100.0 + 2.5e-4, 2.5e-4, 1.0]]).double(), vertices.double(), faces)
    torch.testing.assert_close(squared.double(), expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(weights.double(), expected[2], rtol=0, atol=0.02)


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("size", [1e-7, 1e6, 2e8])
def test_any_size_has_a_nearest_point(size: float) -> None:
    """In float32, whose range ends at 3e38: the sixth power of a length would leave it."""
    points, vertices, triangles = soup(100, 60, torch.float32)
    squared, index, _ = nearest(size * points, size * vertices, triangles)
    expected = reference(points.double(), vertices.double(), triangles)[0]
    assert index.min() >= 0
    torch.testing.assert_close(squared.double().sqrt() / size, expected.sqrt(), atol=2e-6, rtol=0)


@pytest.mark.usefixtures("device")
def test_no_points_are_no_error() -> None:
    _, vertices, triangles = soup(0, 60, torch.float32)
    assert [len(result) for result in nearest(torch.zeros(0, 3), vertices, triangles)] == [0, 0, 0]


@pytest.mark.usefixtures("lanes")
def test_without_faces_the_vertices_are_points() -> None:
    points, vertices, _ = soup(50, 80, torch.float64)
    squared, index, weights = nearest(points, vertices)
    expected = torch.cdist(points, vertices).min(dim=1)
    torch.testing.assert_close(squared.sqrt(), expected.values)
    torch.testing.assert_close(index.long(), expected.indices)
    assert (weights.max(dim=1).values == 1).all()


def test_gradient_is_the_finite_difference() -> None:
    points, vertices, triangles = soup(40, 60, torch.float64, seed=2)
    assert torch.autograd.gradcheck(
        lambda p, v: nearest(p, v, triangles)[0], (points.requires_grad_(), vertices.requires_grad_())
    )


def test_the_same_for_any_number_of_threads() -> None:
    points, vertices, triangles = soup(3000, 500, torch.float32)
    check_same_bits(lambda: nearest(points, vertices, triangles))


@pytest.mark.usefixtures("device")
def test_many_equal_triangles_do_no_harm() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32).repeat(5000, 1)
    assert nearest(torch.tensor([[0.25, 0.25, 2.0]]), vertices, faces)[0].item() == 4


def test_operator_is_well_formed() -> None:
    points, vertices, triangles = soup(7, 9, torch.float64)
    arguments = (points.requires_grad_(), vertices.requires_grad_(), triangles)
    torch.library.opcheck(torch.ops.egregium.nearest.default, arguments)


def test_bad_arguments() -> None:
    points, vertices, triangles = soup(3, 8, torch.float32)
    for arguments, message in (
        ((points[:, :2], vertices, triangles), r"points must have shape \(N, 3\)"),
        ((points, vertices.double(), triangles), "vertices is torch.float64"),
        ((points, vertices, triangles.long()), "int64"),
        ((points, vertices, triangles[:0]), "no triangle"),
        ((points, vertices[:0]), "no triangle"),
        ((points, vertices, triangles + 99), "faces names vertex"),
        ((points / 0, vertices, triangles), "points has a coordinate that is not finite"),
        ((points, 0 * vertices / 0, triangles), "vertices has a coordinate that is not finite"),
        ((points, 2e9 * vertices, triangles), r"vertices has a coordinate .* beyond ±1\.1e\+09"),
        ((points.half(), vertices.half(), triangles), "nearest takes float32 or float64, not torch.float16"),
    ):
        with pytest.raises(ValueError, match=message):
            nearest(*arguments)
