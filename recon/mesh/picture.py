"""A picture of a mesh for people, lit from the camera.

Seen from the front, a little from the right and above, without perspective. +y is up, unless the mesh is flat that way.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.interpolate import interpolate
from kernels.rasterize_mesh import rasterize_mesh
from recon.mesh.mesh import Mesh

_FINER = 2
"""Pixels across one of the picture's, averaged."""
_FILLED = 0.9
"""Share of the picture that the mesh's longest side takes."""
_BACKGROUND = 0.96
_PLAIN = (0.72, 0.74, 0.78)


def picture(mesh: Mesh, side: int = 640, turn: float = 30.0, tilt: float = 20.0) -> NDArray[np.float32]:
    """Return (side, side, 3) float32 in [0, 1].

    Args:
        mesh: with one face at least; its vertex colours are shown, if it has any.
        side: pixels.
        turn, tilt: degrees around the vertical and above the horizon that it is seen from.
    """
    yaw, pitch = np.radians(turn), np.radians(tilt)
    right = np.array([np.cos(yaw), 0, -np.sin(yaw)])
    towards = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    axes = np.stack([right, np.cross(towards, right), towards])
    turned = mesh.vertices.astype(np.float64) @ axes.T
    used = turned[np.unique(mesh.faces)]
    low, high = used.min(axis=0), used.max(axis=0)
    scale = 2 * _FILLED / max(float((high - low).max()), 1e-300)
    local = torch.from_numpy(((turned - (low + high) / 2) * scale).astype(np.float32))
    clip = torch.cat([local * torch.tensor([1.0, -1.0, -1.0]), torch.ones(len(local), 1)], dim=1)
    faces = torch.from_numpy(mesh.faces)
    rast, _ = rasterize_mesh(clip[None], faces, _FINER * side, _FINER * side)
    a, b, c = (local[faces[:, k].long()] for k in range(3))
    normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    colours = torch.tensor(_PLAIN).expand(len(local), 3) if mesh.colours is None else torch.from_numpy(mesh.colours)
    shown, face = interpolate(colours.contiguous(), rast, faces)[0][0], rast[0, ..., 3].long()
    light = 0.25 + 0.75 * normals[(face - 1).clamp(min=0), 2].abs()
    image = torch.where((face > 0)[..., None], shown * light[..., None], torch.tensor(_BACKGROUND))
    result: NDArray[np.float32] = image.view(side, _FINER, side, _FINER, 3).mean(dim=(1, 3)).numpy()
    return result
