"""Runs the toy pipeline in child processes and kills each at a random instant; prints how far each one got.

A program of its own: it forks, which a test process full of threads had better not do.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from toy_pipeline import TOY

from recon import job_checkpoint, pipelines
from recon.job import Job

SETTINGS = {"steps": 150, "size": 30_000, "pause": 0.004, "seed": 5}


def child(numbers: Path, out: Path) -> int:
    """Start a process that runs the pipeline."""
    if process := os.fork():
        return process
    result = pipelines.run(numbers, out, TOY.name, resume=True, **SETTINGS)
    os._exit(0 if result["status"] == "done" else 1)


def checkpoints(out: Path) -> set[str]:
    """Return the names of the checkpoints."""
    return {path.name for path in (out / "checkpoint/walk").glob("0*")}


def main(numbers: Path, out: Path, rounds: int, seed: int) -> None:
    """Kill ``rounds`` runs and let the last one end."""
    torch.set_num_threads(1)
    moment = random.Random(seed)
    for number in range(rounds):
        before = checkpoints(out)
        process = child(numbers, out)
        if number % 2:  # let it get somewhere, however slow the machine is
            while checkpoints(out) == before and not (out / "stages/walk/done.json").exists():
                time.sleep(0.01)
        time.sleep(moment.uniform(0, 0.2))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        step = 0
        if out.exists() and (out / "config.yaml").exists():
            job = Job.open(out)
            job.events()
            for path in out.rglob("*.json"):
                if not path.name.startswith("."):
                    json.loads(path.read_text())
            if found := job_checkpoint.load(out / "checkpoint/walk"):
                step = found[1]["state"]["step"]
            elif (out / "stages/walk/done.json").exists():
                step = SETTINGS["steps"]
        print(step, flush=True)
    process = child(numbers, out)
    assert os.waitpid(process, 0)[1] == 0, "the last run failed"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
