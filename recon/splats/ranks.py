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
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from recon.errors import InputError, ReconstructionError

if TYPE_CHECKING:
    from recon.splats.fit import Fit, Progress

T = TypeVar("T")
PATIENCE = timedelta(days=7)
"""The others wait while the leader alone finds poses, measures, fuses; one that has ended is noticed at once."""
GRACE = 25
"""Seconds for which the others go on after SIGTERM, for the leader to end its step and say so; torchrun kills at 30."""


def count() -> int:
    """Return how many processes fit together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mine(items: Sequence[T]) -> Sequence[T]:
    """Return this process's share."""
    return items if count() == 1 else items[dist.get_rank() :: count()]


def add_up(*tensors: Tensor) -> None:
    """Add up each tensor over all processes, in place."""
    if count() > 1:
        with _met():
            for tensor in tensors:
                dist.all_reduce(tensor)


def any_of(flags: Tensor) -> Tensor:
    """Return where (…) bool ``flags`` are set in some process."""
    if count() == 1:
        return flags
    found = flags.to(torch.uint8)
    with _met():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.bool()


@contextmanager
def joined(device: str) -> Iterator[bool]:
    """Join the processes that ``torchrun`` has started, if it has; give whether this one leads.

    Those that do not lead take part in the leader's fits first, until it leaves the block.

    Args:
        device: ``cpu``, or ``cuda`` for a GPU a process.

    Raises:
        InputError: there are fewer GPUs than processes, or one of them is named (code ``"no-device"``).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "LOCAL_RANK" not in os.environ:
        yield True
        return
    if device != "cpu":
        device = _own_device(device, int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # What is told goes from host to host, whatever is added up on GPUs.
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", timeout=PATIENCE)
    try:
        if dist.get_rank() > 0:
            _assist(device)
            yield False
        else:
            yield True
            if count() > 1:
                _told(None)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _own_device(device: str, place: int) -> str:
    """Return the GPU of the process that is this one on its machine."""
    if device != "cuda":
        raise InputError(
            f"The device is '{device}', of several processes.", "--device cuda gives each its own GPU.", "no-device"
        )
    if place >= torch.cuda.device_count():
        found = f"There are more processes than GPUs here, which are {torch.cuda.device_count()}."
        raise InputError(found, "Start as many as there are GPUs: torchrun --nproc-per-node.", "no-device")
    return f"cuda:{place}"


@contextmanager
def shared(fit: Fit) -> Iterator[Callable[[], Progress]]:
    """Let the other processes take part in a fit; give what takes a step of it, in all of them.

    A step cannot be left in the middle, for the others would wait. One that fails ends them: the group is left.
    """
    steps = fit.run()
    if count() == 1:
        yield lambda: next(steps)
        return
    state = {name: tensor.cpu() for name, tensor in fit.state().items()}
    _told((type(fit), len(fit.photos), fit.background.cpu(), fit.config, state, fit.step, fit.initial_count))
    for photo in fit.photos:  # one by one: all at once would need the memory of all of them again
        _told(photo.to(torch.device("cpu")))
    whole = True

    def step() -> Progress:
        nonlocal whole
        _told(True)
        whole = False
        progress = next(steps)
        whole = True
        return progress

    try:
        yield step
    finally:
        if whole:
            _told(False)
        else:
            dist.destroy_process_group()


def _assist(device: str) -> None:
    """Take part in the leader's fits until there are no more."""
    from recon.splats.model import Splats

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leader is asked to stop, too, and tells
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))
    while (told := _heard()) is not None:
        kind, photos, background, config, state, step, initial = told
        there = torch.device(device)
        seen = [_heard().to(there) for _ in range(photos)]
        splats = Splats(**{n.removeprefix("splats."): t for n, t in state.items() if n.startswith("splats.")})
        fit = kind(splats.to(there), seen, background.to(there), config)
        fit.load_state({name: tensor.to(there) for name, tensor in state.items()}, step, initial)
        steps = fit.run()
        while _heard():
            next(steps)


def _told(what: object) -> None:
    with _met():
        dist.broadcast_object_list([what], src=0, device=torch.device("cpu"))


def _heard() -> Any:
    heard: list[Any] = [None]
    with _met():
        dist.broadcast_object_list(heard, src=0, device=torch.device("cpu"))
    return heard[0]


@contextmanager
def _met() -> Iterator[None]:
    """Say what is behind an error of what the processes do together."""
    try:
        yield
    except RuntimeError as error:
        what = "Another of the processes that fit together has ended."
        raise ReconstructionError(what, "What it said tells why.", "lost-process") from error
