"""Rasterize triangles, with gradients to the positions: the public function and its torch operator.

The CPU implementation is C++ (``kernels/cpu/raster.h``, ``fragments.h``), the GPU's Triton
(``kernels/gpu/rasterize_mesh.py``); the readable twin, with the equations, is ``kernels/reference/rasterize_mesh.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import _cpu, nvdiffrast
from kernels.checks import check_size, require_dtype
from kernels.gpu import on_gpu
from kernels.mesh_arguments import check_faces, check_positions


def rasterize_mesh(
    positions: Tensor, faces: Tensor, width: int, height: int, *, layers: int = 1
) -> tuple[Tensor, Tensor]:
    """Find the triangle that each pixel sees, and where on it: nvdiffrast's ``rasterize``, rows top-down.

    Image positions are X = (x/w + 1) width/2, Y = (y/w + 1) height/2, and the centre of the pixel in column i and row j
    is at (i + ½, j + ½): row 0 is at y/w = -1. ``kernels.clip.clip_positions`` makes such positions for OpenCV cameras,
    whose y points down, so that row 0 is the image's top; of positions made for OpenGL, y up, negate y first.

    A pixel sees the nearest point, by z/w, with w > 0 and -w <= z <= w of all triangles that its centre lies in; both
    sides of a triangle are seen. A centre on an edge or vertex belongs to one triangle of those that meet there (the
    top-left rule, decided exactly). Of triangles whose depths are equal to the last bit the first is seen. Triangles
    that cross the near plane or the camera's plane need no care; those with a non-finite vertex or without an area are
    never seen.

    Differentiable in ``positions`` through u, v, z/w and their derivatives, with which triangle is seen fixed;
    ``antialias`` adds what edges contribute.

    Source: Laine et al. 2020, "Modular Primitives for High-Performance Differentiable Rendering", §3.2.

    Args:
        positions: (B, V, 4) float32 homogeneous clip-space positions (x, y, z, w), or (V, 4), B = 1.
        faces: (F, 3) int32 vertices of the triangles, in either orientation.
        width: of the images in pixels, 1 to 32768.
        height: likewise.
        layers: how many surfaces to see through, one behind the other (depth peeling).

    Returns:
        rast: (B, H, W, 4): u, v, z/w, triangle number + 1; all 0 where nothing is seen. u and v are perspective-correct
            barycentric weights of the triangle's vertices 0 and 1.
        rast_db: (B, H, W, 4): du/dX, du/dY, dv/dX, dv/dY, per pixel, Y downwards.
        With ``layers`` > 1 both are (layers, B, H, W, 4), the nearest surface first.

    Raises:
        ValueError: a shape, dtype, device, size or vertex number does not fit; the message names it.
    """
    positions = check_positions(positions)
    check_faces(faces, positions.device)
    require_dtype("rasterize_mesh", positions, torch.float32)
    width, height = check_size("width", width), check_size("height", height)
    layers = check_size("layers", layers, most=1024)
    if nvdiffrast.takes(positions):
        return nvdiffrast.rasterize_mesh(positions, faces, width, height, layers)
    rast, rast_db = torch.ops.egregium.rasterize_mesh(positions, faces, width, height, layers)
    return (rast, rast_db) if layers > 1 else (rast[0], rast_db[0])


torch.library.define(
    "egregium::rasterize_mesh",
    "(Tensor positions, Tensor faces, int width, int height, int layers) -> (Tensor, Tensor)",
)
torch.library.define(
    "egregium::rasterize_mesh_backward",
    "(Tensor gradient, Tensor? db_gradient, Tensor rast, Tensor positions, Tensor faces) -> Tensor",
)


@torch.library.impl("egregium::rasterize_mesh", "CPU")
def _forward_cpu(positions: Tensor, faces: Tensor, width: int, height: int, layers: int) -> tuple[Tensor, Tensor]:
    shape = (layers, len(positions), height, width, 4)
    rast, rast_db = positions.new_empty(shape), positions.new_empty(shape)
    inputs = (positions.detach().contiguous(), faces.contiguous())
    _cpu.mesh_rasterize(*inputs, width, height, layers, rast, rast_db, torch.get_num_threads())
    return rast, rast_db


@torch.library.impl("egregium::rasterize_mesh_backward", "CPU")
def _backward_cpu(
    gradient: Tensor, db_gradient: Tensor | None, rast: Tensor, positions: Tensor, faces: Tensor
) -> Tensor:
    result = positions.new_empty(positions.shape)
    layers, _, height, width, _ = rast.shape
    _cpu.mesh_rasterize_backward(
        positions.contiguous(),
        faces.contiguous(),
        width,
        height,
        layers,
        rast.contiguous(),
        gradient.contiguous(),
        None if db_gradient is None else db_gradient.contiguous(),
        result,
        torch.get_num_threads(),
    )
    return result


@torch.library.register_fake("egregium::rasterize_mesh")
def _forward_fake(positions: Tensor, faces: Tensor, width: int, height: int, layers: int) -> tuple[Tensor, Tensor]:
    shape = (layers, positions.shape[0], height, width, 4)
    return positions.new_empty(shape), positions.new_empty(shape)


@torch.library.register_fake("egregium::rasterize_mesh_backward")
def _backward_fake(
    gradient: Tensor, db_gradient: Tensor | None, rast: Tensor, positions: Tensor, faces: Tensor
) -> Tensor:
    return positions.new_empty(positions.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(inputs[0], inputs[1], output[0])


def _backward(ctx: Any, gradient: Tensor | None, db_gradient: Tensor | None) -> tuple[Any, ...]:
    positions, faces, rast = ctx.saved_tensors
    if gradient is None and db_gradient is None:
        return (None,) * 5
    if gradient is None:
        gradient = torch.zeros_like(rast)
    return torch.ops.egregium.rasterize_mesh_backward(gradient, db_gradient, rast, positions, faces), *(None,) * 4


torch.library.register_autograd("egregium::rasterize_mesh", _backward, setup_context=_setup_context)
on_gpu("rasterize_mesh", "rasterize_mesh_backward")
