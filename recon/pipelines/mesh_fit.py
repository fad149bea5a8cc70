"""The ``mesh`` pipeline's fit, watched by photos it does not see: measured, shown, kept, stopped and gone on with."""

from __future__ import annotations

import math
import time

import torch
from safetensors.torch import load_file
from torch import Tensor

from recon.errors import Cancelled
from recon.evaluate.metrics import psnr
from recon.evaluate.previews import compare_strip, save_picture
from recon.isosurface.colours import Colours
from recon.isosurface.fit import Fit, Progress, rendered
from recon.isosurface.refine import Refinement
from recon.isosurface.targets import Photos, Target
from recon.isosurface.view import Triangles
from recon.job_checkpoint import write_tensors
from recon.mesh.mesh import Mesh
from recon.mesh.remesh import remesh
from recon.mesh.repair import repair
from recon.pipelines.mesh_field import MeshContext, box_of, box_tensors, first_field, fitted_photos
from recon.pipelines.photo_stages import capture_of
from recon.pipelines.photo_views import mean_of

Model = Fit | Refinement

EVALUATIONS = 12
"""How often a fit is measured on its validation photos."""
EQUILATERAL = math.sqrt(3) / 4
"""Area of a triangle whose sides are 1 long."""
FINER = 4, 3
"""The finish has so many times as many triangles as the fit's surface (sides of half a cell), and at most so many times
as many as the mesh shall have: decimation then leaves them where the surface bends."""


def fit(context: MeshContext) -> None:
    """Fit the surface and its colours to the training photos."""
    prepared = capture_of(context)
    box, values = first_field(context)
    parts = (prepared.train, prepared.validation)
    photos, watched = (fitted_photos(context, part) for part in parts)
    follow(context, Fit(photos, box, values.to(context.device), context.config), watched)


def refine(context: MeshContext) -> None:
    """Tidy the surface, give it triangles of one size, and go on with their vertices."""
    tidy, colours = fitted(context, "fit")
    tidy = repair(tidy, holes=math.inf, events=context.events)
    config, kept = context.config, context.folder / "even.safetensors"
    if config.finish == 0:
        return leave(context, tidy, colours)
    if not kept.exists():
        statistics = tidy.statistics()
        faces = min(FINER[0] * statistics.faces, FINER[1] * config.faces)
        length = math.sqrt(statistics.area / (EQUILATERAL * faces))
        even = remesh(tidy, length, events=context.events)
        write_tensors(kept, {"vertices": torch.from_numpy(even.vertices), "faces": torch.from_numpy(even.faces)})
    prepared, tensors = capture_of(context), load_file(kept)
    photos, watched = (fitted_photos(context, part) for part in (prepared.train, prepared.validation))
    even = Mesh(tensors["vertices"].numpy(), tensors["faces"].numpy())
    colours = Colours(colours.box, colours.values.to(context.device))
    follow(context, Refinement(photos, even, colours, config), watched)


def follow(context: MeshContext, model: Model, watched: Photos) -> None:
    """Take the steps that are left, and leave the surface and the colours."""
    checkpoint = context.load_checkpoint()
    if checkpoint is not None:
        model.load_state({n: t.to(context.device) for n, t in checkpoint[0].items()}, checkpoint[1]["place"])
    model.warn = context.events.warn
    watch = Watch(context, model, watched, {} if checkpoint is None else checkpoint[1]["metrics"])
    try:
        watch.measure()  # what was due when an earlier run was stopped
        for progress in model.run():
            context.events.check()
            watch.measure()
            watch.show(progress)
            if context.checkpoint_due():
                watch.save()
    except Cancelled:
        watch.save()  # whole steps are taken or none
        raise
    triangles = model.triangles()
    mesh = Mesh(triangles.vertices.cpu().numpy(), triangles.faces.cpu().numpy())
    leave(context, mesh, model.colours)
    context.record.metrics |= {name: value for name, value in watch.metrics.items() if name != "psnr"}


def leave(context: MeshContext, mesh: Mesh, colours: Colours) -> None:
    """Write the stage's surface and colours."""
    triangles = {"vertices": torch.from_numpy(mesh.vertices), "faces": torch.from_numpy(mesh.faces)}
    write_tensors(context.folder / "surface.safetensors", triangles)
    write_tensors(context.folder / "colours.safetensors", {"values": colours.values, **box_tensors(colours.box)})


def fitted(context: MeshContext, stage: str) -> tuple[Mesh, Colours]:
    """Return the surface that a stage left, in the fitting frame, and the colours in space."""
    tensors = load_file(context.output(stage) / "surface.safetensors")
    found = load_file(context.output(stage) / "colours.safetensors")
    return Mesh(tensors["vertices"].numpy(), tensors["faces"].numpy()), Colours(box_of(found), found["values"])


class Watch:
    """A fit under way and what is done beside its steps.

    Attributes:
        metrics: as they were measured last.
    """

    def __init__(self, context: MeshContext, model: Model, watched: Photos, metrics: dict[str, float]) -> None:
        self._context, self._model, self._watched = context, model, watched
        self._every = max(1, model.steps // EVALUATIONS)
        self.metrics = metrics
        self._shown = time.monotonic()

    def measure(self) -> None:
        """Measure the model, unless it is not yet time for it."""
        step, steps = self._model.step, self._model.steps
        due = step // self._every + (step == steps and step % self._every > 0)
        if len(self._context.record.history) >= due:
            return
        photos = self._model.photos.levels
        least = self._model.least_level
        few = [photos[i][least] for i in range(0, len(photos), max(1, len(photos) // 5))][:5]
        triangles = self._model.triangles()
        found = {
            "psnr": self._mean_psnr(triangles, few),
            "validation_psnr": self._mean_psnr(triangles, [levels[least] for levels in self._watched.levels]),
        }
        self.metrics = {name: value for name, value in found.items() if value is not None}
        self._context.remember(**self.metrics)

    def _mean_psnr(self, triangles: Triangles, targets: list[Target]) -> float | None:
        """Return the mean over photos: of all of a cut-out one, else of where the object was at first."""
        values = []
        for target in targets:
            self._context.events.check()
            counts = target.counts
            if counts is None and target.whole and target.coverage is not None:
                counts = target.coverage > 127
            photo, image = target.image.float() / 255, self._rendered(triangles, target).cpu()
            values.append(psnr(image, photo, None if counts is None else counts.float()))
        return mean_of(values)

    def _rendered(self, triangles: Triangles, target: Target) -> Tensor:
        return rendered(triangles, self._model.colours, target, self._model.photos.background)

    def show(self, progress: Progress) -> None:
        """Tell how far it is, and now and then show a picture."""
        now, model = time.monotonic(), self._model
        if now - self._shown > 0.2 or model.step >= model.steps:
            figures = {"faces": progress.faces, "loss": progress.loss, **self.metrics}
            self._context.progress(model.step, model.steps, **figures)
            self._shown = now
        if self._context.preview_due():
            shown = self._watched.levels or model.photos.levels
            target = shown[0][model.level]
            photo, image = target.image.float() / 255, self._rendered(model.triangles(), target).cpu()
            with self._context.preview(f"previews/{model.step:06d}.jpg") as path:
                save_picture(path, compare_strip(photo.numpy(), image.numpy()))

    def save(self) -> None:
        """Write a checkpoint."""
        self._context.save_checkpoint(self._model.state(), {"place": self._model.place, "metrics": self.metrics})
