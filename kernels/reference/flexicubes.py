"""Vertices of FlexiCubes in readable torch, differentiated by autograd: what ``kernels.flexicubes`` computes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.linalg import vector_norm

from kernels.contour_tables import EDGES, LOOPS
from kernels.dual_contour import Contour

LEAST_INSIDE = 1e-18
"""Values inside are at most minus this: its square is a normal float32, so that slopes do not overflow."""


def flexicubes(
    positions: Tensor, field: Tensor, weights: Tensor, contour: Contour, midpoints: bool = False
) -> tuple[Tensor, Tensor]:
    """Return vertices and deviations; arguments and conventions are those of ``kernels.flexicubes.flexicubes``."""
    alpha, beta, gamma = weights.split([8, 12, 1], dim=1)
    inside = (contour.cases[:, None] >> torch.arange(8) & 1).bool()
    s = field[contour.corners.long()]
    s = torch.where(inside, s.clamp(max=-LEAST_INSIDE), s.clamp(min=0))
    x = positions[contour.corners.long()]

    # One row for each crossing of each cell.
    loops = torch.from_numpy(LOOPS)[contour.cases.long()]
    cell, edge = (contour.cell_edges >= 0).nonzero(as_tuple=True)
    vertex = contour.first[cell].long() + loops[cell, edge].long()
    i, j = torch.from_numpy(EDGES).long()[edge].unbind(dim=1)

    def crossings(values: Tensor) -> Tensor:
        a, b = values[cell, i], values[cell, j]
        return x[cell, i] + (a / (a - b))[:, None] * (x[cell, j] - x[cell, i])

    def mean(values: Tensor, weight: Tensor) -> Tensor:
        zeros = values.new_zeros(contour.vertex_count, *values.shape[1:])
        total = values.new_zeros(contour.vertex_count).index_add(0, vertex, weight)
        weighted = zeros.index_add(0, vertex, values * weight.view(-1, *[1] * (values.ndim - 1)))
        return weighted / total.view(-1, *[1] * (values.ndim - 1))

    v = mean(crossings(alpha * s), beta[cell, edge])
    distance = vector_norm(v[vertex] - crossings(s), dim=1)
    once = torch.ones_like(distance)
    deviations = mean((distance - mean(distance, once)[vertex]).abs(), once)
    if midpoints:
        quads = contour.quads.long()
        g = gamma[contour.vertex_cells(), 0][quads]
        even, odd = g[:, 0] * g[:, 2], g[:, 1] * g[:, 3]
        share = (even / (even + odd))[:, None]
        middle = share * (v[quads[:, 0]] + v[quads[:, 2]]) / 2 + (1 - share) * (v[quads[:, 1]] + v[quads[:, 3]]) / 2
        v = torch.cat([v, middle])
    return v, deviations
