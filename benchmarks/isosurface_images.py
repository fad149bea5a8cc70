"""A surface fitted to masks and depth maps: the experiment that benchmarks/isosurface_quality.py measures.

    loss = mean |coverage - mask|
           + mean slope |depth - true depth| / cell       depth relative to the grid's middle, 0 beside the surface
           + the representation's own regularisers

over the pixels of a few views at a time. Rendered coverage and depth are antialiased as those of the truth are, so that
silhouettes count to a part of a pixel. The slope |n · ray|, from a depth map's differences, turns differences along
rays into distances between surfaces. Nothing but masks and depth maps is ever looked at: the first field, too, is their
fusion.

Source: Shen et al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization", §5.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from recon.capture.capture import Camera
from recon.isosurface.grids import Box
from recon.isosurface.targets import pose_of
from recon.isosurface.view import Triangles, Visible
from recon.mesh.depth import DepthMap

FOV = 45.0
"""Degrees that an image covers."""
EACH = 2
"""Views in a step."""
LEAST = 0.4
"""Shape below which triangles are evened out; that of an isosceles triangle with an angle of 10 degrees is 0.3."""


@dataclass(frozen=True)
class View:
    """One pair of images, and what follows from them.

    Attributes:
        camera: of both; ``viewmat`` (1, 4, 4), ``K`` (1, 3, 3), ``axis`` (3,): the direction of depth.
        coverage: (H, W) in [0, 1]; ``depth`` (H, W) relative to the origin's, 0 beside the object.
        map: of the same depth, for the fusion: infinite beside the object.
    """

    camera: Camera
    viewmat: Tensor
    K: Tensor
    axis: Tensor
    coverage: Tensor
    depth: Tensor
    map: DepthMap


def cameras(count: int, pixels: int, radius: float) -> list[Camera]:
    """Return cameras spread evenly over a sphere, looking at the origin, which see the ball of that radius."""
    distance, focal = radius / math.sin(math.radians(FOV / 2)), pixels / 2 / math.tan(math.radians(FOV / 2))
    K = np.array([[focal, 0, pixels / 2], [0, focal, pixels / 2], [0, 0, 1]])
    found = []
    for i in range(count):
        z, angle = 1 - (2 * i + 1) / count, i * math.pi * (3 - math.sqrt(5))
        forward = -np.array([math.sqrt(1 - z * z) * math.cos(angle), math.sqrt(1 - z * z) * math.sin(angle), z])
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        viewmat = np.eye(4)
        viewmat[:3, :3] = [right, np.cross(forward, right), forward]
        viewmat[2, 3] = distance
        found.append(Camera(K=K, viewmat=viewmat, width=pixels, height=pixels))
    return found


def rendered(triangles: Triangles, viewmat: Tensor, K: Tensor, axis: Tensor, pixels: int) -> tuple[Visible, Tensor]:
    """Return what a camera sees, and (2, H, W) its depth relative to the origin's, and its coverage."""
    seen = Visible.of(triangles, viewmat, K, pixels, pixels)
    depth = seen.points @ axis
    image, coverage = seen.image(depth[:, None].expand(-1, 3), depth.new_zeros(3))
    return seen, torch.stack([image[..., 0], coverage])


def take(triangles: Triangles, camera: Camera) -> View:
    """Render the truth's mask and depth, and find what follows from them."""
    viewmat, K = pose_of(camera)
    axis, middle = viewmat[0, 2, :3], float(viewmat[0, 2, 3])
    seen, (depth, coverage) = rendered(triangles, viewmat, K, axis, camera.width)
    distance = torch.full_like(depth, math.inf).view(-1)
    distance[seen.hit] = seen.points @ axis + middle
    distance = distance.view(depth.shape)
    known = DepthMap.make(distance.numpy(), camera, math.inf)
    return View(camera, viewmat, K, axis, coverage, depth, known)


def carve(views: Sequence[View], box: Box) -> Tensor:
    """Return (Nx + 1, Ny + 1, Nz + 1) the depth maps' fusion at a box's samples, in cells, negative inside.

        s(x) = ± min over views of |d(π(x)) - z(x)| · slope,   + if x lies in front of what some view sees, else -

    as exact depth maps allow (Kutulakos & Seitz 2000, "A Theory of Shape by Space Carving"): unlike their mean, it
    keeps walls thinner than a few cells.
    """
    points = box.samples().view(-1, 3)
    least, free = torch.full((len(points),), math.inf), torch.zeros(len(points), dtype=torch.bool)
    for view in views:
        local = points @ view.viewmat[0, :3, :3].T + view.viewmat[0, :3, 3]
        x, y, z = (local @ view.K[0].T).unbind(dim=1)
        seen, slope, _, _ = (t[0] for t in view.map.sample((x / z)[None], (y / z)[None]))
        signed = (seen - z) * slope
        free |= signed > 0
        least = torch.minimum(least, signed.abs())
    return (torch.where(free, least, -least) / box.cell).clamp(-3, 3).view(box.shape)


def slivers(vertices: Tensor, triangles: Tensor) -> Tensor:
    """Return the mean over (F, 3) triangles of max(0, 1 - q / LEAST)², q: area over squared sides, 1 if equilateral."""
    a, b, c = (vertices.index_select(0, corner) for corner in triangles.long().unbind(dim=1))
    squares = sum((x - y).square().sum(dim=1) for x, y in ((a, b), (b, c), (c, a)))
    area = torch.linalg.cross(b - a, c - a).square().sum(dim=1).clamp(min=1e-24).sqrt() / 2
    q = 4 * math.sqrt(3) * area / squares.clamp(min=1e-20)
    return (1 - q / LEAST).clamp(min=0).square().mean()


class Representation(Protocol):
    """What is fitted."""

    def surface(self, training: bool) -> tuple[Tensor, Tensor, Tensor]: ...

    def step(self, loss: Tensor, done: float) -> None: ...


def view_loss(triangles: Triangles, view: View, cell: float) -> Tensor:
    """Return one view's loss."""
    _, (depth, coverage) = rendered(triangles, view.viewmat, view.K, view.axis, view.camera.width)
    distance = (depth - view.depth).abs() * view.map.slope
    return (coverage - view.coverage).abs().mean() + distance.mean() / cell


def fit(fitted: Representation, views: Sequence[View], cell: float, steps: int) -> Iterator[float]:
    """Take steps with EACH views at a time, every one before any comes again; give their losses."""
    order: list[int] = []
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        if len(order) < EACH:
            order += torch.randperm(len(views), generator=generator).tolist()
        vertices, faces, own = fitted.surface(training=True)
        triangles = Triangles.of(vertices, faces)
        loss = torch.stack([view_loss(triangles, views[order.pop(0)], cell) for _ in range(EACH)]).mean()
        fitted.step(loss + own, step / steps)
        yield float(loss.detach())
