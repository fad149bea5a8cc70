"""Chamfer distance and F-score of surfaces whose distance is known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from recon.evaluate.surface import compare_surfaces


def compare(one: trimesh.Trimesh, true: trimesh.Trimesh) -> dict[str, float]:
    return compare_surfaces(one.vertices, one.faces, true.vertices, true.faces)


def test_equal_surfaces_differently_triangulated() -> None:
    box = trimesh.creation.box((2, 2, 2))
    found = compare(box.subdivide(), box)
    assert found["chamfer"] < 1e-6
    assert (found["precision"], found["recall"], found["f_score"]) == (1, 1, 1)


def test_parallel_plates_are_their_gap_apart() -> None:
    # One triangle of legs 3 and 4 above its copy: every point is the gap away, and the diagonal is 5.
    vertices, faces = np.array([[0, 0, 0], [3, 0, 0], [0, 4, 0]], float), np.array([[0, 1, 2]])
    for gap, hit in ((0.04, 1), (0.06, 0)):  # the threshold is 1 % of 5
        found = compare_surfaces(vertices + np.array([0, 0, gap]), faces, vertices, faces)
        assert found["chamfer"] == pytest.approx(gap, abs=1e-9)
        assert found["chamfer_relative"] == pytest.approx(gap / 5)
        assert found["f_score"] == hit


def test_what_is_missing_and_what_is_too_much_are_told_apart() -> None:
    # Of two unit squares 10 apart the reconstruction has one: no point of it is wrong, half of the truth is lost.
    square, faces = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float), np.array([[0, 1, 2], [0, 2, 3]])
    both, all_faces = np.concatenate([square, square + np.array([0, 0, 10])]), np.concatenate([faces, faces + 4])
    found = compare_surfaces(square, faces, both, all_faces)
    assert found["accuracy"] == pytest.approx(0, abs=1e-9)
    assert found["completeness"] == pytest.approx(5, abs=0.05)  # half the samples at 10, by chance a little off half
    assert found["precision"] == 1
    assert found["recall"] == pytest.approx(0.5, abs=0.01)
    assert found["f_score"] == pytest.approx(2 / 3, abs=0.01)
