"""Textures from photos of things whose colours are a formula."""

from dataclasses import replace

import numpy as np
import pytest
from mesh_scenes import both, sphere

from recon.capture.capture import Camera
from recon.errors import InputError, ReconstructionError
from recon.mesh.atlas import texels, unwrap
from recon.mesh.bake import MeshView, bake

SIDE, FOCAL = 120, 150
BIG, SMALL = (np.zeros(3), 1.0), (np.array([0.0, 0, 1.35]), 0.25)


def camera(eye: np.ndarray) -> Camera:
    """Return a camera at ``eye`` that sees the origin in its middle."""
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, [0.1, 1, 0.2])
    right /= np.linalg.norm(right)
    viewmat = np.eye(4)
    viewmat[:3, :3] = right, np.cross(forward, right), forward
    viewmat[:3, 3] = -viewmat[:3, :3] @ eye
    K = np.array([[FOCAL, 0, SIDE / 2], [0, FOCAL, SIDE / 2], [0, 0, 1]], float)
    return Camera(viewmat, K, SIDE, SIDE)


def paint(points: np.ndarray) -> np.ndarray:
    """Return the colours of points: waves without red on the big ball, red on the small one."""
    x, y, z = (points / np.linalg.norm(points, axis=-1, keepdims=True)).T
    waves = np.stack([np.full_like(x, 0.1), 0.5 + 0.3 * np.sin(9 * x + 3 * y), 0.5 + 0.3 * np.sin(8 * z - 4 * y)]).T
    return np.where(np.linalg.norm(points, axis=-1)[..., None] > 1.05, [0.9, 0.1, 0.1], waves)


def photographed(view: Camera, balls) -> MeshView:
    """Cast a ray through each pixel at balls (centre, radius)."""
    j, i = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    rays = np.stack([j, i, np.ones_like(i)], axis=-1) @ np.linalg.inv(view.K).T @ view.viewmat[:3, :3]
    depth = np.full((SIDE, SIDE), np.inf)
    for centre, radius in balls:
        away = view.position - centre
        a, b = (rays * rays).sum(-1), (rays * away).sum(-1)
        under = b * b - a * (away @ away - radius**2)
        depth = np.minimum(depth, np.where(under > 0, (-b - np.sqrt(np.maximum(under, 0))) / a, np.inf))
    hit = np.isfinite(depth)
    points = view.position + rays * np.where(hit, depth, 1)[..., None]
    rgb = np.where(hit[..., None], paint(points.reshape(-1, 3)).reshape(rays.shape), [1, 0, 1])  # a loud background
    return MeshView(rgb.astype(np.float32), view, depth.astype(np.float32))


EYES = 3.2 * np.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if x or y or z], float)
EYES = EYES * (3.2 / np.linalg.norm(EYES, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def ball():
    return unwrap(sphere(4), 200)


@pytest.fixture(scope="module")
def photos():
    return [photographed(camera(eye), [BIG]) for eye in EYES]


def errors(mesh) -> np.ndarray:
    """Return the (N, 3) differences of the texels from the formula."""
    size = len(mesh.texture)
    shown = texels(mesh.uvs, size, size)
    return mesh.texture[shown.row, shown.column] - paint(shown.points(mesh))


def test_a_known_texture_comes_back(ball, photos):
    mesh, seen = bake(ball, photos, 200)
    assert seen == 1
    found = np.abs(errors(mesh))
    # A pixel is 0.02 across, over which the waves change by up to 0.06.
    assert found.mean() < 0.01
    assert np.quantile(found, 0.999) < 0.06
    assert mesh.colours is None
    # Padding: nothing of the grey around the charts or of the background is left beside them.
    assert mesh.texture[..., 0].max() < 0.2


def test_what_hides_something_does_not_colour_it():
    mesh = unwrap(both(sphere(4), sphere(3, SMALL[1], SMALL[0])), 256)
    mesh, seen = bake(mesh, [photographed(camera(eye), [BIG, SMALL]) for eye in EYES], 256)
    assert 0.9 < seen <= 1
    shown = texels(mesh.uvs, 256, 256)
    far = np.linalg.norm(shown.points(mesh), axis=1)
    colours = mesh.texture[shown.row, shown.column]
    assert colours[far < 1.01, 0].max() < 0.2, "no red on the big ball"
    assert np.abs(colours - paint(shown.points(mesh)))[far < 1.01].mean() < 0.012
    assert np.quantile(colours[far > 1.05, 0], 0.02) > 0.75, "the small one is red"


def test_exposures_are_evened_out(ball, photos):
    rng = np.random.default_rng(3)
    gains = np.exp(0.25 * rng.standard_normal((len(photos), 1, 1, 3))).astype(np.float32)
    dimmed = [replace(photo, rgb=photo.rgb * gain * 0.6) for photo, gain in zip(photos, gains, strict=True)]

    def unevenness(mesh) -> float:
        size = len(mesh.texture)
        shown = texels(mesh.uvs, size, size)
        ratio = mesh.texture[shown.row, shown.column] / paint(shown.points(mesh))
        return float((ratio.std(axis=0) / ratio.mean(axis=0)).max())

    uneven = unevenness(bake(ball, dimmed, 200, even_exposures=False)[0])
    even = unevenness(bake(ball, dimmed, 200)[0])
    assert uneven > 0.08
    assert even < 0.045


def test_seams_between_photos_do_not_show(ball, photos):
    """A step in brightness from photo to photo comes out as a slope: neighbouring texels stay alike."""
    flat = [replace(photo, rgb=np.full_like(photo.rgb, 0.4 + 0.2 * (i % 2))) for i, photo in enumerate(photos)]
    mesh, _ = bake(ball, flat, 200, even_exposures=False)
    shown = texels(mesh.uvs, 200, 200)
    inside = np.zeros((200, 200), bool)
    inside[shown.row, shown.column] = True
    steps = np.abs(np.diff(mesh.texture[..., 0], axis=1))[inside[:, 1:] & inside[:, :-1]]
    assert np.ptp(mesh.texture[..., 0]) > 0.1
    assert np.quantile(steps, 0.999) < 0.02


def test_what_nobody_saw_takes_after_its_neighbours(ball, photos):
    above = [photo for photo, eye in zip(photos, EYES, strict=True) if eye[1] > 1]
    mesh, seen = bake(ball, above, 200)
    assert 0.5 < seen < 0.95
    shown = texels(mesh.uvs, 200, 200)
    low = shown.points(mesh)[:, 1] < -0.9
    colours = mesh.texture[shown.row, shown.column]
    assert colours[low, 0].max() < 0.2
    assert (colours[low, 1:] > 0.15).all()
    masked = [replace(photo, mask=np.zeros((SIDE, SIDE), np.float32)) for photo in above]
    with pytest.raises(ReconstructionError, match="No photo sees"):
        bake(ball, masked, 200)


def test_bad_input(ball, photos):
    with pytest.raises(InputError, match="no atlas"):
        bake(sphere(1), photos, 64)
    with pytest.raises(InputError, match="depth map of shape"):
        bake(ball, [replace(photos[0], depth=photos[0].depth[1:])], 64)
