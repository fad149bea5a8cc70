"""The octree beside uniform grids: cells, seconds and errors on a ball with three small ones on it.

    python -m benchmarks.isosurface_octree [--write]

Values are the exact distance at the samples. The octree begins at 16³ and is refined again and again where the mean
error of a leaf is above 0.003. Errors are mean distances from points of the true surface, of the large ball and of the
small ones, to the mesh. Seconds are the least of three runs: forward and backward in training mode with all parameters.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.tables import machine, print_table, write_section
from kernels.nearest import nearest
from recon.isosurface import FlexiCubes, LeafLoss, Octree

RADIUS, SMALL = 0.6, 0.05
CENTRES = RADIUS * normalize(torch.tensor([[1.0, 1.0, 1.0], [-1.0, 0.2, 0.5], [0.3, -1.0, -0.8]]), dim=1)
THRESHOLD = 0.003
COLUMNS = ["grid", "cells", "faces", "grid s", "forward s", "backward s", "error", "error at small balls"]


def distance(points: Tensor) -> Tensor:
    small = torch.stack([(points - centre).norm(dim=-1) for centre in CENTRES]).amin(dim=0) - SMALL
    return torch.minimum(points.norm(dim=-1) - RADIUS, small)


def points() -> tuple[Tensor, Tensor]:
    around = normalize(torch.randn(20000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    small = (CENTRES[:, None] + SMALL * around[:2000]).flatten(0, 1)
    on = [each[distance(each).abs() < 1e-6] for each in (RADIUS * around, small)]
    return on[0], on[1]


def measure(name: str, grid: Octree | FlexiCubes, seconds: float) -> list[object]:
    field = distance(grid.positions).requires_grad_()
    deform, weights = grid.new_parameters()
    forward, backward = [], []
    for _ in range(3):
        start = time.perf_counter()
        surface = grid(field, deform, weights, training=True)
        middle = time.perf_counter()
        (surface.vertices.sum() + surface.deviation).backward()
        forward.append(middle - start)
        backward.append(time.perf_counter() - middle)
    mesh = grid(field)
    errors = [float(nearest(each, mesh.vertices.detach(), mesh.faces)[0].sqrt().mean()) for each in points()]
    times = [f"{each:.3f}" for each in (seconds, min(forward), min(backward))]
    return [name, len(weights), len(mesh.faces), *times, *[f"{each:.2e}" for each in errors]]


def main() -> None:
    parser = argparse.ArgumentParser(description="The octree beside uniform grids.")
    parser.add_argument("--write", action="store_true", help="replace the section of benchmarks/README.md")
    write, when = parser.parse_args().write, machine()
    rows = []
    for n in (32, 64, 128):
        start = time.perf_counter()
        cubes = FlexiCubes(n)
        rows.append(measure(f"uniform {n}³", cubes, time.perf_counter() - start))
    octree, every, seconds = Octree(16), torch.cat(points()), 0.0
    for finest in (32, 64, 128, 256):
        surface, loss = octree(distance(octree.positions)), LeafLoss(octree)
        squared, face, _ = nearest(every, surface.vertices, surface.faces)
        loss.add(surface.leaves[surface.faces[face.long()].long()], squared.sqrt()[:, None])
        start = time.perf_counter()
        octree, _ = octree.refined(loss.mean > THRESHOLD)
        seconds = time.perf_counter() - start
        rows.append(measure(f"octree to {finest}³", octree, seconds))
    print_table(COLUMNS, rows)
    if write:
        write_section("isosurface_octree", when, COLUMNS, rows)


if __name__ == "__main__":
    main()
