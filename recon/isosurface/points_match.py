"""Which point of a surface is nearest to each of some points.

The closest point of a triangle is where the perpendicular meets it or, where that is outside, the nearest on its three
sides (Ericson 2005, "Real-Time Collision Detection", §5.1.5). Triangles tried are those with the nearest centres, which
suffices on the even triangles of a grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

CANDIDATES = 6
_CHUNK = 100_000


@dataclass(frozen=True)
class Match:
    """The nearest places on a surface: (P,) face, (P, 3) barycentric weights of its corners, (P,) distance."""

    faces: Tensor
    weights: Tensor
    distance: Tensor


def match(points: Tensor, vertices: Tensor, faces: Tensor, check: Callable[[], None] = lambda: None) -> Match:
    """Return the nearest places of a surface.

    Args:
        points: (P, 3).
        vertices: (V, 3), of the points' dtype.
        faces: (F, 3) integers.
        check: called now and then; may raise.
    """
    triangles = vertices[faces.long()]
    tree = cKDTree(triangles.mean(dim=1).numpy())
    count = min(CANDIDATES, len(faces))
    found = []
    for part in points.split(_CHUNK):
        check()
        index = torch.from_numpy(np.asarray(tree.query(part.numpy(), count)[1]).reshape(len(part), count))
        weights = closest(part[:, None].expand(-1, count, -1), triangles[index])
        nearest = (triangles[index] * weights[..., None]).sum(dim=2)
        distance, best = (nearest - part[:, None]).norm(dim=2).min(dim=1)
        rows = torch.arange(len(part))
        found.append((index[rows, best], weights[rows, best], distance))
    return Match(*(torch.cat(values) for values in zip(*found, strict=True)))


def closest(points: Tensor, triangles: Tensor) -> Tensor:
    """Return (…, 3) barycentric weights of the points of (…, 3, 3) triangles nearest to (…, 3) ``points``."""
    tiny = torch.finfo(points.dtype).tiny
    a, b, c = triangles.unbind(dim=-2)
    u, v, w = b - a, c - a, points - a
    uu, uv, vv = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    wu, wv = (w * u).sum(-1), (w * v).sum(-1)
    area = (uu * vv - uv * uv).clamp(min=tiny)
    y, z = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
    best = torch.stack([1 - y - z, y, z], dim=-1)
    gap = (y[..., None] * u + z[..., None] * v - w).square().sum(-1)
    shortest = torch.where((best >= 0).all(dim=-1), gap, torch.inf)
    corners = (a, b, c)
    for i in range(3):
        j = (i + 1) % 3
        side = corners[j] - corners[i]
        t = (((points - corners[i]) * side).sum(-1) / (side * side).sum(-1).clamp(min=tiny)).clamp(0, 1)
        gap = (corners[i] + t[..., None] * side - points).square().sum(-1)
        weights = torch.zeros_like(best)
        weights[..., i], weights[..., j] = 1 - t, t
        nearer = gap < shortest
        shortest = torch.where(nearer, gap, shortest)
        best = torch.where(nearer[..., None], weights, best)
    return best
