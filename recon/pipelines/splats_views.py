"""The photos that a fit of splats has not seen, beside what its model renders from their cameras."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from recon.capture.capture import Camera
from recon.capture.composite import counted
from recon.evaluate.report_data import HeldOutView
from recon.pipelines import photo_views
from recon.pipelines.splats_stages import SplatsContext, model_of
from recon.splats.render import Pose, render


def evaluate(context: SplatsContext) -> None:
    """Measure the model on the photos that the fit has never seen, and keep its renders of them for the report."""
    photo_views.keep_views(context, measured_views(context))


def measured_views(context: SplatsContext) -> Iterator[HeldOutView]:
    """Render and measure the views that judge the model, one after the other."""
    shown = renderer(context)
    return photo_views.measured_views(
        context, lambda camera, photo: (shown(camera), counted(photo)), model_of(context)[1].cpu()
    )


def renderer(context: SplatsContext) -> Callable[[Camera], Tensor]:
    """Return what a camera, in the fitting frame, shows of the model: (H, W, 3) in [0, 1], on the CPU."""
    splats, background = model_of(context)

    def rendered(camera: Camera) -> Tensor:
        with torch.no_grad():
            pose = Pose.of(camera, context.device)
            image = render(splats, pose, background, antialiased=context.config.antialiased)[0]
        return image.clamp(0, 1).cpu()

    return rendered
