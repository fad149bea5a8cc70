"""The ``mesh`` pipeline's finished mesh as cameras see it: measured, filmed, reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from recon.capture.capture import Camera, Photo
from recon.capture.composite import background_colour, counted
from recon.evaluate.report_data import HeldOutView
from recon.isosurface.paint import Textured
from recon.isosurface.targets import pose_of
from recon.pipelines import photo_views
from recon.pipelines.mesh_field import MeshContext
from recon.pipelines.mesh_results import finished
from recon.pipelines.photo_results import film, write_photo_page
from recon.pipelines.photo_stages import capture_of
from recon.pipelines.photo_views import keep_views


def evaluate(context: MeshContext) -> None:
    """Measure the mesh on the photos that the fit has never seen, and keep its renders of them for the report."""
    keep_views(context, measured_views(context))


def measured_views(context: MeshContext) -> Iterator[HeldOutView]:
    """Render and measure the views that judge the mesh, one after the other.

    Photos that show what is behind the thing are measured where their mask, or else the mesh, shows the thing.
    """
    render = _renderer(context)

    def shown(camera: Camera, photo: Photo) -> tuple[Tensor, Tensor | None]:
        image, coverage = render(camera)
        if photo.mask is None:
            return image, coverage > 0.5
        return image, counted(photo)

    return photo_views.measured_views(context, shown, _background(context))


def turntable(context: MeshContext) -> None:
    """Film a flight around the mesh."""
    render = _renderer(context)
    film(context, lambda camera: render(camera)[0], context.config.turntable)


def report(context: MeshContext) -> None:
    """Put it all on one page."""
    write_photo_page(context, "mesh", _background(context))


def _background(context: MeshContext) -> Tensor:
    return background_colour(context.config.background, [capture_of(context).capture.views[0].load()])


def _renderer(context: MeshContext) -> Callable[[Camera], tuple[Tensor, Tensor]]:
    """Return what a camera, in the fitting frame, shows of the mesh: (H, W, 3) in [0, 1], and (H, W) how much."""
    model, background = Textured(finished(context), context.device), _background(context).to(context.device)

    def render(camera: Camera) -> tuple[Tensor, Tensor]:
        viewmat, K = (t.to(context.device) for t in pose_of(camera))
        with torch.no_grad():
            image, coverage = model.render(viewmat, K, camera.width, camera.height, background)
        return image.clamp(0, 1).cpu(), coverage.cpu()

    return render
