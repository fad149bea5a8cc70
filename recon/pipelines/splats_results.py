"""The ``splats`` pipeline from the fitted model to what people take away: files, turntable, report."""

from __future__ import annotations

import numpy as np

from recon.export import write_colmap, write_splats, write_transforms
from recon.pipelines.photo_results import film, write_photo_page
from recon.pipelines.photo_stages import capture_of
from recon.pipelines.splats_stages import SplatsContext, model_of, world_views
from recon.pipelines.splats_views import renderer
from recon.splats.transform import transform


def export(context: SplatsContext) -> None:
    """Write the splats and the cameras, in the input's units."""
    prepared = capture_of(context)
    splats = transform(model_of(context)[0].to("cpu"), np.linalg.inv(prepared.transform).astype(np.float64))
    views = world_views(context)
    with context.export("splats", "exports/splats.ply") as path:
        write_splats(splats, path)
    with context.export("cameras", "exports/transforms.json") as path:
        write_transforms(views, path)
    with context.export("colmap", "exports/colmap") as folder:
        (folder / "sparse" / "0").mkdir(parents=True)
        write_colmap(views, folder / "sparse" / "0", prepared.world.points)


def turntable(context: SplatsContext) -> None:
    """Film a flight around the scene, along a path that stays where there were cameras."""
    film(context, renderer(context), context.config.turntable)


def report(context: SplatsContext) -> None:
    """Put it all on one page."""
    splats, background = model_of(context)
    file = context.job.folder / "exports" / "splats.ply"
    write_photo_page(
        context,
        "splats",
        background.cpu(),
        opacities=splats.opacities.cpu().numpy(),
        scales=splats.scales.cpu().numpy(),
        splat_bytes=file.stat().st_size if file.exists() else None,
    )
