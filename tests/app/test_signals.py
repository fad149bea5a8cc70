"""Signals ask, then order; neither waits for Python's main thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.signals import stoppable
from recon.events import Events


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_asks_and_handlers_come_back(number):
    handler = signal.getsignal(number)
    told = []
    with stoppable(events := Events(), lambda: told.append(1)):
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + 5
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
        assert events.cancelled
    assert told == [1]
    assert signal.getsignal(number) is handler
    assert signal.set_wakeup_fd(-1) == -1


def test_the_second_ends_what_does_not_listen():
    script = (
        "import time; from app.signals import stoppable; from recon.events import Events\n"
        "with stoppable(Events(), lambda: print('asked', flush=True)):\n"
        "    print('ready', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, err = process.communicate(timeout=30)
    assert time.monotonic() - begun < 2
    assert (process.returncode, err) == (130, "")
