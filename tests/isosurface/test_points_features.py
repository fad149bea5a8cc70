"""Vertices near edges and corners go onto them; others stay, and no triangle turns over."""

from __future__ import annotations

import numpy as np
from points_scenes import HALF, box, sphere

from recon.isosurface.points_features import onto_features

CELL = 0.08


def test_vertices_go_onto_edges_and_corners() -> None:
    xyz, normals = box(8000)
    near = np.array([[1, 0.7, 0.0], [-1, -0.7, -0.5], [0.3, 0.2, 0.5]]) - np.array(
        [[0.04, 0.03, 0], [-0.03, -0.03, -0.03], [0, 0, 0.03]]
    )
    moved = onto_features(near, np.array([[0, 1, 2]], np.int32), xyz, normals, CELL)
    assert np.allclose(moved[0, :2], HALF[:2], atol=1e-3), "onto the edge"
    assert abs(moved[0, 2]) < 0.02, "and not along it"
    assert np.allclose(moved[1], -HALF, atol=1e-3), "into the corner"
    assert np.array_equal(moved[2], near[2]), "in the middle of a face the fit knows better"


def test_smooth_surfaces_stay() -> None:
    xyz, normals = sphere(8000)
    vertices = 0.99 * sphere(300, seed=1)[0]
    assert np.array_equal(onto_features(vertices, np.array([[0, 1, 2]], np.int32), xyz, normals, CELL), vertices)


def test_no_triangle_turns_over() -> None:
    """Two vertices on either side of the edge's bisector would change places."""
    xyz, normals = box(8000)
    vertices = np.array([[0.97, 0.69, 0.1], [0.99, 0.67, 0.1], [0.9, 0.6, 0.1]])
    faces = np.array([[0, 1, 2]], np.int32)
    moved = onto_features(vertices, faces, xyz, normals, CELL)

    def normal(v: np.ndarray) -> np.ndarray:
        return np.cross(v[1] - v[0], v[2] - v[0])

    assert normal(moved) @ normal(vertices) > 0
