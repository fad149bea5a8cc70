"""A surface as a small network, from (u, v) to points in space, with its derivatives in closed form.

    f(u, v) = W₃ [u, v, h₂] + b₃,   h₂ = s(W₂ h₁ + b₂),   h₁ = s(W₁ [u, v] + b₁),   s = softplus

The derivatives are carried along with the layers, ∂h = s'(W h + b) ∘ W ∂h with s' the logistic function, so that a loss
of them needs autograd once, for the parameters.

Source: Barbany, Colomé & Torras 2024, "Deformable surface reconstruction via Riemannian metric preservation", §3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

WIDTH = 128
"""Hidden units of a layer."""


class NeuralSurface(nn.Module):
    """f, untrained.

    Args:
        seed: of the parameters, which are drawn as :class:`torch.nn.Linear` does.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first, self.second, self.last = (
            nn.utils.skip_init(nn.Linear, n, m) for n, m in ((2, WIDTH), (WIDTH, WIDTH), (2 + WIDTH, 3))
        )
        for layer in (self.first, self.second, self.last):
            bound = layer.in_features**-0.5
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, uv: Tensor) -> Tensor:
        """Return (N, 3) points at (N, 2) ``uv``."""
        hidden = softplus(self.second(softplus(self.first(uv))))
        points: Tensor = self.last(torch.cat([uv, hidden], 1))
        return points

    def with_jacobian(self, uv: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, 3) points at (N, 2) ``uv`` and their derivatives (N, 3, 2), differentiable in the parameters."""
        first = self.first(uv)
        second = self.second(softplus(first))
        points = self.last(torch.cat([uv, softplus(second)], 1))
        tangents = first.sigmoid()[:, None] * self.first.weight.T  # (N, 2, WIDTH): of h₁ by u and by v
        tangents = second.sigmoid()[:, None] * linear(tangents, self.second.weight)
        jacobian = self.last.weight[:, :2].T + linear(tangents, self.last.weight[:, 2:])
        return points, jacobian.mT
