"""Moving splats by a similarity: p ↦ s·Q·p + t, with Q orthogonal.

A splat's covariance R S² Rᵀ becomes (QR)(sS)²(QR)ᵀ. Its colour is a function on the sphere and turns with it: the new
coefficients c′ satisfy Σ_k Y_k(Qd) c′_k = Σ_k Y_k(d) c_k for every direction d. The span of each band of spherical
harmonics is closed under rotation, Y(Qd) = M(Q) Y(d) with M orthogonal, hence c′ = M c; M is solved for from more
directions than unknowns, which is exact to rounding and needs no table of Wigner matrices.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.reference.spherical_harmonics import spherical_harmonics_basis
from recon.errors import InputError
from recon.splats.model import Splats

_TOGETHER = 4096  # splats whose matrices are at hand at a time


def transform(splats: Splats, similarity: NDArray[np.float64] | Tensor) -> Splats:
    """Return the splats as they look after the whole world was moved.

    Args:
        splats: N splats of SH degree 0 to 3.
        similarity: (4, 4) matrix [s·Q t; 0 1], s > 0, Q orthogonal; a reflection (det Q = −1) mirrors the scene.

    Returns:
        New splats, same device and dtypes; quaternions keep their length.

    Raises:
        InputError: the matrix is not a similarity (code ``"not-a-similarity"``).
    """
    matrix = torch.as_tensor(similarity, dtype=torch.float64, device="cpu")
    scale, orthogonal = _split(matrix)
    proper = orthogonal * torch.sign(torch.linalg.det(orthogonal))  # a Gaussian is its own mirror image about its mean
    device = splats.means.device
    linear, offset = matrix[:3, :3].to(device), matrix[:3, 3].to(device)
    bands = _harmonics_matrix(splats.sh_degree, orthogonal).to(splats.sh)
    return Splats(
        # In double: world coordinates may be far from the origin, and float32 products would lose what is left.
        means=(splats.means.double() @ linear.T + offset).to(splats.means.dtype),
        log_scales=splats.log_scales + math.log(scale),
        quats=_multiply(_quaternion(proper).to(splats.quats), splats.quats),
        logits=splats.logits,
        sh=torch.einsum("jk,nkc->njc", bands, splats.sh),
    )


def _split(matrix: Tensor) -> tuple[float, Tensor]:
    """Return s and Q of a (4, 4) similarity, or raise."""
    if matrix.shape != (4, 4) or not torch.isfinite(matrix).all():
        raise _not_a_similarity("it must be a finite 4 × 4 matrix")
    scale = float(torch.linalg.det(matrix[:3, :3]).abs()) ** (1 / 3)
    if scale == 0.0 or not torch.equal(matrix[3], matrix.new_tensor([0, 0, 0, 1])):
        raise _not_a_similarity("its scale is zero or its last row is not 0 0 0 1")
    orthogonal = matrix[:3, :3] / scale
    if not torch.allclose(orthogonal @ orthogonal.T, torch.eye(3, dtype=torch.float64), atol=1e-5):
        raise _not_a_similarity("it shears or scales the axes differently")
    return scale, orthogonal


def _not_a_similarity(why: str) -> InputError:
    return InputError(
        f"The transformation is not a similarity: {why}.",
        "Use a rotation, one scale for all axes and a translation.",
        "not-a-similarity",
    )


def turn_harmonics(sh: Tensor, rotations: Tensor) -> Tensor:
    """Return (N, K, 3) coefficients of colours that were turned, each by its own rotation.

    Args:
        sh: (N, K, 3), of degree 0 to 3.
        rotations: (N, 3, 3) orthogonal.
    """
    degree = int(sh.shape[1] ** 0.5) - 1
    if degree == 0:
        return sh
    pairs = zip(sh.split(_TOGETHER), rotations.double().split(_TOGETHER), strict=True)
    return torch.cat([_harmonics_matrix(degree, turned).to(part) @ part for part, turned in pairs])


def _harmonics_matrix(degree: int, orthogonal: Tensor) -> Tensor:
    """(…, K, K) float64 M with Y(Qd) = M Y(d), of (…, 3, 3) Q."""
    golden = torch.arange(64, dtype=torch.float64) + 0.5
    z, azimuth = 1 - golden / 32, golden * math.pi * (1 + math.sqrt(5))
    radius = (1 - z * z).sqrt()
    directions = torch.stack([radius * azimuth.cos(), radius * azimuth.sin(), z], dim=-1)  # a Fibonacci sphere
    before = spherical_harmonics_basis(degree, directions)
    after = spherical_harmonics_basis(degree, directions @ orthogonal.mT)
    solution = (torch.linalg.pinv(before) @ after).mT
    return (solution * 2**46).round() / 2**46  # its last bits hang on where the numbers happen to lie in memory


def _quaternion(rotation: Tensor) -> Tensor:
    """(4,) wxyz of a rotation matrix: the eigenvector of Bar-Itzhack's symmetric 4 × 4 matrix (2000), sign-free."""
    (a, b, c), (d, e, f), (g, h, i) = rotation.tolist()
    symmetric = [
        [a + e + i, h - f, c - g, d - b],
        [h - f, a - e - i, b + d, c + g],
        [c - g, b + d, e - a - i, f + h],
        [d - b, c + g, f + h, i - a - e],
    ]
    return torch.linalg.eigh(torch.tensor(symmetric, dtype=torch.float64)).eigenvectors[:, -1]


def _multiply(p: Tensor, q: Tensor) -> Tensor:
    """Hamilton product p·q of a (4,) and (N, 4) quaternions wxyz."""
    pw, px, py, pz = p.tolist()
    left = p.new_tensor([[pw, -px, -py, -pz], [px, pw, -pz, py], [py, pz, pw, -px], [pz, -py, px, pw]])
    return q @ left.T
