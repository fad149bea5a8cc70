"""``recon run`` as a process of its own: begun, stopped and looked after by the web page.

A process, because it can be stopped at once, cannot take the page down with it, and outlives a closed tab and a
restarted server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from recon.config import kind, optional
from recon.errors import Cancelled, ReconError, ReconstructionError
from recon.job import LOCK
from recon.pipelines import Pipeline

RECON = (sys.executable, "-m", "app.cli")
NICE = 5
"""A worker leaves the processor to whoever looks at the page."""

GRACE = 5.0
"""Seconds after which a worker that was asked to stop is asked more firmly."""

LOG = "log.txt"
"""What a worker says to people, in its job directory."""

PRINTED = ".printed.json"
"""What it says to programs, there too."""


class Worker:
    """One running ``recon``, with what it prints kept in :data:`LOG` and :data:`PRINTED` of ``folder``.

    Args:
        command: how ``recon`` is called.
        arguments: its arguments.
        folder: the job directory, which must exist.
        environment: its variables.
        held: a descriptor that stays open, and the lock on it held, until the process ends, however it ends.

    Attributes:
        began: seconds since the epoch.
        asked_to_stop: whether :meth:`stop` was called.
    """

    def __init__(
        self,
        command: Sequence[str],
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        held: int | None = None,
    ) -> None:
        self.folder = folder
        self.asked_to_stop = False
        self.began = time.time()
        with (folder / PRINTED).open("wb") as out, (folder / LOG).open("ab") as err:
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                pass_fds=() if held is None else (held,),
                cwd=Path(__file__).parents[1],  # where `-m app.cli` finds this very code
                start_new_session=True,  # the terminal's Ctrl-C is for the server, which passes it on
            )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, NICE)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask it to stop, which takes up to two seconds; returns at once."""
        if self.asked_to_stop:
            return
        self.asked_to_stop = True
        threading.Thread(target=self._insist, daemon=True).start()

    def _insist(self) -> None:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):  # the second ends it without a farewell
            self._process.send_signal(number)
            if self.wait(GRACE):
                return

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended, at most so long; return whether it has."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.running

    def reason(self) -> ReconError:
        """Return why it ended without a result: what it printed, else what its end tells."""
        if self.asked_to_stop:
            return Cancelled()
        with suppress(OSError, ValueError, KeyError, TypeError):
            error = json.loads((self.folder / PRINTED).read_text(encoding="utf-8"))["error"]
            return ReconstructionError(error["message"], error["hint"], error["code"])
        return crash(self._process.poll())


def crash(code: int | None) -> ReconError:
    """Return what the end of a process that wrote no result means to a person.

    Args:
        code: its exit code, negative for the signal that ended it; None where nobody saw it end.
    """
    if code == -signal.SIGKILL:
        return ReconstructionError(
            "The system killed the reconstruction, most likely because memory ran out.",
            "Resume goes on from its last checkpoint; a faster preset, or fewer or smaller photos, need less memory.",
            "killed",
        )
    how, name = "unexpectedly", "crashed"
    if code is not None and code >= 0:
        how, name = f"with exit code {code} and without a result", "no-result"
    elif code is not None:
        how = f"by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"by signal {-code}"
    return ReconstructionError(f"The reconstruction ended {how}.", "Resume goes on from its last checkpoint.", name)


def run_arguments(
    source: Path, out: Path, pipeline: Pipeline, preset: str, settings: Mapping[str, Any], resume: bool = False
) -> list[str]:
    """Return the arguments of ``recon run``; ``settings`` by field name."""
    arguments = ["run", str(source), "--out", str(out), "--pipeline", pipeline.name, "--preset", preset, "--json"]
    arguments += ["--resume"] if resume else []
    for name, value in settings.items():
        field, flag = pipeline.config.model_fields[name], name.replace("_", "-")
        if kind(field) is bool and not optional(field):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            text = "none" if value is None else ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            arguments.append(f"--{flag}={text}")
    return arguments


def owner(job: Path) -> int | None:
    """Return the process that holds a job's lock, or held it last."""
    with suppress(OSError, ValueError):
        return int((job / LOCK).read_text())
    return None


def interrupt_owner(job: Path) -> None:
    """Ask the process that holds a job's lock to stop; one that an earlier server began, say."""
    if process := owner(job):
        with suppress(OSError):
            os.kill(process, signal.SIGINT)


def memory_mb(process: int | None) -> float:
    """Return the memory that a process has in use, in MiB; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return 0.0
