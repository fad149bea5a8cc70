"""An auto-decoder: one network for the signed distances of many shapes, and a code for each.

    min over θ, z   mean over shapes i and points x of |clamp(f(x, z_i; θ)) - clamp(s_i(x))| + λ mean ‖z_i‖²

with clamp to [-δ, δ]: the network's capacity goes to where the surfaces are. There is no encoder: a shape's code is
found like the weights are, by gradient descent. For :class:`~recon.isosurface.meshsdf.MeshSDF`, ``decoder.at(code)`` is
a function of points alone, whose surface moves with the code.

In training codes are blurred by noise. Few shapes far apart would else leave the space between their codes to chance,
and a code that is to be found by gradient descent must pass there.

Source: Park et al. 2019, "DeepSDF: Learning Continuous Signed Distance Functions for Shape Representation", §4 (Eqs 9
and 4); Zadeh et al. 2019, "Variational Auto-Decoder", for the noise; Tancik et al. 2020, "Fourier Features Let Networks
Learn High Frequency Functions in Low Dimensional Domains", for what the points enter as.
Conventions: negative inside; shapes lie within [-1, 1]³.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

CLAMP = 0.1
"""δ."""
PENALTY = 1e-4
"""λ."""
BLUR = 0.3
"""Length (root mean square) of the noise on codes, which are about 1 long, in training."""
_SHARPNESS = 100.0  # of the softplus: a ReLU whose slopes are continuous
_RATE, _LAST_RATE = 4e-3, 0.02  # learning rate, and the factor that it has come down to at the end


class AutoDecoder(nn.Module):
    """The network and the codes.

    Attributes:
        codes: (K, L), one a shape.
    """

    def __init__(
        self, shapes: int, code: int = 8, width: int = 128, layers: int = 5, octaves: int = 4, seed: int = 0
    ) -> None:
        """Make an untrained one.

        Args:
            shapes: K, how many.
            code: L, numbers in a code.
            width, layers: of the network: hidden units in a layer, and layers of them.
            octaves: of the sines and cosines of the points' coordinates, from half a period over the unit length on.
            seed: of the weights and codes.
        """
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self._octaves = octaves
        sizes = [3 + 6 * octaves, *[width] * layers, 1]
        self._weights = nn.ParameterList(_uniform(n, m, generator) for m, n in pairwise(sizes))
        self._offsets = nn.ParameterList(torch.zeros(n) for n in sizes[1:])
        # The code enters the first layer and, as the points do, the middle one.
        self._code_weights = nn.ParameterList(_uniform(width, code, generator) for _ in range(2))
        self._again = _uniform(width, sizes[0], generator)
        self.codes = nn.Parameter(torch.randn(shapes, code, generator=generator) / code**0.5)

    def forward(self, points: Tensor, codes: Tensor) -> Tensor:
        """Return the distances.

        Args:
            points: (..., N, 3).
            codes: (..., L), one for each row of N points.

        Returns:
            (..., N).
        """
        waves = [points]
        for k in range(self._octaves):
            phase = torch.pi * 2**k * points
            waves += [torch.sin(phase) / 2**k, torch.cos(phase) / 2**k]
        start = torch.cat(waves, dim=-1)
        hidden, middle = start, len(self._weights) // 2
        for k, (weight, offset) in enumerate(zip(self._weights, self._offsets, strict=True)):
            if k:
                hidden = softplus(hidden, beta=_SHARPNESS)
            hidden = linear(hidden, weight, offset)
            if k == 0:
                hidden = hidden + linear(codes, self._code_weights[0])[..., None, :]
            elif k == middle:
                hidden = hidden + linear(start, self._again) + linear(codes, self._code_weights[1])[..., None, :]
        return hidden[..., 0]

    def at(self, code: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function of points (N, 3) -> (N,) that a code (L,) stands for, differentiable in the code."""
        return lambda points: self(points, code)


def train(
    decoder: AutoDecoder, points: Tensor, distances: Tensor, steps: int = 3000, batch: int = 2048, seed: int = 0
) -> list[float]:
    """Fit weights and codes.

    Args:
        decoder: changed in place.
        points: (K, N, 3) samples, most of them close to the shapes' surfaces.
        distances: (K, N) signed distances.
        steps: of the optimiser (Adam, its rate falling exponentially).
        batch: points in a step, drawn evenly from all shapes.
        seed: of the drawing.

    Returns:
        The loss of each step.

    Raises:
        ValueError: there are not as many shapes as codes, or not as many distances as points.
    """
    count, length = decoder.codes.shape
    if len(points) != count or points.shape[:2] != distances.shape:
        raise ValueError(
            f"points {tuple(points.shape)} and distances {tuple(distances.shape)} must be (K, N, 3) and (K, N) "
            f"with K = {count}, the decoder's number of shapes"
        )
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, _LAST_RATE ** (1 / steps))
    targets, rows = distances.clamp(-CLAMP, CLAMP), torch.arange(count)[:, None]
    # Clamped on both sides, a value beyond the clamp on the wrong side would have no gradient, and stay there.
    least = torch.where(distances <= -CLAMP, -CLAMP, -torch.inf)
    most = torch.where(distances >= CLAMP, CLAMP, torch.inf)
    losses = []
    for _ in range(steps):
        drawn = torch.randint(points.shape[1], (count, -(-batch // count)), generator=generator)
        chosen = rows, drawn
        noise = BLUR / length**0.5 * torch.randn(count, length, generator=generator)
        found = decoder(points[chosen], decoder.codes + noise).clamp(least[chosen], most[chosen])
        loss = (found - targets[chosen]).abs().mean()
        optimiser.zero_grad()
        (loss + PENALTY * decoder.codes.square().sum(dim=1).mean()).backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def _uniform(rows: int, columns: int, generator: torch.Generator) -> nn.Parameter:
    """Return weights that keep the size of what passes through a rectifier (He et al. 2015)."""
    return nn.Parameter((2 * torch.rand(rows, columns, generator=generator) - 1) * (6 / columns) ** 0.5)
