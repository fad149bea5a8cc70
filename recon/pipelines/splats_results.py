"""The ``splats`` pipeline from the fitted model to what people take away: files, turntable, report."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from numpy.typing import NDArray

from recon.capture.resize import working_size
from recon.evaluate import ReportData, save_picture, turntable_cameras, write_report, write_video
from recon.export import write_colmap, write_splats, write_transforms
from recon.pipelines.splats_stages import SplatsContext, capture_of, model_of, pose_report, world_views
from recon.pipelines.splats_views import best_render, kept_views
from recon.pipelines.stages import make_result
from recon.splats.render import Pose, render
from recon.splats.transform import transform

TURNTABLE_SIDE = 640


def export(context: SplatsContext) -> None:
    """Write the splats and the cameras, in the input's units."""
    prepared = capture_of(context)
    splats = transform(model_of(context)[0], np.linalg.inv(prepared.transform).astype(np.float64))
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
    count = context.config.turntable
    if count == 0:
        return
    prepared, (splats, background) = capture_of(context), model_of(context)
    width, height = working_size(prepared.capture.views[0], TURNTABLE_SIDE)
    width, height = width // 2 * 2, height // 2 * 2
    own = [view.camera for view in prepared.capture.views if view.camera is not None]

    def frames() -> Iterator[NDArray[np.uint8]]:
        for camera in turntable_cameras(own, count, width, height):
            with torch.no_grad():
                image = render(splats, Pose.of(camera), background, antialiased=context.config.antialiased)[0]
            yield (image.clamp(0, 1) * 255).round().byte().numpy()

    with context.export("turntable", "exports/turntable.mp4") as path:
        write_video(path, frames(), events=context.events, total=count)


def report(context: SplatsContext) -> None:
    """Put it all on one page."""
    splats, _ = model_of(context)
    result = make_result("splats", context.device, {**context.records, context.stage: context.record})
    hero = best_render(context)
    if hero is not None:
        with context.preview("previews/hero.jpg") as path:
            save_picture(path, hero)
    file = context.job.folder / "exports" / "splats.ply"
    with context.export("report", "report.html") as path:
        write_report(
            path,
            ReportData(
                title=context.input.stem or "Reconstruction",
                result=result,
                source=context.input.name,
                views=kept_views(context),
                hero=hero,
                opacities=splats.opacities.numpy(),
                scales=splats.scales.numpy(),
                splat_bytes=file.stat().st_size if file.exists() else None,
                poses=pose_report(context),
                settings=context.config.model_dump(mode="json"),
                versions=versions(),
            ),
        )


def versions() -> dict[str, str]:
    """Return the versions of what made a result."""
    found = {"python": platform.python_version()}
    for name in ("egregium", "torch", "numpy", "pycolmap"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
