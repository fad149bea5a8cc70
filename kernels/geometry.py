"""The surface a splat stands for: a plane through its centre, hence a depth at each pixel and a normal.

A Gaussian with mean m and covariance S in camera space is densest along the ray t·r, r = (x̂, ŷ, 1), at

    t(r) = (rᵀ S⁻¹ m) / (rᵀ S⁻¹ r) ,

which is that point's depth too, as r_z = 1. With g = S⁻¹ m, its derivative at the ray r₀ = m / m_z to the centre is

    ∂t/∂r = −m_z² g / (m·g) ,   so   a = ∂z/∂u = −m_z² g_x / (f_x m·g)   and likewise b = ∂z/∂v ,

exactly the slopes of the plane g·(X − m) = 0. So the plane's normal is g, and the depth is taken linear in the pixel.
Source: Zhang et al., "RaDe-GS: Rasterizing Depth in Gaussian Splatting" (2024), section 3.2, rewritten with S⁻¹ m.

Two regularisations keep this finite:

- S + 1e-6·tr(S)·I stands for S, so that discs, needles and points (a point counts as a sphere) have an inverse. It
  turns the normal of a flat disc by about 2e-6·tan θ, θ between normal and ray: nothing until it is seen edge-on.
- Over the true footprint the plane's depth varies by at most σ_z = √S_zz (as standard deviations: ∇zᵀ Σ₂ ∇z ≤ S_zz).
  But the rasterizer widens footprints by ``eps2d``, and a splat seen edge-on, thinner than a pixel, has a steep plane.
  The slope is scaled down until √eps2d pixels change the depth by at most σ_z. So where a splat is drawn, at most
  √(2 ln 255) = 3.3 standard deviations out, its depth is within √2 · 3.3 = 4.7 σ_z of its centre's. A splat wider than
  about √eps2d pixels across its slope keeps the exact plane.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLATTEST = 1e-6
"""What is added to the variances along a splat's axes, as a fraction of their sum."""


def rotation_matrices(quats: Tensor) -> Tensor:
    """Turn quaternions into rotation matrices.

    Args:
        quats: (N, 4) wxyz, not zero; normalised here.

    Returns:
        (N, 3, 3); the columns are the rotated axes.
    """
    w, x, y, z = (quats / torch.linalg.vector_norm(quats, dim=-1, keepdim=True)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def splat_planes(
    means: Tensor, quats: Tensor, scales: Tensor, viewmat: Tensor, K: Tensor, eps2d: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Give each splat's depth as a linear function of the pixel, and its normal.

    Differentiable in all tensors. A splat that cannot be drawn (non-finite values, a zero quaternion, at or behind the
    camera, further than 1e12) gets finite values of no meaning and zero gradients.

    Args:
        means: (N, 3) centres in world units.
        quats: (N, 4) rotations wxyz, not necessarily normalised.
        scales: (N, 3) standard deviations along the axes; the sign does not matter.
        viewmat: (4, 4) world to camera, rigid, OpenCV axes.
        K: (3, 3) intrinsics in pixels; fx, fy, cx, cy are used.
        eps2d: variance in square pixels by which the rasterizer widens footprints.

    Returns:
        planes: (N, 3) coefficients (c, a, b): the splat's depth at image position (p_x, p_y) is c + a·p_x + b·p_y.
        normals: (N, 3) unit normals in the world's frame, on the camera's side.
    """
    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]

    # Splats without a plane are given harmless numbers before any arithmetic: a NaN multiplied by a zero gradient
    # would still be NaN.
    with torch.no_grad():
        largest = scales.abs().amax(dim=-1, keepdim=True)
        usable = torch.cat([means, quats, scales], dim=-1).isfinite().all(dim=-1, keepdim=True)
        usable &= (torch.linalg.vector_norm(quats, dim=-1, keepdim=True) > 0) & (largest < 1e12)
        camera_means = torch.where(usable, means, 0) @ rotation.T + translation
        far = torch.linalg.vector_norm(camera_means, dim=-1, keepdim=True)
        usable &= (far < 1e12) & (camera_means[:, 2:] > 1e-12)
        sized = usable & (largest > 0)
        largest = torch.where(sized, largest, 1)
    quats = torch.where(usable, quats, 1)
    relative = torch.where(sized, scales, 1) / largest
    somewhere = torch.tensor([0.0, 0.0, 1.0], dtype=means.dtype, device=means.device)
    m = torch.where(usable, torch.where(usable, means, 0) @ rotation.T + translation, somewhere)

    # S⁻¹ m through the splat's axes: nothing is inverted, so float32 is enough for any needle.
    axes = rotation @ rotation_matrices(quats)
    variances = relative**2
    variances = variances + FLATTEST * variances.sum(dim=-1, keepdim=True)
    distance = torch.linalg.vector_norm(m, dim=-1)
    along = (m / distance[:, None])[:, :, None]
    g = (axes @ ((axes.mT @ along) / variances[:, :, None])).squeeze(-1)

    z = m[:, 2]
    steepness = -z * (z / distance) / (along.squeeze(-1) * g).sum(dim=-1)
    a, b = steepness * g[:, 0] / fx, steepness * g[:, 1] / fy
    sigma_z = torch.where(sized, largest, 0)[:, 0] * (axes[:, 2] ** 2 * variances).sum(dim=-1).sqrt()
    change = eps2d * (a * a + b * b)
    too_steep = change > sigma_z**2
    factor = torch.where(too_steep, sigma_z / torch.where(too_steep, change, 1).sqrt(), 1)
    a, b = factor * a, factor * b

    u, v = fx * m[:, 0] / z + cx, fy * m[:, 1] / z + cy
    planes = torch.stack([z - a * u - b * v, a, b], dim=-1)
    normals = -torch.nn.functional.normalize(g, dim=-1) @ rotation
    return planes, normals
