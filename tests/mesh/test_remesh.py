"""Isotropic remeshing: the surface stays, the triangles become even."""

import numpy as np
import pytest
import trimesh
from mesh_scenes import box, from_trimesh, sphere

from recon.errors import InputError
from recon.mesh.mesh import Mesh
from recon.mesh.remesh import remesh


def lengths(mesh: Mesh) -> np.ndarray:
    corners = mesh.vertices[mesh.faces]
    return np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)


@pytest.mark.parametrize("length", [0.25, 0.08])
def test_a_ball_becomes_even_at_any_resolution(length):
    """Of a ball with needles at its poles."""
    ball = from_trimesh(trimesh.creation.uv_sphere(count=[24, 48]))
    mesh = remesh(ball, length)
    s = mesh.check().statistics()
    assert s.watertight
    assert s.manifold
    assert s.components == 1
    assert s.volume == pytest.approx(ball.statistics().volume, rel=0.03)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 1).max() < 0.02
    edges = lengths(mesh)
    assert np.median(edges) == pytest.approx(length, rel=0.15)
    assert ((edges > 0.5 * length) & (edges < 1.6 * length)).mean() > 0.98
    # The shortest height of a triangle over its longest side: 0.87 where it is equilateral.
    areas = np.linalg.norm(
        np.cross(*(mesh.vertices[mesh.faces[:, k]] - mesh.vertices[mesh.faces[:, 0]] for k in (1, 2))), axis=1
    )
    assert np.quantile(areas / edges.max(axis=1) ** 2, 0.01) > 0.3
    valence = np.bincount(mesh.faces.ravel())
    assert (np.abs(valence - 6) <= 1).mean() > 0.9


def test_flat_faces_stay_flat_and_handles_stay():
    ring = from_trimesh(trimesh.creation.torus(1, 0.3))
    mesh = remesh(ring, 0.12)
    s = mesh.statistics()
    assert (s.watertight, s.manifold) == (True, True)
    assert s.vertices - s.faces / 2 == 0, "Euler's number of a torus"
    cube = remesh(box((2, 2, 2)), 0.2)
    s = cube.statistics()
    assert (s.watertight, s.manifold) == (True, True)
    assert s.volume == pytest.approx(8, rel=0.05), "only the edges are rounded off"
    assert np.abs(np.abs(cube.vertices).max(axis=1) - 1).max() < 1e-5, "every vertex is on the cube"


def test_a_border_stays_where_it_is():
    half = sphere(3)
    half = Mesh(half.vertices, half.faces[half.vertices[half.faces].mean(axis=1)[:, 2] > 0])
    mesh = remesh(half, 0.1)
    s = mesh.statistics()
    assert (s.components, s.non_manifold_edges) == (1, 0)
    assert s.area == pytest.approx(half.statistics().area, rel=0.02)


def test_the_same_every_time():
    first, second = (remesh(sphere(2), 0.2) for _ in range(2))
    np.testing.assert_array_equal(first.vertices, second.vertices)
    np.testing.assert_array_equal(first.faces, second.faces)


def test_bad_input():
    for length in (0, -1, float("nan"), 1e-6):
        with pytest.raises(InputError, match="are not possible"):
            remesh(sphere(1), length)
    three = Mesh(
        np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0]], np.float32),
        np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]], np.int32),
    )
    with pytest.raises(InputError, match="more than two faces"):
        remesh(three, 0.5)
