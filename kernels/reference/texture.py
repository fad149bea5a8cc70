"""Texture lookup in readable torch: what ``kernels.texture`` computes.

Bilinear at texel position (x, y) = (u Wt − ½, v Ht − ½); trilinear between the levels next to

    λ = log₂ σ ,   σ the largest singular value of J = ∂(u Wt, v Ht) / ∂(X, Y) ,   0 ≤ λ ≤ number of levels − 1 .

Each level averages the areas that its texels cover in the level before: a matrix for rows, one for columns.

Source: Williams, "Pyramidal Parametrics" (1983); Laine et al., "Modular Primitives for High-Performance Differentiable
Rendering" (2020), section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.texture import check_texture


def texture(
    texture: Tensor,
    uv: Tensor,
    uv_da: Tensor | None = None,
    *,
    filter_mode: str = "linear",
    boundary_mode: str = "wrap",
) -> Tensor:
    """Look up; arguments and results are those of ``kernels.texture.texture``, any float dtype."""
    check_texture(texture, uv, uv_da, filter_mode, boundary_mode)
    texture = texture.expand(len(uv), -1, -1, -1)
    finite = uv.isfinite().all(dim=-1, keepdim=True)
    uv = torch.where(finite, uv, 0)
    if filter_mode != "linear-mipmap-linear":
        return torch.where(finite, _lookup(texture, uv, filter_mode == "nearest", boundary_mode), 0)
    assert uv_da is not None
    levels = [texture]
    while max(levels[-1].shape[1:3]) > 1:
        levels.append(_halve(levels[-1]))
    level = _level(uv_da, texture.shape[2], texture.shape[1]).clamp(0, len(levels) - 1)[..., None]
    # Each level's share is a hat around it.
    result = sum(
        (1 - (level - k).abs()).clamp(min=0) * _lookup(t, uv, False, boundary_mode) for k, t in enumerate(levels)
    )
    return torch.where(finite, result, 0)


def _lookup(texture: Tensor, uv: Tensor, nearest: bool, boundary_mode: str) -> Tensor:
    batch, height, width, _ = texture.shape
    size = uv.new_tensor([width, height])
    # What is far outside is like what is just outside.
    uv = uv - uv.detach().floor() if boundary_mode == "wrap" else uv.clamp(-2, 3)
    position = uv * size - (0 if nearest else 0.5)
    below = position.detach().floor()
    fraction = torch.zeros_like(position) if nearest else position - below
    image = torch.arange(batch, device=uv.device)[:, None, None]
    result = torch.zeros((), dtype=uv.dtype, device=uv.device)
    for dx in (0, 1):
        for dy in (0, 1):
            i, j = below[..., 0].long() + dx, below[..., 1].long() + dy
            inside = (i >= 0) & (i < width) & (j >= 0) & (j < height)
            if boundary_mode == "wrap":
                i, j = i % width, j % height
            i, j = i.clamp(0, width - 1), j.clamp(0, height - 1)
            weight = (fraction[..., 0] if dx else 1 - fraction[..., 0]) * (
                fraction[..., 1] if dy else 1 - fraction[..., 1]
            )
            if boundary_mode == "zero":
                weight = weight * inside
            result = result + weight[..., None] * texture[image, j, i]
    return result


def _level(uv_da: Tensor, width: int, height: int) -> Tensor:
    jacobian = uv_da.unflatten(-1, (2, 2)) * uv_da.new_tensor([[width], [height]])
    a, b, c = ((jacobian[..., i] * jacobian[..., k]).sum(dim=-1) for i, k in ((0, 0), (0, 1), (1, 1)))
    squared = ((a - c) / 2) ** 2 + b**2
    round_ = squared == 0  # both axes are as long: the square root has no derivative there
    root = torch.where(round_, 0, torch.where(round_, 1, squared).sqrt())
    sigma_squared = (a + c) / 2 + root
    positive = sigma_squared > 0
    return torch.where(positive, 0.5 * torch.where(positive, sigma_squared, 1).log2(), 0)


def _halve(image: Tensor) -> Tensor:
    rows, columns = (_averages(n, image) for n in image.shape[1:3])
    return torch.einsum("ij,bjkc,lk->bilc", rows, image, columns)


def _averages(n: int, like: Tensor) -> Tensor:
    """Return the (max(1, n // 2), n) matrix that averages n values: how much of each lies in each larger interval."""
    m = max(1, n // 2)
    edges = torch.arange(m + 1, dtype=like.dtype, device=like.device) * (n / m)
    at = torch.arange(n, dtype=like.dtype, device=like.device)
    overlap = torch.minimum(edges[1:, None], at + 1) - torch.maximum(edges[:-1, None], at)
    return overlap.clamp(min=0) * (m / n)
