"""Triangle rasterization in readable torch: what ``kernels.rasterize_mesh`` computes, written to be checked by eye.

With vertices in homogeneous pixel coordinates a_i = ((x_i + w_i) W/2, (y_i + w_i) H/2, w_i), M = [a₀ a₁ a₂] and a pixel
centre p = (X, Y, 1), the point of the triangle's plane seen at p has coordinates M λ = w p. So

    b(p) = M⁻¹ p ,   1/w = Σ b_i ,   λ = b / Σ b_i ,   z/w = Σ b_i z_i ,

the b_i and z/w are linear in the image, and p sees the triangle iff all b_i ≥ 0 and -1 ≤ z/w ≤ 1. This holds whatever
the signs of the w_i: no triangle is ever cut into pieces. b_i ≥ 0 is decided by the sign of det(p, a_j, a_k), equal and
opposite in the two triangles of an edge; where it is zero, by that at p + (ε, ε²): the top-left rule. Every triangle
meets every pixel here: slow, in any float dtype, differentiated by autograd.

Source: Olano & Greer, "Triangle Scan Conversion using 2D Homogeneous Coordinates" (1997), sections 3 and 5; the output
is that of Laine et al., "Modular Primitives for High-Performance Differentiable Rendering" (2020), section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.checks import check_size
from kernels.mesh_arguments import check_faces, check_indices, check_positions

PAIRS_AT_ONCE = 2**21


def rasterize_mesh(
    positions: Tensor, faces: Tensor, width: int, height: int, *, layers: int = 1
) -> tuple[Tensor, Tensor]:
    """Find what each pixel sees; arguments and results are those of ``kernels.rasterize_mesh.rasterize_mesh``."""
    positions = check_positions(positions)
    check_faces(faces, positions.device)
    check_indices(faces, positions.shape[1], "positions")
    width, height, layers = check_size("width", width), check_size("height", height), check_size("layers", layers)
    images = [_render(p, faces.long(), width, height, layers) for p in positions]
    rast, rast_db = (torch.stack(each, dim=1) for each in zip(*images, strict=True))
    return (rast, rast_db) if layers > 1 else (rast[0], rast_db[0])


def pixel_positions(positions: Tensor, width: int, height: int) -> Tensor:
    """Turn clip-space (…, 4) into homogeneous pixel coordinates (…, 3): X w, Y w, w."""
    x, y, _, w = positions.unbind(-1)
    return torch.stack([(x + w) * (width / 2), (y + w) * (height / 2), w], dim=-1)


def _render(positions: Tensor, faces: Tensor, width: int, height: int, layers: int) -> tuple[Tensor, Tensor]:
    ys = torch.arange(height, dtype=positions.dtype, device=positions.device) + 0.5
    xs = torch.arange(width, dtype=positions.dtype, device=positions.device) + 0.5
    pixels = torch.cartesian_prod(ys, xs).flip(-1)
    rows = max(1, PAIRS_AT_ONCE // max(1, len(faces)))
    with torch.no_grad():
        ids = torch.cat([visible_faces(positions, faces, p, width, height, layers) for p in pixels.split(rows)])
    # All that is differentiated sees the drawn triangles alone, so the others get zero gradients, never NaN.
    index, layer = torch.nonzero(ids >= 0, as_tuple=True)
    triangle = ids[index, layer]
    corners = positions[faces[triangle]]
    centres = torch.cat([pixels[index], torch.ones_like(pixels[index, :1])], dim=1)
    values, derivatives = attributes(corners, centres, width, height)
    rast = torch.cat([values, triangle[:, None].to(values.dtype) + 1], dim=1)
    place = (layer, index)
    shape = (layers, height, width, 4)
    empty = positions.new_zeros(layers, height * width, 4)
    return empty.index_put(place, rast).view(shape), empty.index_put(place, derivatives).view(shape)


def edge_functions(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows a_j × a_k (N, 3, 3) of det(M) M⁻¹, and det(M) (N,), for corners a (N, 3, 3)."""
    normals = torch.linalg.cross(a.roll(-1, dims=1), a.roll(-2, dims=1))
    return normals, (a[:, 0] * normals[:, 0]).sum(dim=-1)


def attributes(corners: Tensor, pixels: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Give what is known of N fragments.

    Args:
        corners: (N, 3, 4) clip-space vertices of each.
        pixels: (N, 3) positions (X, Y, 1).
        width: of the image.
        height: likewise.

    Returns:
        (N, 3) values u, v, z/w, and (N, 4) derivatives du/dX, du/dY, dv/dX, dv/dY.
    """
    normals, determinant = edge_functions(pixel_positions(corners, width, height))
    inverse = normals / determinant[:, None, None]
    b = (inverse @ pixels[:, :, None]).squeeze(-1)
    total = b.sum(dim=1, keepdim=True)
    uv = b[:, :2] / total
    depth = (b * corners[..., 2]).sum(dim=1, keepdim=True)
    slopes = (inverse[:, :2, :2] - uv[:, :, None] * inverse[:, :, :2].sum(dim=1, keepdim=True)) / total[:, :, None]
    return torch.cat([uv, depth], dim=1), slopes.flatten(1)


def visible_faces(positions: Tensor, faces: Tensor, pixels: Tensor, width: int, height: int, layers: int) -> Tensor:
    """Return the (P, layers) triangles seen at (P, 2) pixels, nearest first, ties by number; -1 where there is none."""
    corners = positions[faces]
    a = pixel_positions(corners, width, height)
    normals, determinant = edge_functions(a)
    number = torch.nonzero(corners.flatten(1).isfinite().all(dim=1) & (determinant != 0)).squeeze(-1)
    a, corners, normals, determinant = a[number], corners[number], normals[number], determinant[number]
    signs = [_side(a[:, i - 2], a[:, i - 1], pixels) for i in range(3)]
    seen = torch.stack([s * determinant.sign() > 0 for s in signs]).all(dim=0)
    plane = (corners[..., 2:3] * normals).sum(dim=1) / determinant[:, None]  # z/w = zᵀ M⁻¹ p
    depth = pixels @ plane[:, :2].T + plane[:, 2]
    depth = torch.where(seen & (depth.abs() <= 1), depth, torch.inf)
    depth, order = torch.sort(depth, dim=1, stable=True)
    result = torch.where(depth[:, :layers].isfinite(), number[order[:, :layers]], -1)
    return torch.nn.functional.pad(result, (0, layers - result.shape[1]), value=-1)


def _side(start: Tensor, end: Tensor, pixels: Tensor) -> Tensor:
    """Return (P, F) the sign of det(p, start, end), decided at p + (ε, ε²) where it is zero."""
    # The same arithmetic for both triangles of an edge: its ends in a fixed order.
    swapped = torch.zeros_like(start[:, 0], dtype=torch.bool)
    decided = swapped
    for k in range(3):
        swapped = swapped | (~decided & (start[:, k] > end[:, k]))
        decided = decided | (start[:, k] != end[:, k])
    start, end = torch.where(swapped[:, None], end, start), torch.where(swapped[:, None], start, end)
    # Relative to p, so that this is exactly zero where an end is at p.
    s = start[:, :2] - pixels[:, None] * start[:, 2:]
    e = end[:, :2] - pixels[:, None] * end[:, 2:]
    value = s[..., 0] * e[..., 1] - s[..., 1] * e[..., 0]
    by_x = start[:, 1] * end[:, 2] - start[:, 2] * end[:, 1]
    by_y = start[:, 2] * end[:, 0] - start[:, 0] * end[:, 2]
    sign = value.sign()
    sign = torch.where(sign == 0, by_x.sign(), sign)
    sign = torch.where(sign == 0, by_y.sign(), sign)
    return torch.where(swapped, -sign, sign)
