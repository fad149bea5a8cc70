"""The search for the rates of the splats' optimisers, Adam's and block-LM's alike.

    python -m benchmarks.splat_rates {Adam,block-LM} [--start FACTORS] [--rounds 8]
                                     [--steps 800] [--side 256] [--splats 15000]

A random walk in the logarithms of all rates around the four best so far, scored by the mean gain in PSNR on the
validation photos of three captures over the pipeline's own rates, where it starts; held-out photos are not even loaded.
Prints a JSON line a draw; ``--start`` takes factors of such a line as the first draw. Two fits run at a time, each on
one thread.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fitting import Start, measure, prepare
from benchmarks.splats_quality import DATA
from recon.splats.block_fit import BlockFit
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit

CAPTURES = {
    "still_life": Path(__file__).parents[1] / "assets" / "still_life",
    "nerf_chair": DATA / "nerf_chair",
    "snowmiku_plush": DATA / "snowmiku_plush",
}
Factors = dict[str, float]
"""What the pipeline's own rates are multiplied by; ``decay`` is of all rates at the fit's end, ``forgetting`` of what a
step leaves of the momentum to the newest gradient."""
NAMES = [
    "means",
    "scales",
    "rotations",
    "opacities",
    "constant",
    "harmonics",
    "decay",
    "overlap",
    "forgetting",
    "cooldown",
]


def at_rates(kind: type[Fit], factors: Factors) -> type[Fit]:
    """Return a fit that differs from ``kind`` in its rates."""
    rule = kind.rule
    by = [factors["means"]] * 3 + [factors["scales"]] * 3 + [factors["rotations"]] * 3 + [factors["opacities"]]
    turned = replace(
        rule,
        geometry=replace(
            rule.geometry,
            rates=rule.geometry.rates * torch.tensor(by),
            decays=rule.geometry.decays * factors["decay"],
            overlap=rule.geometry.overlap * factors["overlap"],
            momentum=1 - (1 - rule.geometry.momentum) * factors["forgetting"],
            cooldown=min(1.0, rule.geometry.cooldown * factors["cooldown"]),
        ),
        constant=rule.constant * factors["constant"],
        harmonics=rule.harmonics * factors["harmonics"],
        decay=rule.decay * factors["decay"],
    )
    return type(kind.__name__, (kind,), {"rule": turned})


KINDS: dict[str, type[Fit]] = {"Adam": Fit, "block-LM": BlockFit}


@functools.cache
def started(capture: str, side: int, steps: int, splats: int) -> Start:
    """Return a capture made ready, once a process."""
    config = SplatsConfig(**{**SplatsConfig.presets["fast"], "max_side": side, "steps": steps, "splats": splats})
    with tempfile.TemporaryDirectory() as folder:
        return prepare(CAPTURES[capture], config, Path(folder))


def score(name: str, factors: Factors, *start: Any) -> float:
    """Return validation PSNR at the end of a fit."""
    torch.set_num_threads(1)
    model = started(*start).fit(at_rates(KINDS[name], factors))
    for _ in model.run():
        pass
    return measure(model, started(*start).validation)["psnr"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("optimiser", choices=KINDS)
    parser.add_argument("--start", type=json.loads, default={}, metavar="FACTORS")
    parser.add_argument("--rounds", type=int, default=8, help="of four draws")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--side", type=int, default=256, help="pixels of the photos' longest side")
    parser.add_argument("--splats", type=int, default=15_000)
    arguments = parser.parse_args()
    name, sizes = arguments.optimiser, (arguments.side, arguments.steps, arguments.splats)
    searched = [one for one in NAMES if one != "overlap" or KINDS[name].rule.geometry.overlap]
    own = dict.fromkeys(NAMES, 1.0)
    generator = np.random.default_rng(0)
    tried: list[tuple[float, Factors]] = []
    base: dict[str, float] = {}
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for turn in range(arguments.rounds):
            draws = [] if turn else [own, *([own | arguments.start] if arguments.start else [])]
            best = sorted(tried, key=lambda one: -one[0])[:4] or [(0.0, draws[-1])]
            while len(draws) < 4:
                factors = dict(best[generator.integers(len(best))][1])
                for one in searched:
                    if generator.random() < 0.5:
                        factors[one] *= float(np.exp(generator.normal(0, 0.5)))
                draws.append(factors)
            scores = [[pool.submit(score, name, draw, capture, *sizes) for capture in CAPTURES] for draw in draws]
            for draw, futures in zip(draws, scores, strict=True):
                found = {capture: future.result() for capture, future in zip(CAPTURES, futures, strict=True)}
                base = base or found
                gains = {capture: round(found[capture] - base[capture], 3) for capture in CAPTURES}
                tried.append((float(np.mean(list(gains.values()))), draw))
                print(json.dumps({"gain": round(tried[-1][0], 3), **gains, **rounded(draw)}), flush=True)


def rounded(factors: Factors) -> Factors:
    """Return factors as a line shows them."""
    return {name: round(by, 3) for name, by in factors.items()}


if __name__ == "__main__":
    main()
