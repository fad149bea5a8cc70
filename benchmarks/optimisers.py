"""The race of the splats' optimisers: Adam at two sets of rates, and the Levenberg–Marquardt family.

    python -m benchmarks.optimisers [--captures still_life …] [--only block-LM …] [--seeds 3] [--log FILE] [--write]

The ``fast`` preset's fit at 400 pixels, with densification and with the splats of the start alone: same start, photos,
budget and steps for all. Rates, densification and the photos' sizes follow a fit's length, so a fit is worth what it
has come to at its end, and how long a quality takes is told by fits of several lengths, between which PSNR is
interpolated over the logarithm of time; those far behind run at fewer. Levenberg–Marquardt after Adam takes five steps
in place of the last third of Adam's, however long they take: in the pipeline's fits, which are planned by time, it
would take but one at these lengths.

``dB at Adam's time`` is what a rival is ahead after the time of Adam's fit of the middle length; ``time to Adam's`` is
when it has that fit's PSNR, as a share of that fit's time, and ``time to 3DGS'`` the same of the longest fit by Adam at
3DGS' rates: "no" where no fit has it, "≤" where the shortest has it already.

PSNR is of validation photos, on which all settings were chosen (``benchmarks.splat_rates``). Held-out photos, which
nothing was chosen by, are shown at the end of fits of the middle length, and the loss over these fits' last steps, as
many as photos; not of Levenberg–Marquardt after Adam, where most of those are Adam's. Each fit is a process of its
own, on one thread, two at a time; seconds are of its processor time.

``--log`` keeps the fits in a file; what it holds already is not run again, and is in the table, asked for or not.
``--write`` puts the table into benchmarks/README.md and draws docs/images/race.svg.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.fitting import measure, prepare, run_fits
from benchmarks.memory import peak_bytes
from benchmarks.splat_rates import CAPTURES
from benchmarks.tables import machine, print_table, write_section
from recon.solve.block_lm import BlockRule
from recon.splats.block_fit import BlockFit
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit
from recon.splats.lm_fit import ADAM_SHARE, LMFit
from recon.splats.sampled_fit import SampledFit
from recon.splats.solver import SplatRule

PLOT = Path(__file__).parents[1] / "docs" / "images" / "race.svg"
LENGTHS = (150, 300, 600, 1200)
MIDDLE, LONGEST = 600, 1200
"""Steps of a fit."""
COLUMNS = [
    "capture",
    "splats",
    "optimiser",
    "seeds",
    *(f"{length} steps" for length in LENGTHS),
    "held-out",
    "training loss",
    "dB at Adam's time",
    "time to Adam's",
    "time to 3DGS'",
    "memory MB",
]
SIDE = 400
"""Pixels of the photos' longest side."""
SPLATS = 50_000


class PublishedRates(Fit):
    """Adam at 3DGS' rates (Kerbl et al. 2023, its code), positions in units of the scene's extent.

    Of a unit quaternion a turn by ω is a change by ω / 2: the rate of the rotation vector is twice the quaternion's.
    """

    rule = SplatRule(
        BlockRule(
            rates=torch.tensor([1.6e-4] * 3 + [5e-3] * 3 + [2e-3] * 3 + [5e-2]),
            decays=torch.tensor([0.01] * 3 + [1.0] * 7),
            overlap=0.0,
            momentum=0.9,
        ),
        constant=2.5e-3,
        harmonics=2.5e-3 / 20,
        decay=1.0,
    )


class FiveSteps(LMFit):
    """Adam, then five steps of Levenberg–Marquardt."""

    @property
    def stride(self) -> int:
        """Steps of the fit that its next step counts for."""
        return 1 if self.done < ADAM_SHARE else math.ceil((1 - ADAM_SHARE) * self.config.steps / 5)


class PublishedThenLM(FiveSteps, PublishedRates):
    """3DGS-LM as it was published: Adam at 3DGS' rates before it."""


RIVALS: dict[str, tuple[type[Fit], tuple[int, ...]]] = {
    "Adam": (Fit, LENGTHS),
    "block-LM": (BlockFit, LENGTHS),
    "Adam, 3DGS' rates": (PublishedRates, LENGTHS[1:]),
    "Adam, then LM": (FiveSteps, (MIDDLE,)),
    "Adam, 3DGS' rates, then LM": (PublishedThenLM, LENGTHS[1:3]),
    "LM, sampled": (SampledFit, (MIDDLE,)),
}
"""Each with the lengths of its fits."""
Key = tuple[str, bool, str, int, int]
"""Capture, whether splats come and go, optimiser, steps, seed."""


def run(capture: str, grows: bool, name: str, steps: int, seed: int) -> dict[str, Any]:
    """Return one fit's figures, measured in this process alone."""
    torch.set_num_threads(1)
    chosen = {"max_side": SIDE, "steps": steps, "splats": SPLATS, "seed": seed}
    config = SplatsConfig(**{**SplatsConfig.presets["fast"], **chosen})
    with tempfile.TemporaryDirectory() as folder:
        start = prepare(CAPTURES[capture], config, Path(folder))
    kind = RIVALS[name][0]
    if not grows:
        kind = type(kind.__name__, (kind,), {"_densify": lambda self: None})
    model, begun = start.fit(kind), time.process_time()
    losses = [progress.loss for progress in model.run()]
    seconds = time.process_time() - begun
    return {
        "seconds": round(seconds, 2),
        "loss": float(np.mean(losses[-len(start.photos) :])),
        "count": len(model.splats),
        "psnr": measure(model, start.validation)["psnr"],
        "held-out": measure(model, start.held_out)["psnr"],
        "memory": peak_bytes() >> 20,
    }


def wanted(captures: list[str], names: list[str], seeds: int) -> list[Key]:
    """Return all fits of the race, those first that say most."""
    found = []
    for seed, grows, name, capture in itertools.product(range(seeds), (True, False), names, captures):
        found += [(capture, grows, name, steps, seed) for steps in RIVALS[name][1]]
    return found


Fits = dict[Key, dict[str, Any]]
Course = list[tuple[float, float]]
"""(Seconds, PSNR) of fits of all lengths, the shortest first."""


def course(fits: Fits, capture: str, grows: bool, name: str, seed: int) -> Course:
    """Return a rival's fits that there are."""
    keys = [(capture, grows, name, steps, seed) for steps in LENGTHS]
    return [(fits[key]["seconds"], fits[key]["psnr"]) for key in keys if key in fits]


def ahead(own: Course, seconds: float, psnr: float) -> float | None:
    """Return by how many dB a course is ahead after so many seconds, None where that is beyond its fits."""
    times, values = zip(*own, strict=True)
    if not times[0] <= seconds <= times[-1]:
        return None
    return float(np.interp(math.log(seconds), np.log(times), values)) - psnr


def reached(own: Course, psnr: float) -> float | None:
    """Return the seconds after which a course has ``psnr``, None where none of its fits has."""
    if own[0][1] >= psnr:
        return own[0][0]
    for (early, low), (late, high) in itertools.pairwise(own):
        if high >= psnr:
            return early * (late / early) ** ((psnr - low) / (high - low))
    return None


def mean(values: list[float], digits: int, sign: str = "") -> str:
    """Return the mean and half the range."""
    spread = f" ± {(max(values) - min(values)) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.{digits}f}{spread}"


def row(fits: Fits, capture: str, grows: bool, name: str) -> list[Any] | None:
    """Return a rival's row of the table, None if it has not run."""
    both = [{key[4] for key in fits if key[:4] == (capture, grows, one, MIDDLE)} for one in (name, "Adam")]
    seeds = sorted(both[0] & both[1])
    if not seeds:
        return None
    cells = []
    for steps in LENGTHS:
        ended = [fits[key] for seed in seeds if (key := (capture, grows, name, steps, seed)) in fits]
        seconds, values = [one["seconds"] for one in ended], [one["psnr"] for one in ended]
        cells.append(f"{mean(values, 2)} dB, {np.mean(seconds):.0f} s" if ended else "")
    middle = [fits[(capture, grows, name, MIDDLE, seed)] for seed in seeds]
    gains: list[float | None] = []
    aims = {"Adam": MIDDLE, "Adam, 3DGS' rates": LONGEST}
    times: dict[str, list[float | None]] = {rival: [] for rival in aims}
    at_once = dict.fromkeys(times, False)
    for seed in seeds:
        own = course(fits, capture, grows, name, seed)
        for rival, into in times.items():
            key = (capture, grows, rival, aims[rival], seed)
            if key in fits:
                aim = fits[key]
                when = reached(own, aim["psnr"])
                at_once[rival] |= when == own[0][0] and name != rival
                into.append(None if when is None else when / aim["seconds"])
        aim = fits[(capture, grows, "Adam", MIDDLE, seed)]
        gains.append(ahead(own, aim["seconds"], aim["psnr"]))
    return [
        capture,
        f"to {middle[0]['count']}" if grows else middle[0]["count"],
        name,
        len(seeds),
        *cells,
        mean([one["held-out"] for one in middle], 2),
        "" if issubclass(RIVALS[name][0], LMFit) else mean([one["loss"] for one in middle], 4),
        of_all(gains, "", sign="+"),
        *(f"{'≤ ' if at_once[rival] else ''}{of_all(found, 'no')}" for rival, found in times.items()),
        max(one["memory"] for one in middle),
    ]


def of_all(found: list[float | None], none: str, sign: str = "") -> str:
    """Return the mean of what all seeds have found, or ``none`` where one has not."""
    values = [value for value in found if value is not None]
    return mean(values, 2, sign) if found and len(values) == len(found) else none


def draw(fits: Fits, captures: list[str]) -> None:
    """Draw PSNR at the end of fits over their seconds, a panel a capture and kind of fit, the first seed."""
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "race"}  # text as text, the same file each time
    figure, axes = plt.subplots(2, len(captures), figsize=(12, 7.5), squeeze=False, sharey="col")
    for (grows, capture), axis in zip(itertools.product((True, False), captures), axes.flat, strict=True):
        for index, name in enumerate(RIVALS):
            if own := course(fits, capture, grows, name, 0):
                axis.plot(*zip(*own, strict=True), "o-", color=f"C{index}", label=name, markersize=5)
        axis.set(title=f"{capture}, {'with densification' if grows else 'the same splats'}", xlabel="seconds of a fit")
        axis.set_xscale("log")
        ticks = [10, 20, 50, 100, 200, 400]
        axis.set_xticks(ticks, map(str, ticks))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("validation PSNR at its end, dB")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="lower center", ncols=len(RIVALS), fontsize=9)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", nargs="+", choices=CAPTURES, default=list(CAPTURES))
    parser.add_argument("--only", nargs="+", choices=RIVALS, default=list(RIVALS), help="beside Adam")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    names = [name for name in RIVALS if name == "Adam" or name in arguments.only]
    keys = wanted(arguments.captures, names, arguments.seeds)
    fits: Fits = dict(zip(keys, run_fits(run, keys, arguments.log), strict=True))
    if arguments.log is not None:
        fits |= {tuple(key): found for key, found in map(json.loads, arguments.log.read_text().splitlines())}
    panels = itertools.product(arguments.captures, (True, False), RIVALS)
    rows = [found for panel in panels if (found := row(fits, *panel)) is not None]
    print_table(COLUMNS, rows)
    if arguments.write:
        write_section("optimisers", f"{machine()}; {SIDE} pixels, at most {SPLATS} splats", COLUMNS, rows)
        draw(fits, arguments.captures)


if __name__ == "__main__":
    main()
