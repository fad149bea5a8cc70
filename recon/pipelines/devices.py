"""What a run computes on."""

from __future__ import annotations

import re
from importlib.util import find_spec

from recon.config import ENVIRONMENT
from recon.errors import InputError

MESH_BACKEND = "mesh_backend"
"""A variable of the environment: what rasterizes meshes on a GPU."""


def find_device(name: str) -> str:
    """Return the device of that name.

    Raises:
        InputError: there is none.
    """
    if name == "cpu":
        return name
    if re.fullmatch("cuda(:(0|[1-9][0-9]*))?", name) is None:
        raise InputError(f"Unknown device '{name}'.", "The devices are cpu, cuda, cuda:1 …", "unknown-device")
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(name.partition(":")[2] or "0") >= count:
        hint = f"There is cuda:0 to cuda:{count - 1}." if count else "Use --device cpu; 'recon doctor' says more."
        raise InputError(f"There is no device '{name}' here.", hint, "no-device")
    if find_spec("triton") is None:
        hint = "PyTorch's wheels for GPUs bring it: pip install 'egregium[gpu]'. Or use --device cpu."
        raise InputError(f"The device '{name}' needs Triton, which is not installed.", hint, "no-triton")
    return name


def mesh_backend(asked: str | None, device: str) -> list[str]:
    """Return warnings about what is asked to rasterize meshes (:mod:`kernels.nvdiffrast`).

    Raises:
        InputError: it is not there.
    """
    variable = f"{ENVIRONMENT}{MESH_BACKEND.upper()}"
    if asked not in (None, "", "egregium", "nvdiffrast"):
        raise InputError(
            f"{variable}: there is no '{asked}'.", "It is egregium (default) or nvdiffrast.", "unknown-backend"
        )
    if asked != "nvdiffrast":
        return []
    if device == "cpu":
        return [f"{variable}=nvdiffrast says nothing on the CPU; it is for --device cuda."]
    if find_spec("nvdiffrast") is None:
        raise InputError(
            f"{variable}=nvdiffrast, which is not installed.",
            "pip install 'egregium[nvdiffrast]'; NVIDIA's licence allows no commercial use.",
            "no-nvdiffrast",
        )
    return []
