"""Depth maps as a field: the start of a fit to photos that do not show where the object is.

    s(x) = Σ w (d(π(x)) - z(x)) · slope / Σ w      over the views in which x lies in front of, or little behind, what
                                                   is seen there; -τ where there is none, each term at most ±τ

This is the truncated signed distance of Curless & Levoy 1996, "A Volumetric Method for Building Complex Models from
Range Images", on a whole grid, where what no view sees counts as solid: so the surface is closed.
Conventions: negative inside; the fitting frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.capture.capture import Array, Camera
from recon.errors import ReconstructionError
from recon.events import Events
from recon.isosurface.grids import Box
from recon.isosurface.hull import FEWEST_VIEWS
from recon.mesh.depth import DepthMap

TRUNCATION = 3.0
"""τ in cells."""


def carved(
    depths: Sequence[Array], cameras: Sequence[Camera], bounds: NDArray[np.float64], cells: int, events: Events
) -> tuple[Box, Tensor]:
    """Return a box of ``cells`` cells along its longest side, and the field at its samples.

    Args:
        depths: (H, W) each, see :meth:`recon.mesh.depth.DepthMap.make`.
        cameras: of the depth maps.
        bounds: (2, 3) what the box holds.
        cells: along the longest side.
        events: the wish to stop.

    Raises:
        ReconstructionError: there is no surface within the bounds (code ``"no-surface"``).
    """
    box = Box.around(bounds[0], bounds[1], cells)
    points = box.samples().view(-1, 3)
    far = TRUNCATION * box.cell
    total, weights, seen = (torch.zeros(len(points)) for _ in range(3))
    for depth, camera in zip(depths, cameras, strict=True):
        events.check()
        view = torch.from_numpy(camera.viewmat).float()
        local = points @ view[:3, :3].T + view[:3, 3]
        x, y, z = (local @ torch.from_numpy(camera.K).float().T).unbind(dim=1)
        ahead = z.clamp(min=1e-6)
        u, v = x / ahead, y / ahead
        observed, slope, weight, edge = (t[0] for t in DepthMap.make(depth, camera, far / 2).sample(u[None], v[None]))
        there = (z > 0) & (u > 0) & (u < camera.width) & (v > 0) & (v < camera.height)
        signed = (observed - z) * slope
        counts = there & (signed > -far) & ~(edge & (signed > far))
        weight = torch.where(counts, weight, 0)
        total += weight * signed.clamp(-far, far)
        weights += weight
        seen += there
    field = torch.where(weights > 0, total / weights.clamp(min=1e-9), -far)
    field = torch.where(seen >= min(FEWEST_VIEWS, len(cameras)), field, far)
    field = field.view(box.shape)
    inside = (field[1:-1, 1:-1, 1:-1] < 0).float().mean()
    if not 0 < inside < 0.95:
        raise ReconstructionError(
            "The depth maps show no surface of a thing that the cameras look at.",
            "Take photos from all around one thing, or cut it out: transparent photos, or masks.",
            "no-surface",
        )
    return box, field
