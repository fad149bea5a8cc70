"""The photos that judge a result: those that a fit has not seen, beside what was rendered from their cameras."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recon.capture.capture import Array, Camera, Photo, View
from recon.capture.composite import counted, over
from recon.evaluate.metrics import psnr, ssim
from recon.evaluate.previews import save_picture
from recon.evaluate.report_data import HeldOutView
from recon.job_files import read_json, write_json
from recon.pipelines.photo_stages import PhotosContext, capture_of

SHOWN = 6
"""Of how many views the evaluate stage keeps the photo too, so that people can compare it with the render."""

UNSEEN = "Too few photos to hold any out: the figures are of photos that the fit has seen."


def judging_views(context: PhotosContext) -> tuple[list[View], str]:
    """Return the views that judge the model and what they are: ``held-out``, else ``validation``, else ``training``."""
    prepared = capture_of(context)
    for kind, indices in (("held-out", prepared.held_out), ("validation", prepared.validation)):
        if indices:
            return prepared.views(indices), kind
    return prepared.views(prepared.train[:1]), "training"


def measured_views(
    context: PhotosContext, render: Callable[[Camera, Photo], tuple[Tensor, Tensor | None]], background: Tensor
) -> Iterator[HeldOutView]:
    """Render and measure the views that judge the model, one after the other.

    Args:
        context: of any stage after the fit.
        render: camera, photo -> (H, W, 3) in [0, 1], what the model shows, and (H, W) bool, where it is to be measured;
            None for everywhere.
        background: (3,), what cut-out photos are laid over.
    """
    for view in judging_views(context)[0]:
        context.events.check()
        if view.camera is None:
            continue
        photo = view.load()
        (image, mask), reference = render(view.camera, photo), over(photo, background)
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


def keep_views(context: PhotosContext, measured: Iterator[HeldOutView]) -> None:
    """Measure the views, and keep their renders for the report, some of them with their photo: the evaluate stage."""
    views, kind = judging_views(context)
    chosen = set(np.linspace(0, len(views) - 1, SHOWN).round().astype(int).tolist())
    if kind == "training":
        context.events.warn(UNSEEN)
    rows = []
    for i, view in enumerate(measured):
        picture = f"{i:04d}.png"
        save_picture(context.folder / picture, view.render)
        row: dict[str, Any] = {"name": view.name, "psnr": view.psnr, "ssim": view.ssim, "render": picture}
        if i in chosen:
            row["photo"] = f"{i:04d}-photo.jpg"
            save_picture(context.folder / row["photo"], view.photo)
        rows.append(row)
        context.progress(i + 1, len(views))
    write_json(context.folder / "views.json", rows)
    context.record.metrics |= means(rows)


def kept_views(context: PhotosContext, background: Tensor) -> Iterator[HeldOutView]:
    """Return the same views from the pictures and figures that the evaluate stage has left."""
    folder = context.output("evaluate")
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


def best_render(context: PhotosContext) -> Array | None:
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
        mean = mean_of([row[name] for row in found if row[name] is not None], 4)
        if mean is not None:
            result[name] = mean
    return result


def mean_of(values: list[float], digits: int = 3) -> float | None:
    """Return the mean of the finite figures; None if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return round(float(np.mean(finite)), digits) if finite else None
