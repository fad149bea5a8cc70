"""Attribute interpolation in readable torch: what ``kernels.interpolate`` computes.

a(p) = u a₀ + v a₁ + (1 − u − v) a₂ ,   ∂a/∂X = ∂u/∂X (a₀ − a₂) + ∂v/∂X (a₁ − a₂) ,   likewise by Y
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from kernels.interpolate import check_interpolate
from kernels.mesh_arguments import check_indices


def interpolate(
    attributes: Tensor,
    rast: Tensor,
    faces: Tensor,
    rast_db: Tensor | None = None,
    diff_attrs: Sequence[int] | Literal["all"] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Interpolate; arguments and results are those of ``kernels.interpolate.interpolate``, any float dtype."""
    attributes, chosen = check_interpolate(attributes, rast, faces, rast_db, diff_attrs)
    check_indices(faces, attributes.shape[1], "attributes")
    batch, height, width, _ = rast.shape
    seen = rast[..., 3] > 0
    triangles = (rast[..., 3].long() - 1).clamp(min=0)
    if not len(faces):
        values = rast.new_zeros(batch, height, width, attributes.shape[2])
        return values, None if chosen is None else rast.new_zeros(batch, height, width, 2 * len(chosen))
    corners = faces.long()[triangles]
    image = torch.arange(batch, device=rast.device)[:, None, None, None]
    a = attributes.expand(batch, -1, -1)[image, corners]
    a0, a1, a2 = torch.where(seen[..., None, None], a, 0).unbind(dim=3)
    u, v = rast[..., 0:1], rast[..., 1:2]
    values = u * a0 + v * a1 + (1 - u - v) * a2
    if chosen is None:
        return values, None
    assert rast_db is not None
    by_u, by_v = (a0 - a2)[..., chosen], (a1 - a2)[..., chosen]
    by_x = rast_db[..., 0:1] * by_u + rast_db[..., 2:3] * by_v
    by_y = rast_db[..., 1:2] * by_u + rast_db[..., 3:4] * by_v
    return values, torch.stack([by_x, by_y], dim=-1).flatten(-2)
