"""Which splats to split: by the views' vote on the error (what the pipeline does), or relocation as in 3DGS-MCMC.

Same start, photos, optimiser, budget and steps; held-out photos are only measured. 3DGS-MCMC (Kheradmand et al. 2024)
moves dead splats onto live ones drawn by opacity (eq. 9 keeps the picture), adds noise to the centres (eq. 8) and
regularises opacities beside scales (§4.3, 0.01 each; every fit regularises scales).

    python benchmarks/densification.py CAPTURE [--preset fast] [--steps N]
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.fitting import measure, prepare
from kernels.geometry import rotation_matrices
from recon.splats.config import SplatsConfig
from recon.splats.density import FAINTEST
from recon.splats.fit import DENSIFY, Fit
from recon.splats.model import Splats

NOISE = 5e5 * 1.6e-4
REGULARISATION = 0.01


def relocated(opacity: torch.Tensor, scales: torch.Tensor, copies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return opacity and scales of each of ``copies`` splats that together look as one did (3DGS-MCMC eq. 9)."""
    new = 1 - (1 - opacity) ** (1 / copies)
    denominator = torch.zeros_like(opacity)
    for i in range(1, int(copies.max()) + 1):
        for k in range(i):
            term = math.comb(i - 1, k) * (-1) ** k * new ** (k + 1) / math.sqrt(k + 1)
            denominator += torch.where(copies >= i, term, 0)
    return new, scales * (opacity / denominator)[:, None]


class Relocation(Fit):
    """The same fit with 3DGS-MCMC's density control."""

    def _densify(self) -> None:
        first, last = DENSIFY
        grown = min(1.0, (self.done - first) / (0.75 * (last - first)))
        wanted = round(self.initial_count * (max(self.config.splats, self.initial_count) / self.initial_count) ** grown)
        splats, generator = self.splats, self._generator(3, self.step)
        alive = torch.nonzero(splats.opacities >= FAINTEST)[:, 0]
        extra = wanted - len(alive)
        if extra <= 0:
            return
        drawn = alive[torch.multinomial(splats.opacities[alive], extra, replacement=True, generator=generator)]
        copies = torch.bincount(drawn, minlength=len(splats)) + 1
        parents = torch.nonzero(copies > 1)[:, 0]
        count = copies[parents].clamp(max=51)
        opacity, scales = relocated(splats.opacities[parents], splats.scales[parents], count)
        tensors = {name: t.clone() for name, t in splats.tensors().items()}
        tensors["logits"][parents] = torch.logit(opacity.clamp(FAINTEST, 1 - 1e-6))
        tensors["log_scales"][parents] = scales.log()
        changed = Splats(**tensors)
        self.splats = Splats.cat([changed[alive], changed[drawn]])
        origin = torch.cat([torch.where(copies[alive] > 1, -1, alive), torch.full((extra,), -1)])
        self.unseen = torch.zeros(len(self.splats), dtype=torch.int64)
        self.optimiser.replace(self.splats.tensors(), origin)

    def _update(self, gradients: dict[str, torch.Tensor], touched: torch.Tensor) -> None:
        splats = self.splats
        opacities, scales = splats.opacities, splats.scales
        gradients["logits"] = gradients["logits"] + REGULARISATION * opacities * (1 - opacities) / len(splats)
        super()._update(gradients, touched)
        axes = rotation_matrices(splats.quats)
        gate = torch.sigmoid(100 * (1 - opacities - 0.995))
        noise = torch.randn(len(splats), 3, 1, generator=self._generator(5, self.step)) * gate[:, None, None]
        splats.means += NOISE * 0.01**self.done * (axes @ (scales[:, :, None] ** 2 * (axes.mT @ noise)))[..., 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    settings = dict(SplatsConfig.presets[arguments.preset])
    if arguments.steps:
        settings["steps"] = arguments.steps
    config = SplatsConfig(**settings)
    with tempfile.TemporaryDirectory() as folder:
        start = prepare(arguments.capture, config, Path(folder))
        for name, kind in (("error vote", Fit), ("relocation", Relocation)):
            model = start.fit(kind)
            begun = time.perf_counter()
            for _ in model.run():
                pass
            seconds = time.perf_counter() - begun
            row = {"density": name, "seconds": round(seconds, 1), "splats": len(model.splats)}
            print(json.dumps(row | measure(model, start.held_out)), flush=True)


if __name__ == "__main__":
    main()
