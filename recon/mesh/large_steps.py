"""Moving the vertices of a mesh by gradients without tangling it: a parameterisation that makes large steps smooth.

    u = (I + λL) x,    x ← x − η (I + λL)⁻² ∂ℓ/∂x

L is the combinatorial Laplacian (degrees on the diagonal, −1 between neighbours). An optimiser that steps in u steps
in x along a gradient that is smoothed twice: once by the chain rule, once on the way back from u to x.

Source: Nicolet, Jacobson, Jakob 2021, "Large Steps in Inverse Rendering of Geometry", eqs. 9 to 11 and §3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from recon.mesh.topology import directed_edges

SMOOTHNESS = 19.0
"""λ. The larger, the stiffer the surface; the paper uses 1 to 50."""


class Smoothed:
    """The change of variables between vertices x and parameters u, for one set of faces.

    I + λL is symmetric and positive definite; it is factorised once, in double precision.
    """

    def __init__(self, faces: NDArray[np.int32], vertices: int, smoothness: float = SMOOTHNESS) -> None:
        """Factorise for (F, 3) ``faces`` over so many ``vertices``."""
        a, b = directed_edges(faces).T
        neighbours = sparse.coo_matrix((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), (vertices, vertices)).tocsr()
        neighbours.data[:] = 1  # an edge of two faces came twice
        degrees = np.asarray(neighbours.sum(axis=1)).ravel()
        self._matrix = (sparse.diags(1 + smoothness * degrees) - smoothness * neighbours).tocsc()
        options = {"SymmetricMode": True, "DiagPivotThresh": 0.0}
        self._solve = splu(self._matrix, permc_spec="MMD_AT_PLUS_A", options=options).solve

    def parameters(self, vertices: Tensor) -> Tensor:
        """Return u (V, 3) of ``vertices`` (V, 3), detached from them."""
        product = self._matrix @ vertices.detach().cpu().double().numpy()
        return torch.from_numpy(product).to(vertices)

    def vertices(self, parameters: Tensor) -> Tensor:
        """Return x (V, 3) of ``parameters`` (V, 3), differentiable once."""
        result: Tensor = _Solve.apply(parameters, self._solve)
        return result


class _Solve(torch.autograd.Function):
    """x = A⁻¹ u for a symmetric A, whose gradient is ∂ℓ/∂u = A⁻¹ ∂ℓ/∂x."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, solve: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Tensor:
        ctx.solve = solve
        return torch.from_numpy(solve(u.detach().cpu().double().numpy())).to(u)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, None]:
        return torch.from_numpy(ctx.solve(incoming.cpu().double().numpy())).to(incoming), None


class AdamUniform(torch.optim.Optimizer):
    """Adam with one second moment for all entries of a tensor, their largest.

    Adam's own division by each entry's would bend the smoothed gradient back into a rough one (§3.3).
    """

    def __init__(self, params: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        """Take tensors, the step in their units, and the decay of the moments."""
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step along the gradients; a tensor without one is left alone.

        ``closure`` as torch has it: it computes the loss anew with its gradients, and the loss is returned.
        """
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            first_decay, second_decay = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state |= {"step": 0, "first": torch.zeros_like(parameter), "second": torch.zeros_like(parameter)}
                state["step"] += 1
                state["first"].lerp_(parameter.grad, 1 - first_decay)
                state["second"].lerp_(parameter.grad.square(), 1 - second_decay)
                first = state["first"] / (1 - first_decay ** state["step"])
                largest = state["second"].max() / (1 - second_decay ** state["step"])
                # This is the only modification of Adam.
                parameter -= group["lr"] * first / largest.sqrt().clamp(min=1e-30)
        return loss
