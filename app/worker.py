"""``recon run`` as a process of its own: begun, stopped and looked after by the web page.

A process, because it can be stopped at once, cannot take the page down with it, and outlives a closed tab.
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
from recon.job import LOCK
from recon.pipelines import Pipeline

RECON = (sys.executable, "-m", "app.cli")
GRACE = 5.0
"""Seconds after which a worker that was asked to stop is asked more firmly."""


class Worker:
    """One running ``recon``, with what it prints kept in two files of ``folder``.

    Attributes:
        began: seconds since the epoch.
        asked_to_stop: whether :meth:`stop` was called.
    """

    def __init__(self, command: Sequence[str], arguments: Sequence[str], folder: Path) -> None:
        self.folder = folder
        self.asked_to_stop = False
        self.began = time.time()
        with (folder / "worker.json").open("wb") as out, (folder / "worker.log").open("wb") as err:
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=Path(__file__).parents[1],  # where `-m app.cli` finds this very code
                start_new_session=True,  # the terminal's Ctrl-C is for the server, which passes it on
            )

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

    def printed(self) -> dict[str, Any] | None:
        """Return the JSON that it printed, None if it printed none."""
        with suppress(OSError, ValueError):
            value = json.loads((self.folder / "worker.json").read_text(encoding="utf-8"))
            return value if isinstance(value, dict) else None
        return None


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


def interrupt_owner(job: Path) -> None:
    """Ask the process that holds a job's lock to stop; one that an earlier server began, say."""
    with suppress(OSError, ValueError):
        os.kill(int((job / LOCK).read_text()), signal.SIGINT)
