"""Running one step of COLMAP: in a thread, silent, reported on and stopped when somebody asks for it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import pycolmap

from recon.errors import ReconstructionError
from recon.events import Events

T = TypeVar("T")

STAGE = "poses"
_POLL_SECONDS = 0.25
_MAX_THREADS = 16  # SIFT needs up to half a gigabyte each


def threads() -> int:
    """Return how many threads COLMAP may use: the cores that this process may run on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MAX_THREADS)


def quiet_pycolmap() -> None:
    """Silence COLMAP's log (``GLOG_minloglevel`` in the environment brings it back) and give SIGTERM back to Python.

    Importing pycolmap replaces the process's handlers by ones that print a stack trace and abort.
    """
    if "GLOG_minloglevel" not in os.environ:
        pycolmap.logging.minloglevel = 3
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def run_step(step: Callable[[pycolmap.CancellationToken], T], events: Events, report: Callable[[], None]) -> T:
    """Return ``step(token)``, run in a thread while ``report()`` is called four times a second.

    Raises:
        Cancelled: ``events`` asked to stop; the step has ended when this is raised.
        ReconstructionError: COLMAP failed.
    """
    events.check()
    token = pycolmap.CancellationToken()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(step, token)
        try:
            while not wait([future], _POLL_SECONDS).done:
                events.check()
                report()
        except BaseException:  # KeyboardInterrupt too: leaving the block waits for the thread
            token.cancel()
            raise
    try:
        result = future.result()
    except (RuntimeError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines() or ["no reason given"]
        raise ReconstructionError(
            f"Computing the camera poses failed: {reason[-1]}",
            "Check that the disk is not full and run again.",
            "poses-failed",
        ) from error
    report()
    return result


class Meter:
    """Reports ``done`` of ``total`` things of one step as progress of the stage ``poses``, with the time left."""

    def __init__(self, events: Events, what: str, total: int, done: int = 0) -> None:
        self._events, self._what, self._total, self._first, self._last = events, what, total, done, -1
        self._started = time.monotonic()

    def __call__(self, done: int) -> None:
        """Report if ``done`` changed. ``what`` is the name of the metric, so that listeners know which step it is."""
        if done == self._last:
            return
        self._last = done
        gained = done - self._first
        eta = (time.monotonic() - self._started) / gained * (self._total - done) if gained > 0 else None
        self._events.progress(STAGE, min(done, self._total), self._total, eta, **{self._what: done})
