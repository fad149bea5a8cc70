"""``kernels.face_neighbors`` on a GPU: edges are sorted, and those of two triangles lie side by side.

Vertex numbers are not checked: the host would have to wait.
"""

from __future__ import annotations

import torch
from torch import Tensor


def face_neighbors(faces: Tensor) -> Tensor:
    """Return the triangle across each edge, as ``kernels.face_neighbors`` does."""
    start, end = faces.long().roll(-1, 1), faces.long().roll(-2, 1)
    edges = torch.minimum(start, end) << 32 | torch.maximum(start, end)
    places = torch.arange(edges.numel(), device=faces.device)
    # A triangle with two equal corners joins nothing: each of its edges is unlike all others.
    collapsed = (faces == faces.roll(1, 1)).any(dim=1, keepdim=True)
    edges, order = torch.where(collapsed, -1 - places.view_as(edges), edges).flatten().sort()
    alike = torch.zeros(len(edges) + 1, dtype=torch.bool, device=faces.device)  # each with the next, from none on
    alike[1:-1] = edges[1:] == edges[:-1]
    before, after = alike[:-1], alike[1:]
    first = after & ~before & ~after.roll(-1)
    second = first.roll(1)
    across = torch.where(first, order.roll(-1), torch.where(second, order.roll(1), -1))
    across = torch.div(across, 3, rounding_mode="floor").int()
    return torch.empty_like(across).scatter_(0, order, across).view_as(faces)
