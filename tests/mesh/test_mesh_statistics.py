"""What is said of a mesh, against meshes whose numbers are known."""

import math

import numpy as np
import pytest
from mesh_scenes import both, box, sphere

from recon.errors import InputError
from recon.mesh.mesh import Mesh


def test_box():
    s = box((1, 2, 3)).check().statistics()
    assert (s.vertices, s.faces, s.watertight, s.manifold, s.components) == (8, 12, True, True, 1)
    assert (s.boundary_edges, s.non_manifold_edges) == (0, 0)
    assert s.area == pytest.approx(22)
    assert s.volume == pytest.approx(6)


def test_volume_far_from_the_origin():
    far = sphere(4, 1, centre=(1e4, 0, 0)).statistics()
    assert far.volume == pytest.approx(4 / 3 * math.pi, rel=5e-3)


def test_open_flipped_and_two_parts():
    cube = box()
    opened = Mesh(cube.vertices, cube.faces[1:]).statistics()
    assert (opened.watertight, opened.boundary_edges) == (False, 3)
    inside_out = Mesh(cube.vertices, cube.faces[:, ::-1]).statistics()
    assert inside_out.watertight
    assert inside_out.volume == pytest.approx(-1)
    one_flipped = cube.faces.copy()
    one_flipped[0] = one_flipped[0, ::-1]
    assert not Mesh(cube.vertices, one_flipped).statistics().watertight
    assert both(cube, sphere()).statistics().components == 2


def test_three_faces_at_an_edge():
    vertices = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0]], np.float32)
    s = Mesh(vertices, np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]], np.int32)).statistics()
    assert (s.non_manifold_edges, s.boundary_edges, s.watertight, s.manifold) == (1, 6, False, False)


def test_two_fans_at_a_vertex():
    """Two tetrahedra that touch in a point: watertight, every edge has two faces, and yet no manifold."""
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    corner = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    vertices = np.concatenate([corner, -corner[1:]]).astype(np.float32)
    mirrored = np.where(faces > 0, faces + 3, 0)[:, ::-1]
    s = Mesh(vertices, np.concatenate([faces, mirrored]).astype(np.int32)).statistics()
    assert (s.watertight, s.non_manifold_edges, s.manifold) == (True, 0, False)


def test_nothing():
    s = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)).statistics()
    assert (s.faces, s.components, s.area, s.watertight) == (0, 0, 0, False)


TRIANGLE = np.array([[0, 1, 2]], np.int32)
UVS = np.zeros((1, 3, 2), np.float32)


def with_texture(uvs, texture) -> Mesh:
    return Mesh(np.zeros((3, 3), np.float32), TRIANGLE, None, uvs, texture)


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (Mesh(np.zeros((3, 3), np.float32), np.zeros((0, 3), np.int32)), "no faces"),
        (Mesh(np.zeros((2, 3), np.float32), TRIANGLE), "names vertex 2"),
        (Mesh(np.zeros((3, 3), np.float32), -TRIANGLE), "negative"),
        (Mesh(np.full((3, 3), np.nan, np.float32), TRIANGLE), "NaN"),
        (Mesh(np.zeros((3, 2), np.float32), TRIANGLE), "not \\(V, 3\\)"),
        (Mesh(np.zeros((3, 3), np.float32), TRIANGLE, np.zeros((2, 3), np.float32)), "2 colours for 3"),
        (Mesh(np.zeros((3, 3), np.float32), TRIANGLE, np.full((3, 3), np.inf, np.float32)), "colour that is NaN"),
        (with_texture(None, np.zeros((2, 2, 3), np.float32)), "no texture coordinates"),
        (with_texture(UVS[:, :2], None), "not \\(F, 3, 2\\) for 1 faces"),
        (with_texture(UVS + np.nan, None), "coordinate that is NaN"),
        (with_texture(UVS, np.zeros((2, 2, 4), np.float32)), "not \\(H, W, 3\\)"),
        (with_texture(UVS, np.full((2, 2, 3), np.nan, np.float32)), "texel that is NaN"),
    ],
)
def test_bad_meshes(mesh, message):
    with pytest.raises(InputError, match=message):
        mesh.check()
