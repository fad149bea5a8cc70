"""The Jacobian of a view of splats as a dense matrix: what ``kernels.splat_jacobian`` gives products of.

J is differentiated through the reference rasterizer in forward mode, unknown by unknown, those of
``kernels/splat_jacobian.py``. Small scenes only: J has H · W · D rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kernels.reference.rasterize_splats import rasterize_splats
from kernels.splat_jacobian import UNKNOWNS


def view(
    geometry: Tensor,
    colors: Tensor,
    splats: tuple[Tensor, ...],
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    *,
    camera: Tensor | None = None,
    **settings: Any,
) -> Tensor:
    """Return the (H, W, D) image after a step by the unknowns.

    Args:
        geometry: (N, 10).
        colors: shaped as the colours.
        splats: means, quats, scales, opacities, colors.
        viewmat, K, width, height: the camera.
        camera: (10,) the step of it; None for none.
        settings: as of :func:`kernels.rasterize_splats.rasterize_splats`.
    """
    means, quats, scales, opacities, own = splats
    if camera is not None:
        viewmat, K = moved(viewmat, K, camera)
    return rasterize_splats(
        means + geometry[:, :3],
        turn(quats, geometry[:, 6:9]),
        scales * geometry[:, 3:6].exp(),
        (torch.logit(opacities) + geometry[:, 9]).sigmoid(),
        own + colors,
        viewmat[None],
        K[None],
        width,
        height,
        **settings,
    )[0][0]


def moved(viewmat: Tensor, K: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Return viewmat (4, 4) and K (3, 3) after a step of the camera's unknowns (10,): exp(ξ) viewmat, and the sums."""
    (x, y, z), shift, zero = camera[:3].unbind(), camera[3:6, None], torch.zeros_like(camera[0])
    turn = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    twist = torch.cat([torch.cat([turn, shift], dim=1), torch.zeros_like(viewmat[3:])])
    fx, fy, cx, cy = camera[6:].unbind()
    return torch.linalg.matrix_exp(twist) @ viewmat, K + torch.stack(
        [fx, zero, cx, zero, fy, cy, zero, zero, zero]
    ).view(3, 3)


def jacobian(
    splats: tuple[Tensor, ...],
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    **settings: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ∂ image by geometry (H, W, D, N, 10), by colors (H, W, D, *colors.shape) and by camera (H, W, D, 10)."""
    zeros = (splats[0].new_zeros(len(splats[0]), UNKNOWNS), torch.zeros_like(splats[4]), splats[0].new_zeros(10))
    found = []
    for which, zero in enumerate(zeros):
        columns = []
        for k in range(zero.numel()):
            with forward_ad.dual_level():
                one = torch.zeros_like(zero).flatten().index_fill(0, torch.tensor(k), 1).view_as(zero)
                steps = [forward_ad.make_dual(zero, one) if which == i else z for i, z in enumerate(zeros)]
                geometry, colors, camera = steps
                image = view(geometry, colors, splats, viewmat, K, width, height, camera=camera, **settings)
                tangent = forward_ad.unpack_dual(image).tangent
                columns.append(torch.zeros_like(image) if tangent is None else tangent)
        found.append(torch.stack(columns, dim=-1).unflatten(-1, zero.shape))
    return found[0], found[1], found[2]


def blocks(to_geometry: Tensor, weights: Tensor) -> Tensor:
    """Return each splat's block of Jᵀ W J, (N, 10, 10), of the first part of :func:`jacobian`."""
    return torch.einsum("hwdni,hwd,hwdnj->nij", to_geometry, weights, to_geometry)


def turn(quats: Tensor, rotations: Tensor) -> Tensor:
    """Return q ⊗ (1, ω / 2), normalised: each splat turned about its own axes by 2 atan(|ω| / 2), about |ω| radians.

    Args:
        quats: (N, 4) wxyz.
        rotations: (N, 3) ω.
    """
    w, v, half = quats[:, :1], quats[:, 1:], 0.5 * rotations
    real = w - (v * half).sum(1, keepdim=True)
    imaginary = torch.addcmul(v, w, half) + torch.linalg.cross(v, half)
    return torch.nn.functional.normalize(torch.cat([real, imaginary], dim=1), dim=1)
