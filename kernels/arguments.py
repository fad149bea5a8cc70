"""The arguments every splat operation takes, checked once: shapes, dtypes, devices, ranges.

Only what the tensors *are* is looked at, never their values, so that a check costs microseconds. Splats with
non-finite values are no error: the operations cull them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.checks import check_floats, check_shape, check_size

RASTERIZE_MODES = ("classic", "antialiased")
RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
MAX_SH_DEGREE = 3


def check_splats(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int | Sequence[int],
    height: int | Sequence[int],
    *,
    sh_degree: int | None = None,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    backgrounds: Tensor | None = None,
    masks: Tensor | Sequence[Tensor] | None = None,
    rasterize_mode: str = "classic",
    render_mode: str = "RGB",
) -> list[tuple[int, int]]:
    """Check the arguments of ``rasterize_splats``, which says what they mean.

    Returns:
        The (width, height) of each camera.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or range; the message names it.
    """
    floats = {
        "means": means,
        "quats": quats,
        "scales": scales,
        "opacities": opacities,
        "colors": colors,
        "viewmats": viewmats,
        "Ks": Ks,
    }
    if backgrounds is not None:
        floats["backgrounds"] = backgrounds
    check_floats(**floats)

    count = means.shape[0] if means.ndim else 0
    for name, tail in (("means", (3,)), ("quats", (4,)), ("scales", (3,)), ("opacities", ())):
        check_shape(name, floats[name], (count, *tail), f"N = {count} splats")
    cameras = viewmats.shape[0] if viewmats.ndim else 0
    if cameras == 0:
        raise ValueError(f"viewmats must have shape (C, 4, 4) with C >= 1, not {tuple(viewmats.shape)}")
    check_shape("viewmats", viewmats, (cameras, 4, 4), f"C = {cameras} cameras")
    check_shape("Ks", Ks, (cameras, 3, 3), f"C = {cameras} cameras")

    channels = _check_colors(colors, count, sh_degree)
    if backgrounds is not None:
        check_shape("backgrounds", backgrounds, (cameras, channels), f"C = {cameras} cameras, D = {channels} channels")

    sizes = list(zip(_per_camera("width", width, cameras), _per_camera("height", height, cameras), strict=True))
    if masks is not None:
        _check_masks(masks, sizes, means.device)

    if not 0 <= near_plane < far_plane:
        raise ValueError(
            f"near_plane = {near_plane} and far_plane = {far_plane}: 0 <= near_plane < far_plane must hold"
        )
    if not 0 <= eps2d < float("inf"):
        raise ValueError(f"eps2d = {eps2d}: it is a variance in square pixels, finite and >= 0")
    if rasterize_mode not in RASTERIZE_MODES:
        raise ValueError(f"rasterize_mode = {rasterize_mode!r}: it is one of {', '.join(RASTERIZE_MODES)}")
    if render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode = {render_mode!r}: it is one of {', '.join(RENDER_MODES)}")
    return sizes


def _check_colors(colors: Tensor, count: int, sh_degree: int | None) -> int:
    """Return the number of channels the colours have once evaluated."""
    shape = tuple(colors.shape)
    if sh_degree is None:
        if colors.ndim != 2 or shape[0] != count or shape[1] == 0:
            raise ValueError(f"colors must have shape (N, D) with N = {count}, D >= 1 without sh_degree, not {shape}")
        return shape[1]
    if not 0 <= sh_degree <= MAX_SH_DEGREE:
        raise ValueError(f"sh_degree = {sh_degree}: it is 0 to {MAX_SH_DEGREE}, or None for colors of shape (N, D)")
    needed = (sh_degree + 1) ** 2
    if colors.ndim != 3 or shape[0] != count or shape[1] < needed or shape[2] != 3:
        raise ValueError(
            f"colors must have shape (N, K, 3) with N = {count}, K >= {needed} for sh_degree = {sh_degree}, not {shape}"
        )
    return 3


def _per_camera(name: str, value: int | Sequence[int], cameras: int) -> list[int]:
    given = value if isinstance(value, Sequence) else [value] * cameras
    if len(given) != cameras:
        raise ValueError(f"{name} lists {len(given)} sizes for {cameras} cameras")
    return [check_size(name, v) for v in given]


def _check_masks(masks: Tensor | Sequence[Tensor], sizes: list[tuple[int, int]], device: torch.device) -> None:
    if len(masks) != len(sizes):
        raise ValueError(f"masks holds {len(masks)} masks for {len(sizes)} cameras")
    for i, (mask, (width, height)) in enumerate(zip(masks, sizes, strict=True)):
        if mask.dtype != torch.bool or mask.device != device or mask.shape != (height, width):
            raise ValueError(
                f"masks[{i}] must be bool of shape {(height, width)} on {device}, "
                f"not {mask.dtype} of shape {tuple(mask.shape)} on {mask.device}"
            )
