"""The ``splats`` pipeline's mesh: depth maps of the fitted splats, fused, tidied, and moved into the input's world."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.capture.capture import Array, Camera, View
from recon.capture.composite import counted
from recon.capture.resize import working_view
from recon.errors import ReconstructionError
from recon.events import Event, Events, Progress
from recon.export import write_mesh
from recon.mesh.decimate import decimate
from recon.mesh.fusion import fuse
from recon.mesh.mesh import Mesh
from recon.mesh.repair import repair
from recon.pipelines.photo_stages import capture_of
from recon.pipelines.splats_stages import SplatsContext, has_masks, model_of
from recon.splats.model import Splats
from recon.splats.render import Pose, render

FUSED_VIEWS = 60
"""Depth maps that are fused, at most: spread over the capture, more add little but time."""
TRUNCATION = 8
"""Voxels; the depth of splats is noisy where they show gloss and texture by lying one behind the other."""
LEAST_OPACITY = 0.5
"""Where the splats let more light through than they stop there is no surface."""


def mesh(context: SplatsContext) -> None:
    """Fuse the splats' depth into a coloured mesh; what has no surface gives a warning and no mesh."""
    if not context.config.mesh:
        return
    across = _samples_across(context.config.faces)
    views = spread(capture_of(context).capture.views, 2 * across)
    splats, total = model_of(context)[0], 4 * len(views)  # fusion's three passes follow
    maps = DepthMaps.of(
        splats,
        views,
        lambda i: context.progress(i, total),
        empty=np.inf if views[0].load().mask_is_alpha else np.nan,
        masked=has_masks(context),
        antialiased=context.config.antialiased,
    )
    cameras = maps.cameras
    bounds = bounds_of(splats, cameras)
    voxel = float((bounds[1] - bounds[0]).max()) / across
    try:
        raw = fuse(
            maps.depths,
            maps.colour,
            cameras,
            voxel=voxel,
            bounds=bounds,
            truncation=TRUNCATION * voxel,
            events=_after_rendering(context, len(cameras)),
        )
    except ReconstructionError as error:
        context.events.warn(f"No mesh: {error.message}")
        return
    tidy = repair(raw, events=context.events)
    context.events.check()
    # Along borders decimation joins edges that were apart; repairing that may add a few faces.
    tidy = repair(decimate(tidy, int(0.98 * context.config.faces)), events=context.events)
    back = np.linalg.inv(capture_of(context).transform)
    vertices = (tidy.vertices.astype(np.float64) @ back[:3, :3].T + back[:3, 3]).astype(np.float32)
    result = Mesh(vertices, tidy.faces, tidy.colours)
    for name in ("glb", "ply"):
        with context.export("mesh" if name == "glb" else "mesh_ply", f"exports/mesh.{name}") as path:
            write_mesh(result, path)
    context.record.counts |= {"vertices": len(result.vertices), "faces": len(result.faces)}


def _after_rendering(context: SplatsContext, views: int) -> Events:
    """Return events whose progress is the last three quarters of the stage's: fusion passes thrice over the views."""
    events = Events()

    def relay(event: Event) -> None:
        if isinstance(event, Progress):
            context.progress(views + event.step, 4 * views)  # raises here when somebody asked to stop

    events.listen(relay)
    return events


def _samples_across(faces: int) -> int:
    """Return how many samples to lay along the longest side so that some 3 times as many faces come out.

    A closed surface about as large as its box cuts 6 n² cells' worth of area, two triangles each, of which the object
    in it has half.
    """
    return int(np.clip(math.sqrt(3 * faces / 6), 64, 512))


def spread(views: Sequence[View], side: int) -> list[View]:
    """Return views to fuse depth from: at most ``side`` pixels large, FUSED_VIEWS at most."""
    chosen = np.unique(np.linspace(0, len(views) - 1, min(FUSED_VIEWS, len(views))).round().astype(int))
    return [working_view(views[i], side) for i in chosen]


def bounds_of(splats: Splats, cameras: list[Camera]) -> NDArray[np.float64]:
    """Return (2, 3), the box of the solid splats around what the cameras look at."""
    solid = splats.means[splats.opacities > LEAST_OPACITY]
    solid = solid if len(solid) > 100 else splats.means
    reach = float(np.median([np.linalg.norm(c.position) for c in cameras]))
    near = solid[solid.norm(dim=1) < reach]  # beyond the cameras lies the background
    middle = (near if len(near) > 100 else solid).double().cpu().numpy()
    low, high = np.quantile(middle, 0.005, axis=0), np.quantile(middle, 0.995, axis=0)
    margin = 0.08 * float((high - low).max()) + 1e-6
    return np.stack([low - margin, high + margin])


@dataclass(frozen=True)
class DepthMaps:
    """What the splats look like from each camera, held in memory since fusion reads it thrice: 7 bytes a pixel.

    Attributes:
        cameras: of the views that have one.
        depths: (H, W) float32 each; +inf where a cut-out object is not, NaN where nothing is known.
        colours: (H, W, 3) uint8 each, without the background.
    """

    cameras: list[Camera]
    depths: list[Array]
    colours: list[NDArray[np.uint8]]

    @staticmethod
    def of(
        splats: Splats,
        views: Sequence[View],
        tell: Callable[[int], None],
        *,
        empty: float,
        masked: bool,
        antialiased: bool = False,
    ) -> DepthMaps:
        """Render them.

        Args:
            splats: the model.
            views: whose cameras to render from.
            tell: called with the number of each view before its turn.
            empty: the depth where no splat stops the light: +inf says that there is nothing, NaN that nobody knows.
            masked: whether the photos' masks say what to ignore.
            antialiased: as the model was fitted.
        """
        maps = DepthMaps([], [], [])
        for i, view in enumerate(views):
            tell(i)
            if view.camera is None:
                continue
            image, alpha, depth = _seen(splats, view.camera, antialiased)
            depth[np.isinf(depth)] = empty
            if masked and (mask := counted(view.load())) is not None:
                depth[~mask.numpy()] = np.nan  # what the photos hide is nobody's guess
            maps.cameras.append(view.camera)
            maps.depths.append(depth)
            colour = image[..., :3] / alpha[..., None].clamp(min=0.05)
            maps.colours.append((colour.clamp(0, 1) * 255).round().byte().numpy())
        return maps

    def colour(self, index: int) -> Array:
        """Return the colours of one camera as fusion wants them."""
        return self.colours[index].astype(np.float32) / np.float32(255)


def depth_of(splats: Splats, camera: Camera) -> Array:
    """Return (H, W) float32, where splats stop half of the light; infinite where they do not."""
    return _seen(splats, camera, False)[2]


def _seen(splats: Splats, camera: Camera, antialiased: bool) -> tuple[Tensor, Tensor, Array]:
    """Return image (H, W, 4), opacity (H, W) and depth (H, W), all on the CPU."""
    with torch.no_grad():
        pose = Pose.of(camera, splats.means.device)
        image, alpha, meta = render(splats, pose, render_mode="RGB+ED", antialiased=antialiased)
    depth = meta["median_depths"][0, ..., 0].cpu().numpy()
    return image.cpu(), alpha.cpu(), _smoothed(depth, alpha.cpu().numpy() > LEAST_OPACITY)


def _smoothed(depth: Array, solid: NDArray[np.bool_]) -> Array:
    """Return (H, W) ``depth``, infinite where not ``solid``, with specks of a few pixels taken out and edges kept."""
    far = np.float32(1e30)  # the filter orders numbers
    result = np.where(solid, depth, far).astype(np.float32)
    for _ in range(2):
        filtered = cv2.medianBlur(result, 5)
        result = np.where(solid & (filtered < far), filtered, result)
    return np.where(solid, result, np.float32(np.inf))
