"""The race: splats by Adam at 3DGS' rates, by Adam tuned as the pipeline's, and by stochastic block-LM.

    python -m benchmarks.optimisers [--captures still_life …] [--steps 500] [--seeds 1] [--write]

The full pipeline's fit with densification, 400 pixels along the longest side: same start, photos, budget and steps.
``reached`` is the time at which the validation photos were matched as well as tuned Adam matched them at its end
(measured every 25th of the fit, interpolated), as a share of tuned Adam's time. Settings of block-LM and Adam were
chosen on validation photos of nerf_chair (and Adam's of snowmiku_plush); held-out photos are only measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.fitting import Start, measure, prepare
from benchmarks.splats_quality import DATA
from benchmarks.tables import machine, print_table, write_section
from recon.solve.adam import Adam, Rule
from recon.splats.block_fit import BlockFit
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit

SAMPLE = Path(__file__).parents[1] / "assets" / "still_life"
COLUMNS = ["capture", "optimiser", "seed", "seconds", "splats", "training loss", "validation PSNR", "reached"]
LOOKS = 25


class PublishedRates(Fit):
    """Adam at 3DGS' rates (Kerbl et al. 2023, its code), positions in units of the scene's extent."""

    def _make_optimiser(self) -> Adam:
        harmonics = torch.full((self.splats.sh.shape[1], 3), 2.5e-3 / 20)
        harmonics[0] = 2.5e-3
        rules = {
            "means": Rule(torch.full((3,), 1.6e-4), 0.01),
            "log_scales": Rule(torch.full((3,), 5e-3)),
            "quats": Rule(torch.full((4,), 1e-3)),
            "logits": Rule(torch.full((1,), 5e-2)),
            "sh": Rule(harmonics.flatten()),
        }
        return Adam(self.splats.tensors(), rules)


RIVALS = {"Adam, tuned": Fit, "Adam, 3DGS' rates": PublishedRates, "block-LM": BlockFit}


def race(start: Start, kind: type[Fit]) -> tuple[Fit, list[tuple[float, float, float]]]:
    """Return the fitted model and (seconds, training loss, validation PSNR) along its way; looking costs no time."""
    model, spent, losses = start.fit(kind), 0.0, []
    course: list[tuple[float, float, float]] = []
    steps = model.run()
    for number in range(1, start.config.steps + 1):
        begun = time.perf_counter()
        losses.append(next(steps).loss)
        spent += time.perf_counter() - begun
        if number % (start.config.steps // LOOKS) == 0:
            loss = float(np.mean(losses[-len(start.photos) :]))
            course.append((spent, loss, measure(model, start.validation)["psnr"]))
    return model, course


def reached(course: list[tuple[float, float, float]], psnr: float) -> float | None:
    """Return the seconds at which a course first reaches ``psnr``, None if it does not."""
    before = (0.0, 0.0, -np.inf)
    for look in course:
        if look[2] >= psnr:
            share = 1.0 if not np.isfinite(before[2]) else (psnr - before[2]) / (look[2] - before[2])
            return before[0] + share * (look[0] - before[0])
        before = look
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captures", nargs="+", default=["still_life", "nerf_chair", "snowmiku_plush"])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for capture in arguments.captures:
        path = SAMPLE if capture == "still_life" else DATA / capture
        for seed in range(arguments.seeds):
            preset = {**SplatsConfig.presets["fast"], "max_side": 400, "steps": arguments.steps, "seed": seed}
            with tempfile.TemporaryDirectory() as folder:
                start = prepare(path, SplatsConfig(**preset), Path(folder))
            aim, whole = 0.0, 1.0
            for name, kind in RIVALS.items():
                model, course = race(start, kind)
                seconds, loss, psnr = course[-1]
                if kind is Fit:
                    aim, whole = psnr, seconds
                when = reached(course, aim)
                share = "no" if when is None else f"{when / whole:.2f}"
                rows.append([capture, name, seed, round(seconds, 1), len(model.splats), round(loss, 5), psnr, share])
                print(json.dumps(dict(zip(COLUMNS, rows[-1], strict=True))), flush=True)
    print_table(COLUMNS, rows)
    if arguments.write:
        write_section("optimisers", machine(), COLUMNS, rows)


if __name__ == "__main__":
    main()
