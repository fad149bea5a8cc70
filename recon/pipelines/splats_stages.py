"""What the ``splats`` pipeline's fit left, for later stages, from memory or from disk."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from recon.capture.capture import View
from recon.job_files import read_json
from recon.pipelines.context import Context
from recon.pipelines.photo_stages import capture_of
from recon.splats.config import SplatsConfig
from recon.splats.model import Splats

SplatsContext = Context[SplatsConfig]


def model_of(context: SplatsContext) -> tuple[Splats, Tensor]:
    """Return the fitted splats, in the fitting frame, and the background's colour (3,), on the run's device."""
    if "model" not in context.memo:
        tensors = load_file(context.output("fit") / "model.safetensors")
        splats = Splats(**{f.name: tensors[f.name] for f in fields(Splats)}).to(context.device)
        context.memo["model"] = (splats, tensors["background"].to(context.device))
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
