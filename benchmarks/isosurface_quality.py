"""Surfaces fitted to masks and depth maps by FlexiCubes and by DMTet, beside extraction from the true distance.

    python -m benchmarks.isosurface_quality [--shapes block …] [--resolutions 32 64] [--methods …] [--from FILE …]
                                            [--write]

The paper's reconstruction experiment without its true distance in the loss: the fits see masks and depth maps of 64
views of 384² pixels, nothing else; the first field is the depth maps' fusion (isosurface_images.py). Each takes 200
steps with two views at a time, at one setting for all shapes. DMTet (isosurface_rivals.py) gets the same images, start,
loss, rate and steps, and grids of 40³ and 80³ beside 32³ and 64³, as in the paper; how the two differ beyond that is
said in isosurface_fits.py. Marching cubes (skimage) and dual contouring (recon.isosurface.sharp) get the true mesh's
signed distance on the same grid, and dual contouring the normals of the true faces, too.

A JSON line a surface; ``--from`` reads those of earlier runs instead of measuring. Shapes have their longest side at
1.8 in a grid on [-1, 1]³. Distances are recon.evaluate.surface's, from 100,000 points to triangles both ways, in
shares of the longest side: there is no noise floor but for edges, where it is what another sampling of the truth gets.
F1 is at 0.003 of the longest side. The paper's distances are from point to point: only ratios can be compared. SI is
the share of triangles that pass through another one. CPU s is the time that threads worked on a surface once the images
or the true distances were there.

Source: Shen et al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization", §5.1, Tables 2 and 9.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from skimage.measure import marching_cubes
from torch import Tensor

from benchmarks.isosurface_fits import FittedCubes, FittedTetrahedra
from benchmarks.isosurface_images import View, cameras, carve, fit, take
from benchmarks.isosurface_rivals import Truth
from benchmarks.tables import machine, print_table, table, write_section
from recon.evaluate.mesh_quality import mesh_quality
from recon.evaluate.surface import EDGE_THRESHOLD, compare_surfaces
from recon.isosurface.flexicubes import FlexiCubes
from recon.isosurface.grids import Box
from recon.isosurface.sharp import sharp_surface
from recon.isosurface.view import Triangles

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "meshes"
SHAPES = {
    "block": "flexicubes/block.obj",
    "featuretype": "trimesh/featuretype.STL",
    "plate_holes": "trimesh/plate_holes.STL",
    "spot": "spot_textured/spot.obj",
    "fish": "odedstein_cc/fish.obj",
    "wingnut": "odedstein_cc/wingnut.obj",
}
EXTENT = 1.8
VIEWS, PIXELS, STEPS = 64, 384, 200
MC, DC, DMTET, OURS = METHODS = "marching cubes", "dual contouring", "DMTet", "FlexiCubes"
TETRAHEDRA = {32: 40, 64: 80}
NEAR = 0.003
"""τ of F1, as a share of the longest side."""
PAPER = {32: (66.6, 50.52), 64: (52.4, 34.87)}
"""Per cent of normals off by more than 5°, marching cubes and FlexiCubes (Table 2)."""
EDGES, THIN, INTERSECTING = 0.55, 2.0, 0.1
"""Aims: edge distance beside marching cubes', per cent of triangles with an angle below 10°, per cent in SI."""
COLUMNS = {
    "IN>5° %": ("normals_off", 100, ".1f"),
    "CD 1e-3": ("chamfer", 1000, ".3f"),
    "F1": ("f_score", 1, ".3f"),
    "ECD 1e-2": ("edge_chamfer", 100, ".2f"),
    "EF1": ("edge_f_score", 1, ".2f"),
    "SI %": ("self_intersecting", 100, ".3f"),
    "<10° %": ("angle_below_10", 100, ".2f"),
    "aspect>4 %": ("aspect_over_4", 100, ".2f"),
}
Line = dict[str, Any]
Mesh = tuple[NDArray[np.float64], NDArray[np.int32]]


def true_mesh(shape: str) -> trimesh.Trimesh:
    """Return a shape with its longest side at EXTENT, its box's middle at the origin."""
    loaded = trimesh.load(DATA / SHAPES[shape], force="mesh", process=False)
    mesh = trimesh.Trimesh(loaded.vertices, loaded.faces)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    low, high = mesh.bounds
    mesh.apply_translation(-(low + high) / 2)
    mesh.apply_scale(EXTENT / float((high - low).max()))
    return mesh


def grid(cells: int) -> Box:
    """Return the grid on [-1, 1]³."""
    return Box(np.full(3, -1.0), np.full(3, 1.0), (cells, cells, cells))


def fitted(method: str, views: Sequence[View], resolution: int) -> tuple[Mesh, float]:
    """Return a surface fitted to images, and the mean loss of the last time that each of them was seen."""
    box = grid(TETRAHEDRA[resolution] if method == DMTET else resolution)
    start = carve(views, box)
    fitting = FittedTetrahedra(box, start) if method == DMTET else FittedCubes(box, start)
    losses = list(fit(fitting, views, box.cell, STEPS))
    if isinstance(fitting, FittedCubes):
        fitting.untangle()
    vertices, faces, _ = fitting.surface(training=False)
    return (vertices.detach().numpy().astype(np.float64), faces.numpy()), float(np.mean(losses[-len(views) // 2 :]))


def extracted(method: str, truth: Truth, field: Tensor, box: Box) -> Mesh:
    """Return the surface of the true distance."""
    if method == MC:
        places, faces, *_ = marching_cubes(field.numpy(), 0.0)
        return np.ascontiguousarray(places * box.cell + box.low), np.ascontiguousarray(faces, np.int32)
    cubes = FlexiCubes(box.resolution, box.low.tolist(), box.high.tolist())
    surface = sharp_surface(cubes, field, truth.plane_distance)
    return surface.vertices.numpy().astype(np.float64), surface.faces.numpy()


def measure(mesh: Mesh, truth: trimesh.Trimesh) -> Line:
    """Return a surface's figures."""
    vertices, faces = mesh
    side, diagonal = float(truth.extents.max()), float(np.linalg.norm(truth.extents))
    true_faces = np.array(truth.faces, np.int32)
    near = compare_surfaces(vertices, faces, np.array(truth.vertices), true_faces, threshold=NEAR * side / diagonal)
    loaded = trimesh.Trimesh(vertices, faces, process=False)
    edges = np.unique(np.sort(loaded.edges, axis=1), axis=0, return_counts=True)[1]
    return {
        **near,
        **mesh_quality(vertices, faces),
        "chamfer": near["chamfer"] / side,
        "manifold": bool((edges <= 2).all()),
        "watertight": bool((edges == 2).all() and loaded.is_winding_consistent and loaded.volume > 0),
        "faces": len(faces),
    }


def run(shape: str, resolutions: Sequence[int], methods: Sequence[str]) -> list[Line]:
    """Measure one shape; print its JSON lines and return them."""
    mesh = true_mesh(shape)
    truth, lines = Truth(mesh), []
    target = Triangles.of(truth.vertices.float(), truth.faces)
    radius = float(np.linalg.norm(mesh.vertices, axis=1).max())
    views = [take(target, camera) for camera in cameras(VIEWS, PIXELS, radius)]
    for resolution in resolutions:
        box, field = grid(resolution), None
        for method in methods:
            line: Line = {"shape": shape, "resolution": resolution, "method": method}
            if method in (MC, DC) and field is None:
                field = truth.field(box)
            begun = time.process_time()
            if field is not None and method in (MC, DC):
                surface = extracted(method, truth, field, box)
            else:
                surface, line["loss"] = fitted(method, views, resolution)
            line["seconds"] = time.process_time() - begun
            line |= measure(surface, mesh)
            print(json.dumps(line), flush=True)
            lines.append(line)
    return lines


def row(line: Line) -> list[Any]:
    shown = [
        format(line[key] * scale, style) if line[key] == line[key] else "–" for key, scale, style in COLUMNS.values()
    ]
    tight = ("watertight" if line["watertight"] else "open") + ("" if line["manifold"] else ", not manifold")
    return [*shown, tight, line["faces"], f"{line['seconds']:.1f}"]


def means(lines: Sequence[Line], with_edges: Sequence[str]) -> Line:
    """Return the mean figures of some surfaces; the edges' distance over the shapes named."""
    found: Line = {key: float(np.mean([line[key] for line in lines])) for key, *_ in COLUMNS.values()}
    edges = [line["edge_chamfer"] for line in lines if line["shape"] in with_edges]
    return {
        **found,
        "edge_chamfer": float(np.mean(edges)) if edges else math.nan,
        "watertight": all(line["watertight"] for line in lines),
        "manifold": all(line["manifold"] for line in lines),
        "faces": round(float(np.mean([line["faces"] for line in lines]))),
        "seconds": float(np.mean([line["seconds"] for line in lines])),
    }


def select(lines: Sequence[Line], resolution: int, method: str) -> list[Line]:
    return [line for line in lines if (line["resolution"], line["method"]) == (resolution, method)]


def with_edges(lines: Sequence[Line], resolution: int) -> list[str]:
    """Return the shapes that have edges, by the noise floor, and of which every surface at a resolution has some."""
    at = [line for line in lines if line["resolution"] == resolution]
    without = {x["shape"] for x in at if math.isnan(x["edge_chamfer"]) or x["edge_chamfer_floor"] > EDGE_THRESHOLD}
    return [shape for shape in SHAPES if shape in {line["shape"] for line in at} - without]


def aims(lines: Sequence[Line], resolution: int) -> list[list[Any]]:
    """Return what was to be reached at a resolution: of the means, and of the worst shape."""
    ours = {line["shape"]: line for line in select(lines, resolution, OURS)}
    cubes = {line["shape"]: line for line in select(lines, resolution, MC) if line["shape"] in ours}
    found = []
    if cubes:
        theirs, published = PAPER[resolution]
        edged, any_edges = with_edges(lines, resolution), [s for s in cubes if cubes[s]["edge_chamfer"] >= 0]
        for name, key, shapes, aim in (
            ("ECD / marching cubes', shapes with edges", "edge_chamfer", edged, EDGES),
            ("ECD / marching cubes', all that have both", "edge_chamfer", any_edges, EDGES),
            ("IN>5° / marching cubes'", "normals_off", list(cubes), published / theirs),
        ):
            pairs = [(ours[shape][key], cubes[shape][key]) for shape in shapes if shape in cubes]
            if pairs:
                mean = sum(a for a, _ in pairs) / sum(b for _, b in pairs)
                found.append((name, aim, len(pairs), mean, max(a / b for a, b in pairs)))
    for name, key, aim in (("<10° %", "angle_below_10", THIN), ("SI %", "self_intersecting", INTERSECTING)):
        values = [100 * line[key] for line in ours.values()]
        if values:
            found.append((name, aim, len(values), float(np.mean(values)), max(values)))
    rows = []
    for name, aim, count, mean, worst in found:
        met = "yes" if worst <= aim else "on average" if mean <= aim else "no"
        rows.append([f"{resolution}³ {name}", f"≤ {aim:.2f}", count, f"{mean:.3f}", f"{worst:.3f}", met])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--resolutions", nargs="+", type=int, choices=TETRAHEDRA, default=list(TETRAHEDRA))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--from", nargs="+", type=Path, dest="earlier", metavar="FILE", help="JSON lines of earlier runs"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/README.md")
    arguments = parser.parse_args()
    if arguments.earlier:
        texts = [line for file in arguments.earlier for line in file.read_text().splitlines()]
        lines = [json.loads(text) for text in texts if text.startswith("{")]
        lines.sort(key=lambda line: list(SHAPES).index(line["shape"]))
    else:
        lines = [line for shape in arguments.shapes for line in run(shape, arguments.resolutions, arguments.methods)]
    head = [*COLUMNS, "mesh", "triangles", "CPU s"]
    summary, every = [], []
    for resolution in arguments.resolutions:
        for method in METHODS:
            chosen = select(lines, resolution, method)
            if not chosen:
                continue
            mean = means(chosen, with_edges(lines, resolution))
            summary.append([f"{resolution}³ {method}", *row(mean)])
            every += [[line["shape"], f"{resolution}³ {method}", *row(line)] for line in chosen]
    tables = [
        (
            ["aim", "wanted", "shapes", "mean", "worst shape", "met"],
            [x for n in arguments.resolutions for x in aims(lines, n)],
        ),
        (["shape", "surface", *head], every),
    ]
    for columns, rows in ((["means", *head], summary), *tables):
        print_table(columns, rows)
    if arguments.write:
        floors = sorted({f"{line['shape']} {100 * line['edge_chamfer_floor']:.2f}" for line in lines})
        more = "".join(f"\n\n{table(columns, rows)}" for columns, rows in tables)
        more += (
            f"\n\nNoise floors of ECD: {', '.join(floors)}. Its means are over the shapes with edges: all surfaces have"
        )
        more += f" some, and the floor is below EF1's threshold, {100 * EDGE_THRESHOLD:g}. One thread."
        write_section("isosurface_quality", machine(), ["means", *head], summary, more)


if __name__ == "__main__":
    main()
