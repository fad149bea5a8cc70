"""For each operator that runs on a GPU, a scene that asks its kernels for all that they can."""

from __future__ import annotations

from collections.abc import Callable

import torch
from raster_scenes import random_triangles
from splat_scenes import cast, random_scene

from kernels.antialias import antialias
from kernels.interpolate import interpolate
from kernels.nearest import nearest
from kernels.rasterize_mesh import rasterize_mesh
from kernels.rasterize_splats import rasterize_splats
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
    for options in ({"sh_degree": 3}, {"render_mode": "RGB+ED", "rasterize_mode": "antialiased"}):
        masks = torch.ones(1, 20, 37, dtype=torch.bool)
        arguments = cast(random_scene(0, 50, [(37, 20)], backgrounds=True, masks=masks, **options), torch.float32)
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


SCENES: tuple[Callable[[], None], ...] = (
    _interpolated,
    _textured,
    _antialiased,
    _rasterized,
    _near,
    _splats,
)
