"""Closest points on triangles in readable torch: what ``kernels.nearest`` computes, every triangle tried.

inside:  the projection onto the plane, d² = (n · (p − a))² / n · n,  n = (b − a) × (c − a)
outside: the nearest point of the three edges, t = clamp((p − a) · e / e · e, 0, 1)
"""

from __future__ import annotations

import torch
from torch import Tensor


def nearest(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return squared distances, faces and weights; arguments and conventions are those of ``kernels.nearest.nearest``.

    Takes memory for every pair. Differentiable by autograd in all but the choice of the face and of its edge.
    """
    a, b, c = vertices[faces.long()].unbind(1)  # (F, 3) each
    p = points[:, None]
    n = torch.linalg.cross(b - a, c - a)
    nn = (n * n).sum(-1)
    area = torch.where(nn > 0, nn, 1)
    w1 = (n * torch.linalg.cross(p - a, (c - a).expand(len(points), -1, -1))).sum(-1) / area
    w2 = (n * torch.linalg.cross((b - a).expand(len(points), -1, -1), p - a)).sum(-1) / area
    inside = torch.stack([1 - w1 - w2, w1, w2], dim=-1)  # (N, F, 3)
    candidates = [inside]
    for k, (start, end) in enumerate(((a, b), (b, c), (c, a))):
        edge = end - start
        length2 = (edge * edge).sum(-1)
        t = (((p - start) * edge).sum(-1) / torch.where(length2 > 0, length2, 1)).clamp(0, 1)
        on_edge = [torch.zeros_like(t)] * 3
        on_edge[k], on_edge[(k + 1) % 3] = 1 - t, t
        candidates.append(torch.stack(on_edge, dim=-1))
    weights = torch.stack(candidates)  # (4, N, F, 3)
    closest = torch.einsum("anfk,fkx->anfx", weights, torch.stack([a, b, c], dim=1))
    distances = (p - closest).square().sum(-1)
    outside = (inside < 0).any(-1) | (nn == 0)
    distances = torch.cat([torch.where(outside, torch.inf, distances[0])[None], distances[1:]])
    best, kind = distances.min(dim=0)
    squared, face = best.min(dim=1)
    rows = torch.arange(len(points), device=points.device)
    return squared, face.int(), weights[kind[rows, face], rows, face]
