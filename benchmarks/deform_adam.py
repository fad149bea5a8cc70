"""Levenberg–Marquardt beside Adam on the same energy: how long each takes to where the former ends.

    python -m benchmarks.deform_adam [--steps 10000] [--write]

Frames of kinectPaper, with 1 px of noise on the tracks. As in :class:`~recon.deform.track_fit.TrackFit` the energy
(:mod:`recon.deform.shape`) is minimised stiffly first, from the frame before, and then, from where LM has come to, let
loose. LM is timed until it ends. Adam (torch's, on the vertices, the gradient by autograd) is timed until its cost is
at most ``CLOSE`` above LM's last, or until it has taken ``--steps``; of several rates, each constant, that which is
there first is shown, or else that which has come nearest. ``above LM's`` is how far its least cost is above LM's then.
Seconds are of processor time, on one thread.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.deform_tracks import noisy, read, sheet_of
from benchmarks.tables import machine, print_table, write_section
from recon.deform.observations import Seen
from recon.deform.shape import Shape, solve
from recon.deform.track_fit import BENDING, STEPS, STIFF, TOLERANCE, WRONG, TrackFit

FRAMES = (2, 5, 8)
ENERGIES = {"stiff": (STIFF * BENDING, 1e3), "loose": (BENDING, WRONG)}
"""β and σ."""
RATES = (0.1, 0.3, 1.0, 0.03, 3.0, 0.01, 10.0)
"""Of Adam, in mm a step; the likeliest first, as none is given more steps than the best before it."""
CLOSE = 0.01
COLUMNS = [
    "frame",
    "energy",
    "cost at the start",
    "after LM",
    "LM's steps",
    "LM's seconds",
    "Adam's rate",
    "above LM's",
    "Adam's steps",
    "Adam's seconds",
]


@dataclass(frozen=True)
class Run:
    """Adam at one rate: its least cost, its steps and the seconds that they took."""

    rate: float
    cost: float
    steps: int
    seconds: float


def adam(shape: Shape, start: Tensor, rate: float, goal: float, most: int) -> Run:
    """Minimise until the cost is ``goal``, at ``most`` steps, or until it is infinite."""
    x, least, steps = start.clone().requires_grad_(), math.inf, 0
    optimiser = torch.optim.Adam([x], lr=rate, fused=True)
    begun = time.process_time()
    while True:
        energy = shape.energy(x)
        least = min(least, energy.item() / 2)
        if least <= goal or steps == most or not math.isfinite(energy.item()):
            break
        optimiser.zero_grad()
        energy.backward()
        optimiser.step()
        steps += 1
    return Run(rate, least, steps, time.process_time() - begun)


def race(shape: Shape, start: Tensor, most: int) -> tuple[list[Any], Tensor]:
    """Return the figures of both, and where LM ends."""
    begun = time.process_time()
    found, steps = solve(shape, start, STEPS, TOLERANCE)
    seconds, cost = time.process_time() - begun, shape.cost(found)
    goal = (1 + CLOSE) * cost
    runs = []
    for rate in RATES:
        runs.append(adam(shape, start, rate, goal, most))
        if runs[-1].cost <= goal:
            most = runs[-1].steps
    best = min(runs, key=lambda run: (max(run.cost, goal), run.seconds))
    lm = [f"{shape.cost(start):.4g}", f"{cost:.4g}", steps, f"{seconds:.2f}"]
    return [*lm, f"{best.rate:.3g}", f"{100 * (best.cost / cost - 1):.1f} %", best.steps, f"{best.seconds:.2f}"], found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000, help="of Adam, at most")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sequence = read("kinectPaper")
    sheet, _ = sheet_of(sequence.truth[0])
    K, fit, rows = torch.from_numpy(sequence.K), TrackFit(sheet, sequence.K), []
    tracks, before = noisy(sequence.tracks, 1.0), sheet.template
    for frame in range(max(FRAMES) + 1):
        pixels, belief = tracks[frame], sequence.visible[frame]
        if frame in FRAMES:
            start = before
            for name, (bending, wrong) in ENERGIES.items():
                seen = Seen(torch.from_numpy(pixels), torch.from_numpy(belief), K, 1.0, wrong)
                figures, start = race(Shape(sheet, (seen,), bending), start, arguments.steps)
                rows.append([frame, name, *figures])
        before = fit.frame(pixels, belief, before).vertices
    print_table(COLUMNS, rows)
    if arguments.write:
        write_section("deform_adam", machine(), COLUMNS, rows)


if __name__ == "__main__":
    main()
