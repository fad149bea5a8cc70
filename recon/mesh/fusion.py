"""From depth maps to a mesh: fuse them in a truncated signed distance field, extract its surface, colour it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Array, Camera
from recon.errors import InputError, ReconstructionError
from recon.events import Events
from recon.mesh.colour import Colouring
from recon.mesh.depth import DepthMap, known_depth
from recon.mesh.extract import extract
from recon.mesh.mesh import Mesh
from recon.mesh.volume import Marks

Images = Sequence[Array] | Callable[[int], Array]
"""One image a camera: a list, or a function of the camera's number that makes it when it is wanted."""


def fuse(
    depths: Images,
    colours: Images | None,
    cameras: Sequence[Camera],
    *,
    voxel: float,
    bounds: NDArray[np.float64],
    truncation: float | None = None,
    events: Events | None = None,
) -> Mesh:
    """Fuse depth maps into a mesh.

    Three passes over the views: mark the blocks near surfaces, fuse, colour. Where ``depths`` is a function it is
    called three times for each camera, ``colours`` once, right after ``depths`` of the same camera; memory then holds
    one view at a time. Progress is that of the stage ``"mesh"``.

    Args:
        depths: (H, W) each, distance along the camera's axis in world units. +inf says that there is nothing along the
            pixel's ray (a cut-out object's background): what was fused there is carved away. NaN, 0 or less says that
            nothing is known; that is how to mask.
        colours: (H', W', 3) float32 in [0, 1] each, of any resolution; None for a mesh without colours.
        cameras: the cameras of the depth maps.
        voxel: distance between samples, in world units: the finest detail.
        bounds: (2, 3) lower and upper corner of what is reconstructed, in world units.
        truncation: how far from a surface distances are fused, in world units; 4 voxels by default. Should exceed the
            depth's noise; walls thinner than it are weakened.
        events: progress, and the wish to stop.

    Returns:
        A mesh wound outward, as it comes: with floaters, and open where nothing was seen
        (:func:`~recon.mesh.repair.repair`). Colours of parts that no view shows are those of the nearest seen vertex.

    Raises:
        InputError: voxel, bounds or depth maps that make no sense, or more than 4 GiB of samples.
        ReconstructionError: there is no surface (code ``"no-surface"``).
    """
    events = events or Events()
    bounds = np.asarray(bounds, np.float64)
    truncation = 4 * voxel if truncation is None else truncation
    if not (0 < voxel < np.inf and 2 * voxel <= truncation < np.inf):
        hint = "Both are positive, in world units, and the truncation is at least two voxels."
        raise InputError(f"Fusion with voxel {voxel} and truncation {truncation} is not possible.", hint, "bad-voxel")
    if bounds.shape != (2, 3) or not np.isfinite(bounds).all() or not (bounds[0] < bounds[1]).all():
        hint = "Give the lower and the upper corner of a box."
        raise InputError(f"Fusion within {bounds.tolist()} is not possible.", hint, "bad-bounds")

    passes = 2 if colours is None else 3
    total = passes * len(cameras)

    def depth_maps(number: int) -> Iterator[tuple[Array, Camera]]:
        for i, camera in enumerate(cameras):
            events.progress("mesh", number * len(cameras) + i, total)
            yield _image(depths, i), camera

    marks = Marks(bounds, voxel, truncation)
    for depth, camera in depth_maps(0):
        marks.add(known_depth(depth, camera), camera)
    volume = marks.volume()
    for depth, camera in depth_maps(1):
        volume.integrate(DepthMap.make(depth, camera, truncation / 2), camera, events)
    mesh = extract(volume, events)
    if len(mesh.faces) == 0:
        raise ReconstructionError(
            "The depth maps show no surface within the bounds.",
            "Check that the bounds hold the object and that its masks are not empty.",
            "no-surface",
        )
    if colours is not None:
        colouring = Colouring(mesh)
        for i, (depth, camera) in enumerate(depth_maps(2)):
            colouring.add(_image(colours, i), DepthMap.make(depth, camera, truncation / 2), camera)
        mesh = colouring.mesh()
    events.progress("mesh", total, total)
    return mesh


def _image(images: Images, i: int) -> Array:
    return images(i) if callable(images) else images[i]
