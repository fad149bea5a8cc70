"""The mesh operations' speed, beside Open3D's ray casting for visibility.

    python -m benchmarks.mesh_kernels [--seconds 3] [--write]

A bumpy sphere of 100,000 and of 1,000,000 triangles, 1024² pixels of which seven tenths see it. Columns: forward and
backward milliseconds of each public function on its own, the neighbours of the triangles given to ``antialias``, and
what it takes to find those. Open3D: building its tree, and ``RaycastingScene.cast_rays`` on rays made beforehand, which
finds each pixel's triangle and place there, as ``rasterize_mesh`` does. The least of several runs is shown, the median
is in the JSON lines; below it the processor time, ours on one thread, as other work on the machine lengthens the rest.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.tables import machine, print_table, write_section
from kernels.antialias import antialias
from kernels.clip import clip_positions
from kernels.face_neighbors import face_neighbors
from kernels.interpolate import interpolate
from kernels.rasterize_mesh import rasterize_mesh
from kernels.texture import texture

try:
    import open3d
except ImportError:
    open3d = None

TRIANGLES = (100_000, 1_000_000)
SIZE = 1024
OPERATIONS = ("rasterize_mesh", "interpolate", "texture", "antialias")


def bumpy_sphere(triangles: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return vertices, faces and texture coordinates of a sphere cut into a grid of angles."""
    n = int(math.sqrt(triangles / 2))
    theta, phi = torch.linspace(0.01, math.pi - 0.01, n + 1), torch.arange(n) * (2 * math.pi / n)
    t, p = torch.meshgrid(theta, phi, indexing="ij")
    r = 1 + 0.1 * torch.sin(8 * p) * torch.sin(6 * t)
    vertices = torch.stack([r * t.sin() * p.cos(), r * t.cos(), r * t.sin() * p.sin()], dim=-1).view(-1, 3)
    row, j = torch.arange(n)[:, None] * n, torch.arange(n)
    a, b, c, d = row + j, row + (j + 1) % n, row + n + j, row + n + (j + 1) % n
    faces = torch.stack([torch.stack([a, b, d], dim=-1), torch.stack([a, d, c], dim=-1)], dim=2).view(-1, 3).int()
    return vertices, faces, torch.stack([p / (2 * math.pi), t / math.pi], dim=-1).view(-1, 2)


class Times(dict[str, list[tuple[float, float]]]):
    """Wall-clock and processor milliseconds of each run, by name."""

    def run(self, name: str, function: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        elapsed = 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)
        self.setdefault(name, []).append(elapsed)
        return result


def measure(triangles: int, seconds: float) -> dict[str, Any]:
    """Time one mesh; return its JSON line."""
    vertices, faces, uv = bumpy_sphere(triangles)
    viewmat = torch.eye(4)[None].clone()
    viewmat[0, 2, 3] = 2.6
    K = torch.tensor([[[1.075 * SIZE, 0, SIZE / 2], [0, 1.075 * SIZE, SIZE / 2], [0, 0, 1]]])
    positions = clip_positions(vertices, viewmat, K, SIZE, SIZE, 0.1, 10).requires_grad_()
    g = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 1024, 1024, 3, generator=g).requires_grad_()
    uv.requires_grad_()
    neighbors = face_neighbors(faces)
    wall = measure_operations(positions, faces, uv, picture, neighbors, seconds)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = measure_operations(positions, faces, uv, picture, neighbors, seconds)
    torch.set_num_threads(threads)
    line = {
        "triangles": len(faces),
        "threads": threads,
        "least_ms": {name: round(min(w for w, _ in runs), 2) for name, runs in wall.items()},
        "median_ms": {name: round(median(w for w, _ in runs), 2) for name, runs in wall.items()},
        "one_thread_cpu_ms": {name: round(min(c for _, c in runs), 2) for name, runs in alone.items()},
    }
    if open3d is not None:
        line["open3d"] = measure_open3d(vertices, faces, viewmat[0], K[0], seconds)
    return line


def measure_operations(
    positions: Tensor, faces: Tensor, uv: Tensor, picture: Tensor, neighbors: Tensor, seconds: float
) -> Times:
    times = Times()
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        rast, rast_db = times.run("rasterize_mesh", lambda: rasterize_mesh(positions, faces, SIZE, SIZE))
        backward(times, "rasterize_mesh", rast, (positions,))
        rast, rast_db = rast.detach().requires_grad_(), rast_db.detach()
        at, _ = times.run("interpolate", lambda rast=rast: interpolate(uv, rast, faces))
        backward(times, "interpolate", at, (uv, rast))
        at, at_da = interpolate(uv.detach(), rast.detach(), faces, rast_db, "all")
        at.requires_grad_()
        color = times.run(
            "texture", lambda at=at, at_da=at_da: texture(picture, at, at_da, filter_mode="linear-mipmap-linear")
        )
        backward(times, "texture", color, (picture, at))
        color, rast = color.detach().requires_grad_(), rast.detach()
        image = times.run("antialias", lambda c=color, r=rast: antialias(c, r, positions, faces, neighbors))
        backward(times, "antialias", image, (color, positions))
        times.run("neighbors", lambda: face_neighbors(faces))
    return times


def backward(times: Times, name: str, image: Tensor, leaves: tuple[Tensor, ...]) -> None:
    gradient = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    times.run(f"{name}_backward", lambda: torch.autograd.grad(image, leaves, gradient))


def measure_open3d(vertices: Tensor, faces: Tensor, viewmat: Tensor, K: Tensor, seconds: float) -> dict[str, float]:
    times = Times()
    core = open3d.core
    points, triangles = core.Tensor(vertices.numpy()), core.Tensor(faces.numpy().astype("uint32"))
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        scene = open3d.t.geometry.RaycastingScene()
        times.run("add", lambda scene=scene: scene.add_triangles(points, triangles))
        rays = scene.create_rays_pinhole(core.Tensor(K.numpy()), core.Tensor(viewmat.numpy()), SIZE, SIZE)
        times.run("first", lambda scene=scene, rays=rays: scene.cast_rays(rays[:1, :1]))  # builds the tree
        times.run("cast", lambda scene=scene, rays=rays: scene.cast_rays(rays))
    result = {}
    for k, unit in enumerate(("ms", "cpu_ms")):
        least = {name: min(run[k] for run in runs) for name, runs in times.items()}
        result |= {f"build_{unit}": round(least["add"] + least["first"], 2), f"cast_{unit}": round(least["cast"], 2)}
    return result


def row(line: dict[str, Any], which: str) -> list[Any]:
    ms = line[which]
    pairs = [f"{ms[name]:.0f} / {ms[name + '_backward']:.0f}" for name in OPERATIONS]
    rival, unit = line.get("open3d"), "ms" if which == "least_ms" else "cpu_ms"
    shown = "not installed" if rival is None else f"{rival[f'build_{unit}']:.0f} + {rival[f'cast_{unit}']:.0f}"
    what = f"{line['threads']} threads" if which == "least_ms" else "processor time"
    return [f"{line['triangles']:,}", what, *pairs, f"{ms['neighbors']:.0f}", shown]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="to spend on each mesh, three times")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    arguments = parser.parse_args()
    lines = []
    for triangles in TRIANGLES:
        lines.append(measure(triangles, arguments.seconds))
        print(json.dumps(lines[-1]), flush=True)
    columns = [
        "triangles",
        "measured",
        *(f"{name} ms" for name in OPERATIONS),
        "neighbours ms",
        "Open3D build + cast ms",
    ]
    rows = [row(line, which) for line in lines for which in ("least_ms", "one_thread_cpu_ms")]
    print_table(columns, rows)
    if arguments.write:
        more = (
            "\n\nForward / backward, at 1024² pixels, of which the mesh covers about 0.7. Load average at the end: "
            f"{os.getloadavg()[0]:.1f}; what is above the cores' number waited for them."
        )
        write_section("mesh_kernels", f"{machine()}, {torch.get_num_threads()} threads", columns, rows, more)


if __name__ == "__main__":
    main()
