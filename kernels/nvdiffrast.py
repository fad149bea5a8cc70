"""The mesh operations by NVIDIA's nvdiffrast in place of ours, for tensors on a GPU, where it is asked for.

``RECON_MESH_BACKEND=nvdiffrast`` asks for it. Its licence is for non-commercial use alone; it is no part of this
project and has to be installed apart. Its images run from the bottom, with y upwards, ours from the top, with y
downwards: row 0 is at y/w = -1 in both, and a texture's first texel at u = v = 0, so that nothing has to be turned.
The functions here take arguments that have been checked.

Source: Laine et al. 2020, "Modular Primitives for High-Performance Differentiable Rendering".
"""

from __future__ import annotations

import functools
import importlib
import os
from typing import Any

import torch
from torch import Tensor

VARIABLE = "RECON_MESH_BACKEND"
BACKENDS = ("egregium", "nvdiffrast")


def takes(tensor: Tensor) -> bool:
    """Whether nvdiffrast computes what ``tensor`` is given for.

    Raises:
        ValueError: the environment names a backend that there is not.
    """
    backend = os.environ.get(VARIABLE) or BACKENDS[0]
    if backend not in BACKENDS:
        raise ValueError(f"{VARIABLE}={backend}: it is {' or '.join(BACKENDS)}")
    return backend == "nvdiffrast" and tensor.is_cuda


def rasterize_mesh(positions: Tensor, faces: Tensor, width: int, height: int, layers: int) -> tuple[Tensor, Tensor]:
    """Return what :func:`kernels.rasterize_mesh.rasterize_mesh` does."""
    scene = (_context(positions.device), positions.contiguous(), faces.contiguous(), (height, width))
    with _nvdiffrast().DepthPeeler(*scene) as peeler:
        found = [peeler.rasterize_next_layer() for _ in range(layers)]
    if layers == 1:
        return found[0][0], found[0][1]
    return torch.stack([rast for rast, _ in found]), torch.stack([db for _, db in found])


def interpolate(
    attributes: Tensor, rast: Tensor, faces: Tensor, rast_db: Tensor | None, diff_attrs: list[int] | None
) -> tuple[Tensor, Tensor | None]:
    """Return what :func:`kernels.interpolate.interpolate` does, of attributes (1 or B, V, A)."""
    given = (attributes.contiguous(), rast.contiguous(), faces.contiguous())
    if rast_db is None or not diff_attrs:
        values: Tensor = _nvdiffrast().interpolate(*given)[0]
        return values, None if diff_attrs is None else values.new_empty(*values.shape[:3], 0)
    found: tuple[Tensor, Tensor] = _nvdiffrast().interpolate(*given, rast_db.contiguous(), diff_attrs)
    return found


def texture(texture: Tensor, uv: Tensor, uv_da: Tensor | None, filter_mode: str, boundary_mode: str) -> Tensor:
    """Return what :func:`kernels.texture.texture` does; with mipmaps, of sides that are powers of two."""
    footprint = uv_da.contiguous() if uv_da is not None and "mipmap" in filter_mode else None
    given = (texture.contiguous(), uv.contiguous(), footprint)
    found: Tensor = _nvdiffrast().texture(*given, filter_mode=filter_mode, boundary_mode=boundary_mode)
    return found


def antialias(color: Tensor, rast: Tensor, positions: Tensor, faces: Tensor) -> Tensor:
    """Return what :func:`kernels.antialias.antialias` does, less where surfaces pass through one another."""
    found: Tensor = _nvdiffrast().antialias(*(t.contiguous() for t in (color, rast, positions, faces)))
    return found


def _nvdiffrast() -> Any:
    try:
        return importlib.import_module("nvdiffrast.torch")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "nvdiffrast":
            raise
        raise RuntimeError(
            f"{VARIABLE}=nvdiffrast, which is not installed: pip install 'egregium[nvdiffrast]'. "
            "NVIDIA's licence allows non-commercial use alone."
        ) from None


@functools.cache
def _context(device: torch.device) -> Any:
    """Return what nvdiffrast keeps for a GPU between calls."""
    return _nvdiffrast().RasterizeCudaContext(device=device)
