"""Checkpoints: tensors and a JSON state in one safetensors file, so that both are whole or neither is.

Arrays of NumPy's are taken, too: a pipeline that needs no torch does not wait for it to be loaded.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recon.job_files import atomic

if TYPE_CHECKING:
    from torch import Tensor

    Arrays = Mapping[str, Tensor] | Mapping[str, np.ndarray]

KEPT = 2
"""The newest and, against a file damaged later, the one before."""


def save(folder: Path, tensors: Arrays, state: Mapping[str, Any]) -> None:
    """Write the next checkpoint into ``folder`` and then drop all but the newest two.

    Args:
        folder: holds the checkpoints of one stage and nothing else.
        tensors: any shapes, types and devices; views and shared memory are fine. All of torch's or all of NumPy's.
        state: JSON-ready values.

    Raises:
        OSError: the disk is full; the earlier checkpoints are intact.
    """
    paths = _paths(folder)
    number = int(paths[-1].stem) + 1 if paths else 1
    write_tensors(folder / f"{number:06}.safetensors", tensors, {"state": json.dumps(state)})
    for old in paths[: 1 - KEPT]:
        old.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Arrays, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically; arguments and errors as in :func:`save`."""
    from safetensors import SafetensorError

    with atomic(path) as part:
        try:
            _write(part, tensors, metadata)
        except SafetensorError as error:  # a failed write reaches us as text
            if match := re.search(r"os error (\d+)", str(error)):
                raise OSError(int(match[1]), str(error), str(path)) from None
            raise


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return tensors (on the CPU) and state of the newest whole checkpoint, None if there is none.

    Damaged files are passed over.
    """
    from safetensors import SafetensorError, safe_open

    for path in reversed(_paths(folder)):
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads(file.metadata()["state"])
                return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            continue
    return None


def clear(folder: Path) -> None:
    """Delete all checkpoints of a stage."""
    shutil.rmtree(folder, ignore_errors=True)


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.safetensors") if path.stem.isdigit())


def _write(path: Path, tensors: Arrays, metadata: dict[str, str] | None) -> None:
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items() if isinstance(array, np.ndarray)}
    if len(arrays) == len(tensors):
        from safetensors.numpy import save_file as save_arrays

        save_arrays(arrays, path, metadata)
    else:
        from safetensors.torch import save_file

        save_file(_own(tensors), path, metadata)


def _own(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors as safetensors wants them: on the CPU, contiguous, no two in the same memory."""
    result, seen = {}, set()
    for name, tensor in tensors.items():
        t = tensor.detach().cpu().contiguous()
        storage = t.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != t.numel() * t.element_size():
            t = t.clone()
            storage = t.untyped_storage()
        if t.numel():
            seen.add(storage.data_ptr())
        result[name] = t
    return result
