"""Splats that a surface carries along: each is bound to a triangle, and moves by the triangle's affine map.

A triangle with the edges e₁ and e₂ from its first vertex v has the frame

    E = [e₁, e₂, e₁ × e₂ / √|e₁ × e₂|]

with a third axis that is normal, and as long as the root of twice the area. From the template to a deformed surface it
takes p to v' + E' E⁻¹ (p − v): in its plane as the first fundamental form changes, across it by the root of the change
of area. So an isometry keeps thickness and distance from the surface, and a similarity of the surface is one of the
splats. A mean is stored as x = E⁻¹ (μ − v), which is barycentric coordinates (1 − x₁ − x₂, x₁, x₂) and an offset x₃;
a Gaussian's axes as E⁻¹ R S.

Sources: Sumner, Popović 2004, "Deformation Transfer for Triangle Meshes", §3, for the frame; Qian et al. 2024,
"GaussianAvatars: Photorealistic Head Avatars with Rigged 3D Gaussians", for splats in the frames of triangles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kernels.geometry import rotation_matrices
from kernels.nearest import nearest
from recon.deform.gaussians import polar, splats_of
from recon.errors import InputError
from recon.mesh.mesh import Mesh

FLATTEST = 1e-6
"""Triangles of a template that are less high than this share of their longest edge carry nothing."""


@dataclass(frozen=True)
class Carried:
    """N splats bound to a template of V vertices.

    Attributes:
        template: (V, 3) float64.
        faces: (F, 3) int64, those of the template's that can carry.
        index: (N,) int64, the place in ``faces`` of each splat's triangle.
        local: (N, 3) means in the frames of the triangles.
        axes: (N, 3, 3) the Gaussians' axes in these frames, as columns.
    """

    template: Tensor
    faces: Tensor
    index: Tensor
    local: Tensor
    axes: Tensor

    def at(self, vertices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the splats where deformed ``vertices`` carry them.

        Args:
            vertices: (V, 3). Differentiable as long as no triangle has lost its area.

        Returns:
            means: (N, 3), as the others of the vertices' dtype.
            quats: (N, 4) wxyz, of length 1 and either sign.
            log_scales: (N, 3).

        Raises:
            InputError: the vertices are not as many as the template's, or not finite (code ``"bad-vertices"``).
        """
        corner, frame = (t.index_select(0, self.index) for t in _frames(self._checked(vertices), self.faces))
        means = corner + (frame @ self.local.to(frame)[:, :, None])[:, :, 0]
        return means, *splats_of(frame @ self.axes.to(frame))

    def rotations(self, vertices: Tensor) -> Tensor:
        """Return (N, 3, 3) by which the colours have turned where (V, 3) ``vertices`` are; raises as :meth:`at`."""
        frames, rest = (_frames(v, self.faces)[1] for v in (self._checked(vertices), self.template))
        return polar(frames @ torch.linalg.inv(rest).to(frames)).index_select(0, self.index)

    def _checked(self, vertices: Tensor) -> Tensor:
        if vertices.shape != self.template.shape or not torch.isfinite(vertices).all():
            raise InputError(
                f"The vertices {tuple(vertices.shape)} do not fit the template {tuple(self.template.shape)}, "
                "or are not finite.",
                "Deform the mesh that the splats were bound to.",
                "bad-vertices",
            )
        return vertices


def bind(means: Tensor, quats: Tensor, log_scales: Tensor, template: Mesh) -> Carried:
    """Bind splats to the triangles of ``template`` that are nearest to their means.

    Args:
        means: (N, 3) centres.
        quats: (N, 4) wxyz, not zero, of any length.
        log_scales: (N, 3) natural logarithm of the standard deviations.
        template: in the units of the splats.

    Raises:
        InputError: a splat is not finite (code ``"bad-splats"``), the mesh cannot be worked with, or no triangle of it
            has an area (code ``"bad-mesh"``).
    """
    if not all(torch.isfinite(t).all() for t in (means, quats, log_scales)):
        raise InputError("A splat has a mean, quaternion or scale that is not finite.", "Remove it.", "bad-splats")
    device, dtype = means.device, means.dtype
    vertices = torch.from_numpy(template.check().vertices.astype(np.float64)).to(device)
    faces = torch.from_numpy(template.faces.astype(np.int64)).to(device)
    faces = faces[_carries(vertices, faces)]
    if len(faces) == 0:
        raise InputError("No triangle of the template has an area.", "Repair it in a mesh editor.", "bad-mesh")
    places = means.detach().double()
    index = nearest(places, vertices, faces.int())[1].long()
    corner, frame = (t.index_select(0, index) for t in _frames(vertices, faces))
    axes = rotation_matrices(quats.detach().double()) * log_scales.detach().double().exp()[:, None]
    local = torch.linalg.solve(frame, torch.cat([(places - corner)[:, :, None], axes], dim=2)).to(dtype)
    return Carried(vertices, faces, index, local[:, :, 0].contiguous(), local[:, :, 1:].contiguous())


def _frames(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return (F, 3) the first vertex of each face and (F, 3, 3) its frame E."""
    first, second, third = vertices[faces].unbind(1)
    along, aside = second - first, third - first
    normal = torch.linalg.cross(along, aside)
    squared = normal.square().sum(dim=1, keepdim=True).clamp(min=torch.finfo(normal.dtype).tiny)
    return first, torch.stack([along, aside, normal * squared**-0.25], dim=2)


def _carries(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return (F,) whether each face's frame can be inverted."""
    corners = vertices[faces]
    edges = corners - corners.roll(1, dims=1)
    area = torch.linalg.vector_norm(torch.linalg.cross(edges[:, 0], edges[:, 1]), dim=1)
    return area > FLATTEST * edges.square().sum(dim=2).amax(dim=1)
