"""A texture from photos: each texel takes its colour from the photos that see its place on the surface.

    weight  = (n · v (f / z)²)² · border        n · v (f / z)²: pixels that a unit of the surface covers in the photo
    texel   = Σ weight · gain · low / Σ weight  +  gain · high of the photo of the largest weight

Photos are split into a low band, a blur, and the high band that it leaves. What differs slowly between photos, shading
and exposure, is blended over all that see the place and leaves no seams; detail comes from one photo and is not
smeared where photos are off by a pixel. Border falls to zero towards the image's border, the mask's, and the edges of
depth behind which something is hidden: a texel counts as seen only where the mesh's own depth map agrees.

Sources: Burt & Adelson 1983, "A Multiresolution Spline With Application to Image Mosaics"; Baumberg 2002, "Blending
Images for Texturing 3D Models", §4 (two bands, weights by angle and border); Brown & Lowe 2007, "Automatic Panoramic
Image Stitching using Invariant Features", §6 (gains).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from torch.nn.functional import grid_sample

from recon.capture.capture import Array, Camera
from recon.errors import InputError, ReconstructionError
from recon.events import Events
from recon.mesh.atlas import texels
from recon.mesh.mesh import Mesh
from recon.mesh.texture import fill

BLUR = 6.0
"""Standard deviation of the low band's blur, in pixels."""
FEATHER = 12.0
"""Pixels from a border within which a photo's weight grows from zero."""
LEAST_FACING = 0.15
"""Cosine below which a surface is seen too much from the side."""
_PROBES = 20_000  # texels by which the photos' exposures are compared
_ROUNDS = 30


@dataclass(frozen=True)
class MeshView:
    """One photo and what it sees of the mesh.

    Attributes:
        rgb: (H, W, 3) float32 in [0, 1].
        camera: of this size.
        depth: (H, W) float32, the mesh's depth along the camera's axis, +inf where it is not.
        mask: (H, W), above ½ what counts; None for all.
    """

    rgb: Array
    camera: Camera
    depth: Array
    mask: Array | None = None


def bake(
    mesh: Mesh, photos: Sequence[MeshView], size: int, *, even_exposures: bool = True, events: Events | None = None
) -> tuple[Mesh, float]:
    """Return the mesh with a texture of ``size`` × ``size`` texels made of photos, and the share of it that they saw.

    What none of them saw gets the colours of the nearest places that were seen. Progress is that of ``"texture"``.

    Args:
        mesh: with an atlas (:func:`~recon.mesh.atlas.unwrap`) and no two faces in the same place there.
        photos: looked at twice, one after the other, so that a sequence may load them when asked.
        size: of the texture.
        even_exposures: find a gain for each photo and channel, of geometric mean 1, that makes them agree best.
        events: progress, and the wish to stop.

    Raises:
        InputError: the mesh has no atlas (code ``"no-atlas"``), or an image does not fit its camera (``"bad-photo"``).
        ReconstructionError: no photo sees any of the mesh (code ``"nothing-seen"``).
    """
    events = events or Events()
    mesh.check()
    if mesh.uvs is None:
        raise InputError("The mesh has no atlas to bake a texture for.", "Unwrap it first.", "no-atlas")
    shown = texels(mesh.uvs, size, size)
    points, normals = shown.points(mesh), np.einsum("nk,nkx->nx", shown.weights, _vertex_normals(mesh)[shown.face])
    normals /= np.maximum(np.linalg.norm(normals, axis=1), 1e-30)[:, None]
    surface = _Surface(torch.from_numpy(points).float(), torch.from_numpy(normals).float())
    count = len(photos)
    gains = torch.ones(count, 3)
    if even_exposures:
        chosen = np.random.default_rng(0).permutation(len(points))[:_PROBES]
        probes = _Surface(surface.points[chosen], surface.normals[chosen])
        seen = []
        for i in range(count):
            events.progress("texture", i, 2 * count)
            seen.append(_look(photos[i], probes))
        gains = _gains([low for low, _, _ in seen], [weight for _, _, weight in seen])
    total, weights = torch.zeros(len(points), 3), torch.zeros(len(points))
    detail, best = torch.zeros(len(points), 3), torch.zeros(len(points))
    for i in range(count):
        events.progress("texture", count + i, 2 * count)
        low, high, weight = _look(photos[i], surface)
        total += weight[:, None] * gains[i] * low
        weights += weight
        better = weight > best
        detail[better] = gains[i] * high[better]
        best[better] = weight[better]
    known = (weights > 0).numpy()
    if not known.any():
        hint = "Check that the mesh, its depth maps and the cameras are in the same frame."
        raise ReconstructionError("No photo sees any of the mesh.", hint, "nothing-seen")
    colours = np.zeros((len(points), 3), np.float32)
    colours[known] = (total[known] / weights[known, None] + detail[known]).clamp(0, 1).numpy()
    if not known.all():
        colours[~known] = _from_neighbours(points[known], colours[known], points[~known])
    texture, covered = np.full((size, size, 3), 0.5, np.float32), np.zeros((size, size), bool)
    texture[shown.row, shown.column], covered[shown.row, shown.column] = colours, True
    events.progress("texture", 2 * count, 2 * count)
    return replace(mesh, colours=None, texture=fill(texture, covered)), float(known.mean())


@dataclass(frozen=True)
class _Surface:
    """Places on the mesh: ``points`` and unit ``normals``, (N, 3) float32 each."""

    points: torch.Tensor
    normals: torch.Tensor


def _look(photo: MeshView, surface: _Surface) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what a photo shows at each place, (N, 3) low and (N, 3) high band, and its (N,) weight, 0 where hidden."""
    camera = photo.camera
    height, width = camera.height, camera.width
    for name, image in (("image", photo.rgb), ("depth map", photo.depth), ("mask", photo.mask)):
        if image is not None and image.shape[:2] != (height, width):
            message = f"A photo's {name} of shape {image.shape} does not fit its camera of {width} × {height} pixels."
            raise InputError(message, "Give images and depth maps of the camera's size.", "bad-photo")
    view, K = torch.from_numpy(camera.viewmat).float(), torch.from_numpy(camera.K).float()
    local = surface.points @ view[:3, :3].T + view[:3, 3]
    z = local[:, 2]
    u, v = ((local @ K.T)[:, :2] / z.clamp(min=1e-30)[:, None]).unbind(dim=1)
    facing = -(local * (surface.normals @ view[:3, :3].T)).sum(dim=1) / local.norm(dim=1).clamp(min=1e-30)
    here = ((z > 0) & (facing > LEAST_FACING) & (u > 0) & (u < width) & (v > 0) & (v < height)).nonzero()[:, 0]
    low, high = torch.zeros_like(local), torch.zeros_like(local)
    weight = torch.zeros(len(local))
    if len(here) == 0:
        return low, high, weight
    focal = float(K[0, 0] + K[1, 1]) / 2
    known = np.isfinite(photo.depth) & (photo.depth > 0)
    inverse = np.where(known, 1 / np.where(known, photo.depth, 1), 0).astype(np.float32)
    solid = known if photo.mask is None else known & (photo.mask > 0.5)
    rgb = np.asarray(photo.rgb, np.float32)
    grid = torch.stack([u[here] * (2 / width) - 1, v[here] * (2 / height) - 1], dim=1)
    planes = np.concatenate([_blurred(rgb, solid), rgb, _border(inverse, solid, focal)[..., None]], axis=2)
    found = _sampled(planes, grid)
    # Inverse depth is linear across the image of a plane. Where one of the four pixels is empty it is too small.
    depth = 1 / _sampled(inverse[..., None], grid)[:, 0].clamp(min=1e-30)
    # One pixel's worth of the surface, foreshortened: what is farther in front hides it.
    tolerance = z[here] / (focal * facing[here])
    agrees = (depth - z[here]).abs() < tolerance
    low[here], high[here] = found[:, :3], found[:, 3:6] - found[:, :3]
    density = facing[here] * (focal / z[here]) ** 2
    weight[here] = torch.where(agrees, density.square() * found[:, 6], 0)
    return low, high, weight


def _sampled(image: NDArray[np.float32], grid: torch.Tensor) -> torch.Tensor:
    """Return the (N, C) values of an (H, W, C) image at (N, 2) positions, from −1 to 1 across it."""
    planes = torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1)[None]
    return grid_sample(planes, grid[None, None], "bilinear", "border", align_corners=False)[0, :, 0].T


def _blurred(rgb: NDArray[np.float32], solid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the low band: a blur over what is solid alone, so that the background does not shine in."""
    share = ndimage.gaussian_filter(solid.astype(np.float32), BLUR)
    blurred = ndimage.gaussian_filter(rgb * solid[..., None], (BLUR, BLUR, 0))
    return np.where(share[..., None] > 1e-6, blurred / np.maximum(share, 1e-6)[..., None], rgb)


def _border(inverse: NDArray[np.float32], solid: NDArray[np.bool_], focal: float) -> NDArray[np.float32]:
    """Return (H, W) in [0, 1], how far from the nearest border each pixel is: from 0 there to 1 at FEATHER pixels.

    Inverse depth is linear across the image of a plane, and its second difference nothing; across an edge of depth it
    is not.
    """
    depth = np.where(solid, 1 / np.maximum(inverse, 1e-30), 1)
    bend = np.zeros_like(inverse)
    for axis in range(2):
        np.maximum(bend, np.abs(ndimage.correlate1d(inverse, [1, -2, 1], axis, mode="nearest")), out=bend)
    # A change of depth of several pixels' size within one pixel: steeper than any surface that counts as facing.
    edge = bend * depth**2 > 8 * depth / focal
    safe = np.pad(solid & ~edge, 1)
    distance = ndimage.distance_transform_edt(safe)[1:-1, 1:-1]
    share = np.clip((distance - 1) / FEATHER, 0, 1)
    return (share**2 * (3 - 2 * share) + 1e-3 * (distance > 1)).astype(np.float32)


def _gains(colours: list[torch.Tensor], weights: list[torch.Tensor]) -> torch.Tensor:
    """Return (photos, 3) gains that bring (N, 3) colours of the same places together, of geometric mean 1.

    Minimises Σ w (g c − m)² over the gains g and the places' means m in turn.
    """
    c, w = torch.stack(colours), torch.stack(weights)[..., None]
    w = w / w.sum(dim=0, keepdim=True).clamp(min=1e-30)  # each place counts the same
    seen = (w > 0).sum(dim=0) > 1  # a place that one photo sees alone says nothing
    w = w * seen
    gains = torch.ones(len(c), 3)
    for _ in range(_ROUNDS):
        mean = (w * gains[:, None] * c).sum(dim=0)
        power = (w * c * c).sum(dim=1)
        gains = torch.where(power > 1e-6, (w * c * mean).sum(dim=1) / power.clamp(min=1e-6), gains)
        gains = gains.clamp(0.2, 5)
        gains = gains / gains.log().mean(dim=0).exp()
    return gains


def _from_neighbours(
    points: NDArray[np.float64], colours: NDArray[np.float32], where: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return colours for places (M, 3): the mean of the 8 nearest points (N, 3), the nearer the heavier."""
    distance, index = cKDTree(points).query(where, min(8, len(points)))
    distance, index = distance.reshape(len(where), -1), index.reshape(len(where), -1)
    weight = 1 / np.maximum(distance, 1e-30)
    return np.einsum("nk,nkc->nc", weight / weight.sum(axis=1, keepdims=True), colours[index]).astype(np.float32)


def _vertex_normals(mesh: Mesh) -> NDArray[np.float64]:
    """Return (F, 3, 3) the normal at each corner: that of its vertex, the faces' weighted by area."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    normals = np.cross(b - a, c - a)
    total = np.stack(
        [np.bincount(mesh.faces.ravel(), np.repeat(normals[:, i], 3), len(mesh.vertices)) for i in range(3)], axis=1
    )
    return (total / np.maximum(np.linalg.norm(total, axis=1), 1e-300)[:, None])[mesh.faces]
