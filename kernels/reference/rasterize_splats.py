"""Gaussian splatting in readable torch: what ``kernels.rasterize_splats`` computes, written to be checked by eye.

Per camera, with pixel p = (x + ½, y + ½) and splats sorted by depth (ties by index):

    Σ₂ = J W Σ Wᵀ Jᵀ + ε I ,   α_i(p) = min(0.999, o_i exp(−½ (p − u_i)ᵀ Σ₂⁻¹ (p − u_i)))
    C(p) = Σ_i T_i α_i c_i + T B ,   T_i = Π_{j<i} (1 − α_j)

A splat contributes to a pixel iff o_i exp(…) ≥ 1/255 and T_i ≥ 1e-4. Here every splat meets every pixel: quadratic and
slow, in any float dtype, differentiated by autograd. It is the tests' oracle and the place to look things up.

Source: Zwicker et al., "EWA Splatting" (2002); Kerbl et al., "3D Gaussian Splatting" (2023), section 4 and appendix A;
antialiasing: Yu et al., "Mip-Splatting" (2024), in the form gsplat gives it; depth planes: ``kernels/geometry.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.arguments import check_splats
from kernels.geometry import rotation_matrices, splat_planes
from kernels.reference.spherical_harmonics import spherical_harmonics

LEAST_ALPHA = 1 / 255
GREATEST_ALPHA = 0.999
LEAST_TRANSMITTANCE = 1e-4
PAIRS_AT_ONCE = 2**22
"""Rows of pixels are blended in chunks of at most this many (pixel, splat) pairs."""


class Splats(NamedTuple):
    """N splats: means (N, 3), quats (N, 4), scales (N, 3), opacities (N,), colors (N, D) or (N, K, 3)."""

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor

    def take(self, index: Tensor) -> Splats:
        """Return the splats of these indices."""
        return Splats(*(t[index] for t in self))


class Camera(NamedTuple):
    """One camera and how it turns splats into footprints."""

    viewmat: Tensor
    K: Tensor
    width: int
    height: int
    near_plane: float
    far_plane: float
    eps2d: float
    antialiased: bool


class Footprints(NamedTuple):
    """M splats on an image plane.

    Attributes:
        means2d: (M, 2) pixels.
        depths: (M,) camera-space z.
        covariances: (M, 3) xx, xy, yy in square pixels, blurred by eps2d.
        opacities: (M,) after the antialiasing compensation.
    """

    means2d: Tensor
    depths: Tensor
    covariances: Tensor
    opacities: Tensor


def rasterize_splats(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int | Sequence[int],
    height: int | Sequence[int],
    *,
    sh_degree: int | None = None,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    backgrounds: Tensor | None = None,
    masks: Tensor | Sequence[Tensor] | None = None,
    rasterize_mode: str = "classic",
    render_mode: str = "RGB",
) -> tuple[Any, Any, dict[str, Any]]:
    """Render splats; arguments, results and errors are those of ``kernels.rasterize_splats.rasterize_splats``."""
    sizes = check_splats(
        means,
        quats,
        scales,
        opacities,
        colors,
        viewmats,
        Ks,
        width,
        height,
        sh_degree=sh_degree,
        near_plane=near_plane,
        far_plane=far_plane,
        eps2d=eps2d,
        backgrounds=backgrounds,
        masks=masks,
        rasterize_mode=rasterize_mode,
        render_mode=render_mode,
    )
    if sh_degree is not None:
        colors = colors[:, : (sh_degree + 1) ** 2]
    splats = Splats(means, quats, scales, opacities, colors)
    renders = []
    for i, size in enumerate(sizes):
        camera = Camera(
            viewmats[i], Ks[i], *size, near_plane, far_plane, eps2d, antialiased=rasterize_mode == "antialiased"
        )
        background = None if backgrounds is None else backgrounds[i]
        mask = None if masks is None else masks[i]
        renders.append(_render(splats, camera, sh_degree, background, mask, render_mode))
    images, alphas, metas = zip(*renders, strict=True)
    meta = {name: _join([meta[name] for meta in metas]) for name in metas[0]}
    return _join(images), _join(alphas), meta


def _join(parts: Sequence[Tensor]) -> Tensor | list[Tensor]:
    return torch.stack(list(parts)) if len({part.shape for part in parts}) == 1 else list(parts)


def _render(
    splats: Splats, camera: Camera, sh_degree: int | None, background: Tensor | None, mask: Tensor | None, mode: str
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Render one camera: image (H, W, D[+1]), alphas (H, W, 1), meta."""
    # All that is differentiated sees the drawn splats alone, so the others get zero gradients, never NaN.
    index = visible_splats(splats, camera)
    drawn = splats.take(index)
    prints = project(drawn, camera)
    colors = drawn.colors if sh_degree is None else _colors_towards(drawn, camera, sh_degree)
    planes, normals = splat_planes(drawn.means, drawn.quats, drawn.scales, camera.viewmat, camera.K, camera.eps2d)

    pixels = pixel_centres(camera.width, camera.height, splats.means)
    mask = torch.ones_like(pixels[:, 0], dtype=torch.bool) if mask is None else mask.flatten()
    rows = max(1, PAIRS_AT_ONCE // (max(1, len(index)) * camera.width)) * camera.width
    chunks = [
        _blend(prints, colors, planes, normals, some, shown)
        for some, shown in zip(pixels.split(rows), mask.split(rows), strict=True)
    ]
    image, alpha, depth, median, normal = (
        torch.cat(parts).unflatten(0, (camera.height, camera.width)) for parts in zip(*chunks, strict=True)
    )
    if background is not None:
        image = image + (1 - alpha) * background
    meta = _meta(prints, index, camera, splats.means.shape[0])
    if mode == "RGB":
        return image, alpha, meta
    meta |= {"median_depths": median, "normals": normal}
    if mode in ("ED", "RGB+ED"):
        depth = depth / alpha.clamp(min=1e-10)
    return torch.cat([image, depth], dim=-1) if "RGB" in mode else depth, alpha, meta


def visible_splats(splats: Splats, camera: Camera) -> Tensor:
    """Return the (M,) indices of the splats that are not culled, front to back, ties by index."""
    with torch.no_grad():
        sound = torch.stack([t.flatten(1).isfinite().all(dim=1) for t in splats[:3] + splats[4:]]).all(dim=0)
        sound &= splats.opacities.isfinite() & (torch.linalg.vector_norm(splats.quats, dim=-1) > 0)
        z = splats.means @ camera.viewmat[2, :3] + camera.viewmat[2, 3]
        index = torch.nonzero(sound & (z > camera.near_plane) & (z < camera.far_plane)).squeeze(-1)
        prints = project(splats.take(index), camera)
        area = _determinants(prints.covariances)
        drawable = (area > 0) & area.isfinite() & (prints.opacities >= LEAST_ALPHA)
        return index[drawable][torch.argsort(prints.depths[drawable], stable=True)]


def project(splats: Splats, camera: Camera) -> Footprints:
    """Project splats that lie in front of the camera: EWA splatting, equations 22 to 31."""
    W, t = camera.viewmat[:3, :3], camera.viewmat[:3, 3]
    fx, fy, cx, cy = camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]
    x, y, z = (splats.means @ W.T + t).unbind(-1)

    # The projection is linearised at the mean, but no further out than 15 % of the image beyond its border: far away,
    # the tangent says nothing about the image and would smear the splat over it.
    x_linear = z * _clamp_to_view(x / z, fx, cx, camera.width)
    y_linear = z * _clamp_to_view(y / z, fy, cy, camera.height)
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * x_linear / z**2, zero, fy / z, -fy * y_linear / z**2], dim=-1)

    half = J.unflatten(-1, (2, 3)) @ W @ rotation_matrices(splats.quats) * splats.scales[:, None, :]
    sharp = (half @ half.mT).flatten(1)[:, [0, 1, 3]]
    covariances = sharp + camera.eps2d * sharp.new_tensor([1, 0, 1])
    opacities = splats.opacities
    if camera.antialiased:
        ratio = _determinants(sharp) / _determinants(covariances)
        positive = ratio > 0
        opacities = opacities * torch.where(positive, torch.where(positive, ratio, 1).sqrt(), 0)
    return Footprints(torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1), z, covariances, opacities)


def pixel_centres(width: int, height: int, like: Tensor) -> Tensor:
    """Return (height · width, 2) positions (x + ½, y + ½), row by row."""
    xs = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    ys = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    return torch.cartesian_prod(ys, xs).flip(-1)


def falloff(prints: Footprints, pixels: Tensor) -> Tensor:
    """Return (P, M) values o exp(−½ dᵀ Σ₂⁻¹ d) at (P, 2) pixel positions, before any cut or clamp."""
    dx, dy = (pixels[:, None, :] - prints.means2d).unbind(-1)
    xx, xy, yy = prints.covariances.unbind(-1)
    mahalanobis = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / _determinants(prints.covariances)
    return prints.opacities * torch.exp(-0.5 * mahalanobis)


def blending_weights(alphas: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Turn what ``falloff`` gives into weights.

    Args:
        alphas: (P, M), front to back.
        mask: (P,), False where nothing may contribute.

    Returns:
        weights: (P, M) T_i α_i, exactly zero where the splat does not contribute.
        transmittances: (P, M + 1) before each splat, and behind them all.
    """
    alphas = torch.where((alphas >= LEAST_ALPHA) & mask[:, None], alphas.clamp(max=GREATEST_ALPHA), 0)
    with torch.no_grad():
        # Without the stop T only falls further, so it passes the limit at the same splat as with it.
        reached = _transmittances(alphas)[:, :-1] >= LEAST_TRANSMITTANCE
    alphas = torch.where(reached, alphas, 0)
    transmittances = _transmittances(alphas)
    return transmittances[:, :-1] * alphas, transmittances


def _blend(
    prints: Footprints, colors: Tensor, planes: Tensor, normals: Tensor, pixels: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Composite (P, 2) pixels: colours (P, D), alphas, depths and median depths (P, 1), normals (P, 3)."""
    weights, transmittances = blending_weights(falloff(prints, pixels), mask)
    depths = planes[:, 0] + pixels @ planes[:, 1:].T
    none = torch.zeros_like(transmittances[:, -1:])
    hidden = torch.cat([(weights > 0) & (transmittances[:, 1:] <= 0.5), none == 0], dim=1)
    median = torch.cat([depths.detach(), none], dim=1).gather(1, hidden.int().argmax(dim=1, keepdim=True))
    depth = (weights * depths).sum(dim=1, keepdim=True)
    return weights @ colors, 1 - transmittances[:, -1:], depth, median, weights @ normals


def _colors_towards(splats: Splats, camera: Camera, sh_degree: int) -> Tensor:
    """Evaluate the spherical harmonics in the directions from the camera's centre: (M, 3)."""
    centre = -camera.viewmat[:3, :3].T @ camera.viewmat[:3, 3]
    return (spherical_harmonics(sh_degree, splats.means - centre, splats.colors) + 0.5).clamp(min=0)


def _meta(prints: Footprints, index: Tensor, camera: Camera, count: int) -> dict[str, Tensor]:
    """Spread what is known of the splats over all of them, zero where none of its pixels can be met; no gradients."""
    # o exp(−½ dᵀ Σ₂⁻¹ d) ≥ 1/255 is an ellipse whose bounding box reaches √(2 ln(255 o) Σ₂_kk) along axis k.
    with torch.no_grad():
        reach = (2 * torch.log(prints.opacities / LEAST_ALPHA)[:, None] * prints.covariances[:, [0, 2]]).sqrt()
        first = (prints.means2d - reach - 0.5).ceil().clamp(min=0)
        last = (prints.means2d + reach - 0.5).floor().minimum(reach.new_tensor([camera.width - 1, camera.height - 1]))
        inside = (first <= last).all(dim=1)
        index, means2d, depths = index[inside], prints.means2d[inside], prints.depths[inside]
        radii = reach[inside].amax(dim=1).ceil().clamp(1, 2**30).int()
        return {
            "radii": radii.new_zeros(count).index_copy(0, index, radii),
            "means2d": means2d.new_zeros(count, 2).index_copy(0, index, means2d),
            "depths": depths.new_zeros(count).index_copy(0, index, depths),
        }


def _clamp_to_view(tangent: Tensor, focal: Tensor, centre: Tensor, size: int) -> Tensor:
    """Clamp x/z as gsplat does; the limits count as constants."""
    focal, centre = focal.detach(), centre.detach()  # in forward mode, too, which no_grad does not stop
    margin = 0.3 * 0.5 * size / focal
    return torch.clamp(tangent, -centre / focal - margin, (size - centre) / focal + margin)


def _determinants(covariances: Tensor) -> Tensor:
    xx, xy, yy = covariances.unbind(-1)
    return xx * yy - xy * xy


def _transmittances(alphas: Tensor) -> Tensor:
    return torch.cumprod(torch.cat([alphas.new_ones(len(alphas), 1), 1 - alphas], dim=1), dim=1)
