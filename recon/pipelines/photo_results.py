"""What every pipeline from photos ends with: a turntable video, the report."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recon.capture.capture import Camera
from recon.capture.resize import working_size
from recon.evaluate import ReportData, save_picture, turntable_cameras, write_report, write_video
from recon.pipelines.photo_stages import PhotosContext, capture_of, pose_report
from recon.pipelines.photo_views import best_render, judging_views, kept_views
from recon.pipelines.stages import make_result

TURNTABLE_SIDE = 640


def film(context: PhotosContext, render: Callable[[Camera], Tensor], frames: int) -> None:
    """Film a flight around the scene, along a path that stays where there were cameras.

    Args:
        context: of the stage.
        render: camera -> (H, W, 3) in [0, 1].
        frames: how many; none make no video.
    """
    if frames == 0:
        return
    prepared = capture_of(context)
    width, height = working_size(prepared.capture.views[0], TURNTABLE_SIDE)
    width, height = width // 2 * 2, height // 2 * 2
    own = [view.camera for view in prepared.capture.views if view.camera is not None]

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for camera in turntable_cameras(own, frames, width, height):
            yield (render(camera) * 255).round().byte().numpy()

    with context.export("turntable", "exports/turntable.mp4") as path:
        write_video(path, pictures(), events=context.events, total=frames)


def write_page(context: PhotosContext, pipeline: str, background: Tensor, **parts: Any) -> None:
    """Put it all on one page.

    Args:
        context: of the stage.
        pipeline: its name.
        background: (3,), what cut-out photos are laid over.
        parts: what else :class:`~recon.evaluate.ReportData` shall have.
    """
    result = make_result(pipeline, context.device, {**context.records, context.stage: context.record})
    hero = best_render(context)
    if hero is not None:
        with context.preview("previews/hero.jpg") as path:
            save_picture(path, hero)
    data = ReportData(
        title=context.input.stem or "Reconstruction",
        result=result,
        source=context.input.name,
        views=kept_views(context, background),
        measured_on=judging_views(context)[1],
        hero=hero,
        poses=pose_report(context),
        settings=context.config.model_dump(mode="json"),
        versions=versions(),
        **parts,
    )
    with context.export("report", "report.html") as path:
        write_report(path, data)


def versions() -> dict[str, str]:
    """Return the versions of what made a result."""
    found = {"python": platform.python_version()}
    for name in ("egregium", "torch", "numpy", "pycolmap"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
