"""Shapes of triangles and self-intersections of meshes whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from recon.evaluate.intersections import self_intersections
from recon.evaluate.mesh_quality import mesh_quality


def soup(*triangles: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(triangles, np.float32).reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3)


def pairs(*triangles: list[list[float]]) -> list[list[int]]:
    return self_intersections(*soup(*triangles)).tolist()


def test_shapes_of_triangles() -> None:
    equilateral = [[0, 0, 0], [1, 0, 0], [0.5, 3**0.5 / 2, 0]]
    right = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    # Legs 1 and 1/10: sides 1, 0.1, 1.005, hence aspect 1.005 · 2.105 / (2 √3 · 0.1) = 6.1, and atan 0.1 = 5.7 degrees.
    slender = [[0, 0, 0], [1, 0, 0], [0, 0.1, 0]]
    # Legs 1 and 1/4.9: 11.5 degrees, aspect 1.0206 · 2.2247 / (2 √3 / 4.9) = 3.2.
    narrow = [[0, 0, 0], [1, 0, 0], [0, 1 / 4.9, 0]]
    flat = [[0, 0, 0], [1, 0, 0], [2, 0, 0]]
    spread = [np.array(t) + np.array([0, 0, 3 * i]) for i, t in enumerate((equilateral, right, slender, narrow))]
    found = mesh_quality(*soup(*spread))
    assert found["aspect_over_4"] == found["angle_below_10"] == 0.25
    assert found["smallest_angle"] == pytest.approx(np.degrees(np.arctan(0.1)), abs=1e-4)
    assert mesh_quality(*soup(equilateral))["smallest_angle"] == pytest.approx(60, abs=1e-4)
    degenerate = mesh_quality(*soup(flat))
    assert (degenerate["aspect_over_4"], degenerate["smallest_angle"]) == (1, 0)


BASE = [[0, 0, 0], [4, 0, 0], [0, 4, 0]]


def test_triangles_that_pass_through_each_other() -> None:
    assert pairs(BASE, [[1, 1, -1], [1, 1, 1], [5, 5, 1]]) == [[0, 1]], "by an edge through the face"
    assert pairs(BASE, [[1, 1, -1], [1, 1, 1], [1.5, 1, 0]]) == [[0, 1]], "with a corner in the plane"
    # Two that meet crosswise along exactly the same piece of line: no edge of either pierces the other's inside.
    assert pairs([[0, 0, 0], [4, 2, 1], [4, -2, -1]], [[0, 0, 0], [4, 2, -1], [4, -2, 1]]) == [[0, 1]]


def test_contact_is_no_intersection() -> None:
    assert pairs(BASE, [[1, 1, 0], [1, 1, 1], [2, 2, 1]]) == [], "a corner on the face"
    assert pairs(BASE, [[1, 1, 0], [2, 1, 0], [2, 2, 1]]) == [], "an edge on the face"
    assert pairs(BASE, [[0, 0, 0], [4, 0, 0], [0, 0, 4]]) == [], "an edge in common"
    assert pairs(BASE, [[1, 0, -1], [3, 0, -1], [2, 0, 0]]) == [], "a corner on an edge, in a plane that crosses"
    assert pairs(BASE, [[0, -1, -1], [0, -1, 1], [0, 9, 0]]) == [], "an edge on the other's face"
    assert pairs(BASE, BASE) == [], "one on the other"
    assert pairs(BASE, [[5, 5, -1], [5, 5, 1], [9, 9, 0]]) == [], "past the edge, through the plane"
    assert pairs(BASE, [[1, 1, 0.01], [1, 1, 1], [2, 2, 1]]) == [], "just above"


def test_a_common_vertex_excuses_nothing() -> None:
    vertices = np.array([[0, 0, 0], [4, 0, 0], [0, 4, 0], [4, 4, 2], [4, 4, -2]], np.float32)
    assert self_intersections(vertices, np.array([[0, 1, 2], [0, 3, 4]])).tolist() == [[0, 1]]
    vertices[3:] = [[-4, -4, 2], [-4, -4, -2]]
    assert self_intersections(vertices, np.array([[0, 1, 2], [0, 3, 4]])).tolist() == []


@pytest.mark.parametrize("scale", [1e-5, 1, 1e5])
def test_two_balls_intersect_where_their_triangles_do(scale: float) -> None:
    """Against every pair tried by another rule: an edge of one passes through the other."""
    one = trimesh.creation.icosphere(2)
    vertices = np.concatenate([one.vertices, one.vertices + np.array([0.7, 0.11, 0.05])]).astype(
        np.float32
    ) * np.float32(scale)
    faces = np.concatenate([one.faces, one.faces + len(one.vertices)])
    found = self_intersections(vertices, faces)
    corners = vertices.astype(np.float64)[faces] / scale
    n = len(one.faces)
    expected = set()
    for first, second in ((range(n), range(n, 2 * n)), (range(n, 2 * n), range(n))):
        a, b, c = (corners[list(first), k][:, None] for k in range(3))
        for k in range(3):
            p, q = corners[list(second), k][None], corners[list(second), (k + 1) % 3][None]

            def volume(x, y, z, w):
                return np.einsum("...i,...i->...", np.cross(y - x, z - x), w - x)

            apart = volume(a, b, c, p) * volume(a, b, c, q) < 0
            turns = np.sign([volume(p, q, a, b), volume(p, q, b, c), volume(p, q, c, a)]).sum(axis=0)
            i, j = np.nonzero(apart & (np.abs(turns) == 3))
            expected |= {tuple(sorted(pair)) for pair in zip(i + first[0], j + second[0], strict=True)}
    assert len(expected) > 50
    assert {tuple(pair) for pair in found.tolist()} == expected
    assert mesh_quality(vertices, faces)["self_intersecting"] == len(np.unique(found)) / len(faces)


def test_a_clean_mesh_has_none() -> None:
    ball = trimesh.creation.icosphere(4)
    assert mesh_quality(np.asarray(ball.vertices, np.float32), ball.faces)["self_intersecting"] == 0
    box = trimesh.creation.box().subdivide().subdivide()
    assert len(self_intersections(np.asarray(box.vertices), box.faces)) == 0
