"""The race of the splats' optimisers: Adam at two sets of rates, and the Levenberg–Marquardt family.

    python -m benchmarks.optimisers [--captures still_life …] [--steps 500] [--only block-LM …] [--log FILE] [--write]

The ``fast`` preset's fit at 400 pixels, with densification and with the splats of the start alone: same start, photos,
budget and steps for all, but that block-LM also has fits of fewer steps: rates cool down in the last part of a fit, so
that what a fit is worth is seen at its end, and whether it could have been shorter, by a shorter one. Each run is a
process of its own, Adam's and block-LM's with three seeds. ``reached`` is the time at which the validation photos were
matched as well as Adam matched them at its end (looked at every 25th of the fit, which costs no time, and
interpolated), as a share of Adam's time; ``reached 3DGS'`` is the same of Adam at 3DGS' rates. All settings were chosen
on validation photos (``benchmarks.splat_rates``); the held-out ones are looked at once, at the end.

``--log`` keeps the runs in a file, and what it holds already is not run again. ``--write`` puts the table into
benchmarks/README.md and draws docs/images/race.svg.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.fitting import Start, measure, prepare
from benchmarks.memory import peak_bytes
from benchmarks.splat_rates import CAPTURES
from benchmarks.tables import machine, print_table, write_section
from recon.solve.adam import Adam, Rule
from recon.splats.block_fit import BlockFit
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit
from recon.splats.lm_fit import LMFit
from recon.splats.sampled_fit import SampledFit

PLOT = Path(__file__).parents[1] / "docs" / "images" / "race.svg"
COLUMNS = [
    "capture",
    "splats",
    "optimiser",
    "seeds",
    "seconds",
    "training loss",
    "validation PSNR",
    "held-out PSNR",
    "reached",
    "reached 3DGS'",
    "memory MB",
]
LOOKS = 25
SEEDS = 3


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


class PublishedThenLM(LMFit, PublishedRates):
    """3DGS-LM as it was published: Adam at 3DGS' rates before it."""


RIVALS: dict[str, tuple[type[Fit], float]] = {
    "Adam": (Fit, 1),
    "block-LM": (BlockFit, 1),
    "block-LM, 70 % of the steps": (BlockFit, 0.7),
    "block-LM, 50 % of the steps": (BlockFit, 0.5),
    "Adam, 3DGS' rates": (PublishedRates, 1),
    "Adam, then LM": (LMFit, 1),
    "Adam, 3DGS' rates, then LM": (PublishedThenLM, 1),
    "LM, sampled": (SampledFit, 1),
}
"""The fit and its share of the steps."""
CLOSE = tuple(RIVALS)[:4]
"""Those that run with all seeds."""
Run = dict[str, Any]


def race(start: Start, kind: type[Fit]) -> tuple[Fit, list[tuple[float, float, float]]]:
    """Return the fitted model and (seconds, training loss, validation PSNR) along its way."""
    model, spent, losses = start.fit(kind), 0.0, []
    course: list[tuple[float, float, float]] = []
    steps, every = model.run(), max(1, start.config.steps // LOOKS)
    while model.step < start.config.steps:
        before, begun = model.step, time.perf_counter()
        losses.append(next(steps).loss)
        spent += time.perf_counter() - begun
        if model.step // every > before // every:
            loss = float(np.mean(losses[-len(start.photos) :]))
            course.append((round(spent, 2), loss, measure(model, start.validation)["psnr"]))
    return model, course


def run(capture: str, grows: bool, name: str, seed: int, chosen: dict[str, int]) -> Run:
    """Return one rival's run, measured in this process alone."""
    kind, share = RIVALS[name]
    own = {"seed": seed, "steps": round(share * chosen["steps"])}
    config = SplatsConfig(**{**SplatsConfig.presets["fast"], **chosen, **own})
    with tempfile.TemporaryDirectory() as folder:
        start = prepare(CAPTURES[capture], config, Path(folder))
    if not grows:
        kind = type(kind.__name__, (kind,), {"_densify": lambda self: None})
    model, course = race(start, kind)
    return {
        "capture": capture,
        "grows": grows,
        "optimiser": name,
        "seed": seed,
        "count": len(model.splats),
        "held-out": measure(model, start.held_out)["psnr"],
        "memory": peak_bytes() >> 20,
        "course": course,
    }


def reached(course: list[tuple[float, float, float]], psnr: float) -> float | None:
    """Return the seconds at which a course first reaches ``psnr``, None if it does not."""
    before = (0.0, 0.0, -np.inf)
    for look in course:
        if look[2] >= psnr:
            share = 1.0 if not np.isfinite(before[2]) else (psnr - before[2]) / (look[2] - before[2])
            return before[0] + share * (look[0] - before[0])
        before = look
    return None


def shares(runs: list[Run], aims: list[Run]) -> str:
    """Return the shares of the aims' times at which ``runs`` reached what those had at their end, seed by seed."""
    if not aims:
        return "not run"
    by_seed, found = {one["seed"]: one["course"] for one in aims}, []
    for one in runs:
        whole, _, psnr = by_seed.get(one["seed"], by_seed[0])[-1]
        when = reached(one["course"], psnr)
        if when is not None:
            found.append(when / whole)
    return mean(found, 2) if len(found) == len(runs) else f"{len(found)} of {len(runs)}" if found else "no"


def mean(values: list[float], digits: int) -> str:
    """Return the mean and half the range."""
    spread = f" ± {(max(values) - min(values)) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def row(runs: list[Run], alike: list[Run]) -> list[Any]:
    """Return a table's row of one rival's ``runs``, beside those of all rivals ``alike``."""
    first, ends = runs[0], [one["course"][-1] for one in runs]
    return [
        first["capture"],
        f"to {first['count']}" if first["grows"] else first["count"],
        first["optimiser"],
        len(runs),
        mean([end[0] for end in ends], 1),
        mean([end[1] for end in ends], 4),
        mean([end[2] for end in ends], 2),
        mean([one["held-out"] for one in runs], 2),
        *(shares(runs, [one for one in alike if one["optimiser"] == name]) for name in ("Adam", "Adam, 3DGS' rates")),
        max(one["memory"] for one in runs),
    ]


def draw(runs: list[Run]) -> None:
    """Draw validation PSNR over seconds, a panel a capture and kind of fit, the first seed of each rival."""
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "race"}  # text as text, the same file each time
    captures = list(dict.fromkeys(one["capture"] for one in runs))
    panels = list(itertools.product((True, False), captures))
    figure, axes = plt.subplots(2, len(captures), figsize=(12, 7.5), squeeze=False, sharey="col")
    for (grows, capture), axis in zip(panels, axes.flat, strict=True):
        for index, name in enumerate(RIVALS):
            for one in runs:
                if (one["grows"], one["capture"], one["optimiser"], one["seed"]) == (grows, capture, name, 0):
                    seconds, _, psnr = zip(*one["course"], strict=True)
                    axis.plot(seconds, psnr, color=f"C{index}", label=name, linewidth=2 if name in CLOSE else 1)
        axis.set(title=f"{capture}, {'with densification' if grows else 'the same splats'}", xlabel="seconds")
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("validation PSNR, dB")
    axes.flat[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", nargs="+", choices=CAPTURES, default=list(CAPTURES))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--side", type=int, default=400, help="pixels of the photos' longest side")
    parser.add_argument("--splats", type=int, default=50_000)
    parser.add_argument("--only", nargs="+", choices=RIVALS, default=list(RIVALS), help="beside Adam")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    chosen = {"max_side": arguments.side, "steps": arguments.steps, "splats": arguments.splats}
    log: Path | None = arguments.log
    runs: list[Run] = [] if log is None or not log.exists() else list(map(json.loads, log.read_text().splitlines()))
    known = {(one["capture"], one["grows"], one["optimiser"], one["seed"]) for one in runs}
    for seed, capture, grows, name in itertools.product(range(SEEDS), arguments.captures, (True, False), RIVALS):
        unwanted = name != "Adam" and (name not in arguments.only or (seed > 0 and name not in CLOSE))
        if unwanted or (capture, grows, name, seed) in known:
            continue
        # A process a run, for its peak of memory.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            one = process.submit(run, capture, grows, name, seed, chosen).result()
        runs.append(one)
        print(json.dumps({**one, "course": one["course"][-1]}), flush=True)
        if log is not None:
            with log.open("a") as file:
                file.write(json.dumps(one) + "\n")
    rows = []
    for capture, grows, name in itertools.product(arguments.captures, (True, False), RIVALS):
        alike = [one for one in runs if (one["capture"], one["grows"]) == (capture, grows)]
        own = [one for one in alike if one["optimiser"] == name]
        if own:
            rows.append(row(own, alike))
    print_table(COLUMNS, rows)
    if arguments.write:
        what = f"{arguments.steps} steps, {arguments.side} pixels, at most {arguments.splats} splats"
        write_section("optimisers", f"{machine()}; {what}", COLUMNS, rows)
        draw(runs)


if __name__ == "__main__":
    main()
