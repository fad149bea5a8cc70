"""The ``splats`` pipeline from the fitted model to what people take away: files, figures, mesh, turntable, report."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from recon.capture.capture import Camera
from recon.capture.resize import working_size, working_view
from recon.errors import ReconstructionError
from recon.evaluate import (
    HeldOutView,
    ReportData,
    psnr,
    save_picture,
    ssim,
    turntable_cameras,
    write_report,
    write_video,
)
from recon.export import write_colmap, write_mesh, write_splats, write_transforms
from recon.job_files import read_json, write_json
from recon.mesh.decimate import decimate
from recon.mesh.fusion import fuse
from recon.mesh.mesh import Mesh
from recon.mesh.repair import repair
from recon.pipelines.splats_stages import SplatsContext, capture_of, model_of, pose_report
from recon.pipelines.stages import make_result
from recon.splats.model import Splats
from recon.splats.photos import background_colour, counted, over
from recon.splats.render import Pose, render
from recon.splats.transform import transform

VOXELS = 256
"""Samples along the longest side of what is fused into a mesh."""
FUSED_SIDE, FUSED_VIEWS = 400, 120
TURNTABLE_SIDE = 640


def export(context: SplatsContext) -> None:
    """Write the splats and the cameras, in the input's units."""
    prepared = capture_of(context)
    splats = transform(model_of(context)[0], np.linalg.inv(prepared.transform))
    with context.export("splats", "exports/splats.ply") as path:
        write_splats(splats, path)
    with context.export("cameras", "exports/transforms.json") as path:
        write_transforms(prepared.world.views, path)
    with context.export("colmap", "exports/colmap") as folder:
        (folder / "sparse" / "0").mkdir(parents=True)
        write_colmap(prepared.world.views, folder / "sparse" / "0", prepared.world.points)


def _held_out(context: SplatsContext) -> Iterator[HeldOutView]:
    """Render the held-out views (the validation views where nothing is held out), one after the other."""
    prepared, (splats, _) = capture_of(context), model_of(context)
    indices = prepared.held_out or prepared.validation or prepared.train[:1]
    for view in prepared.views(indices):
        context.events.check()
        if view.camera is None:
            continue
        photo = view.load()
        background = background_colour(context.config.background, [photo])
        with torch.no_grad():
            image = render(splats, Pose.of(view.camera), background, antialiased=context.config.antialiased)[0]
        image, reference, mask = image.clamp(0, 1), over(photo, background), counted(photo)
        weights = None if mask is None else mask.float()
        yield HeldOutView(
            view.name,
            reference.numpy(),
            image.numpy(),
            None if weights is None else weights.numpy(),
            psnr(image, reference, weights),
            ssim(image, reference, weights),
        )


def evaluate(context: SplatsContext) -> None:
    """Measure the model on the photos that the fit has never seen."""
    prepared = capture_of(context)
    total = len(prepared.held_out or prepared.validation or prepared.train[:1])
    if not prepared.held_out:
        context.events.warn("Too few photos to hold any out: the figures are of photos that the fit has seen.")
    rows = []
    for i, view in enumerate(_held_out(context)):
        rows.append({"name": view.name, "psnr": view.psnr, "ssim": view.ssim})
        context.progress(i + 1, total)
    write_json(context.folder / "views.json", rows)
    for name in ("psnr", "ssim"):
        values = [float(row[name]) for row in rows if row[name] is not None and math.isfinite(float(row[name]))]
        if values:
            context.record.metrics[name] = round(float(np.mean(values)), 4)


def _depth_cameras(context: SplatsContext) -> list[Camera]:
    """Return cameras to fuse depth from: the capture's own, small, at most FUSED_VIEWS of them."""
    prepared = capture_of(context)
    views = [working_view(v, FUSED_SIDE) for v in prepared.capture.views]
    views = views[:: math.ceil(len(views) / FUSED_VIEWS)]
    return [view.camera for view in views if view.camera is not None]


def _bounds(splats: Splats, cameras: list[Camera]) -> np.ndarray:
    """Return (2, 3), the box of the solid splats around what the cameras look at."""
    solid = splats.means[splats.opacities > 0.3]
    solid = solid if len(solid) > 100 else splats.means
    reach = float(np.median([np.linalg.norm(c.position) for c in cameras]))
    near = solid[(solid.norm(dim=1) < reach)]  # beyond the cameras lies the background
    near = near if len(near) > 100 else solid
    low, high = near.quantile(0.005, 0).numpy(), near.quantile(0.995, 0).numpy()
    margin = 0.05 * float((high - low).max()) + 1e-6
    return np.stack([low - margin, high + margin]).astype(np.float64)


def mesh(context: SplatsContext) -> None:
    """Fuse the splats' depth into a coloured mesh; what has no surface gives a warning and no mesh."""
    if not context.config.mesh:
        return
    prepared, (splats, background) = capture_of(context), model_of(context)
    cameras = _depth_cameras(context)
    cut_out = bool(background.sum() > 0)
    images: dict[int, np.ndarray] = {}

    def depth(index: int) -> np.ndarray:
        context.events.check()
        pose = Pose.of(cameras[index])
        with torch.no_grad():
            image, alpha, meta = render(splats, pose, render_mode="RGB+ED", antialiased=context.config.antialiased)
        images.clear()
        images[index] = (image[..., :3] / alpha[..., None].clamp(min=0.05)).clamp(0, 1).numpy()
        median = meta["median_depths"][0, ..., 0].numpy()
        return np.where(alpha.numpy() > 0.5, median, np.inf if cut_out else np.nan).astype(np.float32)

    bounds = _bounds(splats, cameras)
    try:
        raw = fuse(
            depth,
            lambda index: images[index],
            cameras,
            voxel=float((bounds[1] - bounds[0]).max()) / VOXELS,
            bounds=bounds,
            events=context.events,
        )
    except ReconstructionError as error:
        context.events.warn(f"No mesh: {error.message}")
        return
    tidy = decimate(repair(raw), context.config.faces)
    back = np.linalg.inv(prepared.transform)
    vertices = (tidy.vertices.astype(np.float64) @ back[:3, :3].T + back[:3, 3]).astype(np.float32)
    result = Mesh(vertices, tidy.faces, tidy.colours)
    for name in ("glb", "ply"):
        with context.export("mesh" if name == "glb" else "mesh_ply", f"exports/mesh.{name}") as path:
            write_mesh(result, path)
    context.record.counts |= {"vertices": len(result.vertices), "faces": len(result.faces)}


def turntable(context: SplatsContext) -> None:
    """Film a flight around the scene, along a path that stays where there were cameras."""
    count = context.config.turntable
    if count == 0:
        return
    prepared, (splats, background) = capture_of(context), model_of(context)
    width, height = working_size(prepared.capture.views[0], TURNTABLE_SIDE)
    width, height = width // 2 * 2, height // 2 * 2
    own = [view.camera for view in prepared.capture.views if view.camera is not None]

    def frames() -> Iterator[np.ndarray]:
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
    rows = read_json(context.output("evaluate") / "views.json")
    views = list(_held_out(context)) if rows else []
    if views:
        with context.preview("previews/hero.jpg") as path:
            save_picture(path, max(views, key=lambda v: v.psnr or 0).render)
    file = context.job.folder / "exports" / "splats.ply"
    with context.export("report", "report.html") as path:
        write_report(
            path,
            ReportData(
                title=context.input.stem or "Reconstruction",
                result=result,
                source=context.input.name,
                views=views,
                hero=views[0].render if views else None,
                opacities=splats.opacities.numpy(),
                scales=splats.scales.numpy(),
                splat_bytes=file.stat().st_size if file.exists() else None,
                poses=pose_report(context),
                settings=context.config.model_dump(mode="json"),
                versions=_versions(),
            ),
        )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("egregium", "torch", "numpy", "pycolmap"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
