"""The closest points of a set of triangles: the public function and its torch operator.

The CPU implementation is C++ (``kernels/cpu/nearest.cpp``), the GPU's Triton (``kernels/gpu/nearest.py``); the readable
twin is ``kernels/reference/nearest.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import _cpu
from kernels.checks import check_count, check_floats, require_dtype
from kernels.gpu import on_gpu
from kernels.mesh_arguments import check_faces, check_indices


def nearest(points: Tensor, vertices: Tensor, faces: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Find the closest point of a set of triangles, or of a set of points, to each of ``points``.

    Exact up to rounding, about 1e-7 (float32) or 1e-16 (float64) of the coordinates' size: every triangle that could be
    closer is looked at. Of triangles at the same distance any may be named. Triangles may be degenerate: one without an
    area is its longest edge, or a point. A hierarchy of boxes is built at each call.

    Source: Ericson 2004, "Real-Time Collision Detection", §5.1.5 and §6; the gradient is the envelope theorem's.

    Args:
        points: (N, 3) float32 or float64.
        vertices: (V, 3), of the same dtype.
        faces: (F, 3) int32, at least one; None: the vertices are a set of points.

    Returns:
        squared_distances: (N,), in squared units. Differentiable in ``points`` and ``vertices``.
        index: (N,) int32, the face, or without faces the vertex, that the closest point is on.
        barycentrics: (N, 3), the weights of the face's vertices, each in [0, 1], of sum 1. Not differentiable.

    Raises:
        ValueError: a shape or dtype does not fit, there is nothing to be near to, a face names no vertex, or a
            coordinate is not finite or so large (1e9 in float32, 1e76 in float64) that its products may not be.
    """
    check_floats(points=points, vertices=vertices)
    require_dtype("nearest", points, torch.float32, torch.float64)
    # Fourth powers of lengths, sums of some two hundred of them, stay finite: so there is a nearest point.
    largest = 0.25 * torch.finfo(points.dtype).max ** 0.25
    for name, tensor in (("points", points), ("vertices", vertices)):
        if tensor.ndim != 2 or tensor.shape[1] != 3:
            raise ValueError(f"{name} must have shape (N, 3), not {tuple(tensor.shape)}")
        check_count(len(tensor), 2**31 - 1, name)
        if not (tensor.detach().abs() < largest).all():
            raise ValueError(f"{name} has a coordinate that is not finite, or beyond ±{largest:.2g}")
    if faces is None:
        faces = torch.arange(len(vertices), dtype=torch.int32, device=vertices.device)[:, None].expand(-1, 3)
    else:
        check_faces(faces, vertices.device, most=2**31 - 1)
    if len(faces) == 0:
        raise ValueError("there is no triangle to be near to")
    check_indices(faces, len(vertices), "vertices")
    result: tuple[Tensor, Tensor, Tensor] = torch.ops.egregium.nearest(points, vertices, faces)
    return result


torch.library.define("egregium::nearest", "(Tensor points, Tensor vertices, Tensor faces) -> (Tensor, Tensor, Tensor)")


@torch.library.impl("egregium::nearest", "CPU")
def _forward_cpu(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    outputs = _forward_fake(points, vertices, faces)
    inputs = (points.detach().contiguous(), vertices.detach().contiguous(), faces.contiguous())
    _cpu.nearest(*inputs, *outputs, torch.get_num_threads())
    return outputs


@torch.library.register_fake("egregium::nearest")
def _forward_fake(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n = points.shape[0]
    return points.new_empty(n), faces.new_empty(n), points.new_empty(n, 3)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.save_for_backward(*inputs, output[1], output[2])


def _backward(ctx: Any, incoming: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None]:
    points, vertices, faces, index, weights = ctx.saved_tensors
    corners = faces.long()[index.long()]
    # At the minimum, moving along the triangle changes nothing: only the ends of the segment to it count.
    pull = 2 * incoming[:, None] * (points - (weights[..., None] * vertices[corners]).sum(dim=1))
    spread = (-weights[..., None] * pull[:, None]).flatten(0, 1)
    return pull, torch.zeros_like(vertices).index_add(0, corners.flatten(), spread), None


torch.library.register_autograd("egregium::nearest", _backward, setup_context=_setup_context)
on_gpu("nearest")
