"""How far the rates of a fit of splats come down, the longer it is.

    python -m benchmarks.splat_decays [--captures nerf_chair …] [--steps N …] [--log FILE] [--write]

The rates were found for fits of 800 steps, in which they come down to a share of what they begin with. In a fit of S
steps they come down to that share times (800 / S) to a power: 0 leaves the share as it is, 1 is the pipeline's. Two
fits at a time, on one thread each; measured on validation photos.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.fitting import measure, prepare, run_fits
from benchmarks.splat_rates import CAPTURES
from benchmarks.tables import machine, print_table, write_section
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit
from recon.splats.solver import ADAM

POWERS = (0.0, 0.5, 1.0)
OWN = 1.0
"""The pipeline's power."""


def by_power(power: float, steps: int) -> type[Fit]:
    """Return the pipeline's fit with decays by another power of its length."""
    assert ADAM.length is not None
    less = min(1.0, ADAM.length / steps) ** power
    geometry = replace(ADAM.geometry, decays=less * ADAM.geometry.decays)
    return type("ByPower", (Fit,), {"rule": replace(ADAM, geometry=geometry, decay=less * ADAM.decay, length=None)})


def run(capture: str, steps: int, power: float, chosen: dict[str, int]) -> dict[str, float]:
    """Return one fit's figures, in this process alone."""
    torch.set_num_threads(1)
    config = SplatsConfig(**{**SplatsConfig.presets["fast"], **chosen, "steps": steps})
    with tempfile.TemporaryDirectory() as folder:
        start = prepare(CAPTURES[capture], config, Path(folder))
    model = start.fit(by_power(power, steps))
    for _ in model.run():
        pass
    return measure(model, start.validation)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", nargs="+", choices=CAPTURES, default=["nerf_chair", "snowmiku_plush"])
    parser.add_argument("--steps", nargs="+", type=int, default=[1500, 3000])
    parser.add_argument("--side", type=int, default=256, help="pixels of the photos' longest side")
    parser.add_argument("--splats", type=int, default=30_000)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    chosen = {"max_side": arguments.side, "splats": arguments.splats}
    keys = list(itertools.product(arguments.captures, arguments.steps, POWERS))
    found = dict(zip(keys, run_fits(run, [(*key, chosen) for key in keys], arguments.log), strict=True))
    columns = ["capture", "steps", *(f"power {p:g}" + (", the pipeline's" if p == OWN else "") for p in POWERS)]
    rows: list[list[Any]] = [
        [capture, steps, *(f"{found[capture, steps, power]['psnr']:.2f}" for power in POWERS)]
        for capture, steps in itertools.product(arguments.captures, arguments.steps)
    ]
    print_table(columns, rows)
    if arguments.write:
        size = f"{arguments.side} pixels, {arguments.splats:,} splats; validation PSNR, dB"
        write_section("splat_decays", f"{machine()}; {size}", columns, rows)


if __name__ == "__main__":
    main()
