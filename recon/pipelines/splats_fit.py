"""The ``splats`` pipeline's fit, watched by photos it does not see: measured, shown, kept, stopped and gone on with."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recon.capture.capture import Points
from recon.errors import Cancelled
from recon.evaluate.metrics import psnr
from recon.evaluate.previews import compare_strip, save_picture
from recon.job_checkpoint import write_tensors
from recon.job_files import write_json
from recon.pipelines.photo_stages import Prepared, capture_of
from recon.pipelines.photo_views import mean_of
from recon.pipelines.splats_stages import SplatsContext
from recon.splats import ranks
from recon.splats.block_fit import BlockFit
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit, Progress
from recon.splats.initial import hull_points, random_points, splats_at, thinned
from recon.splats.lm_fit import LMFit
from recon.splats.model import Splats
from recon.splats.photos import TrainingPhoto, load_photos
from recon.splats.render import render
from recon.splats.sampled_fit import SampledFit

FEWEST_POINTS = 100
"""Fewer structure-from-motion points than this are no start for a fit."""
EVALUATIONS = 12
"""How often a fit is measured on its validation photos."""
PATIENCE, BY_HEART = 4, 0.5
"""A fit ends early when so many measurements in a row have not been its best, and its own photos are matched by so much
better (dB) all the same: then it learns them by heart. Where they are not, its steps are still too long for either."""

KINDS: dict[str, type[Fit]] = {"adam": Fit, "block-lm": BlockFit, "lm": LMFit, "lm-sampled": SampledFit}


def fit(context: SplatsContext) -> None:
    """Fit the splats to the training photos, watched by the validation photos."""
    fit_as(KINDS[context.config.optimizer], context)


def fit_as(kind: type[Fit], context: SplatsContext) -> None:
    """Do the same by a kind of fit, whatever the settings say of it."""
    prepared = capture_of(context)
    photos, background = _photos(context, prepared, prepared.train)
    watched = _photos(context, prepared, prepared.validation)[0]
    write_json(context.folder / "photos.json", {"masks": any(p.levels[0].mask is not None for p in photos)})
    config = context.config
    steps_there = config.steps_on(len(photos))
    if steps_there < config.steps:
        context.events.warn(
            f"The fit takes {steps_there:,} steps, not {config.steps:,}: with more it would learn {len(photos)} photos "
            "by heart. More photos allow more."
        )
        config = config.model_copy(update={"steps": steps_there})
    model, best = _begun(kind, context, config, prepared, photos, background)
    if ranks.count() == 1:
        model.check = context.events.check
    elif ranks.count() > config.views_per_step:
        context.events.warn(
            f"{ranks.count()} processes share {config.views_per_step} photos a step: set views-per-step to as many."
        )
    model.warn = context.events.warn
    watch = Watch(context, model, best, watched)
    try:
        watch.measure()  # what was due when an earlier run was stopped
        with ranks.shared(model) as step:
            while not watch.over:
                progress = step()
                context.events.check()
                watch.measure()
                watch.show(progress)
                if context.checkpoint_due():
                    watch.save()
    except Cancelled:
        watch.save()  # whole steps are taken or none
        raise
    write_tensors(context.folder / "model.safetensors", best.model())
    context.record.counts["splats"] = len(best.tensors["best.means"])
    context.record.metrics |= {name: round(value, 3) for name, value in best.metrics.items() if name != "psnr"}


@dataclass
class Best:
    """What a fit ends with: the model as it was when it matched the validation photos best, else as it is last.

    Attributes:
        step: when that was.
        metrics: what was measured then.
        tensors: the model, names beginning with ``best.``, for the checkpoint.
    """

    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, model: Fit, metrics: dict[str, float]) -> None:
        """Keep the model if it is the best so far."""
        validation = metrics.get("validation_psnr")
        if validation is not None and self.tensors and not validation > self.metrics["validation_psnr"]:
            return
        self.step, self.metrics = model.step, metrics
        tensors = {**model.splats.tensors(), "background": model.background}
        if model.config.refine_cameras:
            poses = [model.corrections.pose(i, photo.levels[0].pose) for i, photo in enumerate(model.photos)]
            tensors["viewmats"] = torch.stack([pose.viewmat for pose in poses])
        self.tensors = {f"best.{name}": t.detach().clone() for name, t in tensors.items()}

    def model(self) -> dict[str, Tensor]:
        """Return the kept model's tensors by their own names."""
        return {name.removeprefix("best."): t for name, t in self.tensors.items()}


class Watch:
    """A fit under way and what is done beside its steps.

    Attributes:
        over: whether all steps are taken, or the best model lies so far back that the fit ends early.
    """

    def __init__(self, context: SplatsContext, model: Fit, best: Best, watched: list[TrainingPhoto]) -> None:
        self._context, self._model, self._best, self._watched = context, model, best, watched
        self._every = max(1, model.config.steps // EVALUATIONS)
        self._metrics: dict[str, float] = {}
        self._shown = time.monotonic()

    @property
    def over(self) -> bool:
        """See the class."""
        model, best = self._model, self._best
        late = model.step - best.step >= PATIENCE * self._every
        by_heart = late and self._metrics.get("psnr", 0.0) > best.metrics.get("psnr", math.inf) + BY_HEART
        return model.step >= model.config.steps or by_heart

    def measure(self) -> None:
        """Measure the model, unless it is not yet time for it."""
        step, steps = self._model.step, self._model.config.steps
        due = step // self._every + (step == steps and step % self._every > 0)
        if len(self._context.record.history) < due:
            self._metrics = _measure(self._context, self._model, self._watched)
            self._context.remember(**self._metrics, splats=len(self._model.splats))
            self._best.offer(self._model, self._metrics)

    def show(self, progress: Progress) -> None:
        """Tell how far it is, and now and then show a picture."""
        now, model, config = time.monotonic(), self._model, self._model.config
        if now - self._shown > 0.2 or self.over:
            figures = {"splats": progress.splats, "loss": progress.loss, **self._metrics}
            self._context.progress(model.step, config.steps, **figures)
            self._shown = now
        if self._context.preview_due():
            target = self._watched[0].levels[0].to(model.device) if self._watched else model.target(0)
            with torch.no_grad():
                image = render(model.splats, target.pose, model.background, sh_degree=model.sh_degree)[0].clamp(0, 1)
            with self._context.preview(f"previews/{model.step:06d}.jpg") as path:
                save_picture(path, compare_strip(target.rgb.cpu().numpy(), image.cpu().numpy()))

    def save(self) -> None:
        """Write a checkpoint."""
        model, best = self._model, self._best
        kept = {"step": best.step, "metrics": best.metrics}
        state = {"step": model.step, "initial_count": model.initial_count, "best": kept}
        self._context.record.counts["splats"] = len(model.splats)
        self._context.save_checkpoint({**model.state(), **best.tensors}, state)


def _begun(
    kind: type[Fit],
    context: SplatsContext,
    config: SplatsConfig,
    prepared: Prepared,
    photos: list[TrainingPhoto],
    background: Tensor,
) -> tuple[Fit, Best]:
    """Return the fit and its best model so far, from the checkpoint where there is one."""
    checkpoint = context.load_checkpoint()
    if checkpoint is None:
        points = _initial_points(context, prepared, photos)
        return kind(splats_at(points, config.sh_degree).to(context.device), photos, background, config), Best()
    tensors, state = {name: t.to(context.device) for name, t in checkpoint[0].items()}, checkpoint[1]
    parameters = {n.removeprefix("splats."): t for n, t in tensors.items() if n.startswith("splats.")}
    model = kind(Splats(**parameters), photos, background, config)
    model.load_state(tensors, state["step"], state["initial_count"])
    return model, Best(**state["best"], tensors={n: t for n, t in tensors.items() if n.startswith("best.")})


def _photos(context: SplatsContext, prepared: Prepared, indices: list[int]) -> tuple[list[TrainingPhoto], Tensor]:
    return load_photos(
        prepared.views(indices), context.config.background, context.events, context.stage, context.device
    )


def _initial_points(context: SplatsContext, prepared: Prepared, photos: list[TrainingPhoto]) -> Points:
    """Return where to start: the capture's points, else the masks' visual hull, else points anywhere in view."""
    config, points = context.config, prepared.capture.points
    generator = np.random.default_rng(config.seed)
    count = max(FEWEST_POINTS, config.splats // 4)
    if points is not None and len(points.xyz) >= FEWEST_POINTS:
        return thinned(points, max(count, config.splats // 2), generator)
    cameras = [photo.camera for photo in photos]
    images = [photo.levels[0].rgb.numpy() for photo in photos]
    masks = [view.load().mask for view in prepared.views(prepared.train)]
    whole = [mask for mask in masks if mask is not None]
    if len(whole) == len(masks):
        found = hull_points(cameras, images, whole, count, generator)
        if found is not None:
            return found
        context.events.warn("The masks share no volume: starting from points anywhere in view instead.")
    return random_points(cameras, images, count, generator)


def _measure(context: SplatsContext, model: Fit, watched: list[TrainingPhoto]) -> dict[str, float]:
    """Return the mean PSNR over a few training photos, and over the validation photos where there are any."""
    few = range(0, len(model.photos), max(1, len(model.photos) // 5))[:5]
    found = {
        "psnr": _mean_psnr(context, model, [(model.photos[i], i) for i in few]),
        "validation_psnr": _mean_psnr(context, model, [(photo, None) for photo in watched]),
    }
    return {name: value for name, value in found.items() if value is not None}


def _mean_psnr(context: SplatsContext, model: Fit, photos: list[tuple[TrainingPhoto, int | None]]) -> float | None:
    """Return the mean over photos, each with its number in the fit if the fit corrects it.

    They are of full size, or what memory has room for. Those of which nothing counts say nothing; None if there are no
    others.
    """
    values = []
    for photo, index in photos:
        context.events.check()
        target, corrections = photo.levels[model.least_level].to(model.device), model.corrections
        with torch.no_grad():
            pose = target.pose if index is None else corrections.pose(index, target.pose)
            image = render(
                model.splats,
                pose,
                model.background,
                sh_degree=model.sh_degree,
                antialiased=model.config.antialiased,
            )[0]
            image = image if index is None else corrections.expose(index, image)
        mask = None if target.mask is None else target.mask.float()
        values.append(psnr(image.clamp(0, 1), target.rgb, mask))
    return mean_of(values)
