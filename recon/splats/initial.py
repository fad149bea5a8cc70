"""Where the splats start: at the capture's points, in the visual hull of its masks, or in the space it looks at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.capture.capture import Array, Camera, Points
from recon.splats.model import SH_C0, Splats

INITIAL_OPACITY = 0.1


def splats_at(points: Points, sh_degree: int) -> Splats:
    """Return a round splat at each point, as wide as the root mean square distance to its 3 nearest neighbours.

    Source: Kerbl et al. 2023, §5.1; opacity 0.1.
    """
    count = len(points.xyz)
    xyz = np.asarray(points.xyz, np.float32)
    neighbours = min(4, count)
    distances = cKDTree(xyz).query(xyz, neighbours, workers=-1)[0].reshape(count, neighbours)[:, 1:]
    width = np.sqrt((distances**2).mean(1)) if neighbours > 1 else np.full(count, 0.01)
    # A few stray points far from everything would cover the view; coincident ones would vanish.
    typical = float(np.median(width)) or 1e-3
    width = width.clip(0.05 * typical, 8 * typical)
    sh = torch.zeros(count, (sh_degree + 1) ** 2, 3)
    sh[:, 0] = (torch.from_numpy(points.rgb.astype(np.float32)) - 0.5) / SH_C0
    return Splats(
        torch.from_numpy(xyz.copy()),
        torch.from_numpy(np.log(width).astype(np.float32))[:, None].repeat(1, 3),
        torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        torch.full((count,), math.log(INITIAL_OPACITY / (1 - INITIAL_OPACITY))),
        sh,
    )


def hull_points(
    cameras: Sequence[Camera],
    images: Sequence[Array],
    masks: Sequence[Array],
    count: int,
    generator: np.random.Generator,
) -> Points | None:
    """Return points in the visual hull: seen inside the mask by every camera that has them in its image.

    Two rounds: the first finds the hull's box, the second fills it. Colours are the mean of what the views show there.

    Args:
        cameras: of the masks' size.
        images: (H, W, 3) for the colours.
        masks: (H, W), above ½ inside.
        count: number of points wanted.

    Returns:
        At most ``count`` points, None where the hull is empty (masks that contradict each other).
    """
    centre, reach = _focus_box(cameras)
    low, high = centre - reach, centre + reach
    inside = np.zeros((0, 3))
    for target in (4_000, count):
        inside = np.zeros((0, 3))
        for _ in range(60):
            candidates = generator.uniform(low, high, (200_000, 3))
            inside = np.concatenate([inside, candidates[_in_hull(candidates, cameras, masks)]])
            if len(inside) >= target:
                break
        if len(inside) < 50:
            return None
        margin = 0.05 * (inside.max(0) - inside.min(0))
        low, high = inside.min(0) - margin, inside.max(0) + margin
    xyz = inside[:count]
    return Points(xyz, _mean_colours(xyz, cameras, images))


def random_points(
    cameras: Sequence[Camera], images: Sequence[Array], count: int, generator: np.random.Generator
) -> Points:
    """Return points spread over what the cameras look at: for captures with neither points nor masks."""
    centre, reach = _focus_box(cameras)
    xyz = generator.uniform(centre - reach, centre + reach, (count, 3))
    return Points(xyz, _mean_colours(xyz, cameras, images))


def _focus_box(cameras: Sequence[Camera]) -> tuple[NDArray[np.float64], float]:
    """Return centre and half side of a cube around the fitting frame's origin that the cameras' views fit in."""
    # In the fitting frame (recon.capture.normalise) the thing looked at is at the origin, one unit away.
    half_views = [0.5 * max(c.width / c.K[0, 0], c.height / c.K[1, 1]) for c in cameras]
    distances = [float(np.linalg.norm(c.position)) for c in cameras]
    return np.zeros(3), float(np.median(distances)) * min(1.0, 1.2 * float(np.median(half_views)))


def _project(
    xyz: NDArray[np.float64], camera: Camera
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return pixel columns and rows of (P, 3) points, and which of them are in the image."""
    local = xyz @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    z = np.maximum(local[:, 2], 1e-9)
    column = np.floor(camera.K[0, 0] * local[:, 0] / z + camera.K[0, 2]).astype(np.int64)
    row = np.floor(camera.K[1, 1] * local[:, 1] / z + camera.K[1, 2]).astype(np.int64)
    seen = (local[:, 2] > 0) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    return column, row, seen


def _in_hull(xyz: NDArray[np.float64], cameras: Sequence[Camera], masks: Sequence[Array]) -> NDArray[np.bool_]:
    alive = np.arange(len(xyz))
    views = np.zeros(len(xyz), np.int64)
    for camera, mask in zip(cameras, masks, strict=True):
        column, row, seen = _project(xyz[alive], camera)
        views[alive] += seen
        outside = np.zeros(len(alive), bool)
        outside[seen] = mask[row[seen], column[seen]] < 0.5
        alive = alive[~outside]
    result = np.zeros(len(xyz), bool)
    result[alive] = views[alive] >= min(3, len(cameras))
    return result


def _mean_colours(xyz: NDArray[np.float64], cameras: Sequence[Camera], images: Sequence[Array]) -> Array:
    total, views = np.zeros((len(xyz), 3)), np.zeros((len(xyz), 1))
    for camera, image in zip(cameras, images, strict=True):
        column, row, seen = _project(xyz, camera)
        total[seen] += image[row[seen], column[seen]]
        views[seen] += 1
    return np.where(views > 0, total / np.maximum(views, 1), 0.5).astype(np.float32)


def thinned(points: Points, count: int, generator: np.random.Generator) -> Points:
    """Return at most ``count`` of the points, chosen at random where there are more."""
    if len(points.xyz) <= count:
        return points
    index = np.sort(generator.choice(len(points.xyz), count, replace=False))
    return Points(points.xyz[index], points.rgb[index])
