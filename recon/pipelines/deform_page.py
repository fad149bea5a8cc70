"""What a deforming surface looks like: films of it, maps of its strain, and all of it on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Array, View
from recon.capture.tracks import Tracks
from recon.evaluate.report_data import Deformation
from recon.evaluate.strain import face_strain, strain_colours, stretches
from recon.evaluate.video import write_video
from recon.mesh.animation import Animation
from recon.mesh.drawing import grid_of
from recon.mesh.film import SIDE_TURN, Frame, film_window, overlay, seen, side
from recon.mesh.mesh import Mesh
from recon.pipelines.context import Context
from recon.pipelines.deform_splats import SWING, CarriedSplats, swinging
from recon.pipelines.page import write_page

RATES = (1.0, 120.0)
"""Frames a second between which films are written, so that players play them."""


def write_deform_page(
    context: Context[Any],
    animation: Animation,
    template: Array,
    K: NDArray[np.float64],
    frames: Sequence[Mapping[str, float]],
    views: Sequence[View] = (),
    tracks: Tracks | None = None,
    carried: CarriedSplats | None = None,
) -> None:
    """Film the surface and put it all on one page: exports ``overlay``, ``side``, ``splats_film`` and ``report``.

    Args:
        context: of the stage.
        animation: T frames in the camera's axes, x right, y down, z forward, the camera at the origin.
        template: (V, 3) its vertices at rest.
        K: (3, 3) intrinsics in pixels of the tracks.
        frames: T dictionaries of figures, as :class:`~recon.evaluate.Deformation` has them.
        views: the T photos, or none.
        tracks: T frames of points to draw into the pictures, in pixels of K.
        carried: the splats that the surface carries, filmed too.
    """
    camera, rate = film_window(animation, K, views).camera, float(np.clip(animation.rate, *RATES))
    total = (2 if carried is None else 3) * len(animation)

    def followed(film: Iterator[Frame], before: int) -> Iterator[Frame]:
        for step, frame in enumerate(film, before + 1):
            yield frame
            context.progress(step, total)

    with context.export("overlay", "exports/overlay.mp4") as path:
        write_video(path, followed(overlay(animation, template, K, views, tracks), 0), rate)
    with context.export("side", "exports/side.mp4") as path:
        write_video(path, followed(side(animation, template, camera.width, camera.height), len(animation)), rate)
    hero = _still(len(animation) // 2, animation, template, K, views, tracks)
    what = "as the camera sees it" if not views else "over what the camera saw"
    dots = "" if tracks is None else "; the dots are the tracked points"
    turned = f"The same from {SIDE_TURN:.0f}° to the right, without perspective, from one place in all frames."
    exports = context.job.folder / "exports"
    films = [(f"The surface {what}{dots}.", exports / "overlay.mp4"), (turned, exports / "side.mp4")]
    if carried is not None:
        with context.export("splats_film", "exports/splats.mp4") as path:
            write_video(
                path, followed(swinging(carried, animation.frames, camera, context.device), 2 * len(animation)), rate
            )
        swung = f"The splats that it carries, from a camera that swings by {SWING:.0f}° to either side."
        films.append((swung, exports / "splats.mp4"))
    deformation = Deformation(
        frames,
        films=films,
        strain_maps=_strain_maps(animation, template, K, frames, views),
    )
    write_page(context, "deform", hero, deformation=deformation)


def _still(
    i: int,
    animation: Animation,
    template: Array,
    K: NDArray[np.float64],
    views: Sequence[View],
    tracks: Tracks | None,
) -> Array:
    """Return (H, W, 3) the picture of one frame, in a window of its own."""
    one = replace(animation, frames=animation.frames[i : i + 1])
    if tracks is not None:
        tracks = replace(tracks, xy=tracks.xy[i : i + 1], visible=tracks.visible[i : i + 1])
    frame = next(overlay(one, template, K, views[i : i + 1], tracks))
    return frame.astype(np.float32) / np.float32(255)


def _strain_maps(
    animation: Animation,
    template: Array,
    K: NDArray[np.float64],
    frames: Sequence[Mapping[str, float]],
    views: Sequence[View],
) -> list[tuple[str, Array]]:
    """Return the captions and pictures of the frame of median strain and of the worst one."""
    order = np.argsort([frame["strain_p95"] for frame in frames], kind="stable").tolist()
    chosen = {order[len(order) // 2]: "of median strain", order[-1]: "the most strained"}
    camera, grid, faces = film_window(animation, K, views).camera, grid_of(template), animation.mesh.faces
    maps = []
    for i, which in chosen.items():
        vertices = animation.frames[i]
        strain = face_strain(stretches(vertices, template, faces))
        mesh = Mesh(vertices, faces, strain_colours(strain, faces, len(vertices)))
        told = f"Frame {i}, {which}: 95% of the faces below {frames[i]['strain_p95']:.2%}."
        maps.append((told, seen(mesh, camera, grid=grid, shaded=False).numpy()))
    return maps
