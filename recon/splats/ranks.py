"""One fit by several processes, started by ``torchrun``: each looks at its share of a step's photos.

Every process holds the whole model and takes the same steps: what they found of their photos, gradients, blocks of the
curvature, products with Jᵀ W J, is added up over all of them. All else is computed by each of the same numbers, and
whatever is random is drawn from the step's number alone, so that they never part. The first one leads: it alone has a
job, and tells the others what to fit and whether to go on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from recon.splats.fit import Fit

T = TypeVar("T")


def count() -> int:
    """Return how many processes fit together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mine(items: Sequence[T]) -> Sequence[T]:
    """Return this process's share."""
    return items if count() == 1 else items[dist.get_rank() :: count()]


def add_up(*tensors: Tensor) -> None:
    """Add up each tensor over all processes, in place."""
    if count() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def any_of(flags: Tensor) -> Tensor:
    """Return where (…) bool ``flags`` are set in some process."""
    if count() == 1:
        return flags
    found = flags.to(torch.uint8)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.bool()


@contextmanager
def joined(device: str) -> Iterator[bool]:
    """Join the processes that ``torchrun`` has started, if it has; give whether this one leads.

    Those that do not lead take part in the leader's fits first, until it leaves the block.

    Args:
        device: ``cpu``, or ``cuda`` for a GPU a process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield True
        return
    if device != "cpu":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("gloo" if device == "cpu" else "nccl")
    try:
        if dist.get_rank() > 0:
            _assist(device)
        yield dist.get_rank() == 0
        if dist.get_rank() == 0:
            _told(None)
    finally:
        dist.destroy_process_group()


@contextmanager
def shared(fit: Fit) -> Iterator[Callable[[], None]]:
    """Let the other processes take part in a fit; give what is to be called before each of its steps.

    A step then cannot be left in the middle: the others would wait.
    """
    if count() == 1:
        yield lambda: None
        return
    photos = [photo.to(torch.device("cpu")) for photo in fit.photos]
    state = {name: tensor.cpu() for name, tensor in fit.state().items()}
    _told((type(fit), photos, fit.background.cpu(), fit.config, state, fit.step, fit.initial_count))
    try:
        yield lambda: _told(True)
    finally:
        with suppress(RuntimeError):  # where the others are gone, why is known already
            _told(False)


def _assist(device: str) -> None:
    """Take part in the leader's fits until there are no more."""
    from recon.splats.model import Splats

    for number in (signal.SIGINT, signal.SIGTERM):  # the leader is asked to stop, too, and tells
        signal.signal(number, signal.SIG_IGN)
    while (told := _heard()) is not None:
        kind, photos, background, config, state, step, initial = told
        splats = Splats(**{n.removeprefix("splats."): t for n, t in state.items() if n.startswith("splats.")})
        there = torch.device(device)
        fit = kind(splats.to(there), [photo.to(there) for photo in photos], background.to(there), config)
        fit.load_state({name: tensor.to(there) for name, tensor in state.items()}, step, initial)
        steps = fit.run()
        while _heard():
            next(steps)


def _told(what: object) -> None:
    dist.broadcast_object_list([what], src=0)


def _heard() -> Any:
    heard: list[Any] = [None]
    dist.broadcast_object_list(heard, src=0)
    return heard[0]
