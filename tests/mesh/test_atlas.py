"""Atlases: every face has its own place, texels know their points, colours move from mesh to mesh."""

import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from mesh_scenes import box, sphere

from recon.errors import Cancelled, InputError, ReconstructionError
from recon.events import Events
from recon.mesh import atlas
from recon.mesh.atlas import texels, unwrap
from recon.mesh.mesh import Mesh
from recon.mesh.repair import clean, keep_largest, orient, separate
from recon.mesh.texture import fill, sample, surface_colours, vertex_colours
from recon.mesh.transfer import transfer


@pytest.mark.parametrize("scale", [1e-4, 1, 1e5])
def test_no_two_points_share_a_place(scale):
    ball = sphere(3, scale, (scale, 0, 0))
    mesh = unwrap(ball, 256).check()
    np.testing.assert_array_equal(mesh.faces, ball.faces)
    np.testing.assert_array_equal(mesh.vertices, ball.vertices)
    assert mesh.uvs.min() >= 0
    assert 0.8 < mesh.uvs.max() <= 1
    # Where each texel's centre is in one face only, the areas add up to the number of covered texels.
    found = texels(mesh.uvs, 256, 256)
    a, b, c = (mesh.uvs[:, k].astype(np.float64) for k in range(3))
    areas = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2 * 256**2
    assert len(found.face) == pytest.approx(areas.sum(), rel=0.01)
    assert areas.sum() > 0.5 * 256**2, "the space is used"
    # Texels of equal size: none stands for much more of the surface than another.
    stretch = areas / np.linalg.norm(
        np.cross(*(ball.vertices[ball.faces[:, k]] - ball.vertices[ball.faces[:, 0]] for k in (1, 2))), axis=1
    )
    assert stretch.max() < 4 * stretch.min()


def test_texels_by_hand():
    """A triangle over the lower left half of 4 × 4 texels and a little more: their centres are at eighths."""
    uvs = np.array([[[0, 0], [0, 1.25], [1.25, 1.25]]], np.float32) - np.float32(1 / 16)
    found = texels(uvs + np.array([0, -1 / 32], np.float32), 4, 4)
    assert sorted(zip(found.row.tolist(), found.column.tolist(), strict=True)) == [
        (i, j) for i in range(4) for j in range(i + 1)
    ]
    one = (found.row == 2) & (found.column == 0)  # at u = 1/8, v = 5/8
    np.testing.assert_allclose(found.weights[one] @ uvs[0], [[1 / 8, 5 / 8 + 1 / 32]], rtol=1e-6)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-12)
    # Nothing outside of the texture, nothing without an area.
    assert len(texels(uvs + 2, 4, 4).row) == 0
    assert len(texels(uvs[:, [0, 0, 1]], 4, 4).row) == 0
    point = found.points(Mesh(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32)))
    np.testing.assert_allclose(point, found.weights)


def test_texels_are_the_same_in_bands(monkeypatch):
    uvs = unwrap(sphere(2), 64).uvs
    whole = texels(uvs, 60, 40)
    monkeypatch.setattr(atlas, "_BAND", 40 * 7)
    banded = texels(uvs, 60, 40)
    for name in ("row", "column", "face"):
        np.testing.assert_array_equal(getattr(banded, name), getattr(whole, name))
    np.testing.assert_allclose(banded.weights, whole.weights, atol=1e-5)
    # Each weighs its face's corners to its own centre.
    there = np.einsum("nk,nkx->nx", banded.weights, uvs[banded.face].astype(float)) * (40, 60)
    np.testing.assert_allclose(there, np.stack([banded.column, banded.row], axis=1) + 0.5, atol=1e-3)


def test_looking_up_a_texture_by_hand():
    texture = np.array([[0, 1], [2, 3]], np.float32)[..., None].repeat(3, axis=2)
    uvs = np.array([[0.25, 0.25], [0.75, 0.25], [0.5, 0.25], [0.5, 0.5], [0, 0.25], [1.25, -0.25]])
    np.testing.assert_allclose(sample(texture, uvs)[:, 0], [0, 1, 0.5, 1.5, 0.5, 2])


def test_filling_takes_the_nearest():
    texture = np.zeros((3, 5, 3), np.float32)
    texture[1, 0], texture[1, 4] = 1, 2
    known = np.zeros((3, 5), bool)
    known[1, 0] = known[1, 4] = True
    filled = fill(texture, known)
    assert (filled[:, :2] == 1).all()
    assert (filled[:, 3:] == 2).all()
    np.testing.assert_array_equal(fill(texture, ~known | True), texture)


def test_a_texture_survives_repair():
    mesh = unwrap(box(), 64)
    mesh = replace(mesh, texture=np.random.default_rng(0).random((64, 64, 3)).astype(np.float32))
    messy = Mesh(
        mesh.vertices,
        np.concatenate([mesh.faces[:, ::-1], mesh.faces[:1]]),
        None,
        np.concatenate([mesh.uvs[:, ::-1], mesh.uvs[:1]]),
        mesh.texture,
    )
    mended = orient(separate(keep_largest(clean(messy)))).check()
    assert mended.statistics().volume == pytest.approx(1)
    weights = np.array([[0.5, 0.3, 0.2]]).repeat(12, axis=0)
    np.testing.assert_allclose(
        surface_colours(mended, np.arange(12), weights), surface_colours(mesh, np.arange(12), weights), atol=1e-6
    )


def test_transfer_keeps_detail_that_vertices_cannot():
    """Stripes finer than the target's faces, from the vertices of a fine ball."""
    fine = sphere(6)
    stripes = (0.5 + 0.5 * np.sin(30 * fine.vertices[:, 2:])).astype(np.float32).repeat(3, axis=1)
    fine, coarse = replace(fine, colours=stripes), sphere(2)
    mesh = transfer(fine, coarse, 256)
    rng = np.random.default_rng(1)
    face, weights = rng.integers(len(mesh.faces), size=2000), rng.dirichlet(np.ones(3), 2000)
    points = np.einsum("nk,nkx->nx", weights, mesh.vertices[mesh.faces[face]])
    z = points[:, 2] / np.linalg.norm(points, axis=1)
    error = np.abs(surface_colours(mesh, face, weights)[:, 0] - (0.5 + 0.5 * np.sin(30 * z)))
    assert np.sqrt((error**2).mean()) < 0.08  # a texel is 0.03 across, in which a stripe changes by up to 0.2
    colours = replace(coarse, colours=(0.5 + 0.5 * np.sin(30 * coarse.vertices[:, 2:])).repeat(3, axis=1))
    assert np.abs(surface_colours(colours, face, weights)[:, 0] - (0.5 + 0.5 * np.sin(30 * z))).mean() > 0.2
    assert vertex_colours(mesh).shape == coarse.vertices.shape


def test_impossible_wishes():
    for size in (15, 8193):
        with pytest.raises(InputError, match="cannot be made") as caught:
            unwrap(box(), size)
        assert caught.value.hint == "Choose 16 to 8192."
    with pytest.raises(InputError, match="no colours"):
        transfer(box(), box(), 64)


def test_charts_are_given_up_when_asked_to():
    events = Events()
    threading.Timer(0.7, events.cancel).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        unwrap(sphere(6), 8192, events)  # takes seconds
    assert time.monotonic() - begun < 2.5


def test_charts_that_fail_are_an_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(ReconstructionError) as error:
        unwrap(sphere(1), 64)
    assert error.value.code == "no-atlas"
