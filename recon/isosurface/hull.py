"""The visual hull as a field: the start of a fit to photos that show where the object is.

    s(x) = max over views i of  z_i(x) / f_i · d_i(π_i(x))

where d_i is the signed distance to the silhouette in view i, in pixels, negative inside, and π_i(x) where x appears:
the hull is where all are negative. z/f makes pixels lengths, so that s is about a distance near the surface. In place
of the largest the k-th largest is taken, k = 1 + a twentieth of the views, so that a few wrong masks carve nothing
away.

Source: Laurentini 1994, "The Visual Hull Concept for Silhouette-Based Image Understanding".
Conventions: negative inside; the fitting frame (recon.capture.normalise): the thing looked at is at the origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label
from torch import Tensor
from torch.nn.functional import grid_sample

from recon.capture.capture import Camera
from recon.errors import ReconstructionError
from recon.events import Events
from recon.isosurface.grids import Box
from recon.isosurface.targets import Photos, Target

FEWEST_VIEWS = 3
"""What fewer views see is not taken for a part of the object."""
LEAST_PART = 0.05
"""Parts of the hull with less than this share of the largest's volume do not count when its box is chosen."""
LARGEST = 0.5
"""Share of what the cameras look at that the hull may fill."""
_FIRST = 48  # samples along each side when the object's box is looked for
_FAR = 1e3


def looked_at(cameras: Sequence[Camera]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of a cube about the origin that the cameras' views fit in."""
    half_views = [0.5 * max(c.width / c.K[0, 0], c.height / c.K[1, 1]) for c in cameras]
    distance = float(np.median([np.linalg.norm(c.position) for c in cameras]))
    reach = np.full(3, distance * min(1.0, 1.2 * float(np.median(half_views))))
    return -reach, reach


def visual_hull(photos: Photos, cells: int, events: Events) -> tuple[Box, Tensor]:
    """Return a box of ``cells`` cells along its longest side around the hull, and the field at its samples.

    Raises:
        ReconstructionError: the masks share no volume (code ``"no-surface"``), or it fills all that the cameras look at
            (``"masks-too-large"``).
    """
    views = []
    for levels in photos.levels:
        events.check()
        views.append(_Silhouette.of(levels[0]))
    low, high = looked_at([view.camera for view in views])
    whole = Box.around(low, high, _FIRST)
    inside = hull_field(views, whole, events).numpy() < 0
    if not inside.any():
        raise ReconstructionError(
            "The masks share no volume: no part of space lies within all of them.",
            "Masks are white (or opaque) where the object is. Check that they are not inverted or empty, and that the "
            "camera poses fit the photos.",
            "no-surface",
        )
    if inside.mean() > LARGEST:
        raise ReconstructionError(
            "The masks leave nearly all of the space that the cameras look at to the object.",
            "Masks are black (or transparent) where the object is not. Without any masks the object is found by its "
            "depth.",
            "masks-too-large",
        )
    places, reach = np.argwhere(_large_parts(inside)), whole.cell
    low, high = (whole.low + whole.cell * places.min(0) - reach, whole.low + whole.cell * places.max(0) + reach)
    box = Box.around(low, high, cells)
    return box, hull_field(views, box, events)


def _large_parts(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the connected parts that are at least LEAST_PART of the largest.

    Where few cameras look, far from the object, their silhouettes leave specks.
    """
    part, _ = label(inside)
    size = np.bincount(part.ravel())
    size[0] = 0
    kept: NDArray[np.bool_] = (size >= LEAST_PART * size.max())[part] & inside
    return kept


@dataclass(frozen=True)
class _Silhouette:
    """One view's signed distance in pixels, (H, W) float32, negative inside, and its camera."""

    distance: Tensor
    camera: Camera

    @staticmethod
    def of(target: Target) -> _Silhouette:
        assert target.coverage is not None
        coverage = target.coverage.numpy().astype(np.float32) / 255
        solid = coverage > 0.5
        distance = np.full(solid.shape, -_FAR if solid.all() else _FAR, np.float32)
        if solid.any() and not solid.all():
            distance = (distance_transform_edt(~solid) - distance_transform_edt(solid)).astype(np.float32)
            distance -= np.sign(distance) * np.float32(0.5)  # from pixel centres to the edge between them
        return _Silhouette(torch.from_numpy(distance), target.camera)


def hull_field(views: Sequence[_Silhouette], box: Box, events: Events) -> Tensor:
    """Return the (Nx + 1, Ny + 1, Nz + 1) float32 field at a box's samples."""
    points = box.samples().view(-1, 3)
    keep = 1 + len(views) // 20
    largest = torch.full((keep, len(points)), -_FAR)
    seen = torch.zeros(len(points), dtype=torch.int32)
    for view in views:
        events.check()
        camera = view.camera
        matrix = torch.from_numpy(camera.viewmat).float()
        local = points @ matrix[:3, :3].T + matrix[:3, 3]
        x, y, z = (local @ torch.from_numpy(camera.K).float().T).unbind(dim=1)
        ahead = z.clamp(min=1e-6)
        grid = torch.stack([x / ahead * (2 / camera.width) - 1, y / ahead * (2 / camera.height) - 1], dim=1)
        there = (z > 0) & (grid.abs() <= 1).all(dim=1)
        pixels = grid_sample(view.distance[None, None], grid[None, None], "bilinear", "border", align_corners=False)
        length = torch.where(there, pixels[0, 0, 0] * ahead / float(camera.K[0, 0]), -_FAR)
        largest = torch.cat([largest, length[None]]).topk(keep, dim=0).values
        seen += there
    field = torch.where(seen >= min(FEWEST_VIEWS, len(views)), largest[-1], _FAR)
    # Samples of a view that does not see them do not count; what no view bounds is outside.
    field = torch.where(field <= -_FAR / 2, torch.as_tensor(_FAR), field)
    return field.clamp(-4 * box.cell, 4 * box.cell).view(box.shape)
