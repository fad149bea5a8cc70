"""Maps of the plane that cannot fold: Tutte embeddings of a grid in the unit square, with their inverses.

The square's regular N × N grid is cut into triangles by the cells' diagonals from (i, j) to (i + 1, j + 1). Vertices of
the boundary stay; every other one goes where it is a mean of its neighbours,

    Σⱼ wᵢⱼ (xᵢ − xⱼ) = 0,    wᵢⱼ = wⱼᵢ > 0

and the map is linear on each triangle. By Tutte's theorem it is injective if the boundary is convex, and by Floater's
also if parts of that are straight, as no inner edge has both its ends on one side of the square. Outside the square it
goes on as the identity: a homeomorphism of the plane.

The inverse is linear on each deformed triangle. A point's triangle is found by walking: from a triangle nearby through
the edge that the point lies farthest beyond, until it lies beyond none.

Sources: Tutte 1963, "How to draw a graph"; Floater 2003, "One-to-one piecewise linear mappings over triangulations";
Devillers, Pion, Teillaud 2002, "Walking in a triangulation".
"""

from __future__ import annotations

import torch
from torch import Tensor

RASTER = 32
"""Cells along each side of the square of the raster that says where walks begin."""
STEPS = 4
"""Most triangles that a walk passes, for each of the cells along a side."""
CHUNK = 4096
"""Points that are compared with all triangles at a time."""


class Grid:
    """The regular triangulation of the unit square: vertex i·N + j lies at (i, j) / (N − 1).

    Attributes:
        size: N, at least 3.
        edges: (E, 2) int64 the vertices of each edge that has an interior end.
    """

    def __init__(self, size: int) -> None:
        if size < 3:
            raise ValueError(f"a grid needs 3 vertices along each side, not {size}")
        self.size = size
        number = torch.arange(size * size).view(size, size)
        inner = number[1:-1, 1:-1].flatten()
        outer = torch.cat([number[:, 0], number[:, -1], number[0, 1:-1], number[-1, 1:-1]])
        rank = torch.cat([inner, outer]).argsort()
        ends = [(number[:-1], number[1:]), (number[:, :-1], number[:, 1:]), (number[:-1, :-1], number[1:, 1:])]
        edges = torch.cat([torch.stack([a.flatten(), b.flatten()], dim=1) for a, b in ends])
        self.edges = edges[(rank[edges] < len(inner)).any(dim=1)]
        both_ways = torch.cat([self.edges, self.edges.flip(1)])
        self._pulls = torch.nonzero(rank[both_ways[:, 0]] < len(inner))[:, 0]
        at, by = rank[both_ways[self._pulls]].T
        self._rank, self._inner, self._places = rank, len(inner), at * len(rank) + by
        self._boundary = torch.stack([outer // size, outer % size], dim=1).double() / (size - 1)

    def embed(self, weights: Tensor) -> Tensor:
        """Return (L, N, N, 2) where the vertices go by (L, E) positive float64 ``weights``; differentiable."""
        layers, inner, device = len(weights), self._inner, weights.device
        pulls = torch.cat([weights, weights], dim=1).index_select(1, self._pulls.to(device))
        rows = weights.new_zeros(layers, inner * len(self._rank)).index_copy(1, self._places.to(device), pulls)
        rows = rows.view(layers, inner, len(self._rank))
        laplacian = torch.diag_embed(rows.sum(dim=2)) - rows[:, :, :inner]
        boundary = self._boundary.to(device).expand(layers, -1, -1)
        solved = torch.linalg.solve(laplacian, rows[:, :, inner:] @ boundary)
        vertices = torch.cat([solved, boundary], dim=1).index_select(1, self._rank.to(device))
        return vertices.unflatten(1, (self.size, self.size))


class PlanarMap:
    """The map that takes the grid's vertices to given places, none of its triangles turned around.

    Triangle 2c of cell c = i·(N − 1) + j has the corners (i, j), (i + 1, j), (i + 1, j + 1), triangle 2c + 1
    (i, j), (i + 1, j + 1), (i, j + 1).
    """

    def __init__(self, cells: int, table: Tensor) -> None:
        """Take the number N − 1 of cells along a side, and a table that :meth:`of` has made."""
        self._cells, self._table = cells, table

    @staticmethod
    def of(vertices: Tensor) -> list[PlanarMap]:
        """Return the L maps of (L, N, N, 2) float64 ``vertices``; those of the boundary are in their places."""
        near, right = vertices[:, :-1, :-1], vertices[:, 1:, :-1]
        far, up = vertices[:, 1:, 1:], vertices[:, :-1, 1:]
        # Of both triangles of each cell the corner (i, j) and, in units of cells, the two columns of the Jacobian.
        lower, upper = torch.cat([near, right - near, far - right], 3), torch.cat([near, far - up, up - near], 3)
        tables = torch.stack([lower, upper], dim=3).flatten(1, 3).mT
        return [PlanarMap(vertices.shape[1] - 1, table) for table in tables]

    def __call__(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return where points go, and the Jacobians there.

        Args:
            u: (P,), in any float dtype. Differentiable, as ``v`` and the vertices.
            v: (P,).

        Returns:
            x: (P,).
            y: (P,).
            jacobian: ∂x/∂u, ∂x/∂v, ∂y/∂u, ∂y/∂v, each (P,); on an edge between triangles that of either.
        """
        inside, cells = _inside(u, v), self._cells
        i, j = ((t.detach() * cells).floor().clamp(0, cells - 1) for t in (u, v))
        s, t = u * cells - i, v * cells - j
        triangle = 2 * (i * cells + j).long() + (t > s)
        x, y, a, c, b, d = (row.index_select(0, triangle) for row in self._table.to(u.dtype))
        x, y = torch.where(inside, x + a * s + b * t, u), torch.where(inside, y + c * s + d * t, v)
        return x, y, [torch.where(inside, of * cells, one) for of, one in ((a, 1.0), (b, 0.0), (c, 0.0), (d, 1.0))]

    def inverse(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (P,) u and v that go to (P,) x and y; differentiable as the map is."""
        corner, (a, c, b, d) = self._table[:2], self._table[2:]
        rows = torch.stack([d, -b, -c, a]) / (a * d - b * c)
        # The larger coordinate s comes first, then the smaller t: in a triangle, 0 ≤ t ≤ s ≤ 1.
        upper = torch.arange(len(a), device=a.device) % 2 == 1
        table = torch.cat([corner, torch.where(upper, rows[[2, 3, 0, 1]], rows)]).to(x.dtype)
        inside = _inside(x, y)
        triangle = _locate(self._cells, table.detach(), x.detach().clamp(0, 1), y.detach().clamp(0, 1))
        s, t = _local(table, x, y, triangle)
        upper, cell = triangle % 2 == 1, triangle // 2
        u = (torch.where(upper, t, s) + cell // self._cells) / self._cells
        v = (torch.where(upper, s, t) + cell % self._cells) / self._cells
        return torch.where(inside, u, x), torch.where(inside, v, y)


def _inside(u: Tensor, v: Tensor) -> Tensor:
    """Return (P,) whether points lie in the square."""
    return torch.maximum((u.detach() - 0.5).abs(), (v.detach() - 0.5).abs()) <= 0.5


def _local(table: Tensor, x: Tensor, y: Tensor, triangle: Tensor) -> tuple[Tensor, Tensor]:
    """Return s and t of points by the inverse linear map of a triangle each."""
    left, below, a, b, c, d = (row.index_select(0, triangle) for row in table)
    x, y = x - left, y - below
    return a * x + b * y, c * x + d * y


def _depth(s: Tensor, t: Tensor) -> Tensor:
    """Return how far inside a triangle a point is, negative outside: its least barycentric coordinate."""
    return torch.minimum(torch.minimum(t, 1 - s), s - t)


def _locate(cells: int, table: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return (P,) the triangle that each point lies in; ``table`` (6, T) of the inverse."""
    middles = (torch.arange(RASTER, dtype=x.dtype, device=x.device) + 0.5) / RASTER
    starts = _search(table, *(t.flatten() for t in torch.meshgrid(middles, middles, indexing="ij")))
    i, j = ((t * RASTER).long().clamp(0, RASTER - 1) for t in (x, y))
    found = starts.index_select(0, i * RASTER + j)
    neighbours = _neighbours(cells).to(x.device)
    walkers, here, before = torch.arange(len(x), device=x.device), found, torch.full_like(found, -1)
    for _ in range(STEPS * cells):
        s, t = _local(table, x, y, here)
        depth = _depth(s, t)
        edge = torch.where(depth == t, 0, torch.where(depth == s - t, 2, 1))
        towards = neighbours.index_select(0, 3 * here + edge)
        # Back where it came from: the point is on the edge, and rounding has it beyond from both sides.
        on = torch.nonzero((depth < 0) & (towards != before) & (towards != here))[:, 0]
        if len(on) == 0:
            return found
        walkers, x, y, before, here = (t.index_select(0, on) for t in (walkers, x, y, here, towards))
        found = found.index_copy(0, walkers, here)
    # Among triangles that are not Delaunay's a walk may go in circles.
    return found.index_copy(0, walkers, _search(table, x, y))


def _search(table: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return (P,) the triangle, of all, that each point lies deepest in."""
    left, below, a, b, c, d = table
    found = []
    for xs, ys in zip(x[:, None].split(CHUNK), y[:, None].split(CHUNK), strict=True):
        dx, dy = xs - left, ys - below
        found.append(_depth(a * dx + b * dy, c * dx + d * dy).argmax(dim=1))
    return torch.cat(found)


def _neighbours(cells: int) -> Tensor:
    """Return (3 T,): the neighbours of each triangle where t = 0, s = 1 and s = t; itself at the boundary."""
    number = 2 * torch.arange(cells * cells).view(cells, cells)
    lower, upper = number.clone()[..., None].repeat(1, 1, 3), (number + 1)[..., None].repeat(1, 1, 3)
    lower[:, 1:, 0], lower[:-1, :, 1], lower[..., 2] = number[:, :-1] + 1, number[1:] + 1, number + 1
    upper[1:, :, 0], upper[:, :-1, 1], upper[..., 2] = number[:-1], number[:, 1:], number
    return torch.stack([lower, upper], dim=2).flatten()
