"""The race of the splats' optimisers: Adam at three sets of rates, and the Levenberg–Marquardt family.

    python -m benchmarks.optimisers [--captures still_life …] [--steps 500] [--seeds 1] [--only block-LM …] [--write]
    python -m benchmarks.optimisers --search 40 --steps 200 --side 256 --splats 15000

The full pipeline's fit with densification, 400 pixels along the longest side: same start, photos, budget and steps.
``reached`` is the time at which the validation photos were matched as well as the pipeline's Adam matched them at its
end (measured every 25th of the fit, interpolated), as a share of Adam's time. All settings were chosen on validation
photos; held-out photos are not even loaded. ``--search`` tunes Adam's rates alike: it draws others around the best so
far, so many times, and prints each with its mean gain over the pipeline's.
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
from recon.splats.fit import Fit, rules
from recon.splats.lm_fit import LMFit
from recon.splats.sampled_fit import SampledFit

SAMPLE = Path(__file__).parents[1] / "assets" / "still_life"
COLUMNS = [
    "capture",
    "optimiser",
    "seed",
    "seconds",
    "splats",
    "training loss",
    "validation PSNR",
    "reached",
]
LOOKS = 25
RATES = {"means": 1.5e-3, "log_scales": 0.1, "quats": 0.02, "logits": 0.1, "sh": 0.04, "harmonics": 4e-3}
"""Of the pipeline's Adam, where a search starts."""
SEARCHED = {"means": 1.9e-3, "log_scales": 0.183, "quats": 0.04, "logits": 0.119, "sh": 0.034, "harmonics": 0.0139}
"""Of a search by hand at 200 steps, 256 pixels and 15,000 splats, which drew decays and limits, too: rates alone."""


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


def adam_at(rates: dict[str, float]) -> type[Fit]:
    """Return the pipeline's fit with other rates, all else alike."""

    class AtRates(Fit):
        def _make_optimiser(self) -> Adam:
            found = rules(self.splats)
            for name, rule in found.items():
                rule.rates = torch.full_like(rule.rates, rates[name])
            found["sh"].rates[3:] = rates["harmonics"]
            return Adam(self.splats.tensors(), found)

    return AtRates


RIVALS = {
    "Adam": Fit,
    "Adam, 3DGS' rates": PublishedRates,
    "Adam, searched": adam_at(SEARCHED),
    "block-LM": BlockFit,
    "Adam, then LM": LMFit,
    "LM, sampled": SampledFit,
}


def race(start: Start, kind: type[Fit]) -> tuple[Fit, list[tuple[float, float, float]]]:
    """Return the fitted model and (seconds, training loss, validation PSNR) along its way; looking costs no time."""
    model, spent, losses = start.fit(kind), 0.0, []
    course: list[tuple[float, float, float]] = []
    steps, every = model.run(), max(1, start.config.steps // LOOKS)
    while model.step < start.config.steps:
        before, begun = model.step, time.perf_counter()
        losses.append(next(steps).loss)
        spent += time.perf_counter() - begun
        if model.step // every > before // every:
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


def search(starts: dict[str, Start], draws: int) -> None:
    """Tune Adam's rates on the validation photos of all captures at once, by a random walk around the four best."""
    generator = np.random.default_rng(0)
    base = {name: race(start, Fit)[1][-1][2] for name, start in starts.items()}
    tried: list[tuple[float, dict[str, float]]] = [(0.0, RATES)]
    for _ in range(draws):
        best = sorted(tried, key=lambda one: -one[0])[:4]
        rates = dict(best[generator.integers(len(best))][1])
        for name in rates:
            if generator.random() < 0.5:
                rates[name] *= float(np.exp(generator.normal(0, 0.6)))
        found = {name: race(start, adam_at(rates))[1][-1][2] for name, start in starts.items()}
        gain = float(np.mean([found[name] - base[name] for name in starts]))
        tried.append((gain, rates))
        print(
            json.dumps({"gain": round(gain, 3), **{name: round(rate, 5) for name, rate in rates.items()}}), flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", nargs="+", default=["still_life", "nerf_chair", "snowmiku_plush"])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--side", type=int, default=400, help="pixels of the photos' longest side")
    parser.add_argument("--splats", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(RIVALS), default=list(RIVALS), help="beside Adam")
    parser.add_argument("--search", type=int, metavar="DRAWS", help="tune Adam instead")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()

    def start_of(capture: str, seed: int) -> Start:
        path = SAMPLE if capture == "still_life" else DATA / capture
        chosen = {"max_side": arguments.side, "steps": arguments.steps, "splats": arguments.splats, "seed": seed}
        with tempfile.TemporaryDirectory() as folder:
            return prepare(path, SplatsConfig(**{**SplatsConfig.presets["fast"], **chosen}), Path(folder))

    if arguments.search:
        search({capture: start_of(capture, 0) for capture in arguments.captures}, arguments.search)
        return
    rows = []
    for capture in arguments.captures:
        for seed in range(arguments.seeds):
            start, aim, whole = start_of(capture, seed), 0.0, 1.0
            for name, kind in RIVALS.items():
                if name not in arguments.only and kind is not Fit:
                    continue
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
        what = f"{arguments.steps} steps, {arguments.side} pixels, at most {arguments.splats} splats"
        write_section("optimisers", f"{machine()}; {what}", COLUMNS, rows)


if __name__ == "__main__":
    main()
