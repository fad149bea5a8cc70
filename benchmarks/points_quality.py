"""Surfaces from point clouds beside Open3D's Poisson reconstruction: how near the true mesh, how sharp, how fast.

    python -m benchmarks.points_quality [--shapes block …] [--conditions clean …] [--preset fast] [--points N] [--write]

Clouds are drawn evenly from true meshes, without normals: clean, with normal noise of 0.5 % and 1 % of the diagonal in
every coordinate, with 5 % of outliers spread over the box. open3d_bunny is a scan, whose truth nobody knows: there the
points' own distances to the surface stand for the Chamfer distance. Ours is ``recon run`` in a process of its own, from
the file to the report. Open3D (pip install open3d) gets its usual sequence: remove_statistical_outlier(20, 2),
estimate_normals(KNN 30), orient_normals_consistent_tangent_plane(30), then create_from_point_cloud_poisson at the depth
of our resolution and at the next one; of both, the nearer to the truth is shown. Its seconds are of all that, once.

Chamfer distances (recon.evaluate.surface) and the distance of the true mesh's sharp edges (dihedral above 30 degrees)
to the surface are in per cent of the true mesh's diagonal; normals is the mean cosine of the
angle between the normals of both at the nearest points.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray

from benchmarks.command import reconstruct
from benchmarks.tables import machine, print_table, write_section
from kernels.nearest import nearest
from recon.capture.load import load
from recon.evaluate.surface import compare_surfaces
from recon.events import Events
from recon.isosurface.points_config import PointsConfig

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SHAPES = {
    "block": "meshes/flexicubes/block.obj",
    "spot": "meshes/spot_textured/spot.obj",
    "fish": "meshes/odedstein_cc/fish.obj",
    "wingnut": "meshes/odedstein_cc/wingnut.obj",
}
CONDITIONS = {"clean": (0.0, 0.0), "noise 0.5 %": (0.005, 0.0), "noise 1 %": (0.01, 0.0), "outliers 5 %": (0.0, 0.05)}
SCAN = "bunny scan"
COLUMNS = [
    *["cloud", "method", "chamfer %", "normals", "edges %", "watertight", "components", "faces", "seconds"],
    "points to surface %",
]
Vectors = NDArray[np.float64]
Surface = tuple[Vectors, NDArray[np.int64]]


def cloud_of(truth: trimesh.Trimesh, noise: float, outliers: float, count: int) -> Vectors:
    """Return (P, 3) points of a mesh, spoilt."""
    generator = np.random.default_rng(0)
    corners = truth.vertices[np.unique(truth.faces)]
    diagonal = float(np.linalg.norm(np.ptp(corners, axis=0)))
    xyz = np.asarray(trimesh.sample.sample_surface(truth, count, seed=0)[0])
    xyz = xyz + noise * diagonal * generator.normal(size=xyz.shape)
    low, high = corners.min(axis=0) - 0.05 * diagonal, corners.max(axis=0) + 0.05 * diagonal
    return np.concatenate([xyz, generator.uniform(low, high, (int(outliers * count), 3))])


def ours(xyz: Vectors, preset: str, folder: Path) -> tuple[Surface, float]:
    """Return the pipeline's surface and its seconds."""
    np.savez(folder / "cloud.npz", points=xyz)
    job = Path(tempfile.mkdtemp(dir=folder)) / "job"
    result = reconstruct(folder / "cloud.npz", job, "--pipeline", "points", "--preset", preset)
    found = trimesh.load(job / "exports" / "mesh.ply", process=False)
    surface = np.asarray(found.vertices, np.float64), np.asarray(found.faces, np.int64)
    return surface, result["seconds"]["total"]


def theirs(xyz: Vectors, preset: str) -> list[tuple[Surface, float]]:
    """Return Open3D's surfaces at both depths, and the seconds of each; none where it cannot be imported."""
    try:
        import open3d
    except (ImportError, OSError) as error:
        print(f"open3d cannot be imported ({error}): its rows are left out", file=sys.stderr)
        return []
    depth = math.ceil(math.log2(PointsConfig(**PointsConfig.presets[preset]).resolution))
    begun = time.monotonic()
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(xyz))
    cloud, _ = cloud.remove_statistical_outlier(20, 2.0)
    cloud.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(30))
    cloud.orient_normals_consistent_tangent_plane(30)
    prepared = time.monotonic() - begun
    found = []
    for level in (depth, depth + 1):
        begun = time.monotonic()
        mesh, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=level, n_threads=2)
        seconds = prepared + time.monotonic() - begun
        surface = np.asarray(mesh.vertices), np.asarray(mesh.triangles).astype(np.int64)
        found.append((surface, seconds))
    return found


def measure(surface: Surface, truth: trimesh.Trimesh | None, xyz: Vectors) -> dict[str, Any]:
    """Return the row's figures."""
    vertices, faces = surface
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    scale = xyz if truth is None else truth.vertices[np.unique(truth.faces)]
    diagonal = float(np.linalg.norm(np.ptp(scale, axis=0)))
    figures: dict[str, Any] = {
        "watertight": bool(mesh.is_watertight and mesh.is_winding_consistent),
        "components": int(mesh.body_count),
        "faces": len(faces),
        "points": 100 * distance(surface, xyz) / diagonal,
    }
    if truth is None:
        return figures
    found = compare_surfaces(vertices, faces, truth.vertices, truth.faces)
    figures |= {"chamfer": 100 * found["chamfer_relative"], "normals": found["normal_consistency"]}
    edges = edge_points(truth)
    if len(edges):
        figures["edges"] = 100 * distance(surface, edges) / diagonal
    return figures


def distance(surface: Surface, places: Vectors) -> float:
    """Return the mean distance of places to a surface."""
    vertices, faces = surface
    squared, _, _ = nearest(torch.from_numpy(places), torch.from_numpy(vertices), torch.from_numpy(faces).int())
    return float(squared.sqrt().mean())


def edge_points(truth: trimesh.Trimesh) -> Vectors:
    """Return (E, 3) points on the sharp edges, evenly along them."""
    merged = trimesh.Trimesh(truth.vertices, truth.faces)
    ends = merged.vertices[merged.face_adjacency_edges[merged.face_adjacency_angles > np.radians(30)]]
    lengths = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    if lengths.sum() == 0:
        return np.empty((0, 3))
    generator = np.random.default_rng(0)
    chosen = generator.choice(len(ends), 5000, p=lengths / lengths.sum())
    share = generator.random((5000, 1))
    points: Vectors = ends[chosen, 0] * (1 - share) + ends[chosen, 1] * share
    return points


def row(cloud: str, method: str, figures: dict[str, Any], seconds: float) -> list[Any]:
    def shown(key: str) -> str:
        return f"{figures[key]:.4f}" if key in figures else "–"

    tight = "yes" if figures["watertight"] else "no"
    counts = [tight, figures["components"], figures["faces"], f"{seconds:.1f}"]
    return [cloud, method, shown("chamfer"), shown("normals"), shown("edges"), *counts, shown("points")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=[*SHAPES, SCAN], default=[*SHAPES, SCAN])
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--preset", choices=PointsConfig.presets, default="medium")
    parser.add_argument("--points", type=int, default=30_000)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for shape in arguments.shapes:
            truth = None if shape == SCAN else trimesh.load(DATA / SHAPES[shape], force="mesh", process=False)
            for condition in [""] if truth is None else arguments.conditions:
                if truth is None:
                    capture = load(DATA / "open3d_bunny" / "bunnyData.pts", Events(), folder)
                    assert capture.points is not None
                    xyz = capture.points.xyz
                else:
                    xyz = cloud_of(truth, *CONDITIONS[condition], arguments.points)
                label = f"{shape}, {condition}" if condition else shape
                rivals = [(measure(s, truth, xyz), seconds) for s, seconds in theirs(xyz, arguments.preset)]
                best = [min(rivals, key=lambda r: r[0].get("chamfer", r[0]["points"]))] if rivals else []
                surface, seconds = ours(xyz, arguments.preset, folder)
                shown = [("recon", measure(surface, truth, xyz), seconds)] + [("Open3D Poisson", *r) for r in best]
                for method, figures, taken in shown:
                    print(json.dumps({"cloud": label, "method": method, "seconds": taken, **figures}), flush=True)
                    rows.append(row(label, method, figures, taken))
    print_table(COLUMNS, rows)
    if arguments.write:
        note = f"\n\nPreset {arguments.preset}, clouds of {arguments.points} points."
        write_section("points_quality", machine(), COLUMNS, rows, note)


if __name__ == "__main__":
    main()
