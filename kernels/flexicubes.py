"""Vertices of FlexiCubes, differentiable: the public function and its torch operator.

Over a cell's crossed edges e, between corners i and j with values s, positions x and weights α, β, γ of the cell:

    u_e = x_i + t (x_j - x_i),   t = s_i α_i / (s_i α_i - s_j α_j)                                (Eq 5)
    v   = Σ β_e u_e / Σ β_e      over the edges of one loop                                       (Eq 6)
    m   = [γ1 γ3 (v1 + v3) / 2 + γ2 γ4 (v2 + v4) / 2] / (γ1 γ3 + γ2 γ4)   in the middle of a quad (Eq 7)
    dev = mean over e of | |v - ū_e| - mean of |v - ū_e| |,   ū_e = u_e with α = 1                (Eq 8)

Source: Shen et al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization", §4.2, §4.3 and §4.4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import _cpu
from kernels.checks import check_floats, check_shape, require_dtype
from kernels.contour_tables import LOOPS
from kernels.dual_contour import Contour
from kernels.gpu import on_gpu

WEIGHTS = 21
"""Weights of a cell: α of its 8 corners, β of its 12 edges, γ."""


def flexicubes(
    positions: Tensor, field: Tensor, weights: Tensor, contour: Contour, midpoints: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the vertices of a surface whose connectivity is known.

    Differentiable in ``positions``, ``field`` and ``weights``. Connectivity is constant, as are distances at which the
    absolute value in Eq 8 has its kink. Where ``contour`` calls a sample inside or outside against the sign of its
    value (it does on a grid's border), the value counts as zero and gets no gradient, as do values inside above -1e-18.

    Args:
        positions: (P, 3) float32 or float64, where ``contour.samples`` are.
        field: (P,) their values, negative inside.
        weights: (A, 21) positive: α (8), β (12) and γ of the active cells.
        contour: of A cells, V vertices and E crossed edges, from the signs of the field.
        midpoints: whether the middles of the quads are wanted, too.

    Returns:
        vertices: (V, 3), or (V + E, 3) with the quads' middles behind.
        deviations: (V,) the mean absolute deviation of each vertex's distances to its crossings.

    Raises:
        ValueError: shapes, dtypes or devices do not fit.
    """
    samples, cells = len(contour.samples), len(contour.rows)
    shapes = {"positions": (samples, 3), "field": (samples,), "weights": (cells, WEIGHTS)}
    check_floats(field=field, positions=positions, weights=weights)
    require_dtype("flexicubes", field, torch.float32, torch.float64)
    if contour.rows.device != field.device:
        raise ValueError(f"contour is on {contour.rows.device}, field on {field.device}: not on one device")
    for (name, shape), tensor in zip(shapes.items(), (positions, field, weights), strict=True):
        check_shape(name, tensor, shape, f"{samples} samples, {cells} cells")
    parts = (contour.cases, contour.first, contour.corners, contour.cell_edges, contour.quads)
    result: tuple[Tensor, Tensor] = torch.ops.egregium.flexicubes(positions, field, weights, *parts, midpoints)
    return result


_CONTOUR = "Tensor cases, Tensor first, Tensor corners, Tensor cell_edges, Tensor quads, bool midpoints"
torch.library.define(
    "egregium::flexicubes", f"(Tensor positions, Tensor field, Tensor weights, {_CONTOUR}) -> (Tensor, Tensor)"
)
torch.library.define(
    "egregium::flexicubes_backward",
    f"(Tensor positions, Tensor field, Tensor weights, {_CONTOUR}, Tensor vertices, Tensor to_vertices,"
    " Tensor to_deviations, bool positions_too) -> (Tensor, Tensor, Tensor)",
)


@torch.library.impl("egregium::flexicubes", "CPU")
def _forward_cpu(
    positions: Tensor,
    field: Tensor,
    weights: Tensor,
    cases: Tensor,
    first: Tensor,
    corners: Tensor,
    cell_edges: Tensor,
    quads: Tensor,
    midpoints: bool,
) -> tuple[Tensor, Tensor]:
    count = int(first[-1])
    vertices = positions.new_empty(count + len(quads) * midpoints, 3)
    deviations = positions.new_empty(count)
    inputs = [t.detach().contiguous() for t in (positions, field, weights, cases, first, corners, cell_edges, quads)]
    _cpu.flexicubes(*inputs, LOOPS, midpoints, vertices, deviations, torch.get_num_threads())
    return vertices, deviations


@torch.library.impl("egregium::flexicubes_backward", "CPU")
def _backward_cpu(
    positions: Tensor,
    field: Tensor,
    weights: Tensor,
    cases: Tensor,
    first: Tensor,
    corners: Tensor,
    cell_edges: Tensor,
    quads: Tensor,
    midpoints: bool,
    vertices: Tensor,
    to_vertices: Tensor,
    to_deviations: Tensor,
    positions_too: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = [t.contiguous() for t in (positions, field, weights, cases, first, corners, cell_edges, quads)]
    incoming = [t.contiguous() for t in (vertices, to_vertices, to_deviations)]
    to_positions = positions.new_empty(positions.shape if positions_too else (0, 3))
    to_field, to_weights = field.new_empty(field.shape), weights.new_empty(weights.shape)
    gradients = (to_positions if positions_too else None, to_field, to_weights)
    _cpu.flexicubes_backward(*inputs, LOOPS, midpoints, *incoming, *gradients, torch.get_num_threads())
    return to_positions, to_field, to_weights


@torch.library.register_fake("egregium::flexicubes")
def _forward_fake(
    positions: Tensor,
    field: Tensor,
    weights: Tensor,
    cases: Tensor,
    first: Tensor,
    corners: Tensor,
    cell_edges: Tensor,
    quads: Tensor,
    midpoints: bool,
) -> tuple[Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size()
    return positions.new_empty(count + quads.shape[0] * midpoints, 3), positions.new_empty(count)


@torch.library.register_fake("egregium::flexicubes_backward")
def _backward_fake(positions: Tensor, field: Tensor, weights: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    to_positions = positions.new_empty(positions.shape if rest[-1] else (0, 3))
    return to_positions, field.new_empty(field.shape), weights.new_empty(weights.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.midpoints = inputs
    ctx.save_for_backward(*tensors, output[0])


def _backward(ctx: Any, to_vertices: Tensor, to_deviations: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, vertices = ctx.saved_tensors
    wanted = ctx.needs_input_grad[0]
    gradients = torch.ops.egregium.flexicubes_backward(
        *inputs, ctx.midpoints, vertices, to_vertices, to_deviations, wanted
    )
    return (gradients[0] if wanted else None, *gradients[1:], None, None, None, None, None, None)


torch.library.register_autograd("egregium::flexicubes", _backward, setup_context=_setup_context)
on_gpu("flexicubes", "flexicubes_backward")
