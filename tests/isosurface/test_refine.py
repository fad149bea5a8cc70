"""The finish of a fit, and what known depth adds to one: surfaces move to where photos and depth say they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from recon.capture.capture import Camera
from recon.isosurface.colours import Colours
from recon.isosurface.config import MeshConfig
from recon.isosurface.fit import shape_loss, visible
from recon.isosurface.grids import Box
from recon.isosurface.refine import Refinement
from recon.isosurface.targets import Photos, Target, pose_of
from recon.isosurface.view import Triangles
from recon.mesh.mesh import Mesh

SIDE = 48


def ball(radius: float, subdivisions: int = 3) -> Mesh:
    mesh = trimesh.creation.icosphere(subdivisions, radius)
    return Mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32))


def triangles(mesh: Mesh) -> Triangles:
    return Triangles.of(torch.from_numpy(mesh.vertices), torch.from_numpy(mesh.faces))


def cameras() -> list[Camera]:
    """Return six cameras two units from the origin, along the axes, looking at it."""
    K = np.array([[SIDE, 0, SIDE / 2], [0, SIDE, SIDE / 2], [0, 0, 1.0]])
    found = []
    for axis, sign in np.ndindex(3, 2):
        forward, right = np.zeros(3), np.zeros(3)
        forward[axis], right[(axis + 1) % 3] = 2.0 * sign - 1, 1
        viewmat = np.eye(4)
        viewmat[:3, :3] = np.stack([right, np.cross(forward, right), forward])
        viewmat[2, 3] = 2
        found.append(Camera(viewmat, K, SIDE, SIDE))
    return found


def photos(radius: float) -> Photos:
    """Return a grey ball before white, from all cameras."""
    shown = triangles(ball(radius, 5))
    levels = []
    for camera in cameras():
        blank = Target(torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8), None, None, False, camera, *pose_of(camera))
        view = visible(shown, blank)
        image, coverage = view.image(torch.full_like(view.points, 0.5), torch.ones(3))
        image, coverage = ((t.clamp(0, 1) * 255).round().to(torch.uint8) for t in (image, coverage))
        levels.append([Target(image, coverage, None, False, camera, *pose_of(camera))])
    return Photos(levels, torch.ones(3))


def refinement(steps: int = 40) -> Refinement:
    box = Box.around(np.full(3, -0.6), np.full(3, 0.6), 8)
    return Refinement(photos(0.45), ball(0.4), Colours.grey(box), MeshConfig(finish=steps, views_per_step=6))


def test_the_surface_moves_to_the_silhouettes_and_stays_smooth() -> None:
    model = refinement()
    losses = [progress.loss for progress in model.run()]
    radii = model.triangles().vertices.norm(dim=1)
    assert losses[-1] < 0.2 * losses[0]
    assert radii.mean() == pytest.approx(0.45, abs=0.01)
    assert radii.std() < 0.01


def test_it_goes_on_from_a_checkpoint_with_the_very_steps() -> None:
    whole, first, second = (refinement(12) for _ in range(3))
    for _ in whole.run():
        pass
    for _ in first.run():
        if first.step == 5:
            break
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    second.load_state(state, first.place)
    for _ in second.run():
        pass
    assert torch.equal(second.triangles().vertices, whole.triangles().vertices)
    assert torch.equal(second.colours.values, whole.colours.values)


def depth_of(radius: float, camera: Camera) -> torch.Tensor:
    """Return the depth of a ball about the origin, NaN beside it."""
    v, u = np.mgrid[:SIDE, :SIDE] + 0.5
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(camera.K).T
    middle = camera.viewmat[:3, 3]
    a, b, c = (rays**2).sum(-1), rays @ middle, middle @ middle - radius**2
    under = b * b - a * c
    depth = np.where(under > 0, (b - np.sqrt(np.maximum(under, 0))) / a, np.nan)
    return torch.from_numpy(depth.astype(np.float32))


def test_known_depth_pulls_the_surface_to_it() -> None:
    camera = cameras()[1]
    blank = torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8)

    def loss_of(mesh: Mesh, depth: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        surface = triangles(mesh)
        surface.vertices.requires_grad_()
        target = Target(blank, None, None, False, camera, *pose_of(camera), depth=depth)
        return shape_loss(target, visible(surface, target), 0.1), surface.vertices

    there, _ = loss_of(ball(0.4, 5), depth_of(0.4, camera))
    away, _ = loss_of(ball(0.4, 5), depth_of(0.45, camera))
    assert there < 0.05 * away
    _, vertices = found = loss_of(ball(0.4, 2), depth_of(0.45, camera))
    (gradient,) = torch.autograd.grad(found[0], vertices)
    outward = -(gradient * vertices.detach()).sum(dim=1)
    facing = vertices.detach()[:, 0] * float(camera.viewmat[2, 0]) < -0.3
    assert (outward[facing] > 0).float().mean() > 0.9
    nowhere, _ = loss_of(ball(0.4), None)
    assert nowhere == 0
    unknown, vertices = loss_of(ball(0.4), torch.full((SIDE, SIDE), torch.nan))
    assert unknown == 0
    (gradient,) = torch.autograd.grad(unknown, vertices)
    assert (gradient == 0).all()
