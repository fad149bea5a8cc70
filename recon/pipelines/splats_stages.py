"""The ``splats`` pipeline from the input to the fitted model: load, poses, fit.

The functions ``capture_of`` and ``model_of`` give later stages what these left, from memory or from disk.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from recon.capture.capture import Capture, Points, View
from recon.capture.load import load as load_capture
from recon.capture.normalise import apply, normalising_transform
from recon.capture.resize import working_view
from recon.capture.split import split
from recon.evaluate import compare_strip, psnr, save_picture
from recon.job_checkpoint import write_tensors
from recon.job_files import read_json, remove, write_json
from recon.pipelines.context import Context
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit
from recon.splats.initial import hull_points, random_points, splats_at, thinned
from recon.splats.model import Splats
from recon.splats.photos import TrainingPhoto, load_photos
from recon.splats.render import render

SplatsContext = Context[SplatsConfig]

FEWEST_POINTS = 100
"""Fewer structure-from-motion points than this are no start for a fit."""
EVALUATIONS = 12
"""How often a fit is measured on its validation photos."""
PATIENCE = 4
"""A fit ends early when so many measurements in a row have not been its best."""
PREVIEW_SECONDS = 15.0


def load(context: SplatsContext) -> None:
    """Read what the input is made of, and say what had to be skipped."""
    capture = load_capture(context.input, context.events, context.folder)
    for message in capture.warnings:
        context.events.warn(message)
    context.memo["loaded"] = capture
    context.record.counts["views"] = len(capture.views)


def _loaded(context: SplatsContext) -> Capture:
    if "loaded" not in context.memo:
        context.memo["loaded"] = load_capture(context.input, context.events, context.output("load"))
    capture: Capture = context.memo["loaded"]
    return capture


def poses(context: SplatsContext) -> None:
    """Find the cameras, where the input brings none."""
    capture = _loaded(context)
    if capture.has_poses:
        write_json(context.folder / "report.json", None)
        context.record.counts["registered"] = len(capture.views)
        return
    from recon.capture.poses import estimate_poses  # loads COLMAP, which posed captures need not wait for

    posed, report = estimate_poses(capture, context.folder / "colmap", context.events, seed=context.config.seed)
    write_json(context.folder / "report.json", report.to_json())
    for leftover in ("pictures", "masks", "plain", "robust"):
        remove(context.folder / "colmap" / leftover)
    context.memo["posed"] = posed
    context.record.counts["registered"] = report.registered
    context.record.metrics["reprojection_error"] = round(report.reprojection_error, 3)


def _posed(context: SplatsContext) -> Capture:
    capture = _loaded(context)
    if capture.has_poses:
        return capture
    if "posed" not in context.memo:
        from recon.capture.poses import read_poses

        context.memo["posed"] = read_poses(capture, context.output("poses") / "colmap")
    posed: Capture = context.memo["posed"]
    return posed


@dataclass(frozen=True)
class Prepared:
    """A capture as it is fitted.

    Attributes:
        capture: in the fitting frame, at the working resolution.
        transform: (4, 4) similarity from the input's world to the fitting frame.
        train, validation, held_out: indices of the views.
        world: the capture in the input's world and resolution.
    """

    capture: Capture
    transform: NDArray[np.float64]
    train: list[int]
    validation: list[int]
    held_out: list[int]
    world: Capture

    def views(self, indices: list[int]) -> list[View]:
        """Return the views of these indices."""
        return [self.capture.views[i] for i in indices]


def capture_of(context: SplatsContext) -> Prepared:
    """Return the capture with poses, in the fitting frame, at the working resolution, split."""
    if "prepared" not in context.memo:
        world = _posed(context)
        transform = normalising_transform(world)
        moved = apply(world, transform)
        moved = replace(moved, views=tuple(working_view(v, context.config.max_side) for v in moved.views))
        train, validation, held_out = split(moved)
        if not context.config.hold_out and not moved.own_split:
            train, held_out = sorted(train + held_out), []
        context.memo["prepared"] = Prepared(moved, transform, train, validation, held_out, world)
    prepared: Prepared = context.memo["prepared"]
    return prepared


def _photos(context: SplatsContext, indices: list[int]) -> tuple[list[TrainingPhoto], Tensor]:
    return load_photos(capture_of(context).views(indices), context.config.background, context.events, context.stage)


def fit(context: SplatsContext) -> None:
    """Fit the splats to the training photos, watched by the validation photos."""
    config, prepared = context.config, capture_of(context)
    photos, background = _photos(context, prepared.train)
    watched = _photos(context, prepared.validation)[0]
    write_json(context.folder / "photos.json", {"masks": any(p.levels[0].mask is not None for p in photos)})
    checkpoint = context.load_checkpoint()
    best = Best()
    if checkpoint is None:
        points = _initial_points(context, prepared, photos)
        model = Fit(splats_at(points, config.sh_degree), photos, background, config)
    else:
        tensors, state = checkpoint
        parameters = {n.removeprefix("splats."): t for n, t in tensors.items() if n.startswith("splats.")}
        model = Fit(Splats(**parameters), photos, background, config)
        model.load_state(tensors, state["step"], state["initial_count"])
        best.load_state(tensors, state["best"])

    shown = previewed = time.monotonic()
    every = max(1, config.steps // EVALUATIONS)
    metrics: dict[str, float] = {}
    for progress in model.run():
        context.events.check()
        now = time.monotonic()
        if model.step % every == 0 or model.step == config.steps:
            metrics = _measure(model, photos, watched)
            context.remember(**metrics, splats=progress.splats)
            best.offer(model, metrics)
            if model.step - best.step >= PATIENCE * every:
                break
        if now - shown > 0.2 or model.step == config.steps:
            context.progress(model.step, config.steps, splats=progress.splats, loss=progress.loss, **metrics)
            shown = now
        if now - previewed > PREVIEW_SECONDS:
            target = model.target(0)
            with torch.no_grad():
                image = render(model.splats, target.pose, background, sh_degree=model.sh_degree)[0].clamp(0, 1)
            with context.preview(f"previews/{model.step:06d}.jpg") as path:
                save_picture(path, compare_strip(target.rgb.numpy(), image.numpy()))
            previewed = now
        if context.checkpoint_due():
            state = {"step": model.step, "initial_count": model.initial_count, "best": best.state()}
            context.save_checkpoint({**model.state(), **best.tensors}, state)
    if best.step == 0:  # interrupted right after the last step
        best.offer(model, _measure(model, photos, watched))
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

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside :attr:`tensors`."""
        return {"step": self.step, "metrics": self.metrics}

    def load_state(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.step, self.metrics = state["step"], state["metrics"]
        self.tensors = {name: t for name, t in tensors.items() if name.startswith("best.")}


def model_of(context: SplatsContext) -> tuple[Splats, Tensor]:
    """Return the fitted splats, in the fitting frame, and the background's colour (3,)."""
    if "model" not in context.memo:
        tensors = load_file(context.output("fit") / "model.safetensors")
        splats = Splats(**{f.name: tensors[f.name] for f in fields(Splats)})
        context.memo["model"] = (splats, tensors["background"])
    splats, background = context.memo["model"]
    return splats, background


def world_views(context: SplatsContext) -> list[View]:
    """Return the views in the input's world, their cameras as the fit corrected them."""
    prepared = capture_of(context)
    views = list(prepared.world.views)
    corrected = load_file(context.output("fit") / "model.safetensors").get("viewmats")
    if corrected is None:
        return views
    scale = float(np.linalg.norm(prepared.transform[0, :3]))
    for i, viewmat in zip(prepared.train, corrected.double().numpy(), strict=True):
        own, fitted = views[i].camera, prepared.capture.views[i].camera
        if own is not None and fitted is not None:
            change = viewmat @ np.linalg.inv(fitted.viewmat)
            change[:3, 3] /= scale
            views[i] = replace(views[i], camera=replace(own, viewmat=change @ own.viewmat))
    return views


def has_masks(context: SplatsContext) -> bool:
    """Return whether any photo of the fit had a mask of what to ignore."""
    found = read_json(context.output("fit") / "photos.json")
    return isinstance(found, dict) and bool(found.get("masks"))


def pose_report(context: SplatsContext) -> dict[str, Any] | None:
    """Return the report of the poses stage, None where the input brought its own cameras."""
    found = read_json(context.output("poses") / "report.json")
    return found if isinstance(found, dict) else None


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


def _measure(model: Fit, photos: list[TrainingPhoto], watched: list[TrainingPhoto]) -> dict[str, float]:
    """Return the mean PSNR over a few training photos, and over the validation photos where there are any."""
    few = range(0, len(photos), max(1, len(photos) // 5))[:5]
    metrics = {"psnr": _mean_psnr(model, [(photos[i], i) for i in few])}
    return metrics | ({"validation_psnr": _mean_psnr(model, [(p, None) for p in watched])} if watched else {})


def _mean_psnr(model: Fit, photos: list[tuple[TrainingPhoto, int | None]]) -> float:
    """Return the mean over photos at full size, each with its number in the fit if the fit corrects it."""
    values = []
    for photo, index in photos:
        target, corrections = photo.levels[0], model.corrections
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
    return round(float(np.mean(values)), 3)
