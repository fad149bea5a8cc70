"""Each operation on a small scene, on the device that is to be used, beside its twin in float64 on the CPU.

What a machine's compiler, driver or GPU gets wrong shows here, before it spoils a reconstruction.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.adam_step import BETAS, EPS, adam_step
from kernels.antialias import antialias
from kernels.dual_contour import Contour, dual_contour
from kernels.flexicubes import WEIGHTS, flexicubes
from kernels.interpolate import interpolate
from kernels.nearest import nearest
from kernels.rasterize_mesh import rasterize_mesh
from kernels.rasterize_splats import rasterize_splats
from kernels.reference import splat_jacobian as products
from kernels.solve_blocks import solve_blocks
from kernels.splat_jacobian import UNKNOWNS, SplatJacobian
from kernels.ssim import ssim
from kernels.texture import texture

TOLERANCE = 1e-3
"""Of the largest value; what is right is off by a few millionths."""
WIDTH, HEIGHT = 21, 18

Found = tuple[Tensor, ...]


@dataclass(frozen=True)
class Check:
    """What came of an operation.

    Attributes:
        name: of the operation.
        seconds: that it took, compilation included.
        off: largest difference to the twin, as a share of the largest value.
        error: what it raised; empty if nothing.
    """

    name: str
    seconds: float
    off: float
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether it can be relied on."""
        return not self.error and self.off <= TOLERANCE


def self_test(device: str = "cpu") -> list[Check]:
    """Return what came of each operation on ``device``; raises nothing."""
    return [_checked(name, scene, torch.device(device)) for name, scene in SCENES.items()]


def _checked(name: str, scene: Callable[[torch.device], tuple[Found, Found]], device: torch.device) -> Check:
    begun = time.monotonic()
    try:
        found, expected = scene(device)
        off = max(_off(one, other) for one, other in zip(found, expected, strict=True))
    except Exception as error:  # a compiler may raise anything
        return Check(name, time.monotonic() - begun, torch.inf, f"{type(error).__name__}: {error}")
    return Check(name, time.monotonic() - begun, off)


def _off(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().cpu().double(), expected.detach().double()
    largest = float(expected.abs().max()) if expected.numel() else 1.0
    off = float((found - expected).abs().max()) / max(largest, 1e-30) if expected.numel() else 0.0
    return off if off == off else torch.inf


def _twin(name: str) -> Callable[..., Any]:
    twin: Callable[..., Any] = getattr(importlib.import_module(f"kernels.reference.{name}"), name)
    return twin


def _random(seed: int, *shape: int) -> Tensor:
    """Return (…) float32 in [0, 1)."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _both(
    kernel: Callable[..., Any], twin: Callable[..., Any], device: torch.device, *leaves: Tensor
) -> tuple[Found, Found]:
    """Return what kernel and twin give for ``leaves``, and the gradients of a sum of it with random weights."""
    results = []
    for function, where, dtype in ((kernel, device, torch.float32), (twin, torch.device("cpu"), torch.float64)):
        own = [t.to(where, dtype).requires_grad_() for t in leaves]
        result = function(*own)
        gradients = torch.autograd.grad((result * _random(9, *result.shape).to(result)).sum(), own)
        results.append((result, *gradients))
    return results[0], results[1]


def _view(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return viewmat and K of a camera in front of the origin."""
    viewmat, K = torch.eye(4), torch.tensor([[20.0, 0, WIDTH / 2], [0, 20, HEIGHT / 2], [0, 0, 1]])
    viewmat[2, 3] = 3
    return viewmat.to(like), K.to(like)


def _some_splats(count: int) -> tuple[Tensor, ...]:
    quats = torch.nn.functional.normalize(_random(1, count, 4) - 0.5, dim=1)
    scales, opacities = 0.1 + 0.3 * _random(2, count, 3), 0.1 + 0.8 * _random(3, count)
    return 2 * _random(0, count, 3) - 1, quats, scales, opacities, _random(4, count, 3)


def _splats(device: torch.device) -> tuple[Found, Found]:
    def render(of: Callable[..., Any]) -> Callable[..., Tensor]:
        def image(*splats: Tensor) -> Tensor:
            viewmat, K = _view(splats[0])
            found: Tensor = of(*splats, viewmat[None], K[None], WIDTH, HEIGHT)[0]
            return found

        return image

    return _both(render(rasterize_splats), render(_twin("rasterize_splats")), device, *_some_splats(40))


def _jacobian(device: torch.device) -> tuple[Found, Found]:
    splats, step, weights = _some_splats(1), _random(5, 1, UNKNOWNS), _random(6, HEIGHT, WIDTH, 3)
    here = tuple(t.double() for t in splats)
    zero = torch.zeros(1, UNKNOWNS, dtype=torch.float64).requires_grad_()
    image = products.view(zero, torch.zeros_like(here[4]), here, *_view(here[0]), WIDTH, HEIGHT)
    # Jᵀ v is linear in v: its derivative along p is J p. (Forward mode takes seconds to load.)
    cotangent = weights.double().requires_grad_()
    (pulled,) = torch.autograd.grad(image, zero, cotangent, create_graph=True)
    (change,) = torch.autograd.grad(pulled, cotangent, step.double(), retain_graph=True)
    (twice,) = torch.autograd.grad(image, zero, cotangent.detach() * change)
    means, quats, scales, opacities, colors = (t.to(device) for t in splats)
    jacobian = SplatJacobian(means, quats, scales, opacities, colors, *_view(means), WIDTH, HEIGHT)
    step, weights = step.to(device), weights.to(device)
    product = jacobian.gauss_newton(step, None, None, weights).geometry
    block, upper = torch.zeros(UNKNOWNS, UNKNOWNS, device=device), torch.triu_indices(UNKNOWNS, UNKNOWNS)
    block[upper[0], upper[1]] = block[upper[1], upper[0]] = jacobian.blocks(weights).geometry[0]
    found = jacobian.jvp(step), jacobian.vjp(weights).geometry, product, step @ block  # of one splat there is no other
    return found, (change, pulled, twice, twice)


def _triangles() -> tuple[Tensor, Tensor]:
    """Return (1, V, 4) clip-space vertices and (F, 3) faces, overlapping ones that cross the image's border, too."""
    positions = torch.cat([3 * _random(7, 1, 24, 3) - 1.5, torch.ones(1, 24, 1)], dim=2)
    return positions, torch.arange(24, dtype=torch.int32).view(8, 3)


def _seen() -> tuple[Tensor, Tensor]:
    """Return (1, H, W, 4) rast and rast_db of them, by the twin."""
    positions, faces = _triangles()
    rast, rast_db = _twin("rasterize_mesh")(positions.double(), faces, WIDTH, HEIGHT)
    return rast.float(), rast_db.float()


def _rasterized(device: torch.device) -> tuple[Found, Found]:
    positions, faces = _triangles()

    def of(function: Callable[..., Any]) -> Callable[..., Tensor]:
        return lambda p: torch.cat(function(p, faces.to(p.device), WIDTH, HEIGHT), dim=3)

    return _both(of(rasterize_mesh), of(_twin("rasterize_mesh")), device, positions)


def _interpolated(device: torch.device) -> tuple[Found, Found]:
    faces, (rast, _) = _triangles()[1], _seen()

    def of(function: Callable[..., Any]) -> Callable[..., Tensor]:
        return lambda a: function(a, rast.to(a), faces.to(a.device))[0]

    return _both(of(interpolate), of(_twin("interpolate")), device, _random(10, 24, 3))


def _textured(device: torch.device) -> tuple[Found, Found]:
    uv = 0.05 + 0.4 * _random(11, 1, HEIGHT, WIDTH, 2)

    def of(function: Callable[..., Any]) -> Callable[..., Tensor]:
        return lambda image, uv: function(image, uv)

    return _both(of(texture), of(_twin("texture")), device, _random(12, 1, 8, 8, 3), uv)


def _antialiased(device: torch.device) -> tuple[Found, Found]:
    (positions, faces), (rast, _) = _triangles(), _seen()

    def of(function: Callable[..., Any]) -> Callable[..., Tensor]:
        return lambda color, p: function(color, rast.to(p), p, faces.to(p.device))

    return _both(of(antialias), of(_twin("antialias")), device, _random(13, 1, HEIGHT, WIDTH, 3), positions)


def _similar(device: torch.device) -> tuple[Found, Found]:
    photo = _random(14, HEIGHT, WIDTH, 3)

    def of(function: Callable[..., Any]) -> Callable[..., Tensor]:
        return lambda image: function(image, photo.to(image))

    return _both(of(ssim), of(_twin("ssim")), device, _random(15, HEIGHT, WIDTH, 3))


def _contour(device: torch.device) -> tuple[Found, Found]:
    inside = _random(16, 5, 6, 7) < 0.5
    found, expected = dual_contour(inside.to(device), (4, 5, 6)), _twin("dual_contour")(inside)
    names = ("rows", "cases", "first", "corners", "edges", "quads")
    return tuple(getattr(found, n) for n in names), tuple(getattr(expected, n) for n in names)


def _vertices(device: torch.device) -> tuple[Found, Found]:
    field = _random(17, 5, 6, 7) - 0.5
    here, there = (dual_contour((field < 0).to(where), (4, 5, 6)) for where in ("cpu", device))
    samples = here.samples
    leaves = _random(18, len(samples), 3), field.view(-1)[samples], 0.5 + _random(19, len(here.rows), WEIGHTS)

    def of(function: Callable[..., Any], contour: Contour) -> Callable[..., Tensor]:
        return lambda *own: torch.cat([t.flatten() for t in function(*own, contour)])

    return _both(of(flexicubes, there), of(_twin("flexicubes"), here), device, *leaves)


def _closest(device: torch.device) -> tuple[Found, Found]:
    points, vertices, faces = _random(20, 30, 3), _random(21, 24, 3), _triangles()[1]
    found = nearest(points.to(device), vertices.to(device), faces.to(device))
    return found, _twin("nearest")(points.double(), vertices.double(), faces)


def _stepped(device: torch.device) -> tuple[Found, Found]:
    start, gradient = _random(22, 50, 3), _random(23, 50, 3) - 0.5
    twin = start.double().requires_grad_()
    twin.grad = gradient.double()
    torch.optim.Adam([twin], lr=0.01, betas=BETAS, eps=EPS).step()
    own, first, second = start.to(device), torch.zeros(50, 3, device=device), torch.zeros(50, 3, device=device)
    factors = torch.full((50,), (1 - BETAS[1]) ** 0.5 / (1 - BETAS[0]), device=device)
    adam_step(own, gradient.to(device), first, second, factors, torch.full((3,), 0.01, device=device))
    return (own,), (twin,)


def _solved(device: torch.device) -> tuple[Found, Found]:
    factor, right = _random(24, 20, 6, 6), _random(25, 20, 6)
    blocks, upper = factor @ factor.mT + torch.eye(6), torch.triu_indices(6, 6)
    damped = (blocks + 0.1 * torch.diag_embed(blocks.diagonal(dim1=1, dim2=2))).double()
    found = solve_blocks(blocks[:, upper[0], upper[1]].to(device), right.to(device), 0.1)
    return (found,), (torch.linalg.solve(damped, right.double()),)


SCENES: dict[str, Callable[[torch.device], tuple[Found, Found]]] = {
    "rasterize_splats": _splats,
    "splat_jacobian": _jacobian,
    "rasterize_mesh": _rasterized,
    "interpolate": _interpolated,
    "texture": _textured,
    "antialias": _antialiased,
    "ssim": _similar,
    "dual_contour": _contour,
    "flexicubes": _vertices,
    "nearest": _closest,
    "adam_step": _stepped,
    "solve_blocks": _solved,
}
