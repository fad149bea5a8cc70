"""The ``deform`` pipeline from its input to the vertices of each frame: load, fit."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from recon.capture.deform_folder import DeformCapture, load_deform
from recon.capture.template import Template
from recon.deform.coarse import Coarse
from recon.deform.config import DeformConfig
from recon.deform.sequence import Sequence
from recon.deform.sheet import sheet_through
from recon.deform.template_free import first_frame
from recon.errors import Cancelled
from recon.job_checkpoint import write_tensors
from recon.job_files import read_json, write_json
from recon.mesh.mesh import Mesh
from recon.pipelines.context import Context
from recon.pipelines.deform_splats import CarriedSplats

DeformContext = Context[DeformConfig]


def load(context: DeformContext) -> None:
    """Read what the input is made of."""
    capture = capture_of(context)
    frames = len(capture.tracks.xy) if capture.tracks else len(capture.views)
    context.record.counts |= {"views": frames, "tracks": capture.tracks.xy.shape[1] if capture.tracks else 0}


def capture_of(context: DeformContext) -> DeformCapture:
    """Return the capture, read once."""
    if "loaded" not in context.memo:
        context.memo["loaded"] = load_deform(context.input, context.events, context.output("load"))
    capture: DeformCapture = context.memo["loaded"]
    return capture


def template(context: DeformContext) -> None:
    """Find the template, where there is none, by the tracks; see whether it can carry the splats, before a long fit."""
    capture, config = capture_of(context), context.config
    if capture.template is not None:
        if (carried := carried_of(context)) is not None and carried.left_out:
            context.events.warn(f"{carried.left_out:,} splats are not near the template, and are left out.")
        return
    assert capture.tracks is not None  # the one or the other is there
    tracks = capture.tracks
    points, _ = first_frame(tracks.xy, tracks.visible, capture.K, config.noise, context.events.check)
    grid = sheet_through(points)
    longest = np.linalg.svd(grid.vertices - grid.vertices.mean(0), full_matrices=False)[2][0]
    vertices = torch.from_numpy(grid.vertices * (config.size / np.ptp(grid.vertices @ longest)))
    write_tensors(
        context.folder / "template.safetensors", {"vertices": vertices, "faces": torch.from_numpy(grid.faces)}
    )
    context.events.warn(
        f"There is no template: its shape was found by the tracks, its size by the setting 'size', {config.size:g}."
    )


def template_of(context: DeformContext) -> Template:
    """Return the template in the camera's frame, given or found."""
    given = capture_of(context).template
    if given is not None:
        return given
    found = load_file(context.output("template") / "template.safetensors")
    return Template(found["vertices"].float().numpy(), found["faces"].int().numpy())


def carried_of(context: DeformContext) -> CarriedSplats | None:
    """Return the splats that the template carries, None where there are none."""
    capture = capture_of(context)
    if capture.splats is not None and "carried" not in context.memo:
        template = template_of(context)
        context.memo["carried"] = CarriedSplats(capture, Mesh(template.vertices, template.faces))
    carried: CarriedSplats | None = context.memo.get("carried")
    return carried


def fit(context: DeformContext) -> None:
    """Find the surface of each frame, from the first one on."""
    config, capture, template = context.config, capture_of(context), template_of(context)
    coarse = Coarse(template.vertices.astype(np.float64), template.faces, config.vertices)
    events = context.events
    sequence = Sequence(capture, coarse.vertices, coarse.faces, config, events.warn, events.check, context.device)
    found: list[torch.Tensor] = []
    figures: list[dict[str, float]] = []
    state: dict[str, torch.Tensor] = {}
    checkpoint = context.load_checkpoint()
    if checkpoint is not None:
        state, figures = checkpoint[0], checkpoint[1]["figures"]
        found = list(state.pop("frames"))
        sequence.load_state(state)

    def save() -> None:
        frames = torch.stack(found) if found else torch.empty(0)  # whole ones
        context.save_checkpoint({"frames": frames, **state}, {"figures": figures})

    def between() -> None:
        nonlocal state
        context.progress(0, len(sequence))
        if context.checkpoint_due():
            state = sequence.state()
            save()

    try:
        sequence.begin(between)
        for number in range(len(found), len(sequence)):
            result = sequence.frame(number, found[-1] if found else None)
            found.append(result.vertices)
            figures.append(result.figures)
            state = sequence.state()
            shown = {name: value for name, value in result.figures.items() if name in ("pixels", "look")}
            context.remember(**shown)
            context.progress(number + 1, len(sequence), **shown)
            if context.checkpoint_due():
                save()
    except Cancelled:
        state = state if found else sequence.state()
        save()
        raise
    fine = np.stack([coarse.fine(one.numpy()) for one in found]).astype(np.float32)
    write_tensors(context.folder / "frames.safetensors", {"frames": torch.from_numpy(fine)})
    write_json(context.folder / "figures.json", figures)
    context.record.counts["solved_vertices"] = len(coarse.vertices)


def fitted(context: DeformContext) -> tuple[NDArray[np.float32], list[dict[str, float]]]:
    """Return (T, V, 3) the vertices in each frame, in the camera's frame, and each frame's figures."""
    folder = context.output("fit")
    frames: NDArray[np.float32] = load_file(folder / "frames.safetensors")["frames"].numpy()
    figures: list[dict[str, float]] = read_json(folder / "figures.json") or []
    return frames, figures
