"""Where a surface is looked at: points spread over its faces, and the middles of its border's edges."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.deform.observations import SurfacePoints
from recon.mesh.topology import border


def surface_samples(faces: Tensor, count: int) -> tuple[SurfacePoints, Tensor]:
    """Return about ``count`` points inside of faces, as many in each, then one on each border edge.

    A face of n² points has them in the centres of the triangles that lines at each n-th of its sides cut it into.

    Args:
        faces: (F, 3) int64.
        count: of the points inside; each face has one at least.

    Returns:
        The points, and (N,) bool which of them are on the border.
    """
    parts = max(1, math.ceil(math.sqrt(count / len(faces)) - 0.5))
    inside = torch.from_numpy(_centres(parts))
    edge = torch.from_numpy(border(faces.numpy().astype(np.int32)))
    corners = torch.cat([faces.repeat_interleave(len(inside), 0), faces[edge // 3]])
    middles = torch.full((len(edge), 3), 0.5, dtype=torch.float64)
    middles[torch.arange(len(edge)), (edge + 2) % 3] = 0  # edge k of a face runs from corner k to k + 1
    weights = torch.cat([inside.repeat(len(faces), 1), middles])
    return SurfacePoints(corners, weights), torch.arange(len(corners)) >= len(faces) * len(inside)


def _centres(parts: int) -> NDArray[np.float64]:
    """Return (parts², 3) barycentric coordinates."""
    i, j = np.meshgrid(np.arange(parts), np.arange(parts), indexing="ij")
    upright = np.stack([i, j], -1)[i + j < parts] + 1 / 3
    reverse = np.stack([i, j], -1)[i + j < parts - 1] + 2 / 3
    uv = np.concatenate([upright, reverse]) / parts
    return np.column_stack([1 - uv.sum(1), uv])
