"""Deformations of space that cannot fold: a composition of planar maps, each lifted to the prisms over its plane.

A layer moves points in a plane, by a Tutte embedding Ψ of a grid (see :mod:`recon.deform.planar`), the same at every
height above it:

    Φ(p) = p + R₂ᵀ (Ψ(R₂ p) − R₂ p),    f = Φ_L ∘ … ∘ Φ₁,    f⁻¹ = Φ₁⁻¹ ∘ … ∘ Φ_L⁻¹

with R₂ the first two rows of the layer's rotation R. Each Φ is a piecewise linear homeomorphism of space, and so is f:
injective, with positive Jacobian determinants, and with an inverse that is exact to rounding.

Two things differ from the paper. The boundary of the grid stays and Ψ is the identity beyond it, so that planes may
have any direction and there is no box to stay in. And the directions are spread evenly over all rotations instead of
turning through the axes', as a twist about an axis, which no layer over an axis' plane can begin, is then learned like
any other motion.

Sources: Sun, Groueix, Song, Huang, Aigerman 2024, "TutteNet: Injective 3D Deformations by Composition of 2D Mesh
Deformations"; Alexa 2022, "Super-Fibonacci Spirals: Fast, Low-Discrepancy Sampling of SO(3)", for the directions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels.geometry import rotation_matrices
from recon.deform.planar import Grid, PlanarMap
from recon.errors import InputError

RATIO = 3.0
"""Weights of edges lie between this and its inverse."""
SIDE = math.sqrt(3)
"""Side of the squares, in units of the cube's: whatever the direction, the unit cube is over them."""


class TutteNet(torch.nn.Module):
    """A homeomorphism f of space, differentiable in its parameters and in points; at first the identity.

    What is to be deformed belongs in the unit cube, which it may fill and leave: that lies over the squares of all
    layers, and what is farther out over fewer and fewer. The embeddings are solved for in float64; points are mapped in
    their own dtype.

    Attributes:
        edges: (L, E) float64, any real numbers: of the weights of the edges that have an interior end.
        planes: (L, 2, 3) float64, R₂ of each layer.
    """

    planes: Tensor

    def __init__(self, layers: int = 8, size: int = 11) -> None:
        """Make L ``layers`` of grids with ``size`` N vertices along each side, at least 1 and 3."""
        super().__init__()
        self._grid = Grid(size)
        self.edges = torch.nn.Parameter(torch.zeros(layers, len(self._grid.edges), dtype=torch.float64))
        self.register_buffer("planes", _rotations(layers)[:, :2])

    def forward(self, points: Tensor) -> Tensor:
        """Return (P, 3) f(points) of (P, 3) ``points``.

        Raises:
            InputError: the shape is another, or a point is not finite (code ``"bad-points"``).
        """
        at = _columns(points)
        for plane, layer in self._layers(at):
            u, v = _over(plane, at)
            x, y, _ = layer(u, v)
            at = at + plane.T @ (SIDE * torch.stack([x - u, y - v]))
        return at.T.contiguous()

    def inverse(self, points: Tensor) -> Tensor:
        """Return (P, 3) f⁻¹(points) of (P, 3) ``points``; differentiable, and raises, as :meth:`forward`."""
        at = _columns(points)
        for plane, layer in reversed(self._layers(at)):
            x, y = _over(plane, at)
            u, v = layer.inverse(x, y)
            at = at + plane.T @ (SIDE * torch.stack([u - x, v - y]))
        return at.T.contiguous()

    def jacobian(self, points: Tensor) -> Tensor:
        """Return (P, 3, 3) ∂f/∂p at (P, 3) ``points``, its rows by the coordinates of f; raises as :meth:`forward`.

        Piecewise constant: differentiable in the parameters. Where pieces meet, it is that of one of them.
        """
        at = _columns(points)
        product = torch.eye(3).to(at)[:, :, None].expand(3, 3, len(points))
        for plane, layer in self._layers(at):
            u, v = _over(plane, at)
            x, y, (a, b, c, d) = layer(u, v)
            at = at + plane.T @ (SIDE * torch.stack([x - u, y - v]))
            p, q = torch.tensordot(plane, product, 1)
            product = product + torch.tensordot(plane.T, torch.stack([(a - 1) * p + b * q, c * p + (d - 1) * q]), 1)
        return product.permute(2, 0, 1).contiguous()

    def _layers(self, at: Tensor) -> list[tuple[Tensor, PlanarMap]]:
        bound = math.log(RATIO)
        weights = (bound * torch.tanh(self.edges / bound)).exp()
        return list(zip(self.planes.to(at), PlanarMap.of(self._grid.embed(weights)), strict=True))


def _over(plane: Tensor, at: Tensor) -> Tensor:
    """Return (2, P) where (3, P) points are over the square of ``plane`` (2, 3)."""
    return plane @ (at - 0.5) / SIDE + 0.5


def _columns(points: Tensor) -> Tensor:
    """Return (3, P) of (P, 3) points, which are faster to work with, or raise."""
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"The points have shape {tuple(points.shape)}, not (P, 3).", "", "bad-points")
    finite = torch.isfinite(points).all(dim=1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise InputError(f"Of {len(points)} points, point {first} is not finite.", "Leave it out.", "bad-points")
    return points.T.contiguous()


def _rotations(count: int) -> Tensor:
    """Return (count, 3, 3) float64 spread evenly over all rotations: a super-Fibonacci spiral of quaternions."""
    s = torch.arange(count, dtype=torch.float64) + 0.5
    inner, outer = (s / count).sqrt(), (1 - s / count).sqrt()
    alpha, beta = 2 * math.pi * s / math.sqrt(2), 2 * math.pi * s / 1.533751168755204288118041
    parts = [inner * alpha.sin(), inner * alpha.cos(), outer * beta.sin(), outer * beta.cos()]
    return rotation_matrices(torch.stack(parts, dim=1))
