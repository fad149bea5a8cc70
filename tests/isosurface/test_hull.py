"""First fields: the visual hull of silhouettes, and what depth maps leave over."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recon.capture.capture import Camera
from recon.errors import ReconstructionError
from recon.events import Events
from recon.isosurface.carve import carved
from recon.isosurface.hull import visual_hull
from recon.isosurface.targets import Photos, Target, pose_of

RADIUS, SIDE = 0.3, 64


def cameras(count: int = 8) -> list[Camera]:
    """Return cameras around the origin, one unit away, that look at it."""
    K = np.array([[SIDE, 0, SIDE / 2], [0, SIDE, SIDE / 2], [0, 0, 1.0]])
    found = []
    for i in range(count):
        angle, height = 2 * np.pi * i / count, (0.5, -0.5)[i % 2]
        eye = np.array([np.cos(angle), np.sin(angle), height])
        eye /= np.linalg.norm(eye)
        right = np.cross(-eye, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(-eye, right), -eye])
        viewmat = np.eye(4)
        viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ eye
        found.append(Camera(viewmat, K, SIDE, SIDE))
    return found


def depth(camera: Camera) -> np.ndarray:
    """Return the (H, W) depth of a ball about the origin, infinite beside it."""
    v, u = np.mgrid[:SIDE, :SIDE] + 0.5
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(camera.K).T
    middle = camera.viewmat[:3, 3]
    a, b, c = (rays**2).sum(-1), rays @ middle, middle @ middle - RADIUS**2
    under = b * b - a * c
    return np.where(under > 0, (b - np.sqrt(np.maximum(under, 0))) / a, np.inf).astype(np.float32)


def photos(changed: int = 0, to: int = 0, count: int = 8) -> Photos:
    """Return the ball's silhouettes in so many views; the masks of the first ``changed`` views are all ``to``."""
    levels = []
    for i, camera in enumerate(cameras(count)):
        shown = np.isfinite(depth(camera)) * 255
        if i < changed:
            shown = np.full_like(shown, to)
        coverage = torch.from_numpy(shown.astype(np.uint8))
        image = torch.zeros(SIDE, SIDE, 3, dtype=torch.uint8)
        levels.append([Target(image, coverage, None, False, camera, *pose_of(camera))])
    return Photos(levels, torch.ones(3))


def test_the_hull_of_a_ball_is_a_little_larger_than_it():
    box, field = visual_hull(photos(), 32, Events())
    distance = box.samples().norm(dim=-1) - RADIUS
    assert (field < 0)[distance < -0.02].all()
    assert (field > 0)[distance > 0.15].all()
    assert max(box.resolution) == 32
    assert (box.low < -RADIUS).all()
    assert (box.high > RADIUS).all()
    near = distance.abs() < 0.02
    assert (field - distance)[near].abs().mean() < 0.05


def test_black_masks_share_no_volume():
    with pytest.raises(ReconstructionError) as error:
        visual_hull(photos(8, to=0), 32, Events())
    assert error.value.code == "no-surface"


def test_white_masks_leave_everything():
    with pytest.raises(ReconstructionError) as error:
        visual_hull(photos(8, to=255), 32, Events())
    assert error.value.code == "masks-too-large"


@pytest.mark.parametrize("to", [0, 255])
def test_one_wrong_mask_among_many_does_no_harm(to):
    box, field = visual_hull(photos(1, to, count=20), 32, Events())
    assert (field < 0)[box.samples().norm(dim=-1) < RADIUS - 0.02].all()
    assert (field > 0)[box.samples().norm(dim=-1) > RADIUS + 0.15].float().mean() > 0.9


def test_depth_maps_leave_the_ball():
    maps = [depth(camera) for camera in cameras()]
    box, field = carved(maps, cameras(), np.array([[-0.4] * 3, [0.4] * 3]), 32, Events())
    distance = box.samples().norm(dim=-1) - RADIUS
    seen = box.samples()[..., 2].abs() < 0.2  # above and below no camera looks
    assert (field < 0)[(distance < -0.03) & seen].all()
    assert (field > 0)[(distance > 0.05) & seen].float().mean() > 0.97


def test_depth_that_is_nowhere_known_shows_no_surface():
    with pytest.raises(ReconstructionError) as error:
        carved(
            [np.full((SIDE, SIDE), np.nan, np.float32)] * 8, cameras(), np.array([[-0.4] * 3, [0.4] * 3]), 16, Events()
        )
    assert error.value.code == "no-surface"
