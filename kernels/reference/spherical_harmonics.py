"""View-dependent colour by real spherical harmonics, in readable torch.

    colour(d) = Σ_k Y_k(d) · c_k ,  k = 0 … (degree + 1)² − 1

The basis is orthonormal on the unit sphere and is the one of 3DGS, Plenoxels and gsplat: bands in rising order, inside
a band from m = −l to l, with the Condon–Shortley sign, so that band 1 is (−y, z, −x)·√(3/4π).
Source: Sloan, "Efficient Spherical Harmonic Evaluation" (JCGT 2013), appendix A2; Kerbl et al. 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

C0 = 0.28209479177387814  # √(1/4π)
C1 = 0.4886025119029199  # √(3/4π)
C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)  # √(15/4π), √(5/16π), √(15/16π)
C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)
# √(35/32π), √(105/4π), √(21/32π), √(7/16π), √(105/16π)


def spherical_harmonics_basis(degree: int, directions: Tensor) -> Tensor:
    """Evaluate the basis functions.

    Args:
        degree: 0 to 3.
        directions: (…, 3), any length but zero; normalised here.

    Returns:
        (…, (degree + 1)²) values Y_k(direction), in the dtype of ``directions``.

    Raises:
        ValueError: the degree is not 0 to 3.
    """
    if not 0 <= degree <= 3:
        raise ValueError(f"spherical harmonics of degree {degree}: only 0 to 3 are defined here")
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    bands = [torch.full_like(x, C0)]
    if degree >= 1:
        bands += [-C1 * y, C1 * z, -C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        bands += [
            C2[0] * x * y,
            -C2[0] * y * z,
            C2[1] * (2 * zz - xx - yy),
            -C2[0] * x * z,
            C2[2] * (xx - yy),
        ]
    if degree >= 3:
        bands += [
            -C3[0] * y * (3 * xx - yy),
            C3[1] * x * y * z,
            -C3[2] * y * (4 * zz - xx - yy),
            C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            -C3[2] * x * (4 * zz - xx - yy),
            C3[4] * z * (xx - yy),
            -C3[0] * x * (xx - 3 * yy),
        ]
    return torch.stack(bands, dim=-1)


def spherical_harmonics(degree: int, directions: Tensor, coefficients: Tensor) -> Tensor:
    """Evaluate colours, without the 0.5 that 3DGS adds afterwards and without clamping.

    Differentiable in ``directions`` (through their normalisation, so the gradient is tangential) and ``coefficients``.

    Args:
        degree: 0 to 3; higher bands of ``coefficients`` are ignored.
        directions: (…, 3) from the camera's centre to the splat, any length but zero.
        coefficients: (…, K, 3) with K ≥ (degree + 1)².

    Returns:
        (…, 3) colours.

    Raises:
        ValueError: the degree is not 0 to 3, or there are too few coefficients for it.
    """
    count = (degree + 1) ** 2
    if coefficients.shape[-2] < count:
        raise ValueError(f"degree {degree} needs {count} coefficients, there are {coefficients.shape[-2]}")
    basis = spherical_harmonics_basis(degree, directions)
    return (basis[..., None] * coefficients[..., :count, :]).sum(dim=-2)
