"""The ``deform`` pipeline where one surface is laid onto another, or onto several in time: load, fit, surface, report.

The source is laid onto the first target from where it lies, onto each other one from where it came to lie before; its
shape at rest stays its own. Everything is in the input's units and axes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from kernels.nearest import nearest
from recon.capture.capture import Points
from recon.capture.mesh_file import MeshObject
from recon.capture.registration import RegistrationCapture, find_registration, read_landmarks
from recon.deform.register import ITERATIONS, Registration, register
from recon.deform.surface import surface_of
from recon.errors import Cancelled, InputError
from recon.evaluate.strain import strain_summary
from recon.export import write_mesh
from recon.export.cloud import write_cloud
from recon.export.mesh import mesh_of
from recon.job_checkpoint import write_tensors
from recon.job_files import write_json
from recon.mesh.animation import Animation
from recon.mesh.mesh import Mesh
from recon.mesh.picture import picture
from recon.mesh.texture import vertex_colours
from recon.pipelines.deform_results import export_animation, summary
from recon.pipelines.deform_stages import DeformContext
from recon.pipelines.page import write_page

Surface = Mesh | Points
Array = NDArray[np.float64]

MATCHED = 0.5
"""Weight from which on a vertex counts as matched."""
_MOST = 2 * ITERATIONS
_DISTANCES = ("rms_distance", "median_distance", "rms_distance_back", "median_distance_back", "matched")
_FIGURES = (*_DISTANCES, "strain_median", "strain_p95", "strain_max", "folds")


def registers(context: DeformContext) -> bool:
    """Return whether the input is a source and targets rather than a video or tracks.

    Raises:
        InputError: as :func:`~recon.capture.registration.find_registration`, or landmarks for a video.
    """
    if "registration" not in context.memo:
        context.memo["registration"] = find_registration(
            context.input, context.config.target, context.events, context.output("load")
        )
    found = context.memo["registration"] is not None
    if not found and context.config.landmarks is not None:
        raise InputError(
            f"{context.input} is no mesh or cloud with a target, which landmarks are for.",
            "Leave --landmarks out, or give --target too.",
            "unused-landmarks",
        )
    return found


def load(context: DeformContext) -> None:
    """Read all surfaces, so that one that cannot be used is known before any is fitted."""
    capture = _capture(context)
    files = (capture.source, *capture.targets)
    for number, file in enumerate(files):
        with capture.told():
            surface_of(_read(capture, file), f"surface of {file}")
        context.progress(number + 1, len(files))
    context.record.counts["targets"] = len(capture.targets)


def template(context: DeformContext) -> None:
    """Do nothing: the source is the template."""


def fit(context: DeformContext) -> None:
    """Lay the source onto each target."""
    config, capture, source = context.config, _capture(context), _source(context)
    landmarks = None if config.landmarks is None else read_landmarks(config.landmarks)
    checkpoint = context.load_checkpoint()
    found = [] if checkpoint is None else _parted(checkpoint[0])
    count = len(capture.targets)
    try:
        for number in range(len(found), count):
            result = register(
                source,
                _read(capture, capture.targets[number]),
                landmarks=landmarks if number == 0 else None,
                rigid=config.rigid,
                start=found[-1]["vertices"].numpy() if found else None,
                isometric=config.isometric,
                warn=context.events.warn,
                progress=partial(_tell, context, number, count),
            )
            found.append(_tensors(result))
            matched = _matched(result.weight)
            context.remember(matched=matched)
            context.progress((number + 1) * _MOST, count * _MOST, matched=matched)
            if context.checkpoint_due():
                context.save_checkpoint(_stacked(found), {})
    except Cancelled:
        if found:
            context.save_checkpoint(_stacked(found), {})
        raise
    write_tensors(context.folder / "registration.safetensors", _stacked(found))


def surface(context: DeformContext) -> None:
    """Write the registered surfaces, and measure how near their targets they lie and how they were strained."""
    capture, source, found = _capture(context), _source(context), _fitted(context)
    with context.export("registration", "exports/registration.npz") as path:
        arrays: dict[str, Any] = {**found}
        np.savez(path, **arrays)
    _export(context, source, found["vertices"])
    figures: list[dict[str, float]] = []
    for number, vertices in enumerate(found["vertices"]):
        target = _read(capture, capture.targets[number])
        matched = _matched(found["weight"][number])
        figures.append({**_distances(_moved(source, vertices), target), "matched": matched})
        if isinstance(source, Mesh):
            figures[-1] |= strain_summary(vertices, source.vertices, _with_area(source))
        context.progress(number + 1, len(capture.targets))
    write_json(context.folder / "figures.json", figures)
    faces = len(source.faces) if isinstance(source, Mesh) else 0
    context.record.counts |= {"vertices": found["vertices"].shape[1], "faces": faces}
    context.record.metrics |= summary(figures, _FIGURES)


def report(context: DeformContext) -> None:
    """Put it all on one page, with the source, the registered surface and the target side by side at its top."""
    capture, source, found = _capture(context), _source(context), _fitted(context)
    middle = len(capture.targets) // 2
    shown = source, _moved(source, found["vertices"][middle]), _read(capture, capture.targets[middle])
    pictures = [picture(replace(one, colours=vertex_colours(one)), side=480) for one in shown if isinstance(one, Mesh)]
    hero = np.concatenate(pictures, axis=1) if pictures else None
    write_page(context, "deform", hero, "surface")


def _capture(context: DeformContext) -> RegistrationCapture:
    """Return what :func:`registers` found."""
    capture: RegistrationCapture = context.memo["registration"]
    return capture


def _source(context: DeformContext) -> Surface:
    """Return the source, read once."""
    if "source" not in context.memo:
        context.memo["source"] = _read(_capture(context), _capture(context).source)
    source: Surface = context.memo["source"]
    return source


def _read(capture: RegistrationCapture, file: Path) -> Surface:
    """Return the mesh or the points of a file."""
    found = capture.read(file)
    with capture.told():
        return mesh_of(found, file) if isinstance(found, MeshObject) else found


def _tell(context: DeformContext, number: int, count: int, done: int, most: int) -> None:
    if done:
        reached = max(number * _MOST + done * _MOST // most, context.memo.get("reached", 0))  # what is tried again
        context.memo["reached"] = reached
        context.progress(reached, count * _MOST)
    else:
        context.events.check()


def _tensors(result: Registration) -> dict[str, torch.Tensor]:
    arrays = {"vertices": result.vertices, "nearest": result.nearest, "weight": result.weight}
    arrays |= {"rotation": result.rigid.rotation, "translation": result.rigid.translation}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _stacked(found: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([one[name] for one in found]) for name in found[0]}


def _parted(tensors: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    return [{name: all_of[i] for name, all_of in tensors.items()} for i in range(len(tensors["vertices"]))]


def _fitted(context: DeformContext) -> dict[str, Array]:
    """Return what the stage ``fit`` left: arrays of (T, …), T the number of targets, named as :class:`Registration`."""
    tensors = load_file(context.output("fit") / "registration.safetensors")
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _moved(surface: Surface, points: Array) -> Surface:
    """Return a surface with its vertices or points elsewhere; the normals of a cloud are not known there."""
    if isinstance(surface, Mesh):
        return replace(surface, vertices=points.astype(np.float32))
    return replace(surface, xyz=points, normals=None)


def _matched(weight: Array) -> float:
    """Return the share of the (V,) source that lies where the target is."""
    return float((weight > MATCHED).mean())


def _distances(one: Surface, target: Surface) -> dict[str, float]:
    """Return how far a surface's vertices are from another, and those of that one from it, in the input's units."""
    figures: dict[str, float] = {}
    for way, distance in (("", _distance(one, target)), ("_back", _distance(target, one))):
        figures[f"rms_distance{way}"] = float(np.sqrt((distance**2).mean()))
        figures[f"median_distance{way}"] = float(np.median(distance))
    return figures


def _distance(one: Surface, other: Surface) -> Array:
    """Return (N,) distances of a surface's vertices or points to another's triangles, or points where it has none."""
    faces = torch.from_numpy(other.faces) if isinstance(other, Mesh) else None
    of, to = _points(one), other.vertices if isinstance(other, Mesh) else other.xyz
    squared, _, _ = nearest(torch.from_numpy(of), torch.from_numpy(to.astype(np.float64)), faces)
    distance: Array = squared.sqrt().numpy()
    return distance


def _points(surface: Surface) -> Array:
    """Return (N, 3) the vertices that faces have, or the points of a cloud."""
    if isinstance(surface, Points):
        return surface.xyz
    return surface.vertices[np.unique(surface.faces)].astype(np.float64)


def _with_area(mesh: Mesh) -> NDArray[np.int32]:
    """Return the (F', 3) faces of a scan that can be strained."""
    a, b, c = mesh.vertices[mesh.faces.T].astype(np.float64)
    return mesh.faces[np.cross(b - a, c - a).any(axis=1)]


def _export(context: DeformContext, source: Surface, frames: Array) -> None:
    """Write the source in its (T, V, 3) places: in one, moving through several, or a cloud in each by itself."""
    if isinstance(source, Mesh) and len(frames) > 1:
        animation = Animation(source, frames.astype(np.float32), context.config.rate)
        export_animation(context, animation, animation)
    elif isinstance(source, Mesh):
        for name, file in {"mesh": "registered.glb", "mesh_ply": "registered.ply"}.items():
            with context.export(name, f"exports/{file}") as path:
                write_mesh(replace(source, vertices=frames[0].astype(np.float32)), path)
    elif len(frames) > 1:
        with context.export("sequence", "exports/ply") as path:
            path.mkdir()
            for number, xyz in enumerate(frames):
                write_cloud(replace(source, xyz=xyz), path / f"frame_{number:04d}.ply")
    else:
        with context.export("points", "exports/registered.ply") as path:
            write_cloud(replace(source, xyz=frames[0]), path)
