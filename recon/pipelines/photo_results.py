"""What every pipeline from photos ends with: a turntable video, the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recon.capture.capture import Camera
from recon.capture.resize import working_size
from recon.evaluate.turntable import turntable_cameras
from recon.evaluate.video import write_video
from recon.pipelines.page import write_page
from recon.pipelines.photo_stages import PhotosContext, capture_of, pose_report
from recon.pipelines.photo_views import best_render, judging_views, kept_views

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


def write_photo_page(context: PhotosContext, pipeline: str, background: Tensor, **parts: Any) -> None:
    """Put it all on one page, with the photos that judge it.

    Args:
        context: of the stage.
        pipeline: its name.
        background: (3,), what cut-out photos are laid over.
        parts: what else :class:`~recon.evaluate.ReportData` shall have.
    """
    write_page(
        context,
        pipeline,
        best_render(context),
        figures={},  # the views have theirs
        views=kept_views(context, background),
        measured_on=judging_views(context)[1],
        poses=pose_report(context),
        **parts,
    )
