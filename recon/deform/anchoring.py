"""Where on a surface points lie that a camera sees: pixels to faces and barycentric coordinates."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from recon.deform.observations import SurfacePoints

_AT_ONCE = 1 << 22  # pairs of pixels and faces


def anchored(
    pixels: NDArray[np.float64], vertices: NDArray[np.float64], faces: NDArray[np.int64], K: NDArray[np.float64]
) -> tuple[SurfacePoints, NDArray[np.bool_]]:
    """Return the points of a surface that are seen at pixels.

    Args:
        pixels: (N, 2).
        vertices: (V, 3) in the camera's frame (OpenCV axes).
        faces: (F, 3); those that reach behind the camera are not seen.
        K: (3, 3).

    Returns:
        The nearest point at each pixel, and (N,) whether there is one; where there is none, the point means nothing.
    """
    image = vertices @ K.T
    ahead = (vertices[faces][:, :, 2] > 0).all(1)
    usable = faces[ahead]
    depth = image[usable][:, :, 2]
    corners = image[usable][:, :, :2] / depth[:, :, None]  # (F, 3, 2) pixels
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    twice = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    twice = np.where(twice == 0, np.inf, twice)
    face, weights = np.zeros(len(pixels), np.int64), np.zeros((len(pixels), 3))
    found = np.zeros(len(pixels), bool)
    step = max(1, _AT_ONCE // max(len(usable), 1))
    for begin in range(0, len(pixels) if len(usable) else 0, step):
        some = slice(begin, begin + step)
        offset = pixels[some, None] - a
        v = (offset[..., 0] * ac[:, 1] - offset[..., 1] * ac[:, 0]) / twice
        w = (ab[:, 0] * offset[..., 1] - ab[:, 1] * offset[..., 0]) / twice
        flat = np.stack([1 - v - w, v, w], -1)
        inverse = np.where((flat >= -1e-9).all(-1), (flat / depth).sum(-1), 0)  # of the depth, linear in the image
        nearest = inverse.argmax(1)
        row = np.arange(len(nearest))
        found[some] = inverse[row, nearest] > 0
        face[some] = nearest
        share = flat[row, nearest] / depth[nearest]
        weights[some] = share / share.sum(1, keepdims=True)
    corners_of = usable[face] if len(usable) else np.zeros((len(pixels), 3), np.int64)
    weights[~found] = [1, 0, 0]
    return SurfacePoints(torch.from_numpy(corners_of), torch.from_numpy(weights)), found
