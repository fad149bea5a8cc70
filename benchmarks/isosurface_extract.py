"""Surface extraction: seconds and memory, forward and backward, beside the public PyTorch FlexiCubes.

    python -m benchmarks.isosurface_extract [--rival FOLDER] [--seconds 3] [--write]

A ball at 32³, 64³ and 128³, and values U(0, 1) - 0.1 at 64³, with deformation and weights of every cell, training
split, gradients of the vertices' sum and L_dev to all parameters. ``--rival`` names a folder with the public code's
flexicubes.py and tables.py, which then runs in the same process, in turns with ours, so that a busy moment strikes each
alike; the least of the runs is shown, medians are in the JSON lines. CPU is the time that the process's threads worked,
which says more than the clock on a machine with other work. Both get the same values, a positive border included, so
that both surfaces are closed, and their faces are counted. Memory is what parameters, two passes and their gradients
add to the peak of a process of its own; the public code is spared its construction of the grid there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.splat_kernels import Times, peak_bytes
from benchmarks.tables import machine, print_table, write_section
from recon.isosurface import FlexiCubes

CASES = {"ball 32³": 32, "ball 64³": 64, "ball 128³": 128, "random 64³": 64}
_EACH = ["faces", "grid ms", "forward ms (CPU)", "backward ms (CPU)", "peak MB"]
COLUMNS = ["field", *_EACH, *[f"public code: {name}" for name in _EACH], "times as fast (CPU)"]


class Ours:
    """Our layer on one case: parameters and both passes."""

    def __init__(self, case: str) -> None:
        self.cubes = FlexiCubes(CASES[case], -0.5, 0.5)
        self.field = field(case, self.cubes.positions).requires_grad_()
        deform, weights = self.cubes.new_parameters()
        self.parameters = [self.field, deform, weights]

    def forward(self) -> tuple[Tensor, Tensor, int]:
        surface = self.cubes(*self.parameters, training=True)
        return surface.vertices, surface.deviation, len(surface.faces)


class Public:
    """The public code on the same case, used as its example does."""

    def __init__(self, case: str, folder: Path) -> None:
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        import flexicubes

        self._resolution = n = CASES[case]
        self.cubes = flexicubes.FlexiCubes(device="cpu")
        # What its construct_voxel_grid gives, in the same order.
        self._positions = FlexiCubes(n, -0.5, 0.5).positions.view(-1, 3)
        number = torch.arange((n + 1) ** 3).view(n + 1, n + 1, n + 1)
        corners = [number[c & 1 : n + (c & 1), c >> 1 & 1 : n + (c >> 1 & 1), c >> 2 : n + (c >> 2)] for c in range(8)]
        self._corners = torch.stack(corners, dim=-1).view(-1, 8)
        count, cells = len(self._positions), len(self._corners)
        parameters = (field(case, self._positions), torch.zeros(count, 3), torch.zeros(cells, 21))
        self.parameters = [p.requires_grad_() for p in parameters]

    def forward(self) -> tuple[Tensor, Tensor, int]:
        values, deform, weights = self.parameters
        positions = self._positions + (1 - 1e-8) / (self._resolution * 2) * torch.tanh(deform)
        vertices, faces, deviation = self.cubes(
            positions,
            values,
            self._corners,
            self._resolution,
            beta_fx12=weights[:, :12],
            alpha_fx8=weights[:, 12:20],
            gamma_f=weights[:, 20],
            training=True,
        )
        return vertices, deviation.mean(), len(faces)


def field(case: str, positions: Tensor) -> Tensor:
    """Return values of the same function or of the same seed at each sample, positive on the border."""
    if case.startswith("ball"):
        return positions.norm(dim=-1) - 0.4
    values = torch.rand(positions[..., 0].numel(), generator=torch.Generator().manual_seed(0)) - 0.1
    border = (positions.abs().amax(dim=-1) > 0.4999).flatten()  # the samples' order is the same in both
    return torch.where(border, 1.0, values).view(positions.shape[:-1])


def backward(of: Ours | Public, result: tuple[Tensor, Tensor, int]) -> None:
    torch.autograd.grad(result[0].sum() + result[1], of.parameters)


def measure(case: str, rival: Path | None, seconds: float) -> dict[str, Any]:
    """Time one case; return its JSON line."""
    sides: dict[str, Ours | Public] = {"ours": Ours(case)}
    if rival:
        sides["public"] = Public(case, rival)
    wall, cpu, grid, faces, turns = Times(), Times(), Times(), {}, 0
    n = CASES[case]
    grid.run("ours", partial(FlexiCubes, n))
    if rival:
        grid.run("public", partial(sides["public"].cubes.construct_voxel_grid, n))

    def timed(name: str, function: Callable[[], Any]) -> Any:
        begin = time.process_time()
        result = wall.run(name, function)
        cpu.setdefault(name, []).append(1e3 * (time.process_time() - begin))
        return result

    end = time.perf_counter() + seconds
    while turns < 2 or time.perf_counter() < end:
        for name, side in sides.items():
            result = timed(f"{name} forward", side.forward)
            faces[name] = result[2]
            timed(f"{name} backward", partial(backward, side, result))
            del result
        turns += 1

    def least(times: Times) -> dict[str, float]:
        return {name: round(min(runs), 3) for name, runs in times.items()}

    return {
        "field": case,
        "threads": torch.get_num_threads(),
        "turns": turns,
        "faces": faces,
        "grid_ms": least(grid),
        "least_ms": least(wall),
        "least_cpu_ms": least(cpu),
        "median_ms": {name: round(median(runs), 3) for name, runs in wall.items()},
    }


def measure_memory(make: Callable[[], Ours | Public]) -> float:
    """Return the megabytes that two passes over one case add to this process's peak."""
    before = peak_bytes()
    side = make()
    for _ in range(2):
        backward(side, side.forward())
    return (peak_bytes() - before) / 1e6


def peak_of(case: str, rival: Path | None) -> float:
    """Run ``measure_memory`` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.isosurface_extract", "--memory", case]
    command += ["--rival", str(rival)] if rival else []
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def row(line: dict[str, Any]) -> list[Any]:
    ms, cpu, grid, memory = (line[key] for key in ("least_ms", "least_cpu_ms", "grid_ms", "peak_mb"))

    def ratio(times: dict[str, float]) -> str:
        ours, public = (times[f"{side} forward"] + times[f"{side} backward"] for side in ("ours", "public"))
        return f"{public / ours:.0f}×"

    def passes(side: str) -> list[Any]:
        both = [f"{ms[f'{side} {way}']:.1f} ({cpu[f'{side} {way}']:.1f})" for way in ("forward", "backward")]
        return [line["faces"][side], f"{grid[side]:.1f}", *both, f"{memory[side]:.0f}"]

    rest = [*passes("public"), f"{ratio(ms)} ({ratio(cpu)})"] if "public" in memory else ["not found"] * 6
    return [line["field"], *passes("ours"), *rest]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival", type=Path, metavar="FOLDER", help="the public code: flexicubes.py and tables.py")
    parser.add_argument("--seconds", type=float, default=3, help="to spend on each case, at least two turns")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    parser.add_argument("--memory", choices=CASES, help="measure one case's memory only, in this process")
    arguments = parser.parse_args()
    rival: Path | None = arguments.rival
    if rival and not (rival / "flexicubes.py").exists():
        print(f"{rival / 'flexicubes.py'} not found", file=sys.stderr)
        rival = None
    if arguments.memory:
        print(measure_memory(partial(Public, arguments.memory, rival) if rival else partial(Ours, arguments.memory)))
        return
    lines = []
    for case in CASES:
        line = measure(case, rival, arguments.seconds)
        line["peak_mb"] = {"ours": round(peak_of(case, None), 1)}
        if rival:
            line["peak_mb"]["public"] = round(peak_of(case, rival), 1)
        print(json.dumps(line), flush=True)
        lines.append(line)
    rows = [row(line) for line in lines]
    print_table(COLUMNS, rows)
    if arguments.write:
        write_section("isosurface_extract", f"{machine()}, {torch.get_num_threads()} threads", COLUMNS, rows)


if __name__ == "__main__":
    main()
