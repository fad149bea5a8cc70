"""The stages of the ``points`` pipeline: load, prepare, fit, mesh, report."""

from __future__ import annotations

import time
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from kernels.nearest import nearest
from recon.capture.capture import Points
from recon.capture.load import load as load_capture
from recon.errors import Cancelled, InputError, ReconstructionError
from recon.export import read_mesh, write_mesh
from recon.isosurface.cloud_cleaning import Cloud, clean
from recon.isosurface.cloud_preparation import Prepared
from recon.isosurface.cloud_preparation import prepare as orient_and_smooth
from recon.isosurface.points_config import PointsConfig
from recon.isosurface.points_fit import PointsFit
from recon.isosurface.points_start import start
from recon.isosurface.points_trim import nearest_colours, supported, trimmed
from recon.job_checkpoint import write_tensors
from recon.mesh.mesh import Mesh
from recon.mesh.picture import picture
from recon.pipelines.context import Context
from recon.pipelines.page import write_page

PointsContext = Context[PointsConfig]


def load(context: PointsContext) -> None:
    """Read the cloud."""
    points = _loaded(context)
    context.record.counts["points"] = len(points.xyz)


def _loaded(context: PointsContext) -> Points:
    if "points" not in context.memo:
        capture = load_capture(context.input, context.events, context.output("load"))
        if capture.kind not in ("cloud", "surface", "rgbd") or capture.points is None:
            raise InputError(
                f"{context.input} holds {capture.kind}, not a point cloud.",
                "Photos and videos become a mesh by --pipeline mesh; clouds are .ply .xyz .pts .txt .pcd .npz.",
                "no-cloud",
            )
        context.memo["points"] = capture.points
    points: Points = context.memo["points"]
    return points


def prepare(context: PointsContext) -> None:
    """Leave clean, oriented, smoothed points."""
    config, points, events = context.config, _loaded(context), context.events
    context.progress(0, 2)
    normals = None if points.normals is None else points.normals.astype(np.float64)
    cloud = clean(
        Cloud(points.xyz, points.rgb if points.coloured else None, normals),
        config.points,
        config.outliers,
        events.warn,
        events.check,
    )
    context.progress(1, 2)
    generator = np.random.default_rng(config.seed)
    made = orient_and_smooth(cloud, config.normals, config.denoise, generator, events.warn, events.check)
    tensors = {f.name: torch.as_tensor(getattr(made, f.name), dtype=torch.float64) for f in fields(Prepared)}
    if cloud.rgb is not None:
        tensors["rgb"] = torch.from_numpy(cloud.rgb)
    write_tensors(context.folder / "points.safetensors", tensors)
    context.record.counts["points_fitted"] = len(cloud)
    context.record.metrics["noise"] = _figure(made.noise / made.scale)
    context.record.metrics["spacing"] = _figure(made.spacing / made.scale)
    context.progress(2, 2)


def prepared_of(context: PointsContext) -> tuple[Prepared, NDArray[np.float32] | None]:
    """Return what the stage ``prepare`` left, and the points' colours."""
    tensors = load_file(context.output("prepare") / "points.safetensors")
    xyz, normals, measured, weight, centre = (
        tensors[name].numpy() for name in ("xyz", "normals", "measured", "weight", "centre")
    )
    spacing, noise, scale = (float(tensors[name]) for name in ("spacing", "noise", "scale"))
    points = Prepared(xyz, normals, measured, weight, spacing, noise, centre, scale)
    return points, tensors["rgb"].numpy() if "rgb" in tensors else None


def fit(context: PointsContext) -> None:
    """Fit the surface."""
    config, (points, _) = context.config, prepared_of(context)
    check = context.events.check
    begin = start(points.xyz, points.normals, points.weight, points.spacing, config.resolution, check, context.device)
    if begin is None:
        raise ReconstructionError(
            "The points enclose nothing: no surface could be begun.",
            "Give normals, more points, or --normals estimated if the given ones are wrong.",
            "no-surface",
        )
    xyz, normals = (torch.from_numpy(a.astype(np.float32)).to(context.device) for a in (points.xyz, points.normals))
    model = PointsFit(begin, xyz, normals, points.spacing, points.noise, config.steps, config.seed, check)
    checkpoint = context.load_checkpoint()
    if checkpoint is not None:
        model.load_state({n: t.to(context.device) for n, t in checkpoint[0].items()}, checkpoint[1]["step"])
    try:
        _follow(context, model, points.scale)
        vertices, faces = model.mesh()
    except Cancelled:
        context.save_checkpoint(model.state(), {"step": model.step})  # whole steps are taken or none
        raise
    write_tensors(context.folder / "surface.safetensors", {"vertices": vertices, "faces": faces})
    assert model.cubes.cells is not None  # cells are listed
    context.record.counts["cells"] = len(model.cubes.cells)
    context.record.metrics["cell"] = _figure(begin.grid.cell / points.scale)


def _follow(context: PointsContext, model: PointsFit, scale: float) -> None:
    """Take the steps that are left; tell how far they are, and keep checkpoints."""
    config, shown = context.config, 0.0
    every = max(1, config.steps // 10)
    for progress in model.run():
        context.events.check()
        distance = _figure(progress.distance / scale)
        if progress.step % every == 0 or progress.step == config.steps:
            context.remember(distance=distance, loss=_figure(progress.loss))
        if time.monotonic() - shown > 0.2 or progress.step == config.steps:
            context.progress(progress.step, config.steps, distance=distance, loss=progress.loss)
            shown = time.monotonic()
        if context.checkpoint_due():
            context.save_checkpoint(model.state(), {"step": model.step})


def mesh(context: PointsContext) -> None:
    """Write the mesh in the input's units, coloured, and measure it."""
    points, rgb = prepared_of(context)
    tensors = load_file(context.output("fit") / "surface.safetensors")
    vertices, faces = supported(tensors["vertices"], tensors["faces"], torch.from_numpy(points.xyz).float())
    context.events.check()
    if context.config.open:
        cell = context.records["fit"].metrics["cell"] * points.scale
        vertices, faces = trimmed(vertices, faces, points.xyz, max(points.spacing, cell))
    squared, _, _ = nearest(torch.from_numpy(points.measured), vertices.double(), faces.int())
    distance = squared.sqrt().numpy() / points.scale
    colours = None if rgb is None else nearest_colours(vertices.numpy(), points.xyz, rgb)
    world = points.centre + vertices.double().numpy() / points.scale
    if np.abs(world).max() > 1e4 * (2 / points.scale):
        context.events.warn(
            "The cloud lies far from its origin: files of 32-bit numbers hold the mesh to "
            f"{np.abs(world).max() * 2.0**-24:.2g} units only. Move the cloud to the origin if that is too coarse."
        )
    result = Mesh(world.astype(np.float32), faces.int().numpy(), colours)
    for name in ("glb", "ply"):
        with context.export("mesh" if name == "glb" else "mesh_ply", f"exports/mesh.{name}") as path:
            write_mesh(result, path)
    found = result.statistics()
    if not found.watertight and not context.config.open:
        context.events.warn(f"The mesh is not watertight: {found.boundary_edges} edges are open.")
    if found.watertight and found.volume < 0:
        context.events.warn(
            "The surface is inside out: the normals point inward, as those of a room seen from inside do. "
            "Use --open for a room, or --normals estimated."
        )
    context.record.counts |= {"vertices": found.vertices, "faces": found.faces, "components": found.components}
    context.record.metrics |= {
        "rms_distance": _figure(float(np.sqrt((distance**2).mean()))),
        "median_distance": _figure(float(np.median(distance))),
        "watertight": float(found.watertight),
        "area": _figure(found.area),
    } | ({"volume": _figure(found.volume)} if found.watertight else {})


def report(context: PointsContext) -> None:
    """Put it all on one page."""
    write_page(context, "points", picture(read_mesh(context.job.folder / "exports" / "mesh.ply")), "mesh")


def _figure(value: float) -> float:
    """Return a length, area or volume of unknown unit with five digits."""
    return float(f"{value:.5g}")
