"""Interpolate vertex attributes at the pixels: the public function and its torch operator.

The CPU implementation is C++ (``kernels/cpu/attributes.h``), the GPU's Triton (``kernels/gpu/interpolate.py``); the
twin is ``kernels/reference/interpolate.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from kernels import _cpu, nvdiffrast
from kernels.checks import check_count, check_floats, require_dtype
from kernels.gpu import on_gpu
from kernels.mesh_arguments import check_faces, check_rast


def interpolate(
    attributes: Tensor,
    rast: Tensor,
    faces: Tensor,
    rast_db: Tensor | None = None,
    diff_attrs: Sequence[int] | Literal["all"] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Give each pixel u a₀ + v a₁ + (1 - u - v) a₂ of the triangle it sees; nvdiffrast's ``interpolate``.

    Differentiable in ``attributes``, in u and v of ``rast``, and in ``rast_db``.

    Source: Laine et al. 2020, "Modular Primitives for High-Performance Differentiable Rendering", §3.3.

    Args:
        attributes: (V, A) float32, or (B, V, A), one set for each image.
        rast: (B, H, W, 4), one layer of what ``rasterize_mesh`` returns.
        faces: (F, 3) int32: the triangles of ``rast`` in the same order, with the attributes' own vertex numbers.
        rast_db: (B, H, W, 4), likewise; needed for ``diff_attrs``.
        diff_attrs: attributes whose derivatives by the image position are asked for, or ``"all"``.

    Returns:
        values: (B, H, W, A), 0 where nothing is seen.
        derivatives: (B, H, W, 2D) da/dX, da/dY of each of the D attributes of ``diff_attrs``, per pixel; else None.

    Raises:
        ValueError: a shape, dtype, device or number does not fit; the message names it.
    """
    attributes, chosen = check_interpolate(attributes, rast, faces, rast_db, diff_attrs)
    require_dtype("interpolate", attributes, torch.float32)
    if nvdiffrast.takes(attributes):
        return nvdiffrast.interpolate(attributes, rast, faces, rast_db, chosen)
    values, derivatives = torch.ops.egregium.interpolate(
        attributes, rast, faces, rast_db if chosen is not None else None, chosen or []
    )
    return values, None if chosen is None else derivatives


def check_interpolate(
    attributes: Tensor,
    rast: Tensor,
    faces: Tensor,
    rast_db: Tensor | None,
    diff_attrs: Sequence[int] | Literal["all"] | None,
) -> tuple[Tensor, list[int] | None]:
    """Check the arguments of ``interpolate``; return attributes (1 or B, V, A) and which to differentiate."""
    check_floats(attributes=attributes, rast=rast, rast_db=rast_db)
    check_rast(rast)
    check_faces(faces, attributes.device)
    batch, shape = len(rast), tuple(attributes.shape)
    if attributes.ndim not in (2, 3) or shape[-1] == 0 or (attributes.ndim == 3 and shape[0] not in (1, batch)):
        raise ValueError(f"attributes must have shape (V, A) or (B, V, A) with B = {batch} or 1, A >= 1, not {shape}")
    attributes = attributes if attributes.ndim == 3 else attributes[None]
    check_count(attributes.shape[:2].numel(), 2**31 - 1, "vertices in all sets of attributes")
    if diff_attrs is None:
        return attributes, None
    if rast_db is None:
        raise ValueError("diff_attrs needs rast_db: pass the second tensor that rasterize_mesh returns")
    if rast_db.shape != rast.shape:
        raise ValueError(f"rast_db has shape {tuple(rast_db.shape)}, rast {tuple(rast.shape)}: they must agree")
    if isinstance(diff_attrs, str):
        if diff_attrs != "all":
            raise ValueError(f"diff_attrs = {diff_attrs!r}: it is 'all' or a list of attribute numbers")
        return attributes, list(range(shape[-1]))
    chosen = [int(i) for i in diff_attrs]
    if any(not 0 <= i < shape[-1] for i in chosen):
        raise ValueError(f"diff_attrs = {chosen}: the attributes are 0 to {shape[-1] - 1}")
    return attributes, chosen


torch.library.define(
    "egregium::interpolate",
    "(Tensor attributes, Tensor rast, Tensor faces, Tensor? rast_db, int[] diff_attrs) -> (Tensor, Tensor)",
)
torch.library.define(
    "egregium::interpolate_backward",
    "(Tensor gradient, Tensor? da_gradient, Tensor attributes, Tensor rast, Tensor faces, Tensor? rast_db, "
    "int[] diff_attrs, bool[] wanted) -> (Tensor, Tensor, Tensor)",
)


@torch.library.impl("egregium::interpolate", "CPU")
def _forward_cpu(
    attributes: Tensor, rast: Tensor, faces: Tensor, rast_db: Tensor | None, diff_attrs: list[int]
) -> tuple[Tensor, Tensor]:
    values = rast.new_empty(*rast.shape[:3], attributes.shape[2])
    derivatives = rast.new_empty(*rast.shape[:3], 2 * len(diff_attrs))
    _cpu.mesh_interpolate(*_inputs(attributes, rast, faces, rast_db, diff_attrs), values, derivatives, *_threads())
    return values, derivatives


@torch.library.impl("egregium::interpolate_backward", "CPU")
def _backward_cpu(
    gradient: Tensor,
    da_gradient: Tensor | None,
    attributes: Tensor,
    rast: Tensor,
    faces: Tensor,
    rast_db: Tensor | None,
    diff_attrs: list[int],
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    results = [rast.new_empty(s) for s in _gradient_shapes(attributes, rast, wanted)]
    _cpu.mesh_interpolate_backward(
        *_inputs(attributes, rast, faces, rast_db, diff_attrs),
        gradient.contiguous(),
        None if da_gradient is None else da_gradient.contiguous(),
        *(result if asked else None for result, asked in zip(results, wanted, strict=True)),
        *_threads(),
    )
    return results[0], results[1], results[2]


def _inputs(
    attributes: Tensor, rast: Tensor, faces: Tensor, rast_db: Tensor | None, diff_attrs: list[int]
) -> tuple[Tensor | None, ...]:
    db = None if rast_db is None else rast_db.detach().contiguous()
    which = torch.tensor(diff_attrs, dtype=torch.int32)
    return attributes.detach().contiguous(), rast.detach().contiguous(), faces.contiguous(), db, which


def _threads() -> tuple[int]:
    return (torch.get_num_threads(),)


def _gradient_shapes(attributes: Tensor, rast: Tensor, wanted: list[bool]) -> list[tuple[int, ...]]:
    shapes = [tuple(attributes.shape), tuple(rast.shape), tuple(rast.shape)]
    return [shape if asked else (0,) for shape, asked in zip(shapes, wanted, strict=True)]


@torch.library.register_fake("egregium::interpolate")
def _forward_fake(
    attributes: Tensor, rast: Tensor, faces: Tensor, rast_db: Tensor | None, diff_attrs: list[int]
) -> tuple[Tensor, Tensor]:
    shape = rast.shape[:3]
    return rast.new_empty(*shape, attributes.shape[2]), rast.new_empty(*shape, 2 * len(diff_attrs))


@torch.library.register_fake("egregium::interpolate_backward")
def _backward_fake(
    gradient: Tensor, da_gradient: Tensor | None, attributes: Tensor, rast: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    return tuple(rast.new_empty(shape) for shape in _gradient_shapes(attributes, rast, rest[-1]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    *tensors, ctx.diff_attrs = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor | None, da_gradient: Tensor | None) -> tuple[Any, ...]:
    attributes, rast, faces, rast_db = ctx.saved_tensors
    if gradient is None and da_gradient is None:
        return (None,) * 5
    if gradient is None:
        gradient = rast.new_zeros(*rast.shape[:3], attributes.shape[2])
    wanted = [ctx.needs_input_grad[i] for i in (0, 1, 3)]
    results = torch.ops.egregium.interpolate_backward(
        gradient, da_gradient, attributes, rast, faces, rast_db, ctx.diff_attrs, wanted
    )
    to_attributes, to_rast, to_db = (r if asked else None for r, asked in zip(results, wanted, strict=True))
    return to_attributes, to_rast, None, to_db, None


torch.library.register_autograd("egregium::interpolate", _backward, setup_context=_setup_context)
on_gpu("interpolate", "interpolate_backward")
