"""The surface of a known field with its edges and corners: dual contouring's vertices on the cells of FlexiCubes.

A vertex minimises the squared distances to the tangent planes at its crossings p with unit normals n (the quadratic
error function), as near the crossings' centre c as these leave it:

    v = c + (Σ n nᵀ)⁺ Σ n (n · (p - c)),      kept within its cell,

where ⁺ inverts eigenvalues above 1 % of the largest. So it lies on the edge where two planes meet, in the corner of
three, and normals that differ by a few degrees, as on a mesh's facets, do not send it to and fro along the surface.
Quads are split along the diagonal whose ends' normals agree more, which leaves edges unbroken.

Sources: Ju et al. 2002, "Dual Contouring of Hermite Data", §2; Schaefer, Ju, Warren 2007, "Manifold Dual Contouring";
Shen et al. 2023 (FlexiCubes), supplement, for the diagonals.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from recon.isosurface.faces import split_by_normals
from recon.isosurface.flexicubes import FlexiCubes, Surface, sampled
from recon.isosurface.meshsdf import Function, slopes

_LEAST = 0.1**2
"""Share of the largest eigenvalue below which planes are taken for one: those that meet at less than 11 degrees."""


def sharp_surface(cubes: FlexiCubes, field: Tensor, function: Function) -> Surface:
    """Return the surface of a field that is known, not fitted. No gradients.

    Args:
        cubes: the grid.
        field: values at its samples, shaped as ``cubes.positions`` without its last axis; negative inside.
        function: (N, 3) points -> (N,) the same field anywhere, differentiable in the points: its slopes are the
            normals.

    Returns:
        A closed surface; its deviation is zero.

    Raises:
        ValueError: a shape or a dtype does not fit.
    """
    contour = cubes.contour(field)
    positions = cubes.positions.view(-1, 3)[contour.samples].double()
    ends = contour.edges.long()
    inner, outer = sampled(field.detach(), contour).double()[ends].unbind(dim=1)
    inner, outer = inner.clamp(max=-1e-30), outer.clamp(min=0)  # where the sign is kept against the value
    a, b = positions[ends].unbind(dim=1)
    crossings = a + (inner / (inner - outer))[:, None] * (b - a)
    normals = normalize(slopes(crossings.to(field.dtype), function)[1].double(), dim=1)

    # Each crossing is averaged by the four vertices of its quad.
    vertex = contour.quads.long().flatten()
    p, n = (t.repeat_interleave(4, dim=0) for t in (crossings, normals))

    def summed(values: Tensor) -> Tensor:
        return values.new_zeros(contour.vertex_count, *values.shape[1:]).index_add(0, vertex, values)

    centre = summed(p) / summed(torch.ones_like(p))
    values, axes = torch.linalg.eigh(summed(n[:, :, None] * n[:, None, :]))
    right = summed(n * (n * (p - centre[vertex])).sum(dim=1, keepdim=True))
    corners = positions[contour.corners.long()][contour.vertex_cells()]
    inverse = torch.where(values > _LEAST * values[:, 2:], 1 / values, 0)
    vertices = centre + (axes * inverse[:, None] * (axes.mT @ right[..., None]).mT).sum(dim=2)
    vertices = torch.clamp(vertices, corners.amin(dim=1), corners.amax(dim=1)).to(field.dtype)
    faces = split_by_normals(contour.quads, slopes(vertices, function)[1])
    return Surface(vertices, faces, vertices.new_zeros(()), contour)
