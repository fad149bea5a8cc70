"""The inside of a surface as tetrahedra, which fill it exactly.

Each part of the inside of a cell (contour_tables.REGIONS) gets an apex: its vertex of the surface if it has exactly
one, else a point of its own in the middle of its corners: a part with none is a cell that is all inside, one with
several is bounded by several sheets. At an inside sample p, an edge looks into a cell through a point y(cell, p, edge):
the surface's vertex there if the edge is crossed, the apex of p's part if it is not. The tetrahedra are

    crossed edge of p          p and the triangles of its quad
    inside edge p q            p, q, y, y' for neighbouring cells around it                         (4)
    face at p, edges e1, e2    p and the quadrangle y(e1), y'(e1), y'(e2), y(e2) of its two cells   (2)
    cell at p                  p and the triangle of its three y                                    (1)

less those with a vertex twice. The first two are those of the paper (§4.5, A.1), which meet everywhere but at parts
with several vertices, its case C18; the last two fill what is left there.

Why nothing is missing: each side of a tetrahedron belongs to one other, turned around, or to the surface. At p these
are the triangles (p, y, y') through a grid face, once from each of the face's two edges at p or from the pyramid
between them, and the triangles (p, y1, y2) in a cell, from that pyramid and from the cell's tetrahedron. What lies
opposite p occurs once more, turned around: quadrangles at the other end of the face's inside, the cell's triangles too.
Therefore signed volumes add up to the enclosed volume for any positions of the vertices. (A tetrahedron is inverted
where the surface's own triangles pass beyond an inside sample that lies almost on it.)

Source: Shen et al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization", §4.5 and A.1.
Conventions: a tetrahedron (a, b, c, d) has the volume (b - a) × (c - a) · (d - a) / 6, positive if it is in order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.contour_tables import COUNTS, EDGE_AT, LOOPS, NONE, REGIONS
from kernels.dual_contour import Contour
from recon.isosurface.flexicubes import FlexiCubes, Surface

_EDGE_AT = torch.from_numpy(EDGE_AT).long()
_LOOPS = torch.from_numpy(LOOPS).long()
_REGIONS = torch.from_numpy(REGIONS).long()
_MOST = 4  # parts of the inside of a cell, at most


def _loops_of_regions() -> tuple[Tensor, Tensor]:
    """Return (512, 4) how many loops bound each part, and the last of them."""
    count, last = torch.zeros(512, _MOST, dtype=torch.int64), torch.zeros(512, _MOST, dtype=torch.int64)
    for case in range(512):
        for loop in range(int(COUNTS[case])):
            edge = int((LOOPS[case] == loop).argmax())
            corners = [c for c in range(8) if edge in EDGE_AT[c]]
            part = next(int(REGIONS[case, c]) for c in corners if REGIONS[case, c] != NONE)
            count[case, part] += 1
            last[case, part] = loop
    return count, last


_COUNT, _LAST = _loops_of_regions()


def tetrahedra(
    cubes: FlexiCubes, field: Tensor, surface: Surface, deform: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the inside of a surface as tetrahedra.

    Differentiable in what the surface's vertices and the samples' positions depend on; the connectivity is constant.

    Args:
        cubes: the grid, of all cells or of listed ones that hold the whole inside.
        field: the values that ``surface`` was made from.
        surface: from ``cubes(field, deform, …)``, training or not.
        deform: the deformation that it was made with.

    Returns:
        vertices: (V', 3); the first are the surface's, so that its faces fit, too.
        tets: (T, 4) int32, of positive volume but for those that the surface itself inverts.

    Raises:
        ValueError: cells are listed, and the inside reaches cells that are not.
    """
    contour = surface.contour
    if len(contour.edges) == 0:
        return surface.vertices, torch.zeros(0, 4, dtype=torch.int32)
    grid = _Grid(cubes, field, contour)
    count = len(surface.vertices)
    all_samples = torch.arange(field.numel())
    positions = cubes.deformed(deform, all_samples)
    sample_vertex = torch.full_like(all_samples, -1)
    used = grid.corners[grid.inside].unique()
    sample_vertex[used] = torch.arange(count, count + len(used))

    # Vertices of the parts that need a point of their own, in the middle of their corners.
    apex, own = grid.apexes(contour, count + len(used))
    cell, part = own.nonzero(as_tuple=True)
    member = (grid.regions[cell] == part[:, None]).to(positions.dtype)
    middles = (positions[grid.corners[cell]] * member[..., None]).sum(dim=1) / member.sum(dim=1, keepdim=True)
    vertices = torch.cat([surface.vertices, positions[used], middles])

    y = grid.views(contour, apex)
    p = torch.where(grid.inside, sample_vertex[grid.corners], -1)
    per_quad = len(surface.faces) // len(contour.edges)
    roots = sample_vertex[contour.samples[contour.edges[:, 0].long()]].repeat_interleave(per_quad)
    shell = torch.cat([roots[:, None], surface.faces.long()], dim=1)
    tets = torch.cat([shell, *_around_edges(grid, p, y), *_across_faces(grid, p, y), *_in_cells(p, y)])
    ordered = tets.sort(dim=1).values
    return vertices, tets[(ordered[:, 1:] != ordered[:, :-1]).all(dim=1)].int()


class _Grid:
    """The cells that have inside corners.

    Attributes:
        numbers: (C,) ascending, as cells are numbered.
        corners: (C, 8) places of their samples.
        cases: (C,) rows of the tables.
        regions: (C, 8) part of each corner.
        inside: (C, 8) bool.
        active: (C,) place in the contour, -1 for cells that are all inside.
    """

    def __init__(self, cubes: FlexiCubes, field: Tensor, contour: Contour) -> None:
        nx, ny, nz = cubes.resolution
        self._stride = ((ny + 1) * (nz + 1), nz + 1, 1)
        offsets = torch.tensor([sum((c >> a & 1) * self._stride[a] for a in range(3)) for c in range(8)])
        occupied = cubes.inside(field)
        if cubes.cells is None or cubes.corners is None:
            x, y, z = torch.unravel_index(torch.arange(nx * ny * nz), (nx, ny, nz))
            every = x * self._stride[0] + y * self._stride[1] + z
            corners = every[:, None] + offsets
            bordered, occupied = occupied, torch.zeros_like(occupied)
            occupied[1:-1, 1:-1, 1:-1] = bordered[1:-1, 1:-1, 1:-1]
        else:
            every, corners = cubes.cells.long(), cubes.corners.long()
        whole = occupied.flatten()[corners].all(dim=1)
        active = torch.full((len(every),), -1)
        active[contour.rows] = torch.arange(len(contour.rows))
        chosen = whole | (active >= 0)
        self.numbers, self.corners, self.active = every[chosen], corners[chosen], active[chosen]
        self.cases = torch.where(self.active >= 0, contour.cases[self.active].long(), 255)
        self.regions = _REGIONS[self.cases]
        self.inside = self.regions != NONE

    def neighbours(self, cells: Tensor, corner: int, sign: int) -> Tensor:
        """Return the places of the cells one step on (``sign`` 1) or back (-1) along the axes of ``corner``'s bits.

        Raises:
            ValueError: there is none; the inside reaches it.
        """
        wanted = self.numbers[cells] + sign * sum((corner >> a & 1) * self._stride[a] for a in range(3))
        found = torch.searchsorted(self.numbers, wanted).clamp(max=max(0, len(self.numbers) - 1))
        if bool((self.numbers[found] != wanted).any()):
            raise ValueError("the inside reaches cells that are not listed: list all cells that hold it")
        return found

    def apexes(self, contour: Contour, count: int) -> tuple[Tensor, Tensor]:
        """Return (C, 4) the vertex of each part, and which parts have one of their own, numbered from ``count`` on."""
        there = torch.arange(_MOST) <= torch.where(self.inside, self.regions, -1).amax(dim=1, keepdim=True)
        own = there & (_COUNT[self.cases] != 1)
        apex = self._first(contour) + _LAST[self.cases]
        apex[own] = torch.arange(count, count + int(own.sum()))
        return apex, own

    def views(self, contour: Contour, apex: Tensor) -> Tensor:
        """Return (C, 8, 3) y: what each edge of an inside corner sees in the cell."""
        loop = _LOOPS[self.cases][:, _EDGE_AT]
        of_part = apex.gather(1, torch.where(self.inside, self.regions, 0))
        return torch.where(loop != NONE, self._first(contour)[..., None] + loop, of_part[..., None])

    def _first(self, contour: Contour) -> Tensor:
        return contour.first.long()[self.active][:, None]


def _around_edges(grid: _Grid, p: Tensor, y: Tensor) -> list[Tensor]:
    """Four tetrahedra around each edge whose ends are both inside."""
    found = []
    for axis in range(3):
        high, b, c = 1 << axis, 1 << (axis + 1) % 3, 1 << (axis + 2) % 3
        cells = (grid.inside[:, 0] & grid.inside[:, high]).nonzero()[:, 0]
        ring = [y[grid.neighbours(cells, corner, -1), corner, axis] for corner in (0, b, b | c, c)]  # about the axis
        ends = [p[cells, 0], p[cells, high]]
        found += [torch.stack([*ends, ring[k], ring[(k + 1) % 4]], dim=1) for k in range(4)]
    return found


def _across_faces(grid: _Grid, p: Tensor, y: Tensor) -> list[Tensor]:
    """Two tetrahedra at each inside corner of a face whose two edges there see different points."""
    found = []
    for axis in range(3):
        b, c = (axis + 1) % 3, (axis + 2) % 3
        for corner in (k for k in range(8) if not k >> axis & 1):  # of the cell above the face
            below = corner | 1 << axis
            cells = grid.inside[:, below].nonzero()[:, 0]
            above = grid.neighbours(cells, 1 << axis, 1)
            # Seen from above, edge 1 turns counter-clockwise to edge 2 within the face.
            one, two = (b, c) if (corner >> b & 1) == (corner >> c & 1) else (c, b)
            ring = [y[above, corner, one], y[cells, below, one], y[cells, below, two], y[above, corner, two]]
            differ = (ring[0] != ring[3]) | (ring[1] != ring[2])
            quads = torch.stack(ring, dim=1)[differ]
            # Both ends of the face's inside must cut the quadrangle alike: from its lowest vertex.
            turn = quads.argmin(dim=1, keepdim=True)
            quads = quads.gather(1, (turn + torch.arange(4)) % 4)
            root = p[cells[differ], below][:, None]
            found += [torch.cat([root, quads[:, chosen]], dim=1) for chosen in ([0, 1, 2], [0, 2, 3])]
    return found


def _in_cells(p: Tensor, y: Tensor) -> list[Tensor]:
    """One tetrahedron at each inside corner whose three edges see three points."""
    found = []
    for corner in range(8):
        order = [0, 1, 2] if corner.bit_count() % 2 == 0 else [0, 2, 1]  # right-handed, seen from the corner
        tets = torch.cat([p[:, corner, None], y[:, corner][:, order]], dim=1)
        found.append(tets[p[:, corner] >= 0])
    return found
