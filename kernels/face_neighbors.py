"""Which triangles share an edge: found once for a mesh whose triangles stay, then passed to ``antialias``."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import _cpu
from kernels.gpu.face_neighbors import face_neighbors as on_gpu
from kernels.mesh_arguments import check_faces


def face_neighbors(faces: Tensor) -> Tensor:
    """Return the triangle across each edge.

    Args:
        faces: (F, 3) int32 vertex numbers, on any device.

    Returns:
        (F, 3) int32: across the edge opposite each vertex; -1 where that edge is not one of exactly two triangles.
        Triangles with two equal corners, which have no area, do not count and have no neighbours.

    Raises:
        ValueError: faces is not (F, 3) int32; on the CPU, a vertex number is negative.
    """
    check_faces(faces, faces.device if isinstance(faces, Tensor) else torch.device("cpu"))
    if not faces.is_cpu:
        return on_gpu(faces)
    neighbors = torch.empty_like(faces, memory_format=torch.contiguous_format)
    vertices = int(faces.max()) + 1 if faces.numel() else 0
    _cpu.mesh_face_neighbors(faces.contiguous(), vertices, neighbors, torch.get_num_threads())
    return neighbors
