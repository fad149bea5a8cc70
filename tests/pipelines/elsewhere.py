"""A device that is not the CPU, on any machine: what a pipeline leaves on the wrong side raises as it would on a GPU.

A tensor there wraps one on the CPU, which computes for it; the operators' CPU kernels, too. What may not meet on a GPU
may not meet here: tensors of both devices in one operation (numbers, and indices of a tensor there, excepted), NumPy,
and generators of the CPU.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "elsewhere"
MOVES = ("aten::_to_copy", "aten::copy_", "aten::_copy_from", "aten::_copy_from_and_resize")
INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index")
RESIZED = ("arange", "arange.start", "arange.start_step", "eye", "eye.m")
"""What torch makes by resizing an empty tensor, of which a wrapper does not hear."""


class Elsewhere(Tensor):
    """A tensor there; ``here`` is where its values are."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device=torch.device(NAME, 0)
        )
        made.here = here
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"{NAME}: {self.here!r}"

    def tolist(self) -> Any:
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        named = named or {}
        name = function._schema.name
        if name not in MOVES:
            _together(name, arguments, named)
        found = function(*_here(arguments), **_here(named))
        if name == "aten::_local_scalar_dense" or (name == "aten::_to_copy" and not _is_there(named)):
            return found
        found = tree_map_only(Tensor, lambda t: t if isinstance(t, Elsewhere) else Elsewhere(t), found)
        return return_and_correct_aliasing(function, arguments, named, found)


def _is_there(named: dict[str, Any]) -> bool:
    return named.get("device") is None or torch.device(named["device"]).type == NAME


def _here(values: Any) -> Any:
    values = tree_map_only(Elsewhere, lambda t: t.here, values)
    return tree_map_only(torch.device, lambda device: torch.device("cpu"), values)


def _together(name: str, arguments: Any, named: Any) -> None:
    """Raise where tensors of both devices meet."""
    if any(isinstance(value, torch.Generator) for value in tree_iter((arguments, named))):
        raise RuntimeError(f"{name}: the generator is on the CPU")
    if name in INDEXED and isinstance(arguments[0], Elsewhere):
        arguments = (arguments[0], *arguments[2:])
    strangers = [t for t in tree_iter((arguments, named)) if isinstance(t, Tensor) and not isinstance(t, Elsewhere)]
    if shapes := [tuple(t.shape) for t in strangers if t.ndim]:
        raise RuntimeError(f"{name}: tensors {shapes} are on the CPU, others are not")


def _made(function: Any, *arguments: Any, **named: Any) -> Tensor:
    """Make a tensor there out of none."""
    _together(str(function), arguments, named)
    return Elsewhere(function(*_here(arguments), **_here(named)))


def _filled(to: Elsewhere, values: Tensor, waits: bool = False) -> Tensor:
    """Copy, where ``torch.tensor`` does so behind the back of ``__torch_dispatch__``."""
    to.here.copy_(_here(values))
    return to


class _Module:
    """What ``torch.elsewhere`` is: torch's own tests of operators ask an accelerator for its random numbers' state."""

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """There are none."""

    @staticmethod
    def get_rng_state() -> Tensor:
        return torch.empty(0, dtype=torch.uint8)

    @staticmethod
    def set_rng_state(state: Tensor) -> None:
        """There are none."""


@functools.cache
def device() -> torch.device:
    """Return the device, which this process has from here on."""
    _setup_privateuseone_for_python_backend(NAME, _Module)
    for namespace in ("_", "aten"):
        LIBRARIES[namespace] = torch.library.Library(namespace, "IMPL")
    LIBRARIES["_"].fallback(_made, "PrivateUse1")
    LIBRARIES["aten"].impl("copy_", _filled, "PrivateUse1")
    for name in RESIZED:
        LIBRARIES["aten"].impl(name, functools.partial(_made, operator.attrgetter(name)(torch.ops.aten)), "PrivateUse1")
    return torch.device(NAME, 0)


LIBRARIES: dict[str, torch.library.Library] = {}
"""What is registered lives as long as these."""
