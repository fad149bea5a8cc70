"""Measuring a finished job again: held-out views from the stored model, its mesh alone and against the true one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recon.config import resolve
from recon.errors import InputError
from recon.evaluate.mesh_quality import mesh_quality
from recon.evaluate.report_data import HeldOutView
from recon.evaluate.surface import compare_surfaces
from recon.events import Events
from recon.export import read_mesh
from recon.job import Job
from recon.mesh.mesh import Mesh
from recon.pipelines import Context, Pipeline, mesh_views, splats_views
from recon.pipelines.mesh import PIPELINE as MESH
from recon.pipelines.photo_views import UNSEEN, judging_views, means
from recon.pipelines.splats import PIPELINE as SPLATS
from recon.pipelines.stages import fingerprint, finished_record, stage_keys

VIEWED: dict[str, tuple[Pipeline, Callable[[Any], Iterator[HeldOutView]], str]] = {
    SPLATS.name: (SPLATS, splats_views.measured_views, "fit"),
    MESH.name: (MESH, mesh_views.measured_views, "texture"),
}
"""Pipelines whose results photos judge: how, and the last stage that must be done for it."""


def evaluate_job(job: Path, reference: Path | None = None, events: Events | None = None) -> dict[str, Any]:
    """Measure a job again, or a mesh; nothing is written.

    Args:
        job: a job directory, or the file of a mesh. If it was made of photos, the held-out ones are measured
            too: what they are compared with must be done, and the input still be where it was.
        reference: the true mesh, in the input's units and frame; the job's exported mesh is compared with it.
        events: progress of the stage ``evaluate``, warnings, and the wish to stop.

    Returns:
        ``metrics``: with views mean ``psnr`` and ``ssim``, with a reference those of
        :func:`~recon.evaluate.surface.compare_surfaces`. Where there is a mesh, ``mesh``: its
        :class:`~recon.mesh.mesh.Statistics` and :func:`~recon.evaluate.mesh_quality.mesh_quality`. Where there are
        views, ``measured_on`` (``held-out``, ``validation`` or ``training`` photos) and ``views``: name, psnr and ssim
        of each.

    Raises:
        InputError: not a job, not finished, its input gone or changed since, or no mesh to measure.
        Cancelled: somebody asked to stop.
    """
    events = events or Events()
    if not job.exists():
        raise InputError(f"{job} does not exist.", "Give a job directory or the file of a mesh.", "no-such-path")
    found: dict[str, Any] = {"metrics": {}}
    truth = None if reference is None else read_mesh(reference)
    own = read_mesh(job) if job.is_file() else None
    if own is None:
        opened = Job.open(job)
        own = _mesh_of(opened)
        if own is None and (truth is not None or opened.pipeline not in VIEWED):
            flag = " --mesh" if opened.pipeline == SPLATS.name else ""
            raise InputError(
                f"{opened.folder} has no mesh to compare.", f"Run it again with --resume{flag}.", "no-mesh"
            )
        if opened.pipeline in VIEWED:
            found = _views(opened, events)
    if own is None:
        return found
    if truth is not None:
        events.check()
        found["metrics"] |= compare_surfaces(own.vertices, own.faces, truth.vertices, truth.faces)
    events.check()
    statistics = asdict(own.statistics())
    if not statistics["watertight"]:
        del statistics["volume"]  # of nothing in particular
    return found | {"mesh": statistics | mesh_quality(own.vertices, own.faces)}


def _views(job: Job, events: Events) -> dict[str, Any]:
    """Return what the held-out views of a job say."""
    context = _context(job, events)
    measured_views = VIEWED[job.pipeline][1]
    views, kind = judging_views(context)
    if kind == "training":
        events.warn(UNSEEN)
    rows = []
    for i, view in enumerate(measured_views(context)):
        rows.append({"name": view.name, "psnr": view.psnr, "ssim": view.ssim})
        context.progress(i + 1, len(views))
    return {"metrics": means(rows), "measured_on": kind, "views": rows}


def _context(job: Job, events: Events) -> Any:
    """Return the context of the stage that measures, or say why there is none."""
    pipeline, _, last = VIEWED[job.pipeline]
    if not os.access(job.input, os.R_OK):
        hint = "Put the photos back where they were; the held-out ones are needed to measure."
        raise InputError(f"The input of {job.folder}, {job.input}, is not there any more.", hint, "no-input")
    config = resolve(pipeline.config, file=job.settings, file_name=str(job.folder / "config.yaml"))
    keys = stage_keys(pipeline, config, fingerprint(job.input, exclude=job.folder))
    records = {}
    names = [stage.name for stage in pipeline.stages]
    for stage in names[: names.index(last) + 1]:
        record = finished_record(job, stage, keys[stage])
        if record is None:
            hint = f"Run 'recon run {job.input} --out {job.folder} --resume' first."
            begun = (job.folder / "stages" / stage / "done.json").exists()
            why = "the input, the settings or Egregium changed since" if begun else "it did not get that far"
            raise InputError(f"{job.folder} has no finished stage '{stage}': {why}.", hint, "not-finished")
        records[stage] = record
    return Context(job, config, job.input, "cpu", events, "evaluate", keys["evaluate"], {}, 0.0, records)


def _mesh_of(job: Job) -> Mesh | None:
    """Return the mesh that the job exported, if it has one."""
    for name in ("mesh.ply", "mesh.glb", "registered.ply"):
        if (job.folder / "exports" / name).is_file():
            return read_mesh(job.folder / "exports" / name)
    return None
