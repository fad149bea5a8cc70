"""What FlexiCubes is compared with: the true distance on a grid, and DMTet, a short one of our own.

DMTet: values and positions of the samples of a grid of tetrahedra, each cube cut into six around its diagonal (Kuhn);
where an edge's ends differ in sign there is a vertex, where the interpolated value is zero; a tetrahedron has one
triangle or two. The samples move by up to half a cell, as those of FlexiCubes do.

Sources: Shen et al. 2021, "Deep Marching Tetrahedra", §3.2; van Oosterom & Strackee 1983,
"The Solid Angle of a Plane Triangle".
Conventions: values are negative inside.
"""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import torch
import trimesh
from scipy.ndimage import label
from torch import Tensor
from torch.nn.functional import avg_pool3d, normalize, pad

from kernels.nearest import nearest
from recon.isosurface.flexicubes import rows
from recon.isosurface.grids import Box


class Truth:
    """The signed distance of a closed mesh, which may have wrinkles that turn inside out."""

    def __init__(self, mesh: trimesh.Trimesh) -> None:
        self.vertices = torch.from_numpy(np.array(mesh.vertices, np.float64))
        self.faces = torch.from_numpy(np.array(mesh.faces, np.int32))
        self._corners = self.vertices[self.faces.long()]
        a, b, c = self._corners.unbind(dim=1)
        self._normals = normalize(torch.linalg.cross(b - a, c - a), dim=1, eps=1e-30)

    def field(self, box: Box) -> Tensor:
        """Return (Nx + 1, Ny + 1, Nz + 1) float32 distances at a box's samples, negative inside.

        Signs are those of the winding number. Neighbours further from the surface than half a cell are on one side.
        """
        points = box.samples().view(-1, 3).double()
        distance = nearest(points, self.vertices, self.faces)[0].sqrt()
        far, _ = label((distance > box.cell / 2).view(box.shape).numpy())
        part = torch.from_numpy(far).view(-1).long()
        _, first = np.unique(far, return_index=True)
        inside = self._inside(points[torch.from_numpy(first)])[part]
        near = (part == 0).nonzero()[:, 0]
        inside[near] = self._inside(points[near])
        return torch.where(inside, -distance, distance).float().view(box.shape)

    def _inside(self, points: Tensor) -> Tensor:
        """Return whether the triangles' solid angles, seen from (N, 3) points, add up to a sphere's."""
        total = []
        for part in points.split(1 + 1_000_000 // len(self.faces)):
            a, b, c = (self._corners[None, :, k] - part[:, None] for k in range(3))
            x, y, z = (v.norm(dim=2) for v in (a, b, c))
            volume = (a * torch.linalg.cross(b, c)).sum(dim=2)
            spread = x * y * z + (a * b).sum(dim=2) * z + (b * c).sum(dim=2) * x + (c * a).sum(dim=2) * y
            total.append(torch.atan2(volume, spread).sum(dim=1))
        return torch.cat(total) > math.pi  # half of a sphere's solid angle, 4 pi, as the formula gives halves

    def plane_distance(self, points: Tensor) -> Tensor:
        """Return (N,) distances of (N, 3) points to the planes of the nearest faces, whose normals are their slopes."""
        at = points.detach().double()
        _, index, weights = nearest(at, self.vertices, self.faces)
        face = index.long()
        foot = (weights[..., None] * self._corners[face]).sum(dim=1)
        return ((points.double() - foot) * self._normals[face]).sum(dim=1).to(points.dtype)


def _cube() -> Tensor:
    """Return (6, 4) corners, x + 2y + 4z, of the tetrahedra of a cube, of positive volume."""
    found = []
    for a, b, c in permutations((1, 2, 4)):
        tet = [0, a, a | b, a | b | c]
        even = (a, b, c) in ((1, 2, 4), (2, 4, 1), (4, 1, 2))
        found.append(tet if even else [tet[0], tet[2], tet[1], tet[3]])
    return torch.tensor(found)


def _cases() -> tuple[Tensor, Tensor]:
    """Return (16, 2, 3, 2) the edges, as pairs of corners, of each case's triangles, and (16,) how many there are."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    edges, count = torch.zeros(16, 2, 3, 2, dtype=torch.int64), torch.zeros(16, dtype=torch.int64)
    for case in range(1, 15):
        inner, outer = ([c for c in range(4) if (case >> c & 1) == inside] for inside in (1, 0))
        if len(inner) == 2:
            (a, b), (c, d) = inner, outer
            loop = [(a, c), (a, d), (b, d), (b, c)]
        else:
            loop = [(i, o) for i in inner for o in outer]
        at = np.array([(corners[i] + corners[o]) / 2 for i, o in loop])
        outward = corners[outer].mean(axis=0) - corners[inner].mean(axis=0)
        if np.dot(np.cross(at[1] - at[0], at[2] - at[0]), outward) < 0:
            loop.reverse()
        triangles = [loop[:3]] if len(loop) == 3 else [loop[:3], [loop[0], loop[2], loop[3]]]
        count[case] = len(triangles)
        edges[case, : len(triangles)] = torch.tensor(triangles)
    return edges, count


_TETS, (_EDGES, _COUNT) = _cube(), _cases()


class MarchingTetrahedra:
    """A grid of cubes of six tetrahedra each; called with values and a deformation, it gives their surface."""

    def __init__(self, box: Box) -> None:
        self._box, self._positions = box, box.samples().view(-1, 3)
        _, ny, nz = box.shape
        self._corners = torch.tensor([(c & 1) * ny * nz + (c >> 1 & 1) * nz + (c >> 2) for c in range(8)])
        self._within = torch.zeros(box.shape, dtype=torch.bool)
        self._within[1:-1, 1:-1, 1:-1] = True

    def __call__(self, field: Tensor, deform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the surface, differentiable in both arguments.

        Args:
            field: (Nx + 1, Ny + 1, Nz + 1); on the border it counts as outside.
            deform: (Nx + 1, Ny + 1, Nz + 1, 3), in half cells before tanh.

        Returns:
            vertices: (V, 3).
            faces: (F, 3) int32, counter-clockwise seen from outside.
            samples: (P,) that the vertices depend on.
        """
        inside = (field.detach() < 0) & self._within
        share = avg_pool3d(inside[None, None].float(), 2, 1)[0, 0]
        inside = inside.view(-1)
        cubes = pad((share > 0) & (share < 1), (0, 1) * 3).view(-1).nonzero()
        tets = (cubes + self._corners)[:, _TETS].view(-1, 4)
        case = (inside[tets] * torch.tensor([1, 2, 4, 8])).sum(dim=1)
        ends = []
        for k in range(2):
            some = (_COUNT[case] > k).nonzero()[:, 0]
            edges = _EDGES[case[some], k]  # (n, 3, 2)
            ends.append(tets[some].gather(1, edges.view(-1, 6)).view(-1, 2))
        inner, outer = torch.cat(ends).unbind(dim=1)
        count = len(inside)
        key, faces = torch.unique(inner * count + outer, return_inverse=True)
        samples, places = torch.unique(torch.stack([key // count, key % count]), return_inverse=True)
        values = rows(field.reshape(-1), samples)
        moved = self._positions[samples] + self._box.cell / 2 * torch.tanh(rows(deform.reshape(-1, 3), samples))
        (a, b), (p, q) = ([of.index_select(0, end) for end in places] for of in (values, moved))
        t = (a / (a - b.clamp(min=0)))[:, None]
        return p + t * (q - p), faces.view(-1, 3).int(), samples
