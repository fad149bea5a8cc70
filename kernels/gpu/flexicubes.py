"""``egregium::flexicubes`` and its backward pass on a GPU; equations and conventions are those of the CPU's.

A row for each crossed edge of each cell, K = 4 E in all, those of a vertex one after the other: what a vertex sums is a
run of rows. Sums that go elsewhere are sorted first, so that all have a fixed order. The host waits once forwards, for
the number of vertices.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from kernels.contour_tables import EDGES, LOOPS, NONE

_LEAST_INSIDE = 1e-18
"""At least this far below zero values inside are."""


def flexicubes(
    positions: Tensor,
    field: Tensor,
    weights: Tensor,
    cases: Tensor,
    first: Tensor,
    corners: Tensor,
    cell_edges: Tensor,
    quads: Tensor,
    midpoints: bool,
) -> tuple[Tensor, Tensor]:
    """Return vertices, with the quads' middles behind if asked, and deviations."""
    if not len(quads):
        return positions.new_empty(0, 3), positions.new_empty(0)
    c = _Crossings(positions, field, weights, cases, first, corners, 4 * len(quads), int(first[-1]))
    deviations = c.means((c.distance - c.mean[c.vertex]).abs())
    return torch.cat([c.v, _middles(c.gamma[quads], c.v[quads])]) if midpoints else c.v, deviations


def flexicubes_backward(
    positions: Tensor,
    field: Tensor,
    weights: Tensor,
    cases: Tensor,
    first: Tensor,
    corners: Tensor,
    cell_edges: Tensor,
    quads: Tensor,
    midpoints: bool,
    vertices: Tensor,
    to_vertices: Tensor,
    to_deviations: Tensor,
    positions_too: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients to positions, if asked, field and weights."""
    to_positions = positions.new_zeros(positions.shape if positions_too else (0, 3))
    to_field, to_weights = field.new_zeros(field.shape), weights.new_zeros(weights.shape)
    if not len(quads):
        return to_positions, to_field, to_weights
    c = _Crossings(positions, field, weights, cases, first, corners, 4 * len(quads), len(to_deviations))

    # Deviations: to v and to the crossings without weights.
    slope = (c.distance - c.mean[c.vertex]).sign()
    to_distance = (to_deviations / c.counts)[c.vertex] * (slope - c.means(slope)[c.vertex])
    direction = c.away * torch.where(c.distance > 0, to_distance / c.distance, 0)[:, None]
    to_v = direction
    if midpoints:
        middles = _middles_backward(c.gamma[quads], vertices[quads], to_vertices[len(c.v) :])
        crossed = cell_edges[c.cell, c.edge]
        place = (quads[crossed] == c.vertex[:, None]).int().argmax(dim=1)
        given = middles[crossed, place]
        to_v = to_v + given[:, :3]
        to_gamma = _run_sums(c.run_sums(given[:, 3:]), first.diff())
        to_weights[:, 20] = to_gamma[:, 0]
    to_v = (to_vertices[: len(c.v)] + c.run_sums(to_v))[c.vertex]

    # v is Σ β u / Σ β.
    to_weights[c.cell, 8 + c.edge] = (to_v * (c.u - c.v[c.vertex])).sum(dim=1) / c.total
    to_u, along = to_v * (c.beta / c.total)[:, None], c.x[:, 1] - c.x[:, 0]
    to_product = _share_backward(c.s * c.alpha, (to_u * along).sum(dim=1))
    to_s = to_product * c.alpha - _share_backward(c.s, (direction * along).sum(dim=1))
    _add_at(to_weights.view(-1), c.cell[:, None].long() * weights.shape[1] + c.ends, to_product * c.s)
    _add_at(to_field, c.samples, torch.where(c.held, 0, to_s))
    if positions_too:
        t, plain = (_share(s)[:, None] for s in (c.s * c.alpha, c.s))
        to_x = torch.stack([to_u * (1 - t) - direction * (1 - plain), to_u * t - direction * plain], dim=1)
        _add_at(to_positions, c.samples, to_x)
    return to_positions, to_field, to_weights


class _Crossings:
    """Crossed edges of cells, K of them sorted by vertex, and the V vertices that they average to.

    Attributes:
        cell, edge, vertex: (K,) of each.
        ends, samples: (K, 2) the cell's corners at its ends, and their samples.
        x, s, held, alpha: (K, 2, 3) and (K, 2) of those; where held the field's value was overruled, and s is constant.
        beta, total: (K,) weight, and its sum over the vertex.
        u: (K, 3) crossings.
        away, distance: (K, 3), (K,) from the crossing without weights to the vertex.
        lengths, counts: (V,) crossings of each vertex, as integers and as floats.
        v, gamma, mean: (V, 3), (V,) vertices, the weights of their quads, their mean distances.
    """

    def __init__(
        self,
        positions: Tensor,
        field: Tensor,
        weights: Tensor,
        cases: Tensor,
        first: Tensor,
        corners: Tensor,
        crossings: int,
        vertices: int,
    ) -> None:
        edges, loops, sizes, order, counts = _tables(field.device)
        case = cases.int()
        per_cell = counts[case]
        self.cell = torch.repeat_interleave(per_cell, output_size=crossings)
        place = torch.arange(crossings, dtype=torch.int32, device=field.device)
        place -= (per_cell.cumsum(0, dtype=torch.int32) - per_cell)[self.cell]
        self.edge = order[case[self.cell], place]
        self.vertex = first[self.cell] + loops[case[self.cell], self.edge]
        owner = torch.repeat_interleave(first.diff(), output_size=vertices)
        loop = torch.arange(vertices, dtype=torch.int32, device=field.device) - first[owner]
        self.lengths = sizes[case[owner], loop]
        self.counts = self.lengths.to(field.dtype)
        self.gamma = weights[owner, 20]

        self.ends = edges[self.edge]
        self.samples = corners[self.cell[:, None], self.ends]
        self.x, value = positions[self.samples], field[self.samples]
        inside = (case[self.cell][:, None] >> self.ends & 1).bool()
        self.held = torch.where(inside, ~(value <= -_LEAST_INSIDE), value < 0)
        self.s = torch.where(self.held & inside, -_LEAST_INSIDE, torch.where(self.held, 0, value))
        self.alpha = weights[self.cell[:, None], self.ends]
        self.beta = weights[self.cell, 8 + self.edge]

        self.u = self._cut(self.s * self.alpha)
        beta = self.beta[:, None]
        sums = self.run_sums(torch.cat([self.u * beta, beta], dim=1))
        self.v, self.total = sums[:, :3] / sums[:, 3:], sums[self.vertex, 3]
        self.away = self.v[self.vertex] - self._cut(self.s)
        self.distance = torch.linalg.vector_norm(self.away, dim=1)
        self.mean = self.means(self.distance)

    def _cut(self, s: Tensor) -> Tensor:
        """Return (K, 3) where values (K, 2) are zero along the edges."""
        return self.x[:, 0] + (self.x[:, 1] - self.x[:, 0]) * _share(s)[:, None]

    def run_sums(self, rows: Tensor) -> Tensor:
        """Return (V, n) sums of (K, n)."""
        return _run_sums(rows, self.lengths)

    def means(self, values: Tensor) -> Tensor:
        """Return (V,) means of (K,)."""
        return self.run_sums(values[:, None])[:, 0] / self.counts


@cache
def _tables(device: torch.device) -> tuple[Tensor, ...]:
    """Return ends of edges, loops, crossings of each loop, a case's crossed edges sorted by loop, and their number."""
    sizes = (LOOPS[:, :, None] == np.arange(4)).sum(axis=1)
    tables = EDGES, LOOPS, sizes, LOOPS.argsort(axis=1, kind="stable"), (LOOPS != NONE).sum(axis=1)
    return tuple(torch.from_numpy(table.astype(np.int32)).to(device) for table in tables)


def _share(s: Tensor) -> Tensor:
    """Return (K,) how far along an edge values (K, 2) are zero."""
    return s[:, 0] / (s[:, 0] - s[:, 1])


def _share_backward(s: Tensor, incoming: Tensor) -> Tensor:
    """Return the gradient to s, which is (t - 1, t) / (s0 - s1): the square could underflow."""
    difference = s[:, 0] - s[:, 1]
    scale = incoming / difference
    return torch.stack([-scale * (s[:, 1] / difference), scale * (s[:, 0] / difference)], dim=1)


def _middles(gamma: Tensor, ends: Tensor) -> Tensor:
    """Return (E, 3) middles of quads from (E, 4) weights and (E, 4, 3) vertices."""
    products = gamma[:, :2] * gamma[:, 2:]
    return ((ends[:, :2] + ends[:, 2:]) * (products / (2 * products.sum(dim=1, keepdim=True)))[..., None]).sum(dim=1)


def _middles_backward(gamma: Tensor, ends: Tensor, incoming: Tensor) -> Tensor:
    """Return (E, 4, 4) gradients to each vertex, and to its weight."""
    products = gamma[:, :2] * gamma[:, 2:]
    total = products.sum(dim=1, keepdim=True)
    across = (ends[:, 0] + ends[:, 2] - ends[:, 1] - ends[:, 3]) / 2
    pull = (incoming * across).sum(dim=1, keepdim=True) / total**2
    to_products = torch.cat([pull * products[:, 1:], -pull * products[:, :1]], dim=1)
    to_ends = incoming[:, None] * (products / (2 * total))[..., None]
    return torch.cat([to_ends.repeat(1, 2, 1), (to_products.repeat(1, 2) * gamma.roll(2, 1))[..., None]], dim=2)


def _run_sums(rows: Tensor, lengths: Tensor) -> Tensor:
    """Return sums over runs of rows, one behind the other."""
    return torch.segment_reduce(rows, "sum", lengths=lengths, unsafe=True)  # the host would wait to check the lengths


def _add_at(total: Tensor, places: Tensor, values: Tensor) -> None:
    """Add values to what is at places of total: a GPU sorts them, stably, so that none is added by atomics."""
    total.index_put_((places.long(),), values, accumulate=True)
