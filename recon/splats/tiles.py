"""A sample of a photo's tiles: what the rasterizer's products can be asked for alone."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.splat_jacobian import TILE


def sampled_tiles(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Return (H, W, 1) weights: four in one tile of each square of four, drawn at random."""
    rows, columns = -(-height // TILE), -(-width // TILE)  # at the border a square has fewer, and weighs as many
    drawn = torch.rand(-(-rows // 2) * 2, -(-columns // 2) * 2, generator=generator)
    drawn[rows:], drawn[:, columns:] = -1, -1
    squares = drawn.unfold(0, 2, 2).unfold(1, 2, 2).flatten(2)
    chosen = (squares == squares.amax(2, keepdim=True)) * (squares >= 0).sum(2, keepdim=True)
    tiles = chosen.unflatten(2, (2, 2)).permute(0, 2, 1, 3).reshape(drawn.shape)[:rows, :columns]
    pixels = tiles.repeat_interleave(TILE, 0).repeat_interleave(TILE, 1)[:height, :width]
    return pixels[..., None].float()
