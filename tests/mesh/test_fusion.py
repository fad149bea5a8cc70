"""Fusion of depth maps that are computed exactly, by intersecting rays with a sphere and boxes."""

import math

import numpy as np
import pytest
import torch

from recon.capture.capture import Camera
from recon.errors import Cancelled, InputError, ReconstructionError
from recon.events import Events, Progress
from recon.mesh.fusion import fuse
from recon.mesh.mesh import Mesh
from recon.mesh.repair import repair

RADIUS = 0.7
CENTRE = np.array([0.3, -0.2, 0.4])
BOUNDS = np.array([[-1.2, -1.2, -1.2], [1.5, 1.5, 1.5]])


def look_at(position, target, size=160, fov=40.0) -> Camera:
    forward = np.asarray(target, float) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.1, 0.2, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    viewmat = np.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ position
    focal = size / 2 / math.tan(math.radians(fov / 2))
    return Camera(viewmat, np.array([[focal, 0, size / 2 + 3], [0, focal, size / 2 - 2], [0, 0, 1]]), size, size)


def around(count=24, distance=4.0, size=160) -> list[Camera]:
    i = np.arange(count) + 0.5
    z, turn = 1 - 2 * i / count, i * math.pi * (1 + math.sqrt(5))
    directions = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], axis=1)
    return [look_at(distance * d, [0.1, 0, 0.1], size) for d in directions]


def rays(camera: Camera):
    v, u = np.mgrid[: camera.height, : camera.width] + 0.5
    local = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(camera.K).T
    return camera.position, local @ camera.viewmat[:3, :3]


def sphere_depth(camera, centre=CENTRE, radius=RADIUS):
    origin, direction = rays(camera)
    a, b = (direction**2).sum(-1), direction @ (origin - centre)
    root = b**2 - a * (((origin - centre) ** 2).sum() - radius**2)
    return np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)


def box_depth(camera, low, high):
    origin, direction = rays(camera)
    with np.errstate(divide="ignore"):
        t = np.sort(np.stack([(low - origin) / direction, (high - origin) / direction]), axis=0)
    enter, leave = t[0].max(-1), t[1].min(-1)
    return np.where((enter < leave) & (enter > 0), enter, np.inf)


def sphere_error(mesh: Mesh):
    return np.abs(np.linalg.norm(mesh.vertices - CENTRE, axis=1) - RADIUS)


@pytest.mark.parametrize("voxel", [0.02, 0.05])
def test_sphere(voxel):
    cameras = around()
    mesh = fuse([sphere_depth(c).astype(np.float32) for c in cameras], None, cameras, voxel=voxel, bounds=BOUNDS)
    assert mesh.colours is None
    assert sphere_error(mesh).max() < voxel / 2
    assert sphere_error(mesh).mean() < voxel / 20
    s = mesh.check().statistics()
    assert s.watertight, "sewn without a crack"
    assert s.components == 1
    assert s.volume == pytest.approx(4 / 3 * math.pi * RADIUS**3, abs=4 * math.pi * RADIUS**2 * voxel / 15)


def test_box_and_ball_with_colours():
    """Edges, corners, two parts that hide each other; the colours are a function of the place."""
    low, high = np.array([-1.1, -0.8, -0.7]), np.array([-0.7, 0.2, 0.5])
    cameras = around(40)
    depths = [np.minimum(sphere_depth(c), box_depth(c, low, high)) for c in cameras]

    def colour(i):
        origin, direction = rays(cameras[i])
        points = origin + direction * np.where(np.isfinite(depths[i]), depths[i], 0)[..., None]
        return (0.5 + 0.4 * np.sin(3 * points)).astype(np.float32)

    voxel = 0.025
    mesh = fuse(lambda i: depths[i].astype(np.float32), colour, cameras, voxel=voxel, bounds=BOUNDS)
    s = mesh.check().statistics()
    assert (s.watertight, s.components) == (True, 2)
    to_box = np.maximum(low - mesh.vertices, mesh.vertices - high)
    outside = np.linalg.norm(np.maximum(to_box, 0), axis=1)
    to_box = np.abs(outside + np.minimum(to_box.max(axis=1), 0))
    error = np.minimum(to_box, sphere_error(mesh))
    # A field of distances rounds edges off; at a corner the sample beyond the tip is √3 voxels from it at most.
    assert np.quantile(error, 0.99) < voxel / 2
    assert error.max() < 1.2 * voxel
    off = np.abs(mesh.colours - (0.5 + 0.4 * np.sin(3 * mesh.vertices))).max(axis=1)
    assert np.quantile(off, 0.99) < 1.2 * voxel, "the colours change by 1.2 a unit at most"


def test_surfaces_across_regions_of_64_samples():
    """Ten regions of blocks and more: every seam closes."""
    cameras = around(16, size=240)
    depths = [sphere_depth(c).astype(np.float32) for c in cameras]
    mesh = fuse(depths, None, cameras, voxel=2.7 / 250, bounds=BOUNDS)
    s = mesh.statistics()
    assert (s.watertight, s.components) == (True, 1)
    assert s.faces > 100_000
    assert sphere_error(mesh).max() < 2.7 / 250 / 2


def test_what_is_unknown_stays_open_and_what_is_empty_is_carved():
    cameras = around()
    depths = [sphere_depth(c) for c in cameras]
    wrong = np.where(np.isinf(depths[0]), 3.0, depths[0])  # a wall behind the ball, in one view only
    carved = fuse([wrong, *depths[1:]], None, cameras, voxel=0.05, bounds=BOUNDS)
    assert repair(carved).statistics().components == 1
    # Only scraps of the wall lie where no other camera looks: it is gone from around the ball.
    near = np.linalg.norm(carved.vertices - CENTRE, axis=1) < 1
    assert sphere_error(carved)[near].max() < 0.05
    unknown = [np.where(np.isinf(d), np.nan, d).astype(np.float32) for d in depths]
    kept = fuse([wrong.astype(np.float32), *unknown[1:]], None, cameras, voxel=0.05, bounds=BOUNDS)
    assert sphere_error(kept).max() > 0.5, "nothing speaks against the wall"
    half = fuse(unknown[:1], None, cameras[:1], voxel=0.05, bounds=BOUNDS)
    assert half.statistics().boundary_edges > 0


def test_masked_pixels_and_bounds_leave_no_trace():
    cameras = around()
    lower = [np.where(rays(c)[0][2] + sphere_depth(c) * rays(c)[1][..., 2] < 0.4, sphere_depth(c), 0) for c in cameras]
    mesh = fuse(lower, None, cameras, voxel=0.05, bounds=BOUNDS)
    assert mesh.vertices[:, 2].max() < 0.4 + 2 * 0.2, "twice the truncation along a ray beyond the mask"
    bounds = np.array([[-1.2, -1.2, 0.4], [1.5, 1.5, 1.5]])
    upper = fuse([sphere_depth(c) for c in cameras], None, cameras, voxel=0.05, bounds=bounds)
    assert upper.vertices[:, 2].min() >= 0.4 - 1e-6


def test_noise_averages_out():
    cameras = around(40)
    rng = np.random.default_rng(0)
    depths = [sphere_depth(c) + rng.normal(0, 0.02, (c.height, c.width)) for c in cameras]
    mesh = repair(fuse(depths, None, cameras, voxel=0.03, truncation=0.12, bounds=BOUNDS))
    assert sphere_error(mesh).mean() < 0.01
    assert mesh.statistics().watertight


def test_far_views_weigh_less():
    near, far = around(20, 3), around(20, 12)
    depths = [sphere_depth(c) for c in near] + [sphere_depth(c) + 0.03 for c in far]  # a far view errs systematically
    mesh = fuse(depths, None, near + far, voxel=0.03, truncation=0.12, bounds=BOUNDS)
    assert sphere_error(mesh).mean() < 0.01


def test_a_thin_plate_keeps_both_sides():
    low, high = np.array([-0.8, -0.8, -0.03]), np.array([0.8, 0.8, 0.03])
    cameras = around(40)
    depths = [box_depth(c, low, high) for c in cameras]
    mesh = fuse(depths, None, cameras, voxel=0.03, bounds=BOUNDS)  # half as thick as the truncation
    inner = np.abs(mesh.vertices[:, :2]).max(axis=1) < 0.6
    top, bottom = (
        mesh.vertices[inner & (mesh.vertices[:, 2] > 0), 2],
        mesh.vertices[inner & (mesh.vertices[:, 2] < 0), 2],
    )
    assert abs(top.mean() - 0.03) < 0.015
    assert abs(bottom.mean() + 0.03) < 0.015


def test_unseen_vertices_take_the_nearest_colour():
    cameras = around(1)
    depth = sphere_depth(cameras[0])
    mesh = fuse([depth], [np.full((7, 9, 3), [0.2, 0.4, 0.6], np.float32)], cameras, voxel=0.05, bounds=BOUNDS)
    np.testing.assert_allclose(mesh.colours, np.broadcast_to([0.2, 0.4, 0.6], mesh.colours.shape), atol=1e-6)


def test_progress_and_cancelling():
    cameras = around(3)
    events, seen = Events(), []
    events.listen(lambda e: seen.append(e))
    depths = [sphere_depth(c) for c in cameras]
    fuse(depths, [np.ones((4, 4, 3), np.float32)] * 3, cameras, voxel=0.1, bounds=BOUNDS, events=events)
    steps = [e.step for e in seen if isinstance(e, Progress)]
    assert steps == list(range(10))
    assert {e.total for e in seen} == {9}
    events.cancel()
    with pytest.raises(Cancelled):
        fuse(depths, None, cameras, voxel=0.1, bounds=BOUNDS, events=events)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voxel": 0.0}, "voxel 0.0"),
        ({"voxel": float("nan")}, "voxel nan"),
        ({"voxel": 1e-5}, "too small"),
        ({"voxel": 0.1, "truncation": 0.01}, "truncation 0.01"),
        ({"bounds": BOUNDS[::-1]}, "not possible"),
        ({"bounds": BOUNDS * np.inf}, "not possible"),
        ({"depths": [np.ones((3, 4), np.float32)]}, r"shape \(3, 4\)"),
    ],
)
def test_bad_input(change, message):
    camera = around(1)
    arguments = {"depths": [sphere_depth(camera[0])], "voxel": 0.05, "bounds": BOUNDS} | change
    with pytest.raises(InputError, match=message):
        fuse(colours=None, cameras=camera, **arguments)


@pytest.mark.parametrize("value", [np.inf, np.nan, 0.0, -1.0])
def test_no_surface(value):
    camera = around(1)
    with pytest.raises(ReconstructionError, match="no surface"):
        fuse([np.full((160, 160), value, np.float32)], None, camera, voxel=0.05, bounds=BOUNDS)


def test_same_result_every_time():
    cameras = around(6)
    depths = [sphere_depth(c) for c in cameras]
    a, b = (fuse(depths, None, cameras, voxel=0.05, bounds=BOUNDS) for _ in range(2))
    assert torch.equal(torch.from_numpy(a.vertices), torch.from_numpy(b.vertices))
    np.testing.assert_array_equal(a.faces, b.faces)
