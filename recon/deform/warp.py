"""Moving meshes and splats by a deformation of space f.

A mesh's vertices go to f(v). A splat's Gaussian goes where f takes it to first order about its mean:

    μ' = f(μ),    Σ' = J Σ Jᵀ,    J = ∂f/∂p (μ)

and its view-dependent colour turns by the rotation nearest to J.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kernels.geometry import rotation_matrices
from recon.deform.gaussians import splats_of
from recon.mesh.mesh import Mesh


class Deformation(Protocol):
    """A map of space that keeps orientation; it raises where it is not defined."""

    def __call__(self, points: Tensor) -> Tensor:
        """Return (P, 3) where (P, 3) ``points`` go."""
        ...

    def jacobian(self, points: Tensor) -> Tensor:
        """Return (P, 3, 3) ∂f/∂p at (P, 3) ``points``, its rows by the coordinates of f."""
        ...


def warp_mesh(mesh: Mesh, deformation: Deformation) -> Mesh:
    """Return ``mesh`` with its vertices moved, in float64; faces, colours and texture stay.

    Raises:
        InputError: the mesh cannot be worked with, or has a vertex where the deformation is not defined.
    """
    with torch.no_grad():
        moved = deformation(torch.from_numpy(mesh.check().vertices.astype(np.float64)))
    return replace(mesh, vertices=moved.numpy().astype(np.float32))


def warp_splats(
    means: Tensor, quats: Tensor, log_scales: Tensor, deformation: Deformation
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the means, quats and log_scales of splats that were moved, of the same shapes.

    Differentiable in what ``deformation`` and its Jacobian are, and in the splats. The colours turn by
    ``polar(deformation.jacobian(means))`` of :mod:`recon.deform.gaussians`.

    Args:
        means: (N, 3) centres.
        quats: (N, 4) wxyz, not zero, of any length; those returned have length 1.
        log_scales: (N, 3) natural logarithm of the standard deviations.
        deformation: f.
    """
    axes = rotation_matrices(quats) * log_scales.exp()[:, None]
    return deformation(means), *splats_of(deformation.jacobian(means) @ axes)
