"""The kernels on a GPU: splats beside gsplat, meshes beside nvdiffrast, captures from photos to ``medium``.

    python -m benchmarks.gpu_splats [--write]

Seeded random scenes of :mod:`benchmarks.splat_kernels` at 1920 × 1080, whose splats are the smaller the more there are.
``forward + backward`` is the public function and its gradients to all parameters; ``JᵀWJ·p`` is a product of
``SplatJacobian`` of all unknowns, ``/ backward`` beside that one backward pass. gsplat (``pip install gsplat``) and
nvdiffrast are measured where they can be imported, in turns with ours, each scene in the same run; else the columns say
so. The least of many runs counts, by the GPU's own clock.

``captures`` are fits by the command, ``--device cuda --preset medium``, of real photos: seconds of the stage ``fit``,
and PSNR of the photos that it has not seen.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.command import reconstruct
from benchmarks.splat_kernels import Scene
from benchmarks.tables import machine, print_table, write_section
from kernels.antialias import antialias
from kernels.interpolate import interpolate
from kernels.rasterize_mesh import rasterize_mesh
from kernels.rasterize_splats import rasterize_splats
from kernels.splat_jacobian import UNKNOWNS, SplatJacobian

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CAPTURES = ("nerf_chair", "snowmiku_plush")
SIZE = (1920, 1080)
SCENES = ((100_000, 1.5), (1_000_000, 0.5), (5_000_000, -0.2))
"""Splats, and the logarithm of their mean standard deviation in pixels."""
RUNS = 20
COLUMNS = ["splats", "forward ms", "backward ms", "gsplat ms", "/ gsplat", "JᵀWJ·p ms", "/ backward"]
MESH_COLUMNS = ["triangles", "operation", "ms", "nvdiffrast ms"]
CAPTURE_COLUMNS = ["capture", "fit s", "PSNR"]
ABSENT = "not measured"


def least(*functions: Callable[[], Any]) -> list[float]:
    """Return the least milliseconds of each of some functions, which are run in turns."""
    best = [float("inf")] * len(functions)
    for _ in range(RUNS):
        for i, function in enumerate(functions):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            function()
            end.record()
            end.synchronize()
            best[i] = min(best[i], begin.elapsed_time(end))
    return best


def splats(count: int, size: float) -> list[Any]:
    """Return the row of a scene."""
    scene = Scene(count, *SIZE, size)
    leaves = [t.detach().cuda().requires_grad_() for t in scene.splats]
    viewmat, K, gradient = scene.viewmat.cuda(), scene.K.cuda(), scene.gradient.cuda()

    def ours() -> Tensor:
        means, quats, scales, opacities, colors = leaves
        image: Tensor = rasterize_splats(means, quats, scales, opacities, colors, viewmat[None], K[None], *SIZE)[0]
        return image

    image = ours()
    view = SplatJacobian(*(t.detach() for t in leaves), viewmat, K, *SIZE)
    step, weights = torch.randn(count, UNKNOWNS, device="cuda"), gradient[0].abs()
    colors = torch.randn_like(leaves[4])
    timed = [
        ours,
        lambda: torch.autograd.grad(image, leaves, gradient, retain_graph=True),
        lambda: torch.autograd.grad(ours(), leaves, gradient),
        lambda: view.gauss_newton(step, colors, None, weights),
    ]
    rival = importlib.import_module("gsplat").rasterization if found("gsplat") else None
    if rival is not None:

        def theirs() -> None:
            shown = rival(*leaves, viewmat[None], K[None], *SIZE, packed=False)[0]
            torch.autograd.grad(shown, leaves, gradient)

        timed.append(theirs)
    forward, backward, both, product, *other = least(*timed)
    beside = [f"{other[0]:.2f}", f"{both / other[0]:.2f}"] if other else [ABSENT, ABSENT]
    cells = [f"{forward:.2f}", f"{backward:.2f}", *beside, f"{product:.2f}", f"{product / backward:.2f}"]
    return [f"{count:,}", *cells]


def meshes(side: int) -> list[list[Any]]:
    """Return the rows of a bumpy sheet of so many vertices a side: each operation, forward and backward."""
    u, v = torch.meshgrid(*[torch.linspace(-0.95, 0.95, side)] * 2, indexing="ij")
    depth = 0.3 * torch.sin(9 * u) * torch.cos(7 * v)
    positions = torch.stack([u, v, depth, torch.ones_like(u)], 2).view(1, -1, 4).cuda().requires_grad_()
    corner = (torch.arange(side - 1)[:, None] * side + torch.arange(side - 1)).flatten()
    upper, lower = ([corner, corner + side, corner + side + 1], [corner, corner + side + 1, corner + 1])
    faces = torch.cat([torch.stack(upper, 1), torch.stack(lower, 1)]).int().cuda()
    colors = torch.rand(len(positions[0]), 3, device="cuda").requires_grad_()
    rast, _ = rasterize_mesh(positions.detach(), faces, *SIZE)
    image = torch.rand(1, SIZE[1], SIZE[0], 3, device="cuda").requires_grad_()

    def steps(of: dict[str, Callable[..., Tensor]]) -> list[Callable[[], Any]]:
        return [
            lambda: torch.autograd.grad(of["rasterize_mesh"](positions).sum(), positions),
            lambda: torch.autograd.grad(of["interpolate"](colors).sum(), colors),
            lambda: torch.autograd.grad(of["antialias"](image, positions).sum(), (image, positions)),
        ]

    timed = steps(
        {
            "rasterize_mesh": lambda p: rasterize_mesh(p, faces, *SIZE)[0],
            "interpolate": lambda a: interpolate(a, rast, faces)[0],
            "antialias": lambda c, p: antialias(c, rast, p, faces),
        }
    )
    if found("nvdiffrast"):
        dr = importlib.import_module("nvdiffrast.torch")
        context = dr.RasterizeCudaContext()
        timed += steps(
            {
                "rasterize_mesh": lambda p: dr.rasterize(context, p, faces, SIZE[::-1])[0],
                "interpolate": lambda a: dr.interpolate(a, rast, faces)[0],
                "antialias": lambda c, p: dr.antialias(c, rast, p, faces),
            }
        )
    names, times = ("rasterize_mesh", "interpolate", "antialias"), least(*timed)
    others = [f"{ms:.2f}" for ms in times[3:]] or [ABSENT] * 3
    return [
        [f"{len(faces):,}", name, f"{own:.2f}", other]
        for name, own, other in zip(names, times[:3], others, strict=True)
    ]


def captures() -> list[list[Any]]:
    """Return the rows of the captures that are there."""
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in CAPTURES:
            if (DATA / name).exists():
                result = reconstruct(DATA / name, Path(folder) / name, "--device", "cuda", "--turntable", "0")
                rows.append([name, f"{result['seconds']['fit']:.1f}", result["metrics"]["psnr"]])
    return rows


def found(package: str) -> bool:
    """Return whether a package is installed."""
    return importlib.util.find_spec(package) is not None


def main() -> None:
    """Measure, and write the tables if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("There is no GPU here: nothing is measured.")
    tables = {
        "gpu_splats": (COLUMNS, [splats(*scene) for scene in SCENES]),
        "gpu_meshes": (MESH_COLUMNS, [row for side in (225, 1000) for row in meshes(side)]),
        "gpu_captures": (CAPTURE_COLUMNS, captures()),
    }
    where = f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {machine()}"
    for name, (columns, rows) in tables.items():
        print_table(columns, rows)
        if arguments.write:
            write_section(name, where, columns, rows)


if __name__ == "__main__":
    main()
