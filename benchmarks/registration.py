"""Non-rigid registration beside trimesh's, and what rigid alignment alone gives.

    python -m benchmarks.registration [--pairs test1 …] [--methods ours …] [--log FILE] [--write]

test1 is SPARE's own pair (nonrigid_spare), whose vertices are the same ones: RMSE is of each to where it belongs, in
the data's units. Sheets of 200 by 150 are laid onto finer ones that are rolled and folded, where that is known too;
they are registered from where they lie, since a sheet's own half turn is as good. cat → lion and the camel's gallop
(pose 1 to each of the others, every one meshed anew) have no such truth. Distances are of points to the other surface,
both ways, in per cent of the target's diagonal; flipped are faces that look away from the nearest one of the target;
strain is the median of the faces. trimesh's nricp_amberg and nricp_sumner start from each of the rigid alignments that
ours tries, and from where the source lies; of these the end counts that lies nearest, and its seconds alone. ``--log``
keeps each run in a file, and what it holds already is not run again.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray

from benchmarks.bent_sheets import FINE, cylinder, folded, nodes
from benchmarks.tables import machine, print_table, write_section
from kernels.nearest import nearest
from recon.deform.register import register
from recon.deform.rigid import align
from recon.deform.sheet import grid_faces
from recon.deform.surface import surface_of
from recon.evaluate.strain import strain_summary
from recon.mesh.mesh import Mesh

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PYFM = DATA / "nonrigid_pyfm"
CELLS = 20, 15
GALLOP = [PYFM / "camel_gallop" / f"camel-gallop-{i:02d}.off.gz" for i in range(1, 11)]
PAIRS = {
    "test1": (DATA / "nonrigid_spare" / "test1" / "source.obj", DATA / "nonrigid_spare" / "test1" / "target.obj"),
    "cat-lion": (PYFM / "cat-00.off", PYFM / "lion-00.off"),
    "rolled sheet": partial(cylinder, radius=80.0),
    "folded sheet": partial(folded, angle=0.9, radius=20.0),
} | {f"camel 1-{i + 1}": (GALLOP[0], GALLOP[i]) for i in range(1, 10)}
METHODS = ["rigid", "ours", "ours, isometric", "nricp_amberg", "nricp_sumner"]
RIVALS = {"test1", "rolled sheet", "folded sheet"}
"""Pairs for nricp, and for what keeps the metric: the others stretch."""
COLUMNS = ["pair", "method", "seconds", "RMSE", "to target %", "from target %", "farthest %", "flipped %", "strain %"]
Vectors = NDArray[np.float64]


def read(path: Path) -> Mesh:
    data = path.read_bytes()
    unpacked = io.BytesIO(gzip.decompress(data) if path.suffix == ".gz" else data)
    mesh = trimesh.load(unpacked, file_type=path.name.split(".")[1], process=False)
    return Mesh(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32))


def surfaces(pair: str) -> tuple[Mesh, Mesh, Vectors | None]:
    """Return source, target, and where the source's vertices belong, None where that is not known."""
    chosen = PAIRS[pair]
    if isinstance(chosen, tuple):
        source, target = (read(path) for path in chosen)
        return source, target, target.vertices.astype(np.float64) if pair == "test1" else None
    fine, truth = (chosen(nodes(cells)) - chosen(np.zeros((1, 2))) for cells in (FINE, CELLS))
    flat = np.pad(nodes(CELLS), ((0, 0), (0, 1)))
    source, target = (
        Mesh(vertices.astype(np.float32), grid_faces(*cells).astype(np.int32))
        for vertices, cells in ((flat, CELLS), (fine, FINE))
    )
    return source, target, truth


def run(pair: str, method: str) -> dict[str, Any]:
    """Return one run's figures."""
    source, target, truth = surfaces(pair)
    sheet = pair.endswith("sheet")
    found, rigid = source.vertices.astype(np.float64), not sheet
    begun = time.monotonic()
    if method.startswith("nricp"):
        starts = [found, *(rigidly(source, target) if rigid else [])]
        ends = [deformed(method, start, source, target, truth) for start in starts]
        return min(ends, key=lambda end: end["to"] + end["from"])
    if method.startswith("ours"):
        found = register(source, target, rigid=rigid, isometric=method.endswith("isometric")).vertices
    elif rigid:
        found = rigidly(source, target)[0]
    seconds = time.monotonic() - begun
    return {"seconds": round(seconds, 2), **measure(found, source, target, truth)}


def deformed(method: str, start: Vectors, source: Mesh, target: Mesh, truth: Vectors | None) -> dict[str, Any]:
    """Return the figures of trimesh's ``method`` from a rigid alignment."""
    both = (start, source.faces), (target.vertices, target.faces)
    meshes = [trimesh.Trimesh(vertices, faces, process=False) for vertices, faces in both]
    begun = time.monotonic()
    found = np.asarray(getattr(trimesh.registration, method)(*meshes))
    return {"seconds": round(time.monotonic() - begun, 2), **measure(found, source, target, truth)}


def rigidly(source: Mesh, target: Mesh) -> list[Vectors]:
    """Return the source by each of the rigid alignments that are about as good as the best, which is first."""
    shapes = surface_of(source, "source"), surface_of(target, "target")
    scale, shift = 1 / shapes[0].diagonal, shapes[0].points.mean(axis=0)
    motions = align(*(shape.moved(scale, shift) for shape in shapes))
    return [motion.apply((source.vertices - shift) * scale) / scale + shift for motion in motions]


def measure(found: Vectors, source: Mesh, target: Mesh, truth: Vectors | None) -> dict[str, Any]:
    """Return distances to the target's surface and from its vertices, and the share of flipped faces."""
    goal = target.vertices.astype(np.float64)
    diagonal = float(np.linalg.norm(np.ptp(goal, axis=0))) / 100
    there, here = distance(found, goal, target.faces)[0], distance(goal, found, source.faces)[0]
    face = distance(found[source.faces].mean(axis=1), goal, target.faces)[1]
    cosine = np.einsum("fi,fi->f", normals(found, source.faces), normals(goal, target.faces)[face])
    figures = {"to": there.mean() / diagonal, "from": here.mean() / diagonal}
    figures |= {"farthest": max(there.max(), here.max()) / diagonal, "flipped": 100 * (cosine < 0).mean()}
    strain = strain_summary(found.astype(np.float32), source.vertices, source.faces)
    figures["strain"] = 100 * strain["strain_median"]
    if truth is not None:
        figures["rmse"] = np.sqrt(((found - truth) ** 2).sum(axis=1).mean())
    return {name: round(float(value), 4) for name, value in figures.items()}


def distance(points: Vectors, vertices: Vectors, faces: NDArray[np.int32]) -> tuple[Vectors, NDArray[np.int32]]:
    squared, face, _ = nearest(torch.from_numpy(points), torch.from_numpy(vertices), torch.from_numpy(faces))
    return squared.sqrt().numpy(), face.numpy()


def normals(vertices: Vectors, faces: NDArray[np.int32]) -> Vectors:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    doubled: Vectors = np.cross(b - a, c - a)
    return doubled


def row(pair: str, method: str, figures: dict[str, Any]) -> list[Any]:
    rmse = f"{figures['rmse']:.4f}" if "rmse" in figures else "–"
    numbers = [f"{figures[key]:.3f}" for key in ("to", "from")]
    return [pair, method, f"{figures['seconds']:.1f}", rmse, *numbers] + [
        f"{figures[key]:.1f}" for key in ("farthest", "flipped", "strain")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    log: Path | None = arguments.log
    lines = log.read_text().splitlines() if log is not None and log.exists() else []
    known = {(pair, method): figures for pair, method, figures in map(json.loads, lines)}
    rows = []
    for pair in arguments.pairs:
        for method in arguments.methods:
            if method not in ("rigid", "ours") and pair not in RIVALS:
                continue
            if (pair, method) not in known:
                known[pair, method] = run(pair, method)
                line = json.dumps([pair, method, known[pair, method]])
                print(line, flush=True)
                if log is not None:
                    with log.open("a") as file:
                        file.write(line + "\n")
            rows.append(row(pair, method, known[pair, method]))
    print_table(COLUMNS, rows)
    if arguments.write:
        write_section("registration", f"{machine()}, {torch.get_num_threads()} threads", COLUMNS, rows)


if __name__ == "__main__":
    main()
