"""A picture of a mesh for people: points drawn evenly from its area, into a depth buffer, lit from the camera.

Seen from the front, a little from the right and above, without perspective. +y is up, unless the mesh is flat that way.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from recon.mesh.mesh import Mesh

_DENSITY = 4.0
"""Points a pixel of the surface facing it: few pixels are left without, and a median over neighbours fills them."""
_BATCH = 400_000
_BACKGROUND = 0.96
_PLAIN = np.array([0.72, 0.74, 0.78])


def picture(
    mesh: Mesh,
    side: int = 640,
    turn: float = 30.0,
    tilt: float = 20.0,
    check: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Return (side, side, 3) float32 in [0, 1].

    Args:
        mesh: with one face at least.
        side: pixels.
        turn, tilt: degrees around the vertical and above the horizon that it is seen from.
        check: called now and then; may raise.
    """
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    corners = (corners - (low + high) / 2) / max(float(np.linalg.norm(high - low)), 1e-300)
    yaw, pitch = np.radians(turn), np.radians(tilt)
    right = np.array([np.cos(yaw), 0, -np.sin(yaw)])
    towards = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    axes = np.stack([right, np.cross(towards, right), towards])
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normals, axis=1) / 2
    if area.sum() == 0:
        return np.full((side, side, 3), _BACKGROUND, np.float32)
    light = np.abs(normals @ towards) / np.maximum(2 * area, 1e-300)
    generator = np.random.default_rng(0)
    count = int(_DENSITY * side**2 * max(1.0, float(area.sum())))
    depth = np.full(side * side, -np.inf)
    image = np.full((side * side, 3), _BACKGROUND)
    for _ in range(count // _BATCH + 1):
        check()
        face = generator.choice(len(area), _BATCH, p=area / area.sum())
        u = generator.random((_BATCH, 2))
        u = np.where(u.sum(axis=1, keepdims=True) > 1, 1 - u, u)
        share = np.column_stack([1 - u.sum(axis=1), u])
        x, y, z = (np.einsum("pc,pci->pi", share, corners[face]) @ axes.T).T
        pixel = np.clip((0.5 - y) * side, 0, side - 1).astype(int) * side + np.clip(
            (x + 0.5) * side, 0, side - 1
        ).astype(int)
        order = np.argsort(z)
        order = order[z[order] > depth[pixel[order]]]
        depth[pixel[order]] = z[order]  # the nearest is written last
        colour = _PLAIN
        if mesh.colours is not None:
            colour = np.einsum("pc,pci->pi", share[order], mesh.colours[mesh.faces[face[order]]])
        image[pixel[order]] = colour * (0.25 + 0.75 * light[face[order], None])
    shown = (image.reshape(side, side, 3) * 255).round().astype(np.uint8)
    return cv2.medianBlur(shown, 3).astype(np.float32) / np.float32(255)
