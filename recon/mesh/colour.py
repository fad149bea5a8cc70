"""Vertex colours from views: the mean over the views that see a vertex, weighted by how squarely and closely."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch.nn.functional import grid_sample, normalize

from recon.capture.capture import Array, Camera
from recon.mesh.depth import DepthMap
from recon.mesh.mesh import Mesh
from recon.mesh.normals import vertex_normals


class Colouring:
    """Colours of a mesh's vertices, gathered view by view."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._points = torch.from_numpy(mesh.vertices)
        self._normals = torch.from_numpy(vertex_normals(mesh.vertices, mesh.faces))
        self._sum = torch.zeros(len(mesh.vertices), 3)
        self._weight = torch.zeros(len(mesh.vertices), 1)

    def add(self, rgb: Array, depth: DepthMap, camera: Camera) -> None:
        """Add the colours that one view shows; vertices farther from its depth than the tolerance are hidden.

        Args:
            rgb: (H, W, 3) in [0, 1], of any resolution.
            depth: the view's depth map.
            camera: of the depth map's size.
        """
        view = torch.from_numpy(camera.viewmat).float()
        local = self._points @ view[:3, :3].T + view[:3, 3]
        u, v, z = (local @ torch.from_numpy(camera.K).float().T).unbind(dim=1)
        u, v = u / z, v / z
        observed, _, incidence, _ = (t[0] for t in depth.sample(u[None], v[None]))
        facing = -(normalize(local, dim=1) * (self._normals @ view[:3, :3].T)).sum(dim=1)
        seen = ((z > 0) & (incidence > 0) & (facing > 0) & ((observed - z).abs() < depth.tolerance)).nonzero()[:, 0]
        grid = torch.stack([u[seen] * (2 / camera.width) - 1, v[seen] * (2 / camera.height) - 1], dim=1)
        image = torch.from_numpy(np.ascontiguousarray(rgb, np.float32)).permute(2, 0, 1)[None]
        colours = grid_sample(image, grid[None, None], "bilinear", "border", align_corners=False)[0, :, 0].T
        weight = ((facing[seen] / z[seen]) ** 2)[:, None]
        self._sum[seen] += weight * colours
        self._weight[seen] += weight

    def mesh(self) -> Mesh:
        """Return the mesh with colours; unseen vertices have the nearest seen one's, all are grey if none was seen."""
        seen = (self._weight[:, 0] > 0).numpy()
        colours = np.full((len(seen), 3), 0.5, np.float32)
        colours[seen] = (self._sum[seen] / self._weight[seen]).clamp(0, 1).numpy()
        if seen.any() and not seen.all():
            nearest = cKDTree(self._mesh.vertices[seen]).query(self._mesh.vertices[~seen])[1]
            colours[~seen] = colours[seen][nearest]
        return Mesh(self._mesh.vertices, self._mesh.faces, colours)
