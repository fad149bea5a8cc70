"""What Turbo-GS and MVGS add to the pipeline's fit: one change at a time.

    python -m benchmarks.splat_variants [--captures still_life …] [--only "budget t^0.5" …] [--log FILE] [--write]

Turbo-GS (Dai et al. 2024): a splat budget by a power law, N + (t^α − 1) / (100^α − 1) (M − N), t from 1 to 100;
splitting by the gradient of the colours; dilated rendering, every second pixel of every second row, at random offsets.
MVGS (Du et al. 2024): losses of several photos summed in a step; splitting where the worst windows (40 × 20 pixels) of
several photos cross.

Two fits at a time, on one thread each; ``gain`` is over the pipeline's own fit, on validation photos, the mean of all
captures, and ``time`` the share of its processor time. With several photos a step a fit has as many times fewer steps,
and densifies as many times as often, so that each sees the same photos. ``--log`` keeps the fits in a file, and what it
holds already is not run again.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.fitting import measure, prepare, run_fits
from benchmarks.splat_rates import CAPTURES
from benchmarks.tables import machine, print_table, write_section
from kernels.splat_jacobian import SplatJacobian
from recon.splats import fit as fitting
from recon.splats.config import SplatsConfig
from recon.splats.fit import DENSIFY_EVERY, Fit
from recon.splats.model import Splats
from recon.splats.photos import Target
from recon.splats.render import Pose, render

OWN = "the pipeline's"
BOOST = 10.0
"""How many times more the vote of a splat counts that lies where worst windows cross."""
WINDOW = (20, 40)
DILATED = (0.2, 0.6)
"""Part of the fit that is rendered dilated: from the end of the coarse photos to that of densification."""
EPS2D = 0.3 / 4
"""The rasterizer's own widening, in the dilated image's larger pixels."""


@dataclass
class PowerLaw(Fit):
    """A splat budget by Turbo-GS' power law."""

    power: float = 0.5

    def _wanted(self) -> int:
        t = 1 + 99 * self._grown
        share = (t**self.power - 1) / (100**self.power - 1)
        return round(self.initial_count + share * (self._budget - self.initial_count))


@dataclass
class Linear(PowerLaw):
    """The same, in proportion to time."""

    power: float = 1.0


@dataclass
class ByColor(Fit):
    """Splits where the colours' gradients are large (Turbo-GS), every so many times."""

    every: int = 1

    def _votes(self, voters: Sequence[int]) -> Tensor:
        votes = super()._votes(voters)
        if self.step // DENSIFY_EVERY % self.every == 1 % self.every:
            gradients = [self.look(self.splats, i).gradients.colors[:, 0].norm(dim=1) for i in voters]
            votes[:, 0] = torch.stack(gradients).sum(0)
        return votes


@dataclass
class FifthByColor(ByColor):
    """The same, a fifth of the times."""

    every: int = 5


@dataclass
class CrossRay(Fit):
    """Splits more where the worst windows of two or more photos cross (MVGS)."""

    def _votes(self, voters: Sequence[int]) -> Tensor:
        votes = super()._votes(voters)
        crossing = sum(self._in_worst_window(self.target(i)) for i in voters)
        votes[:, 0] *= torch.where(torch.as_tensor(crossing) >= 2, BOOST, 1.0)
        return votes

    def _in_worst_window(self, target: Target) -> Tensor:
        """Return (N,) 1 for splats whose centres are seen in the window with the largest error, 0 for others."""
        pose = target.pose
        with torch.no_grad():
            image = render(self.splats, pose, self.background, sh_degree=self.sh_degree, mask=target.mask)[0]
        error = (image - target.rgb).abs().mean(2)
        if target.mask is not None:
            error = error * target.mask
        height, width = min(WINDOW[0], pose.height), min(WINDOW[1], pose.width)
        means = torch.nn.functional.avg_pool2d(error[None, None], (height, width), stride=1)[0, 0]
        y, x = divmod(int(means.argmax()), means.shape[1])
        at = self.splats.means @ pose.viewmat[:3, :3].T + pose.viewmat[:3, 3]
        u, v, depth = (at @ pose.K.T).unbind(1)
        ahead = depth > 0.01
        u, v = u / depth, v / depth
        return (ahead & (u >= x) & (u < x + width) & (v >= y) & (v < y + height)).float()


@dataclass
class Dilated(Fit):
    """Renders a quarter of the pixels, on a grid at a random offset, at the photo's own sharpness (Turbo-GS)."""

    def target(self, index: int) -> Target:
        if not self._dilates:
            return super().target(index)
        whole = self.photos[index].levels[0]
        x, y = torch.randint(2, (2,), generator=self._generator(0, self.step * len(self.photos) + index)).tolist()
        image = whole.image[y::2, x::2].contiguous()
        mask = None if whole.mask is None else whole.mask[y::2, x::2].contiguous()
        K = whole.pose.K.clone()
        K[:2, 2] += 0.5 - torch.tensor([float(x), float(y)])  # the centres of pixels stay where they were
        K[:2] /= 2
        return Target(image, mask, Pose(whole.pose.viewmat, K, image.shape[1], image.shape[0]))

    def jacobian(self, splats: Splats, index: int, **options: Any) -> SplatJacobian:
        if self._dilates:
            options |= {"eps2d": EPS2D}
        return super().jacobian(splats, index, **options)

    @property
    def _dilates(self) -> bool:
        return DILATED[0] <= self.done < DILATED[1]


VARIANTS: dict[str, tuple[type[Fit], int]] = {
    OWN: (Fit, 1),
    "budget t^0.5": (PowerLaw, 1),
    "budget t": (Linear, 1),
    "votes by colour": (ByColor, 1),
    "a fifth of the votes by colour": (FifthByColor, 1),
    "cross-ray votes": (CrossRay, 1),
    "2 photos a step": (Fit, 2),
    "4 photos a step": (Fit, 4),
    "dilated rendering": (Dilated, 1),
}
"""The fit and its number of photos a step."""


def run(name: str, capture: str, chosen: dict[str, int]) -> dict[str, Any]:
    """Return one fit's figures, in this process alone."""
    torch.set_num_threads(1)
    kind, photos = VARIANTS[name]
    fewer = {"views_per_step": photos, "steps": chosen["steps"] // photos}
    config = SplatsConfig(**{**SplatsConfig.presets["fast"], **chosen, **fewer})
    fitting.DENSIFY_EVERY = DENSIFY_EVERY // photos
    with tempfile.TemporaryDirectory() as folder:
        start = prepare(CAPTURES[capture], config, Path(folder))
    model, begun = start.fit(kind), time.process_time()
    for _ in model.run():
        pass
    seconds = time.process_time() - begun
    return {"seconds": round(seconds, 1), "psnr": measure(model, start.validation)["psnr"]}


def row(name: str, captures: list[str], found: dict[tuple[str, str], dict[str, Any]]) -> list[Any]:
    """Return a variant's row of the table."""
    runs, own = ([found[one, capture] for capture in captures] for one in (name, OWN))
    gain = np.mean([a["psnr"] - b["psnr"] for a, b in zip(runs, own, strict=True)])
    share = sum(a["seconds"] for a in runs) / sum(b["seconds"] for b in own)
    return [name, *(f"{one['psnr']:.2f}" for one in runs), f"{gain:+.2f}", f"{share:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", nargs="+", choices=CAPTURES, default=list(CAPTURES))
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="beside the pipeline's own")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--side", type=int, default=400, help="pixels of the photos' longest side")
    parser.add_argument("--splats", type=int, default=50_000)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    chosen = {"max_side": arguments.side, "steps": arguments.steps, "splats": arguments.splats}
    names = [name for name in VARIANTS if name == OWN or name in arguments.only]
    keys = list(itertools.product(names, arguments.captures))
    found = run_fits(run, [(*key, chosen) for key in keys], arguments.log)
    columns = ["variant", *arguments.captures, "gain", "time"]
    by_key = dict(zip(keys, found, strict=True))
    rows = [row(name, arguments.captures, by_key) for name in names]
    print_table(columns, rows)
    if arguments.write:
        what = f"{arguments.steps} steps, {arguments.side} pixels, at most {arguments.splats} splats"
        write_section("splat_variants", f"{machine()}; {what}", columns, rows)


if __name__ == "__main__":
    main()
