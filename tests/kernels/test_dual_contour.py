"""Connectivity of dual marching cubes: its twin, and closed manifold surfaces whatever the signs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from surface_scenes import SIZES, check_closed, random_field, samples, split, volume, with_zeros
from thread_counts import check_same_bits
from torch import Tensor

from kernels.contour_tables import EDGES, LOOPS
from kernels.dual_contour import Contour, cell_samples, dual_contour
from kernels.gpu.dual_contour import dual_contour as on_gpu
from kernels.reference.dual_contour import dual_contour as reference

pytestmark = pytest.mark.usefixtures("processor")


def shape_of(field: Tensor) -> tuple[int, int, int]:
    nx, ny, nz = (n - 1 for n in field.shape)
    return nx, ny, nz


def same(one: Contour, other: Contour) -> None:
    for name in Contour.__dataclass_fields__:
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype
        assert torch.equal(a, b), name


@pytest.mark.parametrize("resolution", SIZES)
@pytest.mark.parametrize("density", [-0.8, 0.0, 0.8])
def test_is_its_twin(resolution: tuple[int, int, int], density: float) -> None:
    inside = random_field(resolution, 0) < density
    same(dual_contour(inside, resolution), reference(inside))


def test_threads_chunks_and_the_device_do_not_matter() -> None:
    field = random_field((70, 31, 33), 5)  # three slabs of layers, some twenty chunks of cells
    parts = check_same_bits(lambda: list(vars(dual_contour(field < 0, shape_of(field))).values()))
    contour = Contour(*parts)
    check_closed(split(contour.quads), contour.vertex_count)
    same(contour, Contour(*on_gpu(field < 0, [*shape_of(field)], None, None)))


@pytest.mark.parametrize("resolution", SIZES)
@pytest.mark.parametrize("seed", range(8))
def test_noise_gives_closed_manifolds(resolution: tuple[int, int, int], seed: int) -> None:
    field = random_field(resolution, seed)
    for inside in (field < 0, field < -1, field < 1, with_zeros(field) < 0, torch.ones_like(field) > 0):
        contour = dual_contour(inside, resolution)
        check_closed(split(contour.quads), contour.vertex_count)
        assert (contour.cell_edges >= 0).sum() == 4 * len(contour.edges)


def test_every_pair_of_ambiguous_neighbours() -> None:
    """All signs of the twelve corners of two cubes, inside a shell of outside: each of them is a manifold."""
    block = torch.zeros(64, 5, 4, 4, dtype=torch.bool)
    for high in range(64):
        bits = torch.tensor([[(high << 6 | low) >> k & 1 for k in range(12)] for low in range(64)], dtype=torch.bool)
        block[:, 1:4, 1:3, 1:3] = bits.view(64, 3, 2, 2)
        # 64 blocks side by side; the layers between them are outside
        inside = block.permute(1, 0, 2, 3).reshape(5, 64 * 4, 4)
        contour = dual_contour(inside, (4, 255, 3))
        check_closed(split(contour.quads), contour.vertex_count)


def test_one_sample_inside_is_a_cube_facing_out() -> None:
    inside = torch.zeros(3, 3, 3, dtype=torch.bool)
    inside[1, 1, 1] = True
    contour = dual_contour(inside, (2, 2, 2))
    assert len(contour.rows) == contour.vertex_count == 8
    assert len(contour.quads) == 6
    centres = samples((1, 1, 1)).reshape(-1, 3) + 0.5  # of the 8 cells, in their order
    assert volume(centres.numpy(), split(contour.quads)) == pytest.approx(1)
    # The edge from the centre along +z: its four vertices lie above the centre, counter-clockwise seen from there.
    edge = (contour.edges == torch.tensor([13, 14])).all(dim=1).nonzero().item()
    ring = centres[contour.quads[edge].long()] - 1
    assert (ring[:, 2] == 0.5).all()
    angles = torch.atan2(ring[:, 1], ring[:, 0])
    assert torch.allclose((angles.roll(-1) - angles) % (2 * np.pi), torch.tensor(np.pi / 2, dtype=torch.float64))


def test_zero_is_outside_and_winding_holds() -> None:
    x = samples((6, 6, 6)) - 3
    field = x.abs().amax(dim=-1) - 1  # exactly 0 on the samples of a cube
    contour = dual_contour(field < 0, (6, 6, 6))
    values = field.flatten()[contour.samples][contour.edges.long()]
    assert (values[:, 0] < 0).all()
    assert (values[:, 1] == 0).all()
    check_closed(split(contour.quads), contour.vertex_count)


def test_the_border_is_outside() -> None:
    full = torch.ones(4, 5, 6, dtype=torch.bool)
    contour = dual_contour(full, (3, 4, 5))
    assert check_closed(split(contour.quads), contour.vertex_count) == 2
    assert not border((4, 5, 6)).flatten()[contour.samples[contour.edges[:, 0].long()]].any()


def border(shape: tuple[int, ...]) -> np.ndarray:
    result = np.ones(shape, bool)
    result[1:-1, 1:-1, 1:-1] = False
    return result


def test_cell_edges_say_what_is_averaged() -> None:
    contour = dual_contour(random_field((5, 6, 7), 3) < 0, (5, 6, 7))
    cell, edge = (contour.cell_edges >= 0).nonzero(as_tuple=True)
    crossed = contour.cell_edges[cell, edge].long()
    ends = contour.corners[cell[:, None], torch.from_numpy(EDGES).long()[edge]]
    assert torch.equal(ends.sort(dim=1).values, contour.edges[crossed].sort(dim=1).values)
    vertex = contour.first[cell] + torch.from_numpy(LOOPS)[contour.cases[cell].long(), edge]
    assert (contour.quads[crossed] == vertex[:, None]).sum(dim=1).eq(1).all()


def numbers(resolution: tuple[int, int, int], places: Tensor) -> Tensor:
    _, ny, nz = resolution
    return ((places[:, 0] * (ny + 1) + places[:, 1]) * (nz + 1) + places[:, 2]).int()


def all_cells(resolution: tuple[int, int, int]) -> Tensor:
    return numbers(resolution, torch.cartesian_prod(*[torch.arange(n) for n in resolution]).view(-1, 3))


@pytest.mark.parametrize("resolution", SIZES[1:])
def test_sparse_equals_dense(resolution: tuple[int, int, int]) -> None:
    field = random_field(resolution, 7)
    field[border(tuple(field.shape))] = 1
    dense = dual_contour(field < 0, resolution)
    every = all_cells(resolution)
    chosen = torch.rand(len(every), generator=torch.Generator().manual_seed(1)) < 0.3
    chosen[dense.rows] = True
    cells = every[chosen]
    listed, corners = cell_samples(cells, resolution)
    assert torch.equal(listed[corners.long()][:, 0], cells)
    assert torch.equal(listed, listed.unique())
    sparse = dual_contour((field < 0).flatten()[listed.long()], resolution, cells, corners)
    assert torch.equal(chosen.nonzero()[sparse.rows, 0], dense.rows)
    assert torch.equal(listed[sparse.samples].long(), dense.samples)
    for name in ("cases", "first", "corners", "cell_edges", "edges", "quads"):
        assert torch.equal(getattr(sparse, name), getattr(dense, name))


def test_surface_that_leaves_the_cells_is_refused() -> None:
    resolution = (4, 4, 4)
    field = samples(resolution)[..., 0] - 1.5  # a plane: it meets every face of the border
    cells = all_cells(resolution)
    listed, corners = cell_samples(cells, resolution)
    inside = (field < 0).flatten()[listed.long()]
    with pytest.raises(ValueError, match="leaves the listed cells"):
        dual_contour(inside, resolution, cells, corners)
    ball = (samples(resolution) - 2).norm(dim=-1) < 1.2
    active = dual_contour(ball, resolution).rows
    for missing in range(0, len(active), 5):
        few = cells[torch.cat([active[:missing], active[missing + 1 :]])]
        listed, corners = cell_samples(few, resolution)
        with pytest.raises(ValueError, match="leaves the listed cells"):
            dual_contour(ball.flatten()[listed.long()], resolution, few, corners)


def test_nothing_is_no_error() -> None:
    contour = dual_contour(torch.zeros(3, 4, 5, dtype=torch.bool), (2, 3, 4))
    assert contour.vertex_count == len(contour.quads) == len(contour.rows) == 0
    empty = torch.zeros(0, dtype=torch.int32)
    listed, corners = cell_samples(empty, (2, 3, 4))
    assert len(listed) == len(corners) == 0
    nothing = dual_contour(torch.zeros(0, dtype=torch.bool), (2, 3, 4), empty, corners)
    assert nothing.vertex_count == len(nothing.quads) == len(nothing.rows) == 0


def test_operator_is_well_formed() -> None:
    inside = random_field((3, 4, 5), 0) < 0
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.egregium.dual_contour.default, (inside, [3, 4, 5], None, None), test_utils=tests)
    cells = torch.tensor([0, 1, 8], dtype=torch.int32)
    torch.library.opcheck(torch.ops.egregium.cell_samples.default, (cells, [3, 4, 5]), test_utils=tests)


def test_bad_input_is_named() -> None:
    inside = torch.zeros(3, 3, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\(4, 3, 3\)"):
        dual_contour(inside, (3, 2, 2))
    with pytest.raises(ValueError, match="bool"):
        dual_contour(inside.float(), (2, 2, 2))
    with pytest.raises(ValueError, match="resolution"):
        dual_contour(inside, (2, 2, 0))
    with pytest.raises(ValueError, match="belong together"):
        dual_contour(inside.flatten(), (2, 2, 2), torch.zeros(1, dtype=torch.int32))
    far = torch.zeros(1, dtype=torch.int32, device="meta")
    with pytest.raises(ValueError, match="cells on meta, corners on cpu: not on one device"):
        dual_contour(inside.flatten(), (2, 2, 2), far, torch.zeros(1, 8, dtype=torch.int32))
    for cells in (torch.zeros(1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int32)):
        with pytest.raises(ValueError, match=r"cells must be \(M,\) int32"):
            cell_samples(cells, (2, 2, 2))
    with pytest.raises(ValueError, match="resolution"):
        cell_samples(torch.zeros(1, dtype=torch.int32), (2, 2, 0))


@pytest.mark.parametrize("cells", [[3, 1], [1, 1], [-1, 1], [0, 18], [2], [6], [0, 2**31 - 1]])
def test_numbers_that_are_no_cells_are_refused(cells: list[int]) -> None:
    """Of 2 × 2 × 2 cells, numbered by the samples 3 × 3 × 3 at their lowest corners: 2, 6 and 18 are on the border."""
    listed = torch.tensor(cells, dtype=torch.int32)
    with pytest.raises(ValueError, match="ascending, each once"):
        cell_samples(listed, (2, 2, 2))
    corners = torch.zeros(len(cells), 8, dtype=torch.int32)
    with pytest.raises(ValueError, match="ascending, each once"):
        dual_contour(torch.zeros(8, dtype=torch.bool), (2, 2, 2), listed, corners)


@pytest.mark.parametrize("corner", [-1, 18, 2**31 - 1, -(2**31)])
def test_corners_that_are_no_samples_are_refused(corner: int) -> None:
    cells = torch.tensor([0, 1, 4], dtype=torch.int32)
    samples_of, corners = cell_samples(cells, (2, 2, 2))
    inside = torch.zeros(len(samples_of), dtype=torch.bool)
    assert len(dual_contour(inside, (2, 2, 2), cells, corners).rows) == 0
    assert len(samples_of) <= 18
    with pytest.raises(ValueError, match="among the 0 samples"):
        dual_contour(inside[:0], (2, 2, 2), cells, corners)
    corners[1, 5] = corner
    with pytest.raises(ValueError, match="corners places among"):
        dual_contour(inside, (2, 2, 2), cells, corners)


def test_all_orders_of_axes() -> None:
    """A field and its mirror-free permutations have the same surface."""
    field = random_field((4, 5, 6), 11)
    counts = set()
    for axes in itertools.permutations(range(3)):
        moved = field.permute(axes).contiguous()
        contour = dual_contour(moved < 0, shape_of(moved))
        counts.add((len(contour.rows), contour.vertex_count, len(contour.quads)))
    assert len(counts) == 1
