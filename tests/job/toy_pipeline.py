"""A pipeline for tests: reads numbers, walks towards their mean at random with checkpoints, writes where it got.

It needs no torch, which takes longer to be loaded than the walk takes.
"""

from __future__ import annotations

import errno
import json
import os
import time
from typing import ClassVar

import numpy as np

from recon import pipelines
from recon.config import Config, setting
from recon.errors import InputError
from recon.pipelines import Context, Pipeline, Stage


class ToyConfig(Config):
    presets: ClassVar = {"fast": {"steps": 10}, "medium": {}, "high": {"steps": 80}}

    steps: int = setting(40, "Steps of the walk.", group="Walk", ge=1, le=10_000)
    seed: int = setting(0, "Seed of the random numbers.", group="Walk", ge=0, le=1_000_000)
    pause: float = setting(0.0, "Seconds of sleep in each step.", group="Walk", ge=0, le=10)
    size: int = setting(1000, "Numbers that walk.", group="Walk", ge=1, le=1_000_000)
    title: str | None = setting(None, "Heading of the report.", group="Report", max_length=20)
    digits: int = setting(3, "Digits of the report.", group="Report", ge=0, le=9)
    loud: bool = setting(False, "Warn in the report.", group="Report")
    formats: tuple[str, ...] = setting(("txt",), "Formats of the report.", group="Report")


def log(context: Context[ToyConfig]) -> None:
    """Note outside the job that a stage ran, for tests to count."""
    if path := os.environ.get("TOY_LOG"):
        with open(path, "a") as file:  # noqa: PTH123
            file.write(context.stage + "\n")


def read(context: Context[ToyConfig]) -> None:
    log(context)
    files = sorted(context.input.glob("*.txt"))
    if not files:
        raise InputError(f"{context.input} holds no .txt files.", "Put some numbers there.", "no-numbers")
    numbers = [float(word) for file in files for word in file.read_text().split()]
    context.record.counts["views"] = len(files)
    context.events.warn("one number looks odd")
    (context.folder / "mean.json").write_text(json.dumps(sum(numbers) / len(numbers)))


def walk(context: Context[ToyConfig]) -> None:
    log(context)
    config = context.config
    mean = json.loads((context.output("read") / "mean.json").read_text())
    generator = np.random.default_rng(config.seed)
    values, first = np.zeros(config.size), 0
    if found := context.load_checkpoint():
        tensors, state = found
        values, first = tensors["values"].numpy(), state["step"]
        generator.bit_generator.state = state["generator"]
    for step in range(first, config.steps):
        values = values + 0.1 * (mean - values) + 0.01 * generator.standard_normal(config.size)
        time.sleep(config.pause)
        if step % 5 == 4:
            context.remember(psnr=float(-np.log10(np.abs(values - mean).mean())))
            state = {"step": step + 1, "generator": generator.bit_generator.state}
            context.save_checkpoint({"values": values}, state)
        context.progress(step + 1, config.steps, psnr=float(values.mean()))
        if step == config.steps // 2:
            trouble()
    (context.folder / "values.json").write_text(json.dumps(values.tolist()))
    context.record.metrics["psnr"] = float(values.mean())


def trouble() -> None:
    """Go wrong as the environment says: not a setting, so that the stage can go on once it is mended."""
    match os.environ.get("TOY_TROUBLE"):
        case "memory":
            raise MemoryError
        case "defect":
            raise ZeroDivisionError("nothing to divide by")
        case "keys":
            raise KeyboardInterrupt
        case "disk":
            raise OSError(errno.ENOSPC, "No space left on device", "somewhere")


def report(context: Context[ToyConfig]) -> None:
    log(context)
    values = json.loads((context.output("walk") / "values.json").read_text())
    with context.export("report", "exports/report.txt") as path:
        path.write_text(f"{context.config.title or 'mean'} {sum(values) / len(values):.{context.config.digits}f}\n")
    if context.config.loud:
        context.events.warn("very loud")


TOY = Pipeline(
    "toy",
    "A walk towards a mean.",
    ToyConfig,
    (
        Stage("read", read),
        Stage("walk", walk, settings=("steps", "seed", "pause", "size"), inputs=("read",)),
        Stage("report", report, settings=("title", "digits", "loud", "formats"), inputs=("walk",)),
    ),
)
pipelines.register(TOY)
