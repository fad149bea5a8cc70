"""Triangles of quads. Faces are (F, 3) int32, counter-clockwise as their quads; 0-2 and 1-3 are a quad's diagonals.

Source: Shen et al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization", §4.3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from kernels.dual_contour import Contour


def fans(contour: Contour) -> Tensor:
    """Return four triangles a quad, around its middle; the middles are the vertices behind the contour's."""
    quads = contour.quads
    middle = torch.arange(contour.vertex_count, contour.vertex_count + len(quads), dtype=torch.int32)
    return torch.stack([quads, quads.roll(-1, dims=1), middle[:, None].expand(-1, 4)], dim=2).view(-1, 3)


def split_by_weights(contour: Contour, gamma: Tensor) -> Tensor:
    """Return two triangles a quad, along the diagonal with the larger product of its cells' γ (A,)."""
    g = gamma[contour.vertex_cells()][contour.quads.long()]
    return _split(contour.quads, g[:, 0] * g[:, 2] > g[:, 1] * g[:, 3])


def split_by_normals(quads: Tensor, normals: Tensor) -> Tensor:
    """Return two triangles a quad, along the diagonal whose ends' normals (V, 3), of any length, agree more."""
    n = normalize(normals, dim=1)[quads.long()]
    return _split(quads, (n[:, 0] * n[:, 2]).sum(dim=1) > (n[:, 1] * n[:, 3]).sum(dim=1))


def _split(quads: Tensor, even: Tensor) -> Tensor:
    corners = torch.where(even[:, None], torch.tensor([0, 1, 2, 0, 2, 3]), torch.tensor([0, 1, 3, 1, 2, 3]))
    return quads.gather(1, corners).view(-1, 3)
