"""Which splats to split: by the views' vote on the error (what the pipeline does), or relocation as in 3DGS-MCMC.

    python -m benchmarks.densification [--captures nerf_chair …] [--steps N] [--write]

Same start, photos (400 pixels along the longest side), optimiser, budget and steps; measured on validation photos.
3DGS-MCMC (Kheradmand et al. 2024) moves dead splats onto live ones drawn by opacity (eq. 9 keeps the picture), adds
noise to the centres (eq. 8) and regularises opacities beside scales (§4.3, 0.01 each; every fit regularises scales).
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
from benchmarks.splats_quality import DATA
from benchmarks.tables import machine, print_table, write_section
from kernels.geometry import rotation_matrices
from recon.splats.config import SplatsConfig
from recon.splats.density import FAINTEST
from recon.splats.fit import Fit, Look
from recon.splats.model import Splats

COLUMNS = ["capture", "density control", "steps", "seconds", "splats", "validation PSNR", "SSIM"]
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
        splats, generator, wanted = self.splats, self._generator(3, self.step), self._wanted()
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
        self.solver.replace(self.splats, origin)

    def look(self, splats: Splats, index: int, sample: torch.Tensor | None = None) -> Look:
        seen = super().look(splats, index, sample)
        opacities = splats.opacities
        seen.gradients.geometry[:, 9] += REGULARISATION * opacities * (1 - opacities) / len(splats)
        return seen

    def _take_step(self) -> float:
        loss = super()._take_step()
        splats = self.splats
        axes = rotation_matrices(splats.quats)
        gate = torch.sigmoid(100 * (1 - splats.opacities - 0.995))
        noise = torch.randn(len(splats), 3, 1, generator=self._generator(5, self.step)) * gate[:, None, None]
        variances = splats.scales[:, :, None] ** 2
        splats.means += NOISE * 0.01**self.done * (axes @ (variances * (axes.mT @ noise)))[..., 0]
        return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captures", nargs="+", default=["nerf_chair", "snowmiku_plush"])
    parser.add_argument("--steps", type=int, default=SplatsConfig.presets["fast"]["steps"])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    config = SplatsConfig(**{**SplatsConfig.presets["fast"], "max_side": 400, "steps": arguments.steps})
    rows = []
    for capture in arguments.captures:
        with tempfile.TemporaryDirectory() as folder:
            start = prepare(DATA / capture, config, Path(folder))
        for name, kind in (("error vote", Fit), ("relocation", Relocation)):
            model = start.fit(kind)
            begun = time.perf_counter()
            for _ in model.run():
                pass
            seconds = round(time.perf_counter() - begun)
            found = measure(model, start.validation)
            rows.append([capture, name, config.steps, seconds, len(model.splats), found["psnr"], found["ssim"]])
            print(json.dumps(dict(zip(COLUMNS, rows[-1], strict=True))), flush=True)
    print_table(COLUMNS, rows)
    if arguments.write:
        write_section("densification", machine(), COLUMNS, rows)


if __name__ == "__main__":
    main()
