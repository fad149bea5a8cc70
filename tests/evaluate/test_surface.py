"""Chamfer distance and F-score of surfaces whose distance is known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from recon.errors import InputError
from recon.evaluate import surface
from recon.evaluate.surface import compare_surfaces


def compare(one: trimesh.Trimesh, true: trimesh.Trimesh, samples: int = 20_000) -> dict[str, float]:
    return compare_surfaces(one.vertices, one.faces, true.vertices, true.faces, samples=samples)


def test_equal_surfaces_differently_triangulated() -> None:
    box = trimesh.creation.box((2, 2, 2))
    found = compare(box.subdivide(), box)
    assert found["chamfer"] < 1e-6
    assert (found["precision"], found["recall"], found["f_score"]) == (1, 1, 1)


def test_parallel_plates_are_their_gap_apart() -> None:
    # One triangle of legs 3 and 4 above its copy: every point is the gap away, and the diagonal is 5.
    vertices, faces = np.array([[0, 0, 0], [3, 0, 0], [0, 4, 0]], float), np.array([[0, 1, 2]])
    for gap, hit in ((0.04, 1), (0.06, 0)):  # the threshold is 1 % of 5
        found = compare_surfaces(vertices + np.array([0, 0, gap]), faces, vertices, faces, samples=2000)
        assert found["chamfer"] == pytest.approx(gap, abs=1e-9)
        assert found["chamfer_relative"] == pytest.approx(gap / 5)
        assert found["f_score"] == hit
        found = compare_surfaces(vertices + np.array([0, 0, gap]), faces, vertices, faces, samples=2000, threshold=0.02)
        assert found["f_score"] == 1


def test_what_is_missing_and_what_is_too_much_are_told_apart() -> None:
    # Of two unit squares 2 apart the reconstruction has one: no point of it is wrong, half of the truth is lost.
    square, faces = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float), np.array([[0, 1, 2], [0, 2, 3]])
    both, all_faces = np.concatenate([square, square + np.array([0, 0, 2])]), np.concatenate([faces, faces + 4])
    found = compare_surfaces(square, faces, both, all_faces, samples=20_000)
    assert found["accuracy"] == pytest.approx(0, abs=1e-9)
    assert found["completeness"] == pytest.approx(1, abs=0.01)  # half the samples at 2, by chance a little off half
    assert found["precision"] == 1
    assert found["recall"] == pytest.approx(0.5, abs=0.01)
    assert found["f_score"] == pytest.approx(2 / 3, abs=0.01)


def test_normals_are_compared_whichever_way_they_point() -> None:
    ball = trimesh.creation.icosphere(4)
    found = compare_surfaces(ball.vertices, ball.faces[:, ::-1], ball.vertices, ball.faces, samples=2000)
    assert found["normal_consistency"] == pytest.approx(1)
    assert found["normals_off"] == 0
    # A roof of 45 degrees over a square: every normal is off by that.
    roof = np.array([[0, 0, 0], [1, 0, 1], [0, 1, 0], [1, 1, 1]], float)
    floor, faces = roof * [1, 1, 0], np.array([[0, 1, 3], [0, 3, 2]])
    found = compare_surfaces(roof, faces, floor, faces, samples=2000)
    assert found["normal_consistency"] == pytest.approx(0.5**0.5)
    assert found["normals_off"] == 1


def test_edges_of_a_box() -> None:
    box = trimesh.creation.box((2, 2, 2))
    found = compare(box, box, samples=100_000)
    assert found["longest_side"] == 2
    assert found["diagonal"] == pytest.approx(12**0.5)
    assert found["chamfer_floor"] < 1e-12
    # Some thousand points along twelve edges: another sampling of them lies about a spacing of theirs off.
    assert 0 < found["edge_chamfer"] < 0.01
    assert found["edge_chamfer"] == pytest.approx(found["edge_chamfer_floor"], rel=0.2)
    assert found["edge_f_score"] > 0.7
    # Shifted by 2 % of its side along each axis, edges no longer find each other, though parts of them overlap.
    moved = box.copy()
    moved.apply_translation([0.04, 0.04, 0.04])
    assert compare(moved, box)["edge_f_score"] < 0.2
    ball = trimesh.creation.icosphere(4)
    none = compare(ball, ball)
    assert np.isnan(none["edge_chamfer"])
    assert none["edge_f_score"] == 1
    some = compare(ball, box)
    assert np.isnan(some["edge_chamfer"])
    assert some["edge_f_score"] == 0


def test_edges_are_found_in_blocks_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    box = trimesh.creation.box((2, 2, 2))
    sampled = surface._Sampled.of(box.vertices, box.faces, 0, 5000)
    pairs = cKDTree(sampled.points).query_pairs(0.1, output_type="ndarray")
    cosine = np.einsum("ij,ij->i", *(sampled.normals[sampled.index[pairs[:, k]]] for k in range(2)))
    expected = np.unique(pairs[np.abs(cosine) < 0.2])
    assert 500 < len(expected) < 4000
    sizes = []

    class Counting(cKDTree):
        def sparse_distance_matrix(self, *args: object, **options: object) -> np.ndarray:
            found = super().sparse_distance_matrix(*args, **options)
            sizes.append(len(found))
            return found

    monkeypatch.setattr(surface, "cKDTree", Counting)
    monkeypatch.setattr(surface, "_PAIRS", 2000)
    np.testing.assert_array_equal(sampled.edge_points(0.1), sampled.points[expected])
    assert len(sizes) > 10
    assert sum(sizes) > 20_000
    assert max(sizes) < 2500


SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)


@pytest.mark.parametrize(
    ("vertices", "faces", "words"),
    [
        (SQUARE, np.empty((0, 3), int), "has no faces"),
        (SQUARE[:, :2], [[0, 1, 2]], r"vertices \(4, 2\)"),
        (SQUARE, [[0, 1, 2, 3]], r"faces \(1, 4\)"),
        (SQUARE, [[0, 1, 4]], "names vertex 4"),
        (SQUARE, [[0, 1, -1]], "or a negative one"),
        (SQUARE * [1, np.nan, 1], [[0, 1, 2]], "NaN"),
        (SQUARE, [[0, 1, 1]], "has no area"),
    ],
)
def test_surfaces_that_cannot_be_sampled(vertices: np.ndarray, faces: list, words: str) -> None:
    good = SQUARE, np.array([[0, 1, 2]])
    with pytest.raises(InputError, match=f"The surface .*{words}") as caught:
        compare_surfaces(vertices, np.array(faces), *good, samples=10)
    assert caught.value.code == "bad-mesh"
    with pytest.raises(InputError, match="The true surface"):
        compare_surfaces(*good, vertices, np.array(faces), samples=10)
    with pytest.raises(ValueError, match="samples is 0"):
        compare_surfaces(*good, *good, samples=0)
