"""The photos that a fit has not seen, beside what its model renders from their cameras."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from recon.capture.capture import Array, View
from recon.evaluate import HeldOutView, psnr, save_picture, ssim
from recon.job_files import read_json, write_json
from recon.pipelines.splats_stages import SplatsContext, capture_of, model_of
from recon.splats.photos import counted, over
from recon.splats.render import Pose, render

UNSEEN = "Too few photos to hold any out: the figures are of photos that the fit has seen."


def evaluate(context: SplatsContext) -> None:
    """Measure the model on the photos that the fit has never seen, and keep its renders of them for the report."""
    views, kind = judging_views(context)
    if kind == "training":
        context.events.warn(UNSEEN)
    rows = []
    for i, view in enumerate(measured_views(context)):
        picture = f"{i:04d}.png"
        save_picture(context.folder / picture, view.render)
        rows.append({"name": view.name, "psnr": view.psnr, "ssim": view.ssim, "render": picture})
        context.progress(i + 1, len(views))
    write_json(context.folder / "views.json", rows)
    context.record.metrics |= means(rows)


def judging_views(context: SplatsContext) -> tuple[list[View], str]:
    """Return the views that judge the model and what they are: ``held-out``, else ``validation``, else ``training``."""
    prepared = capture_of(context)
    for kind, indices in (("held-out", prepared.held_out), ("validation", prepared.validation)):
        if indices:
            return prepared.views(indices), kind
    return prepared.views(prepared.train[:1]), "training"


def measured_views(context: SplatsContext) -> Iterator[HeldOutView]:
    """Render and measure the views that judge the model, one after the other."""
    splats, background = model_of(context)
    for view in judging_views(context)[0]:
        context.events.check()
        if view.camera is None:
            continue
        photo = view.load()
        with torch.no_grad():
            image = render(splats, Pose.of(view.camera), background, antialiased=context.config.antialiased)[0]
        image, reference, mask = image.clamp(0, 1), over(photo, background), counted(photo)
        weights = None if mask is None else mask.float()
        yield HeldOutView(
            view.name,
            reference.numpy(),
            image.numpy(),
            None if weights is None else weights.numpy(),
            psnr(image, reference, weights),
            # Windows at the mask's edge must not see a difference in what was never to be reconstructed.
            ssim(image if mask is None else torch.where(mask[..., None], image, reference), reference, weights),
        )


def kept_views(context: SplatsContext) -> Iterator[HeldOutView]:
    """Return the same views from the pictures and figures that the evaluate stage has left."""
    folder, background = context.output("evaluate"), model_of(context)[1]
    rows = {row["name"]: row for row in read_json(folder / "views.json") or []}
    for view in judging_views(context)[0]:
        context.events.check()
        if (row := rows.get(view.name)) is None:
            continue
        photo = view.load()
        mask = counted(photo)
        yield HeldOutView(
            view.name,
            over(photo, background).numpy(),
            _picture(folder / row["render"]),
            None if mask is None else mask.float().numpy(),
            math.inf if row["psnr"] is None else row["psnr"],  # JSON has no infinity
            row["ssim"],
        )


def best_render(context: SplatsContext) -> Array | None:
    """Return the evaluate stage's render of highest PSNR, (H, W, 3); None where nothing was measured."""
    folder = context.output("evaluate")
    rows = [row for row in read_json(folder / "views.json") or [] if row["psnr"] is not None]
    if not rows:
        return None
    best = max(rows, key=lambda row: row["psnr"])
    return _picture(folder / best["render"])


def _picture(path: Path) -> Array:
    image: Array = np.asarray(Image.open(path), np.float32) / np.float32(255)
    return image


def means(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean PSNR and SSIM of the rows' finite figures."""
    found = list(rows)
    result = {}
    for name in ("psnr", "ssim"):
        values = [row[name] for row in found if row[name] is not None and math.isfinite(row[name])]
        if values:
            result[name] = round(float(np.mean(values)), 4)
    return result
