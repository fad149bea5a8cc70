"""For each operator that runs on a GPU, a scene that asks its kernels for all that they can."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from raster_scenes import random_triangles
from splat_scenes import cast, random_scene

from kernels.adam_step import adam_step
from kernels.antialias import antialias
from kernels.interpolate import interpolate
from kernels.nearest import nearest
from kernels.rasterize_mesh import rasterize_mesh
from kernels.rasterize_splats import rasterize_splats
from kernels.solve_blocks import block_step, solve_blocks
from kernels.splat_jacobian import SplatJacobian
from kernels.ssim import ssim
from kernels.texture import texture


def _interpolated() -> None:
    _, faces = random_triangles(0, 30, batch=2)
    rast, rast_db = (torch.rand(2, 13, 17, 4).requires_grad_() for _ in range(2))
    attributes = torch.randn(2, 40, 5).requires_grad_()
    values, derivatives = interpolate(attributes, rast, faces, rast_db, [1, 3])
    assert derivatives is not None
    torch.autograd.grad(values.sum() + derivatives.sum(), (attributes, rast, rast_db))
    torch.autograd.grad(interpolate(attributes[0], rast, faces)[0].sum(), (attributes, rast))


def _splats() -> None:
    everything = {"sh_degree": 3, "rasterize_mode": "antialiased", "render_mode": "RGB+ED", "backgrounds": True}
    # The greatest first, for all targets; one splat and one pixel, for Triton makes a constant of each 1.
    for count, size, options in ((50, (37, 20), everything), (50, (37, 20), {}), (1, (1, 1), {})):
        masks = torch.ones(1, size[1], size[0], dtype=torch.bool) if options else None
        arguments = cast(random_scene(0, count, [size], masks=masks, **options), torch.float32)
        leaves = [arguments[name].requires_grad_() for name in ("means", "opacities")]
        image, alpha, _ = rasterize_splats(**arguments)
        torch.autograd.grad(image.sum() + alpha.sum(), leaves)


def _textured() -> None:
    image, uv, uv_da = torch.rand(2, 8, 4, 3), torch.rand(2, 13, 17, 2), torch.rand(2, 13, 17, 4)
    leaves = [t.requires_grad_() for t in (image, uv, uv_da)]
    seen = texture(*leaves, filter_mode="linear-mipmap-linear", boundary_mode="clamp")
    torch.autograd.grad(seen.sum(), leaves)
    torch.autograd.grad(texture(image, uv.detach(), filter_mode="nearest").sum(), image)


def _antialiased() -> None:
    positions, faces = random_triangles(0, 30, batch=2)
    color, rast = torch.rand(2, 13, 17, 3).requires_grad_(), torch.rand(2, 13, 17, 4)
    positions.requires_grad_()
    torch.autograd.grad(antialias(color, rast, positions, faces).sum(), (color, positions))


def _rasterized() -> None:
    positions, faces = random_triangles(0, 30, batch=2)
    rast, rast_db = rasterize_mesh(positions.requires_grad_(), faces, 17, 13, layers=2)
    torch.autograd.grad(rast.sum() + rast_db.sum(), positions, retain_graph=True)
    torch.autograd.grad(rast.sum(), positions)


def _near() -> None:
    for dtype in (torch.float32, torch.float64):
        vertices, faces = torch.rand(40, 3, dtype=dtype), random_triangles(0, 30)[1]
        nearest(torch.rand(9, 3, dtype=dtype), vertices, faces)


def _stepped() -> None:
    for limits in (0.1, torch.ones(9)):
        adam_step(*torch.rand(4, 9, 3), torch.ones(9), torch.ones(3), limits)


def _alike() -> None:
    image = torch.rand(9, 13, 3).requires_grad_()
    ssim(image, torch.rand(9, 13, 3)).sum().backward()


def _solved() -> None:
    for n in (3, 10, 16):
        blocks, rows, ones = torch.ones(9, n * (n + 1) // 2), torch.ones(3, 9, n), torch.ones(2, 9)
        with suppress(FloatingPointError):  # nobody has said that it is finite where kernels are not run
            solve_blocks(blocks, rows[0], 0.1)
        for given, limits in ((blocks, rows[0]), (None, torch.ones(n))):
            with suppress(FloatingPointError):
                block_step(given, *rows, *ones, torch.ones(n), limits, 1.0)


def _linearised() -> None:
    splats = torch.rand(50, 3), torch.rand(50, 4), torch.rand(50, 3), torch.rand(50)
    harmonics, many = torch.rand(50, 16, 3), torch.rand(50, 24)
    given = {"sh_degree": 3, "mask": torch.ones(20, 37, dtype=torch.bool), "background": torch.rand(3)}
    camera = torch.eye(4), torch.eye(3), 37, 20
    view = SplatJacobian(*splats, harmonics, *camera, rasterize_mode="antialiased", **given)
    view.blocks(view.image)
    view.gauss_newton(torch.rand(50, 10), harmonics, torch.rand(10), view.image)
    SplatJacobian(*splats, many, *camera).jvp(colors=many)


SCENES: tuple[Callable[[], None], ...] = (
    _interpolated,
    _textured,
    _antialiased,
    _rasterized,
    _near,
    _splats,
    _stepped,
    _alike,
    _solved,
    _linearised,
)
