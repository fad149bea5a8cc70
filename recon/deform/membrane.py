"""The metric: how far each triangle is from the size and the shape that it has in the template.

A triangle with edges E = (x1 − x0, x2 − x0), 3 × 2, has the first fundamental form g = Eᵀ E. Against the template's g0
its strain is dimensionless, and zero where the surface is bent alone:

    S = g0^(−1/2) g g0^(−1/2) − I                    (2 × 2, symmetric; its eigenvalues are λ² − 1 of the stretches λ)

Source: Barbany, Colomé & Torras 2024, "Deformable surface reconstruction via Riemannian metric preservation", §3, whose
(g − g0)² is weighted here by g0: a difference of a hundredth is the same in every triangle and unit.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Membrane:
    """Strain of the faces of a mesh.

    Args:
        template: (V, 3) float64 vertices whose metric is to be kept.
        faces: (F, 3) int64.
    """

    def __init__(self, template: Tensor, faces: Tensor) -> None:
        self.faces = faces
        edges = _edges(template, faces)
        values, vectors = torch.linalg.eigh(edges.mT @ edges)
        self._root = vectors @ torch.diag_embed(values.rsqrt()) @ vectors.mT
        areas = values.prod(1).sqrt() / 2
        self.shares = areas / areas.sum()
        """(F,) of the template's area."""

    def strain(self, vertices: Tensor) -> Tensor:
        """Return (F, 3): S11, S22 and √2 S12, whose squares add up to |S|²."""
        a, b = self._frames(vertices).unbind(2)
        return torch.stack([(a * a).sum(1) - 1, (b * b).sum(1) - 1, 2**0.5 * (a * b).sum(1)], 1)

    def jacobian(self, vertices: Tensor) -> Tensor:
        """Return (F, 3, 9) of :meth:`strain` by the coordinates of a face's three vertices."""
        frames = self._frames(vertices)  # (F, 3, 2): D = E g0^(−1/2), S = Dᵀ D − I
        corners = torch.cat([-self._root.sum(1, keepdim=True), self._root], 1)  # (F, 3, 2): dD by each corner
        a, b = frames[:, :, 0], frames[:, :, 1]
        rows = [
            2 * corners[:, :, 0, None] * a[:, None],
            2 * corners[:, :, 1, None] * b[:, None],
            2**0.5 * (corners[:, :, 0, None] * b[:, None] + corners[:, :, 1, None] * a[:, None]),
        ]
        return torch.stack([row.flatten(1) for row in rows], 1)

    def _frames(self, vertices: Tensor) -> Tensor:
        return _edges(vertices, self.faces) @ self._root


def _edges(vertices: Tensor, faces: Tensor) -> Tensor:
    corners = vertices[faces]
    return (corners[:, 1:] - corners[:, :1]).mT
