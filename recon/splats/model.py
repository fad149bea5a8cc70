"""The splat model: N anisotropic 3D Gaussians with view-dependent colour (Kerbl et al. 2023, 3D Gaussian Splatting)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

SH_C0 = 0.28209479177387814
"""The constant spherical harmonic: colour = 0.5 + SH_C0 · sh[0] + …"""


@dataclass
class Splats:
    """Parameters before activation, as they are optimised and as 3DGS's PLY stores them.

    Attributes:
        means: (N, 3) centres in world units.
        log_scales: (N, 3) natural logarithm of the standard deviations along the axes.
        quats: (N, 4) rotations wxyz, not necessarily normalised.
        logits: (N,) opacity before the sigmoid.
        sh: (N, K, 3) spherical-harmonic coefficients, K = (degree + 1)²; colour = 0.5 + Σ_k Y_k(direction) sh_k.
    """

    means: Tensor
    log_scales: Tensor
    quats: Tensor
    logits: Tensor
    sh: Tensor

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def sh_degree(self) -> int:
        """Degree of the stored spherical harmonics, 0 to 3."""
        return int(self.sh.shape[1] ** 0.5) - 1

    @property
    def scales(self) -> Tensor:
        """(N, 3) standard deviations."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Tensor:
        """(N,) in (0, 1)."""
        return self.logits.sigmoid()

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters by name, in declaration order."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __getitem__(self, index: Tensor | slice) -> Splats:
        return Splats(**{name: t[index] for name, t in self.tensors().items()})

    def detach(self) -> Splats:
        """Return the same values outside any autograd graph."""
        return Splats(**{name: t.detach() for name, t in self.tensors().items()})

    def to(self, device: str | torch.device) -> Splats:
        """Return the splats on ``device``."""
        return Splats(**{name: t.to(device) for name, t in self.tensors().items()})

    @staticmethod
    def cat(parts: list[Splats]) -> Splats:
        """Concatenate along N."""
        return Splats(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Splats)})
