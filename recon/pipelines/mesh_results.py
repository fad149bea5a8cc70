"""The ``mesh`` pipeline from the fitted surface to what people take away: the tidy mesh, its texture, its exports."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import load_file

from recon.capture.capture import Array
from recon.errors import Cancelled
from recon.export import write_mesh
from recon.isosurface.colours import Colours
from recon.isosurface.paint import Paint
from recon.job_checkpoint import write_tensors
from recon.mesh.atlas import texels, unwrap
from recon.mesh.decimate import decimate
from recon.mesh.mesh import Mesh
from recon.mesh.repair import repair
from recon.mesh.texture import fill
from recon.pipelines.mesh_field import MeshContext, photos_of
from recon.pipelines.mesh_fit import fitted
from recon.pipelines.photo_stages import capture_of

PAINTINGS = 2
"""How often each photo is looked at when the texture is fitted, at least;"""
LEAST_STEPS = 100
"""and how many steps there are at least."""


def mesh(context: MeshContext) -> None:
    """Take floaters away, close what they leave open, and decimate."""
    tidy = repair(fitted(context, "refine")[0], events=context.events)
    context.events.check()
    tidy = repair(decimate(tidy, int(0.98 * context.config.faces)), holes=math.inf, events=context.events)
    write_tensors(
        context.folder / "mesh.safetensors",
        {"vertices": torch.from_numpy(tidy.vertices), "faces": torch.from_numpy(tidy.faces)},
    )
    statistics = tidy.statistics()
    if not statistics.watertight:
        context.events.warn("The mesh is not watertight.")
    context.record.counts |= {"vertices": statistics.vertices, "faces": statistics.faces}
    context.record.metrics["watertight"] = float(statistics.watertight)


def texture(context: MeshContext) -> None:
    """Fit a texture to the photos, or colour the vertices, and export the mesh in the input's units."""
    tensors = load_file(context.output("mesh") / "mesh.safetensors")
    plain, colours = Mesh(tensors["vertices"].numpy(), tensors["faces"].numpy()), fitted(context, "refine")[1]
    if context.config.texture:
        done = painted(context, plain, colours)
    else:
        done = replace(plain, colours=at(colours, plain.vertices))
    kept = {"vertices": done.vertices, "faces": done.faces, "colours": done.colours}
    kept |= {"uvs": done.uvs, "texture": done.texture}
    arrays = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in kept.items() if a is not None}
    write_tensors(context.folder / "mesh.safetensors", arrays)
    back = np.linalg.inv(capture_of(context).transform)
    vertices = (done.vertices.astype(np.float64) @ back[:3, :3].T + back[:3, 3]).astype(np.float32)
    result = replace(done, vertices=vertices)
    for name, file in {"mesh": "mesh.glb", "mesh_ply": "mesh.ply"}.items():
        with context.export(name, f"exports/{file}") as path:
            write_mesh(result, path)


def finished(context: MeshContext) -> Mesh:
    """Return the mesh with its colours, in the fitting frame."""
    tensors = load_file(context.output("texture") / "mesh.safetensors")
    return Mesh(**{name: t.numpy() for name, t in tensors.items()})


def painted(context: MeshContext, mesh: Mesh, colours: Colours) -> Mesh:
    """Return the mesh with an atlas and a texture fitted to the training photos."""
    size = context.config.texture
    kept = context.folder / "atlas.safetensors"
    if not kept.exists():
        uvs = unwrap(mesh, size, context.events).uvs
        assert uvs is not None
        write_tensors(kept, {"uvs": torch.from_numpy(uvs)})
    uvs = load_file(kept)["uvs"].numpy()
    context.events.check()
    shown = texels(uvs, size, size)
    values, known = np.full((size, size, 3), 0.5, np.float32), np.zeros((size, size), bool)
    known[shown.row, shown.column] = True
    atlas = replace(mesh, uvs=uvs)
    values[shown.row, shown.column] = at(colours, shown.points(atlas).astype(np.float32))
    photos = photos_of(context, capture_of(context).train)
    steps = max(LEAST_STEPS, PAINTINGS * len(photos.levels))
    model = Paint(replace(atlas, texture=fill(values, known)), photos, steps, context.config.seed, context.device)
    checkpoint = context.load_checkpoint()
    if checkpoint is not None:
        model.load_state({n: t.to(context.device) for n, t in checkpoint[0].items()}, checkpoint[1]["step"])
    try:
        for loss in model.run():
            context.progress(model.step, steps, loss=loss)
            if context.checkpoint_due():
                context.save_checkpoint(model.state(), {"step": model.step})
    except Cancelled:
        context.save_checkpoint(model.state(), {"step": model.step})
        raise
    result = model.mesh
    assert result.texture is not None
    return replace(result, texture=fill(result.texture, known))


def at(colours: Colours, points: Array) -> Array:
    """Return the (P, 3) colours at (P, 3) points."""
    with torch.no_grad():
        parts = [colours(part) for part in torch.from_numpy(points).split(1 << 18)]
        found: Array = torch.cat(parts).clamp(0, 1).numpy()
    return found
