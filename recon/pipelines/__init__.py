"""The pipelines, by name, and how one is run.

::

    from recon import pipelines

    result = pipelines.run("photos/", "job/", preset="fast", steps=500)
    print(result["metrics"]["psnr"], result["exports"]["splats"])
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon.config import (
    DEFAULT_PRESET,
    ENVIRONMENT,
    Config,
    based,
    nearest,
    paths_of,
    read_yaml,
    resolve,
    unused_environment,
)
from recon.errors import InputError
from recon.events import Events
from recon.job import HEADER, MARK, Job, is_job
from recon.pipelines.context import Context
from recon.pipelines.devices import MESH_BACKEND, find_device, mesh_backend
from recon.pipelines.stages import Outcome, Pipeline, Stage, run_stages
from recon.settings import Settings

__all__ = ["Context", "Outcome", "Pipeline", "Request", "Stage", "get", "names", "prepare", "register", "run"]

DEFAULT = "splats"

_PIPELINES: dict[str, Pipeline | str] = {
    "splats": "recon.pipelines.splats:PIPELINE",
    "mesh": "recon.pipelines.mesh:PIPELINE",
    "points": "recon.pipelines.points:PIPELINE",
    "deform": "recon.pipelines.deform:PIPELINE",
}
"""A pipeline, or ``module:name`` where to find it once it is asked for."""


def names() -> tuple[str, ...]:
    """Return the names of all pipelines."""
    return tuple(_PIPELINES)


def register(pipeline: Pipeline) -> None:
    """Add a pipeline under its name, in place of one that had it."""
    _PIPELINES[pipeline.name] = pipeline


def get(name: str) -> Pipeline:
    """Return a pipeline.

    Raises:
        InputError: there is none of that name.
    """
    if name not in _PIPELINES:
        near = nearest(name, _PIPELINES)
        hint = f"Did you mean '{near}'?" if near else f"The pipelines are: {', '.join(_PIPELINES)}."
        raise InputError(f"Unknown pipeline '{name}'.", hint, "unknown-pipeline")
    found = _PIPELINES[name]
    if isinstance(found, str):
        module, attribute = found.split(":")
        pipeline: Pipeline = getattr(importlib.import_module(module), attribute)
        register(pipeline)
        return pipeline
    return found


def run(
    input: str | Path,
    out: str | Path,
    pipeline: str | None = None,
    preset: str | None = None,
    *,
    events: Events | None = None,
    resume: bool = False,
    device: str | None = None,
    config: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Reconstruct ``input`` into the job directory ``out`` and return the content of its result.json.

    Whatever is None comes from the environment (``RECON_PRESET`` …), then from ``config``, then it is ``splats``,
    ``medium``, ``cpu``. A resumed job keeps its own settings wherever nothing else is said; another ``preset`` or a
    ``config`` replaces them all. Relative paths in ``config`` are relative to it.

    Args:
        input: what :func:`recon.capture.load` reads.
        out: a new or empty folder, or with ``resume`` a job's.
        pipeline: one of :func:`names`.
        preset: one of the pipeline's presets.
        events: told of everything; its ``cancel`` stops the run.
        resume: go on with what is in ``out``; only what a changed setting concerns is done again.
        device: ``cpu`` or ``cuda``.
        config: YAML file of settings, such as another job's config.yaml.
        settings: fields of the pipeline's config.

    Returns:
        The result; ``status`` tells whether it is done, failed or cancelled.

    Raises:
        InputError: wrong usage; no job was begun.
    """
    file = None if config is None else Path(config)
    request = prepare(input, out, pipeline, preset, resume=resume, device=device, file=file, settings=settings)
    return request.run(events or Events()).result


@dataclass(frozen=True)
class Request:
    """All that is needed for a run, validated; nothing is written yet.

    Attributes:
        input, out, resume, device: see :func:`run`.
        pipeline: the pipeline.
        preset: name of the preset that the settings began with.
        config: the settings, an instance of ``pipeline.config``.
        warnings: what deserves to be said first.
    """

    input: Path
    out: Path
    pipeline: Pipeline
    preset: str
    config: Config
    device: str
    resume: bool
    warnings: tuple[str, ...] = ()

    def run(self, events: Events) -> Outcome:
        """Run it.

        Raises:
            InputError: the folder ``out`` cannot be written to, or is not ours to write to.
        """
        with Job.create(
            self.out,
            self.config,
            self.input,
            pipeline=self.pipeline.name,
            preset=self.preset,
            device=self.device,
            resume=self.resume,
        ) as job:
            return run_stages(self.pipeline, job, self.config, self.input, self.device, events, self.warnings)


def prepare(
    input: str | Path,
    out: str | Path,
    pipeline: str | None = None,
    preset: str | None = None,
    *,
    resume: bool = False,
    device: str | None = None,
    file: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Request:
    """Check everything that can be checked before a job is begun; arguments as in :func:`run`.

    Raises:
        InputError: something is wrong with an argument, the file or the environment.
    """
    input, out = Path(input), Path(out)
    if not input.exists():
        raise InputError(f"{input} does not exist.", "Check the path of the input.", "no-input")
    _refuse_inside(out, input)
    environment = os.environ if environment is None else environment
    source, header, values = _source(file, out, resume)

    def choose(key: str, given: str | None, default: str) -> str:
        return str(given or environment.get(f"{ENVIRONMENT}{key.upper()}") or header.get(key) or default)

    chosen = select(pipeline, out, resume=resume, file=file, environment=environment)
    if resume and is_job(out) and (own := Job.open(out).pipeline) != chosen.name:
        raise InputError(
            f"{out} is a job of pipeline {own}, not {chosen.name}.", "Give --out another folder.", "other-pipeline"
        )
    preset = choose("preset", preset, DEFAULT_PRESET)
    if file is None and preset != header.get("preset"):
        values = {}  # another preset for an existing job: its own settings came from the old one
    if source is not None:
        values = based(chosen.config, values, source.parent)
    config = resolve(
        chosen.config, preset=preset, file=values, file_name=str(source), environment=environment, flags=settings
    )
    named = {name: path.absolute() for name, path in paths_of(config).items()}  # wherever a --resume is called from
    for name, path in named.items():
        if not path.exists():
            raise InputError(f"Setting '{name}': {path} does not exist.", "Check the path.", "no-such-path")
        _refuse_inside(out, path)
    config = config.model_copy(update=named)
    others = [*(key for key in HEADER if key not in (MARK, "input")), *Settings.model_fields, "settings", MESH_BACKEND]
    warnings = unused_environment(chosen.config, environment, others)
    there = find_device(choose("device", device, "cpu"))
    warnings += mesh_backend(environment.get(f"{ENVIRONMENT}{MESH_BACKEND.upper()}"), there)
    return Request(input, out, chosen, preset, config, there, resume, tuple(warnings))


def _refuse_inside(out: Path, input: Path) -> None:
    """Raise where the job would lie inside what it is made from, which would then change with it."""
    if input.is_dir() and out.resolve() != input.resolve() and input.resolve() in out.resolve().parents:
        raise InputError(
            f"The job {out} would lie inside its input {input}.", "Give --out a folder elsewhere.", "out-inside-input"
        )


def select(
    pipeline: str | None,
    out: Path | None = None,
    *,
    resume: bool = False,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Pipeline:
    """Return the pipeline that these arguments of :func:`run` choose.

    Raises:
        InputError: there is none of that name, or the file cannot be read.
    """
    environment = os.environ if environment is None else environment
    header = _source(file, out, resume)[1]
    return get(str(pipeline or environment.get(f"{ENVIRONMENT}PIPELINE") or header.get("pipeline") or DEFAULT))


def _source(file: Path | None, out: Path | None, resume: bool) -> tuple[Path | None, dict[str, Any], dict[str, Any]]:
    """Return where settings are read from, its entries that are no settings, and its settings."""
    if file is None and resume and out is not None and is_job(out):
        file = out / "config.yaml"
    values = read_yaml(file) if file else {}
    return file, {key: values.pop(key) for key in HEADER if key in values}, values
