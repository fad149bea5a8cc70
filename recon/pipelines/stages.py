"""A pipeline is a short list of stages; this runs them, skips what is finished, and turns every end into a result.

A stage's key is a hash of its own settings, its code's version, the input and the keys of the stages it builds on.
A stage whose ``done.json`` bears the same key is not run again; one that was interrupted finds its folder and its
checkpoints as they were; one whose key changed begins anew, and with it everything downstream.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon.config import Config, paths_of
from recon.errors import Cancelled, ReconError
from recon.events import Event, Events, Failed, StageFinished, StageStarted, Warned
from recon.job import Job
from recon.job_files import read_json, remove, write_json
from recon.pipelines.context import Context, Record, peak_memory_mb
from recon.pipelines.failures import as_error

COUNTS = ("views", "registered", "splats", "vertices", "faces")
"""Entries that ``counts`` of result.json always has."""

SMALL = 1 << 20
"""Input files up to this many bytes are compared by content, larger ones by size and time of change."""


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline.

    Attributes:
        name: names its folder, its time in result.json and its bar.
        run: does the work; what it makes goes to ``context.folder``, ``context.export(…)`` and the like.
        settings: fields of the pipeline's config that change what it makes.
        inputs: names of earlier stages it builds on.
        version: raised whenever its code makes something else of the same settings.
    """

    name: str
    run: Callable[[Context[Any]], None]
    settings: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    version: int = 1


@dataclass(frozen=True)
class Pipeline:
    """A named list of stages and the settings they share.

    Attributes:
        name: what ``--pipeline`` takes.
        summary: one line for the help.
        config: its settings; each is named by at least one stage.
        stages: in the order in which they run.
    """

    name: str
    summary: str
    config: type[Config]
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        """Refuse a list that could skip a stage wrongly."""
        earlier: set[str] = set()
        used: set[str] = set()
        for stage in self.stages:
            if stage.name in earlier or stage.name == "total":
                raise ValueError(f"stage name {stage.name!r} is taken")
            if unknown := set(stage.inputs) - earlier | set(stage.settings) - set(self.config.model_fields):
                raise ValueError(f"stage {stage.name!r} names unknown {sorted(unknown)}")
            earlier.add(stage.name)
            used |= set(stage.settings)
        if unused := set(self.config.model_fields) - used:
            raise ValueError(f"no stage of {self.name!r} depends on {sorted(unused)}")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: what result.json says, and the error as an exception (None when done)."""

    result: dict[str, Any]
    error: ReconError | None


def run_stages(
    pipeline: Pipeline,
    job: Job,
    config: Config,
    input: Path,
    device: str,
    events: Events,
    warnings: Iterable[str] = (),
) -> Outcome:
    """Run all stages that are not finished, write result.json and return how it ended. Raises nothing.

    ``warnings`` are said first.
    """
    records: dict[str, Record] = {}
    notes: list[str] = []  # warnings outside any stage
    current: list[Context[Any]] = []

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            (current[-1].record.warnings if current else notes).append(event.message)
        job.record(event)

    events.listen(listen)
    error: ReconError | None = None
    try:
        for message in warnings:
            events.warn(message)
        events.check()
        keys = stage_keys(pipeline, config, fingerprint(input, exclude=job.folder))
        memo: dict[str, Any] = {}
        for stage in pipeline.stages:
            finished = finished_record(job, stage.name, keys[stage.name])
            if finished is not None:
                records[stage.name] = finished
                events.emit(StageStarted(stage=stage.name, cached=True))
                continue
            before = sum(r.seconds for r in records.values())
            context = Context(job, config, input, device, events, stage.name, keys[stage.name], memo, before, records)
            current.append(context)
            _run_stage(stage, context)
            records[stage.name] = current.pop().record
    except BaseException as exception:
        error = as_error(exception, job.folder)
        if current:
            current[-1].stop_clock()
            records[current[-1].stage] = current[-1].record
        events.emit(Failed(code=error.code, message=error.message, hint=error.hint))
    outcome = Outcome(make_result(pipeline.name, device, records, notes, error), error)
    return _write(job, outcome)


def _run_stage(stage: Stage, context: Context[Any]) -> None:
    folder, job = context.folder, context.job
    begun = read_json(folder / "begun.json") or {}
    if begun.get("key") != context.key:  # made with other settings
        done = read_json(folder / "done.json") or {}
        begun = {"key": context.key, "replaces": [*begun.get("replaces", []), *done.get("exports", {}).values()]}
        shutil.rmtree(folder, ignore_errors=True)
        job.clear_checkpoint(stage.name)
        write_json(folder / "begun.json", begun)
    (folder / "done.json").unlink(missing_ok=True)
    context.events.emit(StageStarted(stage=stage.name))
    stage.run(context)
    context.stop_clock()
    record = context.record
    for path in set(begun.get("replaces", [])) - set(record.exports.values()):
        remove(job.folder / path)  # of the old settings, and not made with these
    made = [folder, *(job.folder / path for path in record.exports.values())]
    files = [file for path in made for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    sizes = {str(file.relative_to(job.folder)): file.stat().st_size for file in files if file.is_file()}
    write_json(folder / "done.json", {"key": context.key, **record.to_json(), "files": sizes})
    job.clear_checkpoint(stage.name)
    context.events.emit(StageFinished(stage=stage.name, seconds=record.seconds, metrics=record.metrics))


def finished_record(job: Job, stage: str, key: str) -> Record | None:
    """Return what a finished stage left, None unless it bears ``key`` and all its files are there at their size."""
    done = read_json(job.folder / "stages" / stage / "done.json")
    if not isinstance(done, dict) or done.get("key") != key:
        return None
    for name, size in done["files"].items():
        path = job.folder / name
        if not path.is_file() or path.stat().st_size != size:
            return None
    return Record.from_json(done)


def stage_keys(pipeline: Pipeline, config: Config, input_fingerprint: str) -> dict[str, str]:
    """Return the key of every stage by name. Of a path among its settings the content counts, not the name."""
    keys: dict[str, str] = {}
    contents = {name: fingerprint(path) for name, path in paths_of(config).items() if path.exists()}
    for stage in pipeline.stages:
        settings = config.model_dump(mode="json", include=set(stage.settings))
        settings |= {name: contents[name] for name in stage.settings if name in contents}
        upstream = {name: keys[name] for name in stage.inputs}
        content = [pipeline.name, stage.name, stage.version, settings, upstream, input_fingerprint]
        keys[stage.name] = _hash(json.dumps(content, sort_keys=True).encode())
    return keys


def fingerprint(input: Path, exclude: Path | None = None) -> str:
    """Return a hash of what the input holds: names, and content (small files) or size and time of change (large).

    Hidden files and the folder ``exclude`` do not count. A ``.json`` file stands for its folder, whose photos it names.
    Moving or copying the input as a whole leaves small files' part of the hash alone.
    """
    root = input.resolve()
    if root.suffix.lower() == ".json":
        root = root.parent
    paths = [root] if root.is_file() else []
    folders = [root] if root.is_dir() else []
    seen = {exclude.resolve()} if exclude else set()  # and links may run in circles
    while folders:
        folder = folders.pop()
        if folder.resolve() not in seen:
            seen.add(folder.resolve())
            visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
            folders += [path for path in visible if path.is_dir()]
            paths += [path for path in visible if path.is_file()]
    entries = []
    for path in sorted(paths):
        stat = path.stat()
        small = stat.st_size <= SMALL and os.access(path, os.R_OK)  # whether it is needed is the loader's to judge
        what = _hash(path.read_bytes()) if small else f"{stat.st_size} {stat.st_mtime_ns}"
        entries.append([str(path.relative_to(root)), what])
    return _hash(json.dumps(entries).encode())


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def make_result(
    pipeline: str,
    device: str,
    records: Mapping[str, Record],
    notes: Iterable[str] = (),
    error: ReconError | None = None,
) -> dict[str, Any]:
    """Return result.json, version 1."""
    counts = dict.fromkeys(COUNTS, 0)
    metrics: dict[str, float] = {}
    exports: dict[str, str] = {}
    history: list[dict[str, Any]] = []
    warnings = list(notes)
    for record in records.values():
        counts |= record.counts
        metrics |= record.metrics
        exports |= record.exports
        history += record.history
        warnings += record.warnings
    seconds = {name: round(record.seconds, 3) for name, record in records.items()}
    status = "done" if error is None else "cancelled" if isinstance(error, Cancelled) else "failed"
    return {
        "version": 1,
        "status": status,
        "pipeline": pipeline,
        "device": device,
        "seconds": {"total": round(sum(seconds.values()), 3), **seconds},
        "peak_memory_mb": max([round(peak_memory_mb(), 1), *(r.peak_memory_mb for r in records.values())]),
        "counts": counts,
        "metrics": metrics,
        "history": history,
        "exports": exports,
        "warnings": list(dict.fromkeys(warnings)),
        "error": None if error is None else {"code": error.code, "message": error.message, "hint": error.hint},
    }


def _write(job: Job, outcome: Outcome) -> Outcome:
    """Write result.json; on a full disk the outcome is returned all the same, as failed."""
    try:
        job.write_result(outcome.result)
    except OSError as exception:
        error = outcome.error or as_error(exception, job.folder)
        shown = {"code": error.code, "message": error.message, "hint": error.hint}
        return Outcome({**outcome.result, "status": "failed", "error": shown}, error)
    return outcome
