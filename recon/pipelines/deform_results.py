"""The ``deform`` pipeline from the vertices of each frame to what people take away: animation, strain, report.

The surface was found in the camera's frame, y down and z forward. Meshes are written turned about x by half a turn, y
up and z towards the viewer, as programs that open them expect; surface.npz, for programs that compute, is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recon.deform.photo_texture import textured_by
from recon.evaluate.strain import strain_summary
from recon.export.animation import write_animation, write_sequence
from recon.job_files import read_json, write_json
from recon.mesh.animation import Animation
from recon.mesh.mesh import Mesh
from recon.pipelines.deform_page import write_deform_page
from recon.pipelines.deform_splats import export_splats
from recon.pipelines.deform_stages import DeformContext, capture_of, carried_of, fitted, template_of

Y_UP = np.array([1, -1, -1], np.float32)
"""From the camera's axes to those of meshes: both right-handed."""
FIGURES = ("strain_median", "strain_p95", "strain_max", "folds", "pixels", "look")
WORST = ("strain_max", "folds")


def surface(context: DeformContext) -> None:
    """Write the animation, and measure how far its metric was kept."""
    frames, figures = fitted(context)
    animation = animation_of(context, frames)
    export_animation(context, animation, replace(animation, frames=frames * Y_UP))
    template = template_of(context)
    done = 0
    if (carried := carried_of(context)) is not None:
        export_splats(context, carried, frames, Y_UP)
        done = len(frames)
    for number, one in enumerate(figures):
        one |= strain_summary(frames[number], template.vertices, template.faces)
        context.progress(done + number + 1, done + len(figures))
    write_json(context.folder / "figures.json", figures)
    context.record.counts |= {"vertices": len(template.vertices), "faces": len(template.faces)}
    context.record.metrics |= summary(figures)


def export_animation(context: DeformContext, animation: Animation, shown: Animation) -> None:
    """Write an animation for programs, and as it is ``shown`` to people."""
    with context.export("surface", "exports/surface.glb") as path:
        write_animation(shown, path)
    context.events.check()
    with context.export("surface_npz", "exports/surface.npz") as path:
        write_animation(animation, path)
    if context.config.sequence != "none":
        with context.export("sequence", f"exports/{context.config.sequence}") as path:
            write_sequence(shown, path, f".{context.config.sequence}")


def summary(figures: list[dict[str, float]], names: Iterable[str] = FIGURES) -> dict[str, float]:
    """Return what is told of all frames, of these names: medians, but the worst of what should not be."""
    found: dict[str, float] = {}
    for name in names:
        values = [one[name] for one in figures if name in one]
        if values:
            found[name] = float(f"{np.max(values) if name in WORST else np.median(values):.5g}")
    return found


def animation_of(context: DeformContext, frames: NDArray[np.float32]) -> Animation:
    """Return the surface in each frame, in the camera's frame, with the template's texture or the first photo's."""
    capture, template = capture_of(context), template_of(context)
    mesh = Mesh(template.vertices, template.faces, template.colours, template.uvs, template.texture)
    if template.texture is None:
        mesh = replace(mesh, uvs=None)
        first = capture.views[0] if capture.views else None
        if template.colours is None and first is not None and first.camera is not None:
            mesh = textured_by(first.load(), first.camera, template.vertices, template.faces)
    return Animation(mesh, frames, capture.rate or context.config.rate)


def report(context: DeformContext) -> None:
    """Film it, and put it all on one page."""
    capture, (frames, _) = capture_of(context), fitted(context)
    figures = read_json(context.output("surface") / "figures.json") or []
    animation, template = animation_of(context, frames), template_of(context)
    write_deform_page(
        context, animation, template.vertices, capture.K, figures, capture.views, capture.tracks, carried_of(context)
    )
