"""Blend the colours on both sides of visible edges, with gradients to the positions: the function and its operator.

The CPU implementation is C++ (``kernels/cpu/crossings.h``, ``silhouettes.cpp``), the GPU's Triton
(``kernels/gpu/antialias.py``); the readable twin, with the equations, is ``kernels/reference/antialias.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import _cpu, nvdiffrast
from kernels.checks import check_floats, require_dtype
from kernels.face_neighbors import face_neighbors
from kernels.gpu import on_gpu
from kernels.mesh_arguments import check_faces, check_positions, check_rast


def antialias(color: Tensor, rast: Tensor, positions: Tensor, faces: Tensor, neighbors: Tensor | None = None) -> Tensor:
    """Antialias silhouettes and intersections: nvdiffrast's ``antialias``, where surfaces pass through one another too.

    Where a surface ends, folds away from the viewer or passes through another one between the centres of two pixels,
    side by side or one above the other, the colour of one reaches into the other by the area up to there. This makes
    the image a continuous function of the positions, whose derivative is that of the areas.

    Surfaces are known by their vertex numbers: vertices that are doubled along a texture seam must not be doubled in
    ``faces`` (texture coordinates may have faces of their own). Edges of one or of more than two triangles always
    count. A change of colour across an edge inside a smooth surface does not. At most one change between two centres
    is seen, and surfaces are followed over at most 16 triangles between them; where the near plane cuts a triangle no
    change is seen. Differentiable in ``color`` and ``positions``, with what each pixel sees fixed.

    Source: Laine et al. 2020, "Modular Primitives for High-Performance Differentiable Rendering", §3.4.

    Args:
        color: (B, H, W, C) float32.
        rast: (B, H, W, 4), the first layer of what ``rasterize_mesh`` returns.
        positions: (B, V, 4) or (V, 4), as given to ``rasterize_mesh``.
        faces: (F, 3) int32, likewise.
        neighbors: (F, 3) int32, what ``face_neighbors(faces)`` returns, if known; found anew else.

    Returns:
        (B, H, W, C).

    Raises:
        ValueError: a shape, dtype, device or vertex number does not fit; the message names it.
    """
    positions = check_antialias(color, rast, positions, faces)
    require_dtype("antialias", positions, torch.float32)
    if nvdiffrast.takes(color):
        return nvdiffrast.antialias(color, rast, positions, faces)
    if neighbors is None:
        neighbors = face_neighbors(faces)
    elif neighbors.shape != faces.shape or neighbors.dtype != torch.int32 or neighbors.device != faces.device:
        raise ValueError(f"neighbors must be int32 of shape {tuple(faces.shape)}: what face_neighbors(faces) returns")
    result: Tensor = torch.ops.egregium.antialias(color, rast, positions, faces, neighbors)[0]
    return result


def check_antialias(color: Tensor, rast: Tensor, positions: Tensor, faces: Tensor) -> Tensor:
    """Check the arguments of ``antialias``; return positions as (B, V, 4)."""
    check_floats(positions=positions, rast=rast, color=color)
    positions = check_positions(positions)
    check_faces(faces, positions.device)
    check_rast(rast)
    if color.ndim != 4 or color.shape[3] == 0 or color.shape[:3] != rast.shape[:3]:
        raise ValueError(f"color must have shape (B, H, W, C) with B, H, W = {tuple(rast.shape[:3])} as rast has")
    if len(positions) != len(rast):
        raise ValueError(f"positions holds {len(positions)} sets of vertices, rast {len(rast)} images")
    return positions


# The second output are the crossings (P, 5); layout in kernels/cpu/mesh.h.
torch.library.define(
    "egregium::antialias",
    "(Tensor color, Tensor rast, Tensor positions, Tensor faces, Tensor neighbors) -> (Tensor, Tensor)",
)
torch.library.define(
    "egregium::antialias_backward",
    "(Tensor gradient, Tensor color, Tensor crossings, Tensor positions, Tensor faces, bool[] wanted) "
    "-> (Tensor, Tensor)",
)


@torch.library.impl("egregium::antialias", "CPU")
def _forward_cpu(
    color: Tensor, rast: Tensor, positions: Tensor, faces: Tensor, neighbors: Tensor
) -> tuple[Tensor, Tensor]:
    color = color.detach().contiguous()
    tensors = (t.detach().contiguous() for t in (positions, faces, neighbors, rast))
    crossings = torch.from_numpy(_cpu.mesh_crossings(*tensors, torch.get_num_threads()))
    result = color.clone()
    _cpu.mesh_antialias(crossings, color, result)
    return result, crossings


@torch.library.impl("egregium::antialias_backward", "CPU")
def _backward_cpu(
    gradient: Tensor, color: Tensor, crossings: Tensor, positions: Tensor, faces: Tensor, wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    gradient = gradient.contiguous()
    to_color = gradient.clone() if wanted[0] else color.new_empty(0)
    to_positions = positions.new_zeros(positions.shape) if wanted[1] else positions.new_empty(0)
    _cpu.mesh_antialias_backward(
        *(t.contiguous() for t in (positions, faces, crossings, color)),
        gradient,
        to_color if wanted[0] else None,
        to_positions if wanted[1] else None,
    )
    return to_color, to_positions


@torch.library.register_fake("egregium::antialias")
def _forward_fake(
    color: Tensor, rast: Tensor, positions: Tensor, faces: Tensor, neighbors: Tensor
) -> tuple[Tensor, Tensor]:
    crossings = torch.library.get_ctx().new_dynamic_size()
    return color.new_empty(color.shape), faces.new_empty(crossings, 5)


@torch.library.register_fake("egregium::antialias_backward")
def _backward_fake(
    gradient: Tensor, color: Tensor, crossings: Tensor, positions: Tensor, faces: Tensor, wanted: list[bool]
) -> tuple[Tensor, Tensor]:
    shapes = [tuple(t.shape) if asked else (0,) for t, asked in zip((color, positions), wanted, strict=True)]
    return color.new_empty(shapes[0]), color.new_empty(shapes[1])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    color, _, positions, faces, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(color, output[1], positions, faces)


def _backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Any, ...]:
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[2]]
    results = torch.ops.egregium.antialias_backward(gradient, *ctx.saved_tensors, wanted)
    to_color, to_positions = (r if asked else None for r, asked in zip(results, wanted, strict=True))
    return to_color, None, to_positions, None, None


torch.library.register_autograd("egregium::antialias", _backward, setup_context=_setup_context)
on_gpu("antialias", "antialias_backward")
