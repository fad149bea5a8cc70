"""Small scenes for the splat kernels, as keyword arguments of ``rasterize_splats``, and what their tests share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernels.reference.rasterize_splats import (
    GREATEST_ALPHA,
    LEAST_ALPHA,
    LEAST_TRANSMITTANCE,
    Camera,
    Splats,
    blending_weights,
    falloff,
    pixel_centres,
    project,
    visible_splats,
)

Arguments = dict[str, Any]
DIFFERENTIABLE = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds")


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low


def intrinsics(focal: float, width: int, height: int) -> Tensor:
    return torch.tensor([[focal, 0, width / 2], [0, focal * 1.1, height / 2], [0, 0, 1]], dtype=torch.float64)


def tilted_view(generator: torch.Generator, angle: float = 0.15, shift: float = 0.2) -> Tensor:
    """A rigid world-to-camera transform near the identity."""
    turn = uniform(generator, -angle, angle, 3)
    cross = torch.zeros(3, 3, dtype=torch.float64)
    cross[[2, 0, 1], [1, 2, 0]] = turn
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3] = torch.linalg.matrix_exp(cross - cross.T)
    viewmat[:3, 3] = uniform(generator, -shift, shift, 3)
    return viewmat


def random_scene(
    seed: int,
    count: int,
    sizes: list[tuple[int, int]],
    *,
    channels: int = 3,
    sh_degree: int | None = None,
    scales: tuple[float, float] = (0.02, 0.15),
    opacities: tuple[float, float] = (0.05, 0.95),
    depths: tuple[float, float] = (2.0, 6.0),
    spread: float = 0.6,
    backgrounds: bool = False,
    **options: Any,
) -> Arguments:
    """Splats before cameras of these (width, height), their tangents within ± ``spread``; float32 values."""
    generator = torch.Generator().manual_seed(seed)
    z = uniform(generator, *depths, count, 1)
    low, high = (math.log(s) for s in scales)
    coefficients = 1 if sh_degree is None else (sh_degree + 1) ** 2
    arguments: Arguments = {
        "means": torch.cat([uniform(generator, -spread, spread, count, 2) * z, z], dim=1),
        "quats": uniform(generator, -1, 1, count, 4),
        "scales": uniform(generator, low, high, count, 3).exp(),
        "opacities": uniform(generator, *opacities, count),
        "colors": uniform(generator, 0, 1, count, channels)
        if sh_degree is None
        else uniform(generator, -0.5, 0.5, count, coefficients, 3),
        "viewmats": torch.stack([tilted_view(generator) for _ in sizes]),
        "Ks": torch.stack([intrinsics(0.9 * max(size), *size) for size in sizes]),
        "width": [w for w, _ in sizes],
        "height": [h for _, h in sizes],
        "sh_degree": sh_degree,
        **options,
    }
    if backgrounds:
        arguments["backgrounds"] = uniform(generator, 0, 1, len(sizes), channels)
    return cast(cast(arguments, torch.float32), torch.float64)


def cast(arguments: Arguments, dtype: torch.dtype) -> Arguments:
    """Return the arguments with every float tensor in ``dtype``, detached."""
    return {
        name: value.detach().to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in arguments.items()
    }


def random_masks(seed: int, sizes: list[tuple[int, int]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(h, w, generator=generator) < 0.7 for w, h in sizes]


def outputs(rendered: tuple[Any, Any, dict[str, Any]]) -> list[dict[str, Tensor]]:
    """Return the differentiable images of each camera by name."""
    colors, alphas, meta = rendered
    images = {"colors": colors, "alphas": alphas}
    if "normals" in meta:
        images["normals"] = meta["normals"]
    return [dict(zip(images, camera, strict=True)) for camera in zip(*images.values(), strict=True)]


def gradients(
    function: Callable[..., Any], arguments: Arguments, weights: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the gradients of Σ weights · images to every differentiable argument."""
    leaves = {name: value.clone().requires_grad_() for name, value in arguments.items() if name in DIFFERENTIABLE}
    weighted_sum(function(**{**arguments, **leaves}), weights).backward()
    return {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}


def weighted_sum(rendered: tuple[Any, Any, dict[str, Any]], weights: list[dict[str, Tensor]]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for images, some in zip(outputs(rendered), weights, strict=True):
        for name, image in images.items():
            total = total + (image.double() * some[name]).sum()
    return total


def random_weights(seed: int, like: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [{name: uniform(generator, -1, 1, *image.shape) for name, image in images.items()} for images in like]


def cameras(arguments: Arguments) -> list[Camera]:
    return [
        Camera(
            viewmat,
            K,
            arguments["width"][i],
            arguments["height"][i],
            arguments.get("near_plane", 0.01),
            arguments.get("far_plane", 1e10),
            arguments.get("eps2d", 0.3),
            arguments.get("rasterize_mode") == "antialiased",
        )
        for i, (viewmat, K) in enumerate(zip(arguments["viewmats"], arguments["Ks"], strict=True))
    ]


def as_splats(arguments: Arguments) -> Splats:
    return Splats(*(arguments[name] for name in Splats._fields))


def discontinuous_pixels(arguments: Arguments, noise: float) -> list[Tensor]:
    """Tell where rounding of relative size ``noise`` may change which splats contribute.

    There the image jumps, so neither two precisions nor finite differences agree: α at the cut of 1/255 or at the
    clamp of 0.999, T at the stop of 1e-4 or at the median's ½, or two contributing splats at almost one depth (at
    exactly one depth, their indices decide).

    Returns:
        A (H, W) bool tensor for each camera.
    """
    arguments = cast(arguments, torch.float64)
    splats = as_splats(arguments)
    found = []
    for camera in cameras(arguments):
        index = visible_splats(splats, camera)
        prints = project(splats.take(index), camera)
        pixels = pixel_centres(camera.width, camera.height, splats.means)
        alphas = falloff(prints, pixels)
        weights, transmittances = blending_weights(alphas, torch.ones(len(pixels), dtype=torch.bool))
        behind = transmittances[:, 1:]
        near = [
            (alphas / LEAST_ALPHA - 1).abs() < noise,
            (alphas / GREATEST_ALPHA - 1).abs() < noise,
            (behind / LEAST_TRANSMITTANCE - 1).abs() < 10 * noise,
        ]
        if arguments.get("render_mode", "RGB") != "RGB":
            near.append((behind / 0.5 - 1).abs() < 10 * noise)
        bad = torch.stack(near).any(dim=0).any(dim=1)
        if len(index) > 1:
            gaps = prints.depths.diff() / prints.depths[1:]
            close = (gaps > 0) & (gaps < 1e-6)
            bad |= ((weights[:, 1:] > 0) & (weights[:, :-1] > 0) & close).any(dim=1)
        found.append(bad.unflatten(0, (camera.height, camera.width)))
    return found
