"""Triangles of quads. Faces are (F, 3) int32, counter-clockwise as their quads; 0-2 and 1-3 are a quad's diagonals.

Source: Shen et al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization", §4.3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def fans(quads: Tensor, vertex_count: int) -> Tensor:
    """Return four triangles a quad, around its middle; the middles are the vertices from ``vertex_count`` on."""
    middle = torch.arange(vertex_count, vertex_count + len(quads), dtype=torch.int32, device=quads.device)
    return torch.stack([quads, quads.roll(-1, dims=1), middle[:, None].expand(-1, 4)], dim=2).view(-1, 3)


def split_by_weights(quads: Tensor, gamma: Tensor) -> Tensor:
    """Return two triangles a quad, along the diagonal with the larger product of its vertices' γ (V,)."""
    g = gamma[quads.long()]
    return _split(quads, g[:, 0] * g[:, 2] > g[:, 1] * g[:, 3])


def split_by_normals(quads: Tensor, normals: Tensor) -> Tensor:
    """Return two triangles a quad, along the diagonal whose ends' normals (V, 3), of any length, agree more."""
    n = normalize(normals, dim=1)[quads.long()]
    return _split(quads, (n[:, 0] * n[:, 2]).sum(dim=1) > (n[:, 1] * n[:, 3]).sum(dim=1))


def _split(quads: Tensor, even: Tensor) -> Tensor:
    first, second = torch.tensor([[0, 1, 2, 0, 2, 3], [0, 1, 3, 1, 2, 3]], device=quads.device)
    corners = torch.where(even[:, None], first, second)
    return quads.gather(1, corners).view(-1, 3)
