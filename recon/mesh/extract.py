"""The surface of a sparse field: marching cubes region by region, sewn together exactly.

Lorensen & Cline (1987) with Lewiner's disambiguation (2003, in scikit-image). Neighbouring regions share a layer of
samples and see the same values on it, so that their cuts through it agree edge by edge; a vertex on that layer comes
out twice, with equal coordinates, and is merged.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from recon.events import Events
from recon.mesh.mesh import Mesh
from recon.mesh.repair import clean
from recon.mesh.volume import BLOCK, Volume

_REGION = 8  # blocks along a side
_SIDE = _REGION * BLOCK  # cells along a side
_CLEAR = (
    1e-3  # distances are kept this far from zero, so that no vertex falls on a sample, where several would coincide
)
_SCALE = 1024.0  # scikit-image takes products of distances below a fixed epsilon for zero


def extract(volume: Volume, events: Events) -> Mesh:
    """Return the zero set of the field where all eight samples around it were seen, wound towards positive distances.

    Returns:
        A mesh in world units without colours; no faces if there is no surface.
    """
    regions = torch.unique(volume.blocks() // _REGION, dim=0)
    vertices, faces, count = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0
    for region in regions:
        events.check()
        part = _region(volume, region)
        if part is not None:
            vertices.append(part[0] + region.numpy() * float(_SIDE))
            faces.append(part[1] + count)
            count += len(part[0])
    points, triangles = _merge(np.concatenate(vertices), np.concatenate(faces))
    world = (volume.origin + volume.voxel * points).astype(np.float32)
    return clean(Mesh(world, triangles.astype(np.int32)))


def _region(volume: Volume, region: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Return vertices in samples from the region's corner, exact integers across their edge, and faces."""
    distance, weight = _dense(volume, region)
    seen = weight > 0
    cells = seen[1:] & seen[:-1]
    cells = cells[:, 1:] & cells[:, :-1]
    cells = cells[:, :, 1:] & cells[:, :, :-1]
    if not cells.any() or (distance[seen] > 0).all() or (distance[seen] < 0).all():
        return None
    mask = np.zeros(seen.shape, bool)
    mask[1:, 1:, 1:] = cells  # scikit-image asks the mask at a cell's far corner
    try:
        found = marching_cubes(distance, 0.0, mask=mask, gradient_direction="descent")
    except RuntimeError:  # no cell that counts is cut
        return None
    vertices = found[0].astype(np.float64)
    # On a grid edge two coordinates are whole, but for rounding; the third is not near a whole number (see _CLEAR).
    whole = np.rint(vertices)
    return np.where(np.abs(vertices - whole) < _CLEAR / 4, whole, vertices), found[1].astype(np.int64)


def _dense(volume: Volume, region: torch.Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return distances and weights of the region's samples and the next layer: (65, 65, 65) each."""
    side = torch.arange(_REGION + 1)
    blocks = region * _REGION + torch.cartesian_prod(side, side, side)
    keys = (blocks[:, 0] * volume.shape[1] + blocks[:, 1]) * volume.shape[2] + blocks[:, 2]
    index = torch.searchsorted(volume.keys, keys).clamp(max=len(volume.keys) - 1)
    there = (volume.keys[index] == keys) & (blocks < torch.tensor(volume.shape)).all(dim=1)

    def spread(values: torch.Tensor) -> NDArray[np.float32]:
        chosen = torch.zeros(len(keys), BLOCK, BLOCK, BLOCK)
        chosen[there] = values[index[there]]
        grid = chosen.reshape([_REGION + 1] * 3 + [BLOCK] * 3).permute(0, 3, 1, 4, 2, 5)
        return grid.reshape([(_REGION + 1) * BLOCK] * 3)[: _SIDE + 1, : _SIDE + 1, : _SIDE + 1].numpy()

    distance, weight = spread(volume.distance), spread(volume.weight)
    np.divide(distance, weight, out=distance, where=weight > 0)
    # A surface through a layer of samples leaves zeros and noise there: vertices that coincide, and ties in the tests
    # that decide ambiguous faces, which neighbours may break differently. On one side of zero there are neither.
    distance[np.abs(distance) < _CLEAR] = _CLEAR
    distance *= _SCALE
    return distance, weight


def _merge(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Merge the vertices that lie on the layers between regions and agree."""
    shared = np.flatnonzero((vertices % _SIDE == 0).any(axis=1))
    # Equal up to the last bits of what was added; samples are numbered below 2¹⁶, so that 16 bits remain.
    keys = np.rint(vertices[shared] * 2**16).astype(np.int64)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    target = np.arange(len(vertices))
    target[shared] = shared[first][inverse]
    return vertices, target[faces]
