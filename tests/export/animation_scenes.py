"""A sheet that rolls up, for tests of animations in files."""

import numpy as np

from recon.mesh.animation import Animation
from recon.mesh.mesh import Mesh

N = 9


def sheet(look: str = "textured") -> Mesh:
    """Return a square of one metre, 1.5 m in front, whose texture has a seam along the middle."""
    y, x = np.mgrid[0 : 1 : N * 1j, 0 : 1 : N * 1j]
    vertices = np.stack([x, y, 1.5 + 0 * x], axis=-1).reshape(-1, 3).astype(np.float32)
    i = (np.arange(N - 1)[:, None] * N + np.arange(N - 1)).ravel()
    faces = np.concatenate([np.stack([i, i + N, i + 1], 1), np.stack([i + 1, i + N, i + N + 1], 1)]).astype(np.int32)
    colours = vertices.clip(0, 1) if look == "coloured" else None
    if look != "textured":
        return Mesh(vertices, faces, colours)
    uvs = vertices[faces][:, :, :2] * np.float32(0.5)
    uvs[uvs[:, :, 0].mean(axis=1) > 0.25] += np.float32(0.25)
    texture = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    return Mesh(vertices, faces, uvs=uvs, texture=texture)


def rolling(look: str = "textured", count: int = 5) -> Animation:
    """Roll the sheet up around cylinders of ever smaller radius, which keeps its metric."""
    mesh = sheet(look)
    x, y, z = mesh.vertices.astype(np.float64).T
    bends = [0.3 * i for i in range(count)]
    frames = [np.stack([np.sin(b * x) / b, y, z + (1 - np.cos(b * x)) / b] if b else [x, y, z], 1) for b in bends]
    return Animation(mesh, np.stack(frames).astype(np.float32), 25.0)
