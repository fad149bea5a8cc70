"""The splat rasterizer's speed and memory, beside what bounds it and beside others.

    python -m benchmarks.splat_kernels [--opensplat LIBRARY] [--seconds 3] [--write]

Seeded random scenes with about 50 splats blended into each pixel. Columns: ``forward``, the public function, recorded
for a backward pass; ``operator``, the torch operator alone; ``backward``, to all parameters; ``bare loop``, the blend
of the same pairs without projection, pairing or sort, which bounds the forward pass; ``J·p``, ``JᵀWJ·p`` and
``blocks``, the products of ``SplatJacobian``, of all unknowns and the camera. All are timed in turns, so that a
busy moment strikes each alike; the least of many runs is shown, the median is in the JSON lines.

OpenSplat's CPU rasterizer is measured where ``--opensplat`` names a library that registers
``opensplat::render(means, quats, scales, opacities (N, 1), colors, viewmat, K, int width, int height, background)
-> image``, differentiable as OpenSplat is. The pure-torch twin takes splats × pixels steps: the smallest scene's
forward pass only. Memory is the peak of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.memory import peak_bytes
from benchmarks.tables import machine, print_table, table, write_section
from kernels import _cpu
from kernels.rasterize_splats import rasterize_splats
from kernels.reference.rasterize_splats import rasterize_splats as twin
from kernels.splat_jacobian import CAMERA_UNKNOWNS, UNKNOWNS, SplatJacobian

SCENES = ((10_000, 256, 256, 1.2), (50_000, 640, 480, 1.2), (200_000, 1280, 720, 1.05))
LARGE = (1_000_000, 1280, 720, 0.2)
"""Splats, width, height, and the logarithm of their mean standard deviation in pixels."""
COLUMNS = [
    "scene",
    "blended",
    "forward ms",
    "operator ms",
    "backward ms",
    "bare loop ms",
    "operator / bare",
    "forward / bare",
    "backward / forward",
    "J·p ms",
    "JᵀWJ·p ms",
    "blocks ms",
    "OpenSplat ms",
    "times as fast",
    "torch twin ms",
]


class Scene:
    """Splats spread evenly over one camera's view, 2 to 6 units away.

    Attributes:
        name: splats and size.
        splats: means, quats, scales, opacities, colors, to be differentiated.
        viewmat: (4, 4).
        K: (3, 3).
        size: width and height.
    """

    def __init__(self, count: int, width: int, height: int, size: float) -> None:
        g = torch.Generator().manual_seed(0)
        focal = 0.9 * width
        z = 2 + 4 * torch.rand(count, generator=g)
        x = (1.1 * torch.rand(count, generator=g) - 0.05) * width
        y = (1.1 * torch.rand(count, generator=g) - 0.05) * height
        means = torch.stack([(x - width / 2) / focal * z, (y - height / 2) / focal * z, z], dim=1)
        quats = torch.randn(count, 4, generator=g)
        scales = (size + 0.5 * torch.randn(count, 3, generator=g)).exp() * z[:, None] / focal
        opacities = torch.sigmoid(1.5 * torch.randn(count, generator=g) - 1.5)
        self.name = f"{count // 1000}k @ {width}×{height}"
        self.splats = [means, quats, scales, opacities, torch.rand(count, 3, generator=g)]
        for tensor in self.splats:
            tensor.requires_grad_()
        self.viewmat = torch.eye(4)
        self.K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        self.size = (width, height)
        self.gradient = torch.randn(1, height, width, 3, generator=g)

    def forward(self) -> Tensor:
        """Return the image (1, H, W, 3)."""
        means, quats, scales, opacities, colors = self.splats
        camera = (self.viewmat[None], self.K[None])
        image: Tensor = rasterize_splats(means, quats, scales, opacities, colors, *camera, *self.size)[0]
        return image

    def backward(self, image: Tensor) -> None:
        torch.autograd.grad(image, self.splats, self.gradient.view_as(image))

    def operator(self) -> tuple[Tensor, ...]:
        """Return the operator's outputs: the image, alpha, … and what it saves."""
        with torch.no_grad():
            inputs = (*self.splats, None, self.viewmat, self.K, None, None)
            outputs: tuple[Tensor, ...] = torch.ops.egregium.rasterize_splats(*inputs, *self.settings(), False)
            return outputs

    def products(self) -> dict[str, Callable[[], Any]]:
        """Return the products with the view's Jacobian, by name."""
        splats = [t.detach() for t in self.splats]
        view = SplatJacobian(*splats, self.viewmat, self.K, *self.size)
        g = torch.Generator().manual_seed(1)
        step = (
            0.01 * torch.randn(len(splats[0]), UNKNOWNS, generator=g),
            0.1 * torch.randn(splats[4].shape, generator=g),
            0.01 * torch.randn(CAMERA_UNKNOWNS, generator=g),
        )
        weights = self.gradient[0].abs()
        return {
            "jvp": partial(view.jvp, *step),
            "gauss_newton": partial(view.gauss_newton, *step, weights),
            "blocks": partial(view.blocks, weights),
        }

    def settings(self) -> tuple[Any, ...]:
        """Return the operator's numbers: size, no harmonics, near and far plane, blur, not antialiased."""
        return (*self.size, -1, 0.01, 1e10, 0.3, False)

    def bare_loop(self, saved: tuple[Tensor, ...], threads: int) -> Callable[[], None]:
        """Return the blend of the saved pairs alone."""
        inputs = (*(t.detach() for t in self.splats), None, self.viewmat, self.K, None, None)
        scene = _cpu.Scene(*inputs, *self.settings(), threads)  # points into the tensors, which live as long as self
        width, height = self.size
        return partial(_cpu.splats_blend, scene, *saved, torch.empty(height, width, 3), torch.empty(height, width))


def rows_of_pixels(pairs: Tensor) -> int:
    """Return the number of 16-pixel rows that the pairs (P, 2) cover."""
    packed = pairs[:, 0].long() & 0xFFFFFFFF
    return int(((packed >> 28) - (packed >> 24 & 15) + 1).sum())


def blended_per_pixel(scene: Scene, saved: tuple[Tensor, ...]) -> float:
    """Return how many splats an average pixel blends, counted in every seventh tile."""
    records, _, tile_start, pairs = saved
    width, height = scene.size
    columns, rows = (width + 15) // 16, (height + 15) // 16
    count = pixels = 0
    for t in range(0, columns * rows, 7):
        splats = records[(pairs[int(tile_start[t]) : int(tile_start[t + 1]), 0] & 0xFFFFFF).long()]
        u, v, a, b, c, lo = (splats[:, k, None, None] for k in range(6))
        dx = torch.arange(16)[None, :] + t % columns * 16 + 0.5 - u
        dy = torch.arange(16)[:, None] + t // columns * 16 + 0.5 - v
        alpha = torch.exp2(lo + a * dx**2 + b * dx * dy + c * dy**2).clamp(max=0.999)
        alpha = alpha * (alpha >= 1 / 255)
        through = torch.cumprod(1 - alpha, dim=0) / (1 - alpha)
        count += int(((alpha > 0) & (through >= 1e-4)).sum())
        pixels += 256
    return count / pixels


class Times(dict[str, list[float]]):
    """Milliseconds of each run, by name."""

    def run(self, name: str, function: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = function()
        self.setdefault(name, []).append(1e3 * (time.perf_counter() - begin))
        return result


def measure(scene: Scene, seconds: float, opensplat: bool, with_twin: bool) -> dict[str, Any]:
    """Time one scene; return its JSON line."""
    times = Times()
    saved = scene.operator()[3:]
    bare = scene.bare_loop(saved, torch.get_num_threads())
    products = scene.products()
    difference = None
    for _ in range(3):
        end = time.perf_counter() + seconds / 3
        while time.perf_counter() < end:
            image = times.run("forward", scene.forward)
            times.run("backward", partial(scene.backward, image))
            del image
            times.run("operator", scene.operator)
            times.run("bare", bare)
            for name, product in products.items():
                times.run(name, product)
        if opensplat:
            for _ in range(2):
                other = times.run("opensplat_forward", partial(render_opensplat, scene))
                times.run("opensplat_backward", partial(scene.backward, other))
            difference = float((other - scene.forward()[0]).detach().abs().mean())
            time.sleep(0.1)  # torch's threads spin a while after its last operation
    if with_twin:
        means, quats, scales, opacities, colors = scene.splats
        camera = (scene.viewmat[None], scene.K[None])
        with torch.no_grad():
            times.run("twin", lambda: twin(means, quats, scales, opacities, colors, *camera, *scene.size))
    least = {name: round(min(runs), 3) for name, runs in times.items()}
    return {
        "scene": scene.name,
        "threads": torch.get_num_threads(),
        "pairs": len(saved[3]),
        "rows": rows_of_pixels(saved[3]),
        "blended_per_pixel": round(blended_per_pixel(scene, saved), 1),
        "least_ms": least,
        "median_ms": {name: round(median(runs), 3) for name, runs in times.items()},
        "opensplat_mean_difference": difference,
    }


def render_opensplat(scene: Scene) -> Tensor:
    means, quats, scales, opacities, colors = scene.splats
    arguments = (means, quats, scales, opacities[:, None], colors, scene.viewmat, scene.K)
    image: Tensor = torch.ops.opensplat.render(*arguments, *scene.size, torch.zeros(3))
    return image


def nanoseconds_per_row(isa: str, seconds: float) -> float:
    """Return what a 16-pixel row costs the bare loop on one thread, at the largest scene."""
    best = _cpu.isa()
    _cpu.use_isa(isa)
    scene = Scene(*SCENES[-1])
    saved = scene.operator()[3:]
    bare, times = scene.bare_loop(saved, 1), Times()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.run("bare", bare)
    _cpu.use_isa(best)
    return 1e6 * min(times["bare"]) / rows_of_pixels(saved[3])


def measure_memory() -> dict[str, Any]:
    """Run one million splats forward and backward; return seconds and the process's peak."""
    scene, times = Scene(*LARGE), Times()
    before = peak_bytes()
    for _ in range(2):
        image = times.run("forward", scene.forward)
        times.run("backward", partial(scene.backward, image))
    return {
        "scene": scene.name,
        "peak_gb": round(peak_bytes() / 1e9, 2),
        "before_gb": round(before / 1e9, 2),
        "forward_s": [round(ms / 1e3, 3) for ms in times["forward"]],
        "backward_s": [round(ms / 1e3, 3) for ms in times["backward"]],
    }


def row(line: dict[str, Any]) -> list[Any]:
    ms = line["least_ms"]
    rival = faster = "not measured"
    if "opensplat_forward" in ms:
        rival = f"{ms['opensplat_forward']:.0f} / {ms['opensplat_backward']:.0f}"
        faster = f"{ms['opensplat_forward'] / ms['forward']:.0f}× / {ms['opensplat_backward'] / ms['backward']:.0f}×"
    return [
        line["scene"],
        line["blended_per_pixel"],
        f"{ms['forward']:.2f}",
        f"{ms['operator']:.2f}",
        f"{ms['backward']:.2f}",
        f"{ms['bare']:.2f}",
        f"{ms['operator'] / ms['bare']:.2f}",
        f"{ms['forward'] / ms['bare']:.2f}",
        f"{ms['backward'] / ms['forward']:.2f}",
        f"{ms['jvp']:.2f}",
        f"{ms['gauss_newton']:.2f}",
        f"{ms['blocks']:.2f}",
        rival,
        faster,
        f"{ms['twin']:.0f} / too much memory" if "twin" in ms else "too slow",
    ]


def targets(lines: list[dict[str, Any]], per_row: dict[str, float], memory: dict[str, Any]) -> list[list[Any]]:
    """Return what was aimed at beside the worst of what was measured."""

    def worst(over: str, under: str) -> list[float]:
        return [x["least_ms"][over] / x["least_ms"][under] for x in lines if over in x["least_ms"]]

    found: list[tuple[str, float, bool, list[float]]] = [
        ("operator / bare loop", 2, False, worst("operator", "bare")),
        ("backward / forward", 2.2, False, worst("backward", "forward")),
        ("JᵀWJ·p / backward", 1.5, False, worst("gauss_newton", "backward")),
        ("blocks / backward", 2, False, worst("blocks", "backward")),
        ("ns a 16-pixel row, one AVX-512 thread", 8, False, [per_row[i] for i in per_row if i == "avx512"]),
        ("OpenSplat / ours, forward", 15, True, worst("opensplat_forward", "forward")),
        ("OpenSplat / ours, backward", 10, True, worst("opensplat_backward", "backward")),
        (f"GB at {memory['scene']}", 6, False, [memory["peak_gb"]]),
    ]
    result = []
    for name, limit, at_least, values in found:
        value = (min if at_least else max)(values) if values else None
        holds = value is not None and (value >= limit if at_least else value <= limit)
        shown = "not measured" if value is None else f"{value:.2f}"
        result.append(
            [name, f"{'≥' if at_least else '≤'} {limit}", shown, "" if value is None else "yes" if holds else "no"]
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opensplat", metavar="LIBRARY", help="the rival: a torch library with opensplat::render")
    parser.add_argument("--seconds", type=float, default=3, help="to spend on each scene and instruction set")
    parser.add_argument("--write", action="store_true", help="put the tables into benchmarks/README.md")
    parser.add_argument("--memory", action="store_true", help="measure memory only, in this process")
    arguments = parser.parse_args()
    if arguments.memory:
        print(json.dumps(measure_memory()))
        return
    if arguments.opensplat:
        torch.ops.load_library(arguments.opensplat)
    lines = []
    for k, size in enumerate(SCENES):
        lines.append(measure(Scene(*size), arguments.seconds, bool(arguments.opensplat), with_twin=k == 0))
        print(json.dumps(lines[-1]), flush=True)
    per_row = {isa: round(nanoseconds_per_row(isa, arguments.seconds), 2) for isa in _cpu.available_isas()}
    print(json.dumps({"ns_per_16_pixel_row_one_thread": per_row}), flush=True)
    command = [sys.executable, "-m", "benchmarks.splat_kernels", "--memory"]
    memory = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(json.dumps(memory), flush=True)

    rows = [row(line) for line in lines]
    aims = (["target", "aim", "worst measured", "holds"], targets(lines, per_row, memory))
    speeds = (["instruction set", "ns a 16-pixel row, one thread"], [[isa, ns] for isa, ns in per_row.items()])
    forward, backward = memory["forward_s"], memory["backward_s"]
    large = (
        f"{memory['scene']}: forward {forward[1]:.2f} s, backward {backward[1]:.2f} s "
        f"(the first time {forward[0]:.2f} s and {backward[0]:.2f} s); peak memory {memory['peak_gb']:.2f} GB, "
        f"of which {memory['before_gb']:.2f} GB before it."
    )
    print_table(COLUMNS, rows)
    print_table(*aims)
    print_table(*speeds)
    print(large)
    if arguments.write:
        more = f"\n\n{table(*aims)}\n\n{table(*speeds)}\n\n{large}"
        name = "splat_kernels" if arguments.opensplat else "splat_kernels_alone"  # what the rival cost is kept
        write_section(name, f"{machine()}, {torch.get_num_threads()} threads", COLUMNS, rows, more)


if __name__ == "__main__":
    main()
