"""What a splat's block of Jᵀ W J gains by its colour: 13 × 13 with colour, or 10 × 10 and the colour's diagonal.

    python -m benchmarks.color_coupling [--splats 60] [--steps 10] [--seeds 4] [--write]

Small scenes of random splats, seen by three cameras, are found again from disturbed starts, by steps
Δ = −(κ H + μ diag H)⁻¹ Jᵀ r with the whole Jacobian at hand, so that nothing but H differs: the diagonal, the two kinds
of blocks, and all of Jᵀ J, the ceiling. κ is the best of several for each scene; losses are mean squared errors, as
shares of the start's, their geometric mean over the scenes and the least and greatest.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics

import torch
from torch import Tensor

from benchmarks.tables import machine, print_table, write_section
from kernels.move_splats import move_splats
from kernels.splat_jacobian import UNKNOWNS, SplatJacobian
from recon.splats.model import Splats

OWN = UNKNOWNS + 3
"""A splat's unknowns with its colour."""
SIZE = 48
DAMPING = 1e-3
OVERLAPS = (2.0, 4.0, 8.0, 16.0, 32.0)
"""κ."""
DISTURBANCE = (0.05, 0.3, 0.3, 0.5, 0.3)
"""Of mean, log scale, quaternion, logit and colour: standard deviations, seldom more than half a splat."""
COLUMNS = ["H", "best κ", "loss after 4 steps", "loss at the end", "least to greatest"]


def scene(count: int, generator: torch.Generator) -> Splats:
    """Return random splats in the unit ball."""
    means = torch.randn(count, 3, generator=generator) * 0.4
    log_scales = math.log(0.12) + 0.4 * torch.randn(count, 3, generator=generator)
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1)
    return Splats(
        means, log_scales, quats, torch.randn(count, generator=generator), torch.rand(count, 1, 3, generator=generator)
    )


def disturbed(splats: Splats, generator: torch.Generator) -> Splats:
    """Return the start of a fit."""
    moved = {
        name: tensor + by * torch.randn(tensor.shape, generator=generator)
        for (name, tensor), by in zip(splats.tensors().items(), DISTURBANCE, strict=True)
    }
    return Splats(**moved)


def looks(splats: Splats) -> list[SplatJacobian]:
    """Return the scene from three sides."""
    found = []
    for angle in (0.0, 2.1, 4.2):
        c, s = math.cos(angle), math.sin(angle)
        viewmat = torch.tensor([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 3], [0, 0, 0, 1]])
        K = torch.tensor([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]])
        colors = splats.sh
        view = SplatJacobian(
            splats.means, splats.quats, splats.scales, splats.opacities, colors, viewmat, K, SIZE, SIZE, sh_degree=0
        )
        found.append(view)
    return found


def dense(views: list[SplatJacobian], count: int) -> Tensor:
    """Return the Jacobian of all views, (pixels, 13 N), a splat's unknowns side by side."""
    columns = torch.zeros(count, OWN, sum(view.image.numel() for view in views))
    for splat in range(count):
        for unknown in range(OWN):
            geometry, colors = torch.zeros(count, UNKNOWNS), torch.zeros(count, 1, 3)
            if unknown < UNKNOWNS:
                geometry[splat, unknown] = 1
            else:
                colors[splat, 0, unknown - UNKNOWNS] = 1
            columns[splat, unknown] = torch.cat([view.jvp(geometry, colors).flatten() for view in views])
    return columns.flatten(0, 1).T


def patterns(count: int) -> dict[str, Tensor]:
    """Return which entries of Jᵀ J each rival keeps, (13 N, 13 N) bool."""
    splat = torch.arange(count).repeat_interleave(OWN)
    color = (torch.arange(OWN) >= UNKNOWNS).repeat(count)
    same, diagonal = splat[:, None] == splat, torch.eye(len(splat), dtype=torch.bool)
    return {
        "diagonal": diagonal,
        "blocks of geometry, colour's diagonal": diagonal | (same & ~color[:, None] & ~color),
        "blocks of geometry and colour": same,
        "all of Jᵀ J": torch.ones_like(same),
    }


def course(start: Splats, photos: list[Tensor], keeps: Tensor, overlap: float, steps: int) -> list[float]:
    """Return the loss before each step and after the last."""
    splats = Splats(**{name: t.clone() for name, t in start.tensors().items()})
    losses = []
    for step in range(steps + 1):
        views = looks(splats)
        residual = torch.cat([(view.image - photo).flatten() for view, photo in zip(views, photos, strict=True)])
        loss = float(residual.square().mean())
        losses.append(loss if math.isfinite(loss) else math.inf)
        if step == steps or losses[-1] == math.inf:
            break
        jacobian = dense(views, len(splats))
        whole = jacobian.T @ jacobian
        lam = DAMPING * whole.diagonal().clamp(min=1e-6)
        system = overlap * whole * keeps + lam.diag()
        change = -torch.linalg.solve(system.double(), (jacobian.T @ residual).double()).float().view(-1, OWN)
        change = change.clamp(-0.5, 0.5)
        move_splats(splats.means, splats.log_scales, splats.quats, splats.logits, change[:, :UNKNOWNS].contiguous())
        splats.sh += change[:, None, UNKNOWNS:]
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splats", type=int, default=60)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    best: dict[str, list[tuple[float, list[float]]]] = {}
    for seed in range(arguments.seeds):
        generator = torch.Generator().manual_seed(seed)
        truth = scene(arguments.splats, generator)
        photos = [view.image for view in looks(truth)]
        start = disturbed(truth, generator)
        for name, keeps in patterns(arguments.splats).items():
            courses = {overlap: course(start, photos, keeps, overlap, arguments.steps) for overlap in OVERLAPS}
            overlap = min(courses, key=lambda overlap: courses[overlap][-1])
            shares = [loss / courses[overlap][0] for loss in courses[overlap]]
            best.setdefault(name, []).append((overlap, shares))
            print(
                json.dumps({"seed": seed, "H": name, "κ": overlap, "shares": [round(x, 5) for x in shares]}), flush=True
            )
    rows = []
    for name, found in best.items():
        fourth, last = ([shares[at] for _, shares in found] for at in (4, -1))
        overlaps = ", ".join(f"{overlap:g}" for overlap in sorted({overlap for overlap, _ in found}))
        means = [f"{statistics.geometric_mean(shares):.4f}" for shares in (fourth, last)]
        rows.append([name, overlaps, *means, f"{min(last):.4f} to {max(last):.4f}"])
    print_table(COLUMNS, rows)
    if arguments.write:
        what = f"{arguments.seeds} scenes of {arguments.splats} splats, {arguments.steps} steps"
        write_section("color_coupling", f"{machine()}; {what}", COLUMNS, rows)


if __name__ == "__main__":
    main()
