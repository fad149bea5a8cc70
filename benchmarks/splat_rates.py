"""The search for the rates of the splats' optimisers, Adam's and block-LM's alike.

    python -m benchmarks.splat_rates {Adam,block-LM} [--start FACTORS] [--draws 30]
                                     [--steps 800] [--side 256] [--splats 15000]

A random walk in the logarithms of all rates around the four best so far, scored by the mean gain in PSNR on the
validation photos of three captures over the pipeline's own rates, where it starts; held-out photos are not even loaded.
Prints a JSON line a draw; ``--start`` takes factors of such a line as the first draw.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.fitting import Start, measure, prepare
from benchmarks.splats_quality import DATA
from recon.solve.adam import Adam, Rule
from recon.splats.block_fit import BlockFit, BlockSolver
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit, rules

CAPTURES = {
    "still_life": Path(__file__).parents[1] / "assets" / "still_life",
    "nerf_chair": DATA / "nerf_chair",
    "snowmiku_plush": DATA / "snowmiku_plush",
}
Factors = dict[str, float]
"""What the pipeline's own rates are multiplied by; ``decay`` is of all rates at the fit's end."""
NAMES = ("means", "scales", "rotations", "opacities", "constant", "harmonics", "decay")


def recolored(rule: Rule, factors: Factors) -> Rule:
    """Return a rule of spherical harmonics, the constant's three columns first, at other rates."""
    rates = rule.rates * factors["harmonics"]
    rates[:3] = rule.rates[:3] * factors["constant"]
    return replace(rule, rates=rates, decay=rule.decay * factors["decay"])


def adam_at(factors: Factors) -> type[Fit]:
    """Return the pipeline's fit with Adam at other rates."""
    names = {"means": "means", "log_scales": "scales", "quats": "rotations", "logits": "opacities"}

    class AtRates(Fit):
        def _make_optimiser(self) -> Adam:
            found = rules(self.splats)
            turned = {
                tensor: replace(
                    found[tensor],
                    rates=found[tensor].rates * factors[name],
                    decay=found[tensor].decay * factors["decay"],
                )
                for tensor, name in names.items()
            }
            return Adam(self.splats.tensors(), {**turned, "sh": recolored(found["sh"], factors)})

    return AtRates


def block_lm_at(factors: Factors) -> type[Fit]:
    """Return the pipeline's fit with block-LM at other rates."""
    of = [factors["means"]] * 3 + [factors["scales"]] * 3 + [factors["rotations"]] * 3 + [factors["opacities"]]
    by = torch.tensor(of)

    class AtRates(BlockFit):
        def _make_optimiser(self) -> BlockSolver:
            solver = BlockSolver(self.splats)
            rule = solver.geometry.rule
            solver.geometry.rule = replace(
                rule,
                rates=rule.rates * by,
                decays=rule.decays * factors["decay"],
                overlap=rule.overlap * factors["overlap"],
            )
            solver.colors.rules["sh"] = recolored(solver.colors.rules["sh"], factors)
            return solver

    return AtRates


KINDS: dict[str, tuple[Callable[[Factors], type[Fit]], tuple[str, ...]]] = {
    "Adam": (adam_at, NAMES),
    "block-LM": (block_lm_at, (*NAMES, "overlap")),
}


def score(start: Start, kind: type[Fit]) -> float:
    """Return validation PSNR at the end of a fit."""
    model = start.fit(kind)
    for _ in model.run():
        pass
    return measure(model, start.validation)["psnr"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optimiser", choices=KINDS)
    parser.add_argument("--start", type=json.loads, default={}, metavar="FACTORS")
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--side", type=int, default=256, help="pixels of the photos' longest side")
    parser.add_argument("--splats", type=int, default=15_000)
    arguments = parser.parse_args()
    chosen = {"max_side": arguments.side, "steps": arguments.steps, "splats": arguments.splats}
    config = SplatsConfig(**{**SplatsConfig.presets["fast"], **chosen})
    starts = {}
    for name, path in CAPTURES.items():
        with tempfile.TemporaryDirectory() as folder:
            starts[name] = prepare(path, config, Path(folder))
    make, names = KINDS[arguments.optimiser]
    generator = np.random.default_rng(0)
    tried: list[tuple[float, Factors]] = []
    base: dict[str, float] = {}
    for draw in range(arguments.draws):
        factors = dict.fromkeys(names, 1.0)
        if draw == 1 and arguments.start:
            factors |= arguments.start
        elif draw:
            best = sorted(tried, key=lambda one: -one[0])[:4]
            factors = dict(best[generator.integers(len(best))][1])
            for name in names:
                if generator.random() < 0.5:
                    factors[name] *= float(np.exp(generator.normal(0, 0.5)))
        found = {name: score(start, make(factors)) for name, start in starts.items()}
        base = base or found
        gains = {name: round(found[name] - base[name], 3) for name in starts}
        tried.append((float(np.mean(list(gains.values()))), factors))
        line = {"gain": round(tried[-1][0], 3), **gains, **{name: round(by, 3) for name, by in factors.items()}}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
