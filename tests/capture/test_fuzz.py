"""A few hundred damaged files, and whether what damages a reader would be noticed: benchmarks.fuzz."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, os, pathlib, sys, tempfile, time
from benchmarks import fuzz
from recon.errors import InputError

honest, all_seeds, calls = fuzz.read, fuzz.seeds, []

def broken(chosen, folder, work):
    calls.append(1)
    case = len(calls) - 2  # the first two are the valid files
    if case == 1: raise ZeroDivisionError("a reader's mistake")
    if case == 2: bytearray(1_500_000_000)
    if case == 3:
        try: bytearray(1_500_000_000)
        except Exception as error: raise InputError("hidden") from error
    if case == 4: os._exit(9)
    honest(chosen, folder, work)

def stuck(chosen, folder, work):
    calls.append(1)
    if len(calls) > 2: time.sleep(60)

with tempfile.TemporaryDirectory() as folder:
    scratch = pathlib.Path(folder)
    told = {"honest": fuzz.run(list(range(300)), 1, 1, scratch)}
    made = []
    for again in range(2):
        seeds = all_seeds(scratch / str(again))
        made.append([fuzz.make(number, 1, seeds)[1] for number in range(300)])
        hour = time.time() + 3600
        time.time = lambda: hour  # which packed files could tell of
    told["again"] = made[0] == made[1]
    fuzz.seeds, fuzz.SECONDS = (lambda folder: all_seeds(folder)[:2]), 0.3
    fuzz.read = broken
    told["broken"] = fuzz.run(list(range(4)), 0, 1, scratch)
    fuzz.read = stuck
    told["stuck"] = fuzz.run([0], 0, 1, scratch)
print("TOLD", json.dumps(told))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What came of damaged files with the readers as they are, and with worse ones; in a process with few threads."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.split("TOLD ")[1])
    return found


def test_damaged_files_are_read_or_refused(told: dict[str, Any]) -> None:
    assert len(told["honest"]) == 300
    assert [one for one in told["honest"] if one["outcome"] not in ("read", "refused")] == []


def test_what_must_not_happen_is_noticed(told: dict[str, Any]) -> None:
    assert [one["outcome"] for one in told["broken"]] == ["exception", "memory", "memory", "crash"]
    assert [one["outcome"] for one in told["stuck"]] == ["hang"]


def test_a_number_makes_the_same_input_again(told: dict[str, Any]) -> None:
    assert told["again"]
