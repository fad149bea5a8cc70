"""Bending: how far the angle between two faces is from the template's.

The hinge at an inner edge e with the areas A1, A2 of its faces has the bending energy |e|² / (A1 + A2) (θ − θ0)², in
which θ is the angle between their normals, positive where they are convex: on a grid about ∫ (2H − 2H0)² dA.

Source: Grinspun, Hirani, Desbrun & Schröder 2003, "Discrete shells", §3; θ's gradient as in Bridson, Marino & Fedkiw
2003, "Simulation of clothing with folds and wrinkles", §4.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.mesh.topology import adjacent, directed_edges


class Bending:
    """Hinges of a mesh.

    Attributes:
        hinges: (E, 4) int64, the ends of each inner edge, then the vertices across it.

    Args:
        template: (V, 3) float64 vertices at rest.
        faces: (F, 3) int64, manifold, wound alike.
    """

    def __init__(self, template: Tensor, faces: Tensor) -> None:
        self.hinges = torch.from_numpy(hinges_of(faces.int().numpy()))
        x0, x1, x2, x3 = template[self.hinges].unbind(1)
        area = (torch.linalg.cross(x1 - x0, x2 - x0).norm(dim=1) + torch.linalg.cross(x3 - x0, x1 - x0).norm(dim=1)) / 2
        self._scale = area.rsqrt() * (x1 - x0).norm(dim=1)
        self._rest = self._angles(template)

    def residuals(self, vertices: Tensor) -> Tensor:
        """Return (E,): the squares' sum is the integral of the squared change of twice the mean curvature."""
        change = self._angles(vertices) - self._rest
        return self._scale * torch.remainder(change + torch.pi, 2 * torch.pi).sub(torch.pi)

    def jacobian(self, vertices: Tensor) -> Tensor:
        """Return (E, 12) of :meth:`residuals` by the coordinates of a hinge's four vertices."""
        x0, x1, x2, x3 = vertices[self.hinges].unbind(1)
        edge = x1 - x0
        length = edge.norm(dim=1, keepdim=True)
        left, right = torch.linalg.cross(edge, x2 - x0), torch.linalg.cross(x3 - x0, edge)
        left = left / left.square().sum(1, keepdim=True)
        right = right / right.square().sum(1, keepdim=True)
        along = edge / length
        at0 = (((x2 - x1) * along).sum(1, keepdim=True) * left) + (((x3 - x1) * along).sum(1, keepdim=True) * right)
        at1 = -(((x2 - x0) * along).sum(1, keepdim=True) * left) - (((x3 - x0) * along).sum(1, keepdim=True) * right)
        gradient = torch.stack([at0, at1, length * left, length * right], 1)
        return -self._scale[:, None] * gradient.flatten(1)

    def _angles(self, vertices: Tensor) -> Tensor:
        x0, x1, x2, x3 = vertices[self.hinges].unbind(1)
        edge = x1 - x0
        left, right = torch.linalg.cross(edge, x2 - x0), torch.linalg.cross(x3 - x0, edge)
        sine = (torch.linalg.cross(left, right) * edge).sum(1) / edge.norm(dim=1)
        return torch.atan2(sine, (left * right).sum(1))


def hinges_of(faces: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return (E, 4): the inner edges of a manifold mesh, as their first face runs, then the two corners across."""
    pairs = adjacent(faces)
    across = faces[pairs // 3, (pairs + 2) % 3]
    return np.concatenate([directed_edges(faces)[pairs[:, 0]], across], 1)
