"""Make the README's picture of a finished job: a held-out photo, its render, the depth and the mesh, side by side.

    .venv/bin/python docs/make_images.py demo docs/images/still_life.jpg

The photo is the held-out one of median PSNR, neither the luckiest nor the worst, unless ``--view`` names another. The
mesh is drawn as points scattered evenly over it, the nearest in each pixel: no renderer is needed for one picture.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from recon.capture.capture import Array, Camera
from recon.capture.composite import over
from recon.errors import InputError, ReconError
from recon.evaluate.previews import colorize, to_bytes
from recon.events import Events
from recon.export import read_mesh
from recon.job import Job
from recon.job_files import atomic, read_json
from recon.mesh.mesh import Mesh
from recon.pipelines import Context
from recon.pipelines.photo_stages import capture_of
from recon.pipelines.splats_stages import SplatsContext, model_of
from recon.splats.config import SplatsConfig
from recon.splats.render import Pose, render

PANEL = 400  # pixels, height of each picture
GAP = 6
LARGEST = 300_000  # bytes
POINTS_PER_PIXEL = 12
PAPER = 1.0
"""Brightness of what is empty in the drawn panels."""


def median_view(context: SplatsContext) -> str:
    """Return the name of the held-out photo whose PSNR is the median."""
    rows = [row for row in read_json(context.output("evaluate") / "views.json") or [] if row["psnr"] is not None]
    if not rows:
        raise InputError(f"{context.job.folder} has no held-out photo.", "Name one with --view.", "no-view")
    return str(sorted(rows, key=lambda row: row["psnr"])[len(rows) // 2]["name"])


def draw_depth(depth: Array, alpha: Array) -> Array:
    """Return (H, W, 3) colours of the inverse depth, bright where near; paper where nothing is."""
    solid = alpha > 0.5
    inverse = 1 / np.maximum(depth, 1e-6)
    far, near = np.quantile(inverse[solid], (0.02, 0.99)) if solid.any() else (0.0, 1.0)
    picture = colorize(((inverse - far) / max(near - far, 1e-9)).astype(np.float32), limit=1.0)
    return np.where(solid[..., None], picture, np.float32(PAPER))


def draw_mesh(mesh: Mesh, camera: Camera) -> Array:
    """Return (H, W, 3): the mesh in its own colours, lit from the camera, drawn at twice the size and averaged."""
    camera = camera.resized(2 * camera.width, 2 * camera.height)
    width, height = camera.width, camera.height
    triangles = mesh.vertices[mesh.faces].astype(np.float64) @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    towards = (normals * triangles.mean(1)).sum(1) < 0  # counter-clockwise seen from the camera
    seen = np.flatnonzero(towards & (triangles[:, :, 2] > 1e-6).all(1) & (areas > 0))
    if len(seen) == 0:
        return np.full((height // 2, width // 2, 3), PAPER, np.float32)
    generator = np.random.default_rng(0)
    # As many points as pixels that a triangle covers need: in the image areas shrink with the square of the depth.
    covered = areas[seen] / triangles[seen, :, 2].mean(1) ** 2 * camera.K[0, 0] * camera.K[1, 1]
    share = np.minimum(covered, covered.mean() * 1000) * POINTS_PER_PIXEL
    face = np.repeat(seen, np.maximum(1, np.ceil(share)).astype(np.int64))
    u, v = generator.random((2, len(face)))
    folded = u + v > 1
    u, v = np.where(folded, 1 - u, u), np.where(folded, 1 - v, v)
    weights = np.stack([1 - u - v, u, v], axis=1)
    points = (weights[:, :, None] * triangles[face]).sum(1)
    pixel = points[:, :2] / points[:, 2:] * camera.K[[0, 1], [0, 1]] + camera.K[:2, 2]
    inside = ((pixel >= 0) & (pixel < (width, height))).all(1)
    face, weights, points, pixel = face[inside], weights[inside], points[inside], pixel[inside].astype(np.int64)
    place = pixel[:, 1] * width + pixel[:, 0]
    order = np.lexsort((points[:, 2], place))
    place, first = np.unique(place[order], return_index=True)
    chosen = order[first]
    normal = normals[face[chosen]] / areas[face[chosen], None]
    ray = points[chosen] / np.linalg.norm(points[chosen], axis=1, keepdims=True)
    light = 0.55 + 0.45 * np.abs((normal * ray).sum(1))
    tint: NDArray[np.floating] = np.full((len(chosen), 3), 0.75)
    if mesh.colours is not None:
        tint = (weights[chosen][:, :, None] * mesh.colours[mesh.faces[face[chosen]]]).sum(1)
    picture = np.full((height * width, 3), PAPER, np.float32)
    picture[place] = tint * light[:, None]
    return picture.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))


def panels(context: SplatsContext, name: str) -> list[Array]:
    """Return photo, render, depth and (where the job made one) mesh, seen by the camera of the photo ``name``."""
    prepared, (splats, background) = capture_of(context), model_of(context)
    view = next((view for view in prepared.capture.views if view.name == name), None)
    if view is None or view.camera is None:
        raise InputError(f"No photo named {name} has a camera.", "See stages/evaluate/views.json for names.", "no-view")
    with torch.no_grad():
        image, alpha, _ = render(
            splats,
            Pose.of(view.camera),
            background,
            render_mode="RGB+ED",
            antialiased=context.config.antialiased,
        )
    photo = over(view.load(), background).numpy()
    result = [photo, image[..., :3].clamp(0, 1).numpy(), draw_depth(image[..., 3].numpy(), alpha.numpy())]
    file = context.job.folder / "exports" / "mesh.ply"
    if file.exists():
        mesh = read_mesh(file)
        to_fit = prepared.transform
        vertices = (mesh.vertices @ to_fit[:3, :3].T + to_fit[:3, 3]).astype(np.float32)
        result.append(draw_mesh(Mesh(vertices, mesh.faces, mesh.colours), view.camera))
    return result


def join(pictures: list[Array]) -> Image.Image:
    """Return the pictures in a row, each ``PANEL`` high."""
    images = [Image.fromarray(to_bytes(picture)) for picture in pictures]
    images = [i.resize((round(i.width * PANEL / i.height), PANEL), Image.Resampling.LANCZOS) for i in images]
    whole = Image.new("RGB", (sum(i.width + GAP for i in images) - GAP, PANEL), "white")
    left = 0
    for image in images:
        whole.paste(image, (left, 0))
        left += image.width + GAP
    return whole


def save(image: Image.Image, path: Path) -> None:
    """Write a JPEG of the best quality that stays within ``LARGEST`` bytes."""
    for quality in range(92, 20, -4):
        data = io.BytesIO()
        image.save(data, "JPEG", quality=quality, optimize=True, progressive=True)
        if data.tell() <= LARGEST:
            break
    with atomic(path) as part:
        part.write_bytes(data.getvalue())


def main() -> int:
    """Read the arguments, write the picture, return the exit code."""
    parser = argparse.ArgumentParser(description="Make the README's picture of a finished job.")
    parser.add_argument("job", type=Path, help="a finished job of the pipeline splats")
    parser.add_argument("out", type=Path, help="the JPEG to write")
    parser.add_argument("--view", help="name of the photo; the held-out one of median PSNR by default")
    arguments = parser.parse_args()
    try:
        job = Job.open(arguments.job)
        config = SplatsConfig(**job.settings)
        context = Context(job, config, job.input, "cpu", Events(), "images", "", {}, 0.0)
        save(join(panels(context, arguments.view or median_view(context))), arguments.out)
    except ReconError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
