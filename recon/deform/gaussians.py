"""Gaussians under linear maps: axes that a map has sheared are made orthogonal again.

A Gaussian N(0, M Mᵀ) is given by any axes M (3, 3): of a splat M = R S, with rotation R and standard deviations S, and
of the splat that J has moved M = J R S. A rotation V that makes the columns of M V orthogonal, which is Jacobi's
one-sided way to the singular values, brings it back to that form:

    M V = R' S',    M Mᵀ = R' S'² R'ᵀ

Unlike a sorted singular value decomposition it leaves axes that are orthogonal alone: a splat that was only turned or
stretched along its axes keeps them in order, a round one too. The derivative dV = V Φ solves

    Φᵢⱼ = (Vᵀ d(MᵀM) V)ᵢⱼ / (λⱼ − λᵢ),    λᵢ = |(M V)ᵢ|²

which is singular where two axes are equally long: no R' and S' follow a shear of a round Gaussian smoothly. There 1 / δ
is replaced by δ / (δ² + ε²), so that gradients are finite, and that of such a shear is left out.

Sources: Hestenes 1958, "Inversion of matrices by biorthogonalization and related results"; Demmel, Veselić 1992,
"Jacobi's method is more accurate than QR"; Higham 1986, "Computing the polar decomposition — with applications".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SWEEPS = 12
"""Most rounds over the three pairs of axes; convergence is quadratic and takes four or five."""


def splats_of(axes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the splats whose covariance is M Mᵀ.

    Args:
        axes: (N, 3, 3) M, the columns in world units. Differentiable once, if no column vanishes.

    Returns:
        quats: (N, 4) wxyz of length 1; either of the two signs.
        log_scales: (N, 3) natural logarithm of the standard deviations along the rotated axes.
    """
    columns = axes @ _Orthogonal.apply(axes)
    scales = torch.linalg.vector_norm(columns, dim=1).clamp(min=torch.finfo(axes.dtype).tiny)
    # The shortest axis by the other two: it may be all rounding, and a Gaussian is its own mirror image.
    shortest = torch.nn.functional.one_hot(scales.argmin(dim=1), 3).bool()[:, None]
    x, y, z = (columns / scales[:, None]).unbind(2)
    across = torch.stack([torch.linalg.cross(*pair) for pair in ((y, z), (z, x), (x, y))], dim=2)
    rotation = torch.where(shortest, across, torch.stack([x, y, z], dim=2))
    return quaternions(rotation), scales.log()


def quaternions(rotations: Tensor) -> Tensor:
    """Return (N, 4) wxyz, of length 1 and either sign, of (N, 3, 3) ``rotations``; differentiable.

    The row with the largest diagonal element of the matrix 4 q qᵀ, which is linear in the rotation's elements.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(1) for row in rotations.unbind(1))
    one = torch.ones_like(a)
    rows = [
        [one + a + e + i, h - f, c - g, d - b],
        [h - f, one + a - e - i, b + d, c + g],
        [c - g, b + d, one - a + e - i, f + h],
        [d - b, c + g, f + h, one - a - e + i],
    ]
    products = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    largest = products.diagonal(dim1=1, dim2=2).argmax(dim=1)
    q = products[torch.arange(len(products), device=products.device), largest]
    return q / torch.linalg.vector_norm(q, dim=1, keepdim=True)


def polar(jacobians: Tensor) -> Tensor:
    """Return (N, 3, 3) the rotations nearest to (N, 3, 3) ``jacobians``; differentiable.

    Newton's iteration X ← (γ X + X⁻ᵀ / γ) / 2 with Higham's γ² = |X⁻ᵀ| / |X|. Where the determinant is not positive,
    so that nothing was turned but turned around or flattened, the identity.
    """
    singular = torch.linalg.det(jacobians.detach()) <= 0
    # Splats run along the last dimension here, for speed.
    x = torch.where(singular, torch.eye(3).to(jacobians)[:, :, None], jacobians.permute(1, 2, 0).contiguous())
    for _ in range(SWEEPS):
        cofactors = torch.stack([torch.linalg.cross(x[k - 2], x[k - 1], dim=0) for k in range(3)])
        inverse = cofactors / (x[0] * cofactors[0]).sum(dim=0)
        gamma = (inverse.square().sum(dim=(0, 1)) / x.square().sum(dim=(0, 1))) ** 0.25
        before, x = x, (gamma * x + inverse / gamma) / 2
        if (x - before).detach().abs().max() < 16 * torch.finfo(x.dtype).eps:
            break
    return x.permute(2, 0, 1)


class _Orthogonal(torch.autograd.Function):
    """(N, 3, 3) rotations V such that the columns of M V are orthogonal, of (N, 3, 3) M."""

    @staticmethod
    def forward(ctx: Any, axes: Tensor) -> Tensor:
        tolerance = 16 * torch.finfo(axes.dtype).eps
        # Splats run along the last dimension here, for speed.
        columns = list(axes.permute(2, 1, 0).contiguous())
        turned = list(torch.eye(3).to(axes)[:, :, None].expand(3, 3, len(axes)))
        for _ in range(SWEEPS):
            done = True
            for p, q in ((0, 1), (0, 2), (1, 2)):
                of_p, of_q, both = ((columns[i] * columns[j]).sum(dim=0) for i, j in ((p, p), (q, q), (p, q)))
                both = torch.where(both.square() > tolerance**2 * of_p * of_q, both, 0)
                if not both.any():
                    continue
                done = False
                # The smaller of the two angles, so that the axes stay in order.
                difference = of_q - of_p
                root = (difference.square() + 4 * both.square()).sqrt()
                tangent = 2 * both / (difference.abs() + root).clamp(min=torch.finfo(axes.dtype).tiny)
                tangent = torch.where(difference < 0, -tangent, tangent)
                cosine = (1 + tangent.square()).rsqrt()
                for of in (columns, turned):
                    of[p], of[q] = cosine * (of[p] - tangent * of[q]), cosine * (of[q] + tangent * of[p])
            if done:
                break
        rotation = torch.stack(turned).permute(2, 1, 0).contiguous()
        ctx.save_for_backward(axes, rotation)
        return rotation

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> Tensor:
        axes, rotation = ctx.saved_tensors
        variances = (axes @ rotation).square().sum(dim=1)
        by_row, by_column = variances[:, :, None], variances[:, None, :]
        difference, regular = by_column - by_row, torch.finfo(axes.dtype).eps ** 0.5 * (by_column + by_row)
        factors = difference / (difference.square() + regular.square())
        of_gram = rotation @ (factors * (rotation.mT @ incoming)) @ rotation.mT
        return axes @ (of_gram + of_gram.mT)
