"""The tables of dual marching cubes hold what their definition promises, in all 256 cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kernels.contour_tables import (
    CORNERS,
    COUNTS,
    EDGE_AT,
    EDGES,
    FACES,
    FLAGGED,
    LOOPS,
    NONE,
    REGIONS,
    ambiguous_faces,
    trace_loops,
)

CASES = range(256)


def rotations() -> list[list[int]]:
    """Return the 24 rotations of the cube, as where each corner goes."""
    found: list[list[int]] = []
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((0, 1), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), axes] = [1 - 2 * f for f in flips]
            if np.linalg.det(matrix) > 0:
                moved = CORNERS[:, axes] ^ np.array(flips, np.uint8)
                found.append((moved @ [1, 2, 4]).tolist())
    return found


def test_conventions() -> None:
    assert all(bin(p ^ q).count("1") == 1 for p, q in EDGES.tolist())
    for edge, (p, q) in enumerate(EDGES.tolist()):
        assert (CORNERS[q].astype(int) - CORNERS[p]).argmax() == edge // 4
        assert EDGE_AT[p, edge // 4] == EDGE_AT[q, edge // 4] == edge
    for face, corners in enumerate(FACES.tolist()):
        assert (CORNERS[corners, face // 2] == face % 2).all()
        assert all(bin(corners[k - 1] ^ corners[k]).count("1") == 1 for k in range(4))


def test_vertices_per_case() -> None:
    assert np.bincount(COUNTS[:256]).tolist() == [2, 162, 82, 8, 2]


def test_simple_cases_by_hand() -> None:
    assert trace_loops(0) == trace_loops(255) == []
    assert [sorted(loop) for loop in trace_loops(1)] == [[0, 4, 8]]  # one corner: its three edges
    assert [sorted(loop) for loop in trace_loops(0b1111)] == [[8, 9, 10, 11]]  # the floor: the four upright edges
    both = trace_loops(0b10000001)  # opposite corners
    assert [sorted(loop) for loop in both] == [[0, 4, 8], [3, 7, 11]]
    diagonal = 0b1001  # corners 0 and 3, on the diagonal of the floor
    assert len(trace_loops(diagonal)) == 2
    assert len(trace_loops(diagonal, apart=False)) == 1


@pytest.mark.parametrize("apart", [True, False])
def test_loops_are_closed_and_hold_every_crossed_edge_once(apart: bool) -> None:
    faces_of = [{f for f, c in enumerate(FACES.tolist()) if {p, q} <= set(c)} for p, q in EDGES.tolist()]
    for case in CASES:
        loops = trace_loops(case, apart)
        crossed = [e for e, (p, q) in enumerate(EDGES.tolist()) if (case >> p ^ case >> q) & 1]
        assert sorted(e for loop in loops for e in loop) == crossed
        for loop in loops:
            assert len(loop) >= 3
            assert all(faces_of[loop[k - 1]] & faces_of[loop[k]] for k in range(len(loop)))


def test_rotations_only_rename() -> None:
    loops_of = [{frozenset(loop) for loop in trace_loops(case)} for case in CASES]
    for moved in rotations():
        edge_goes = np.array([EDGE_AT[moved[p], (moved[p] ^ moved[q]).bit_length() - 1] for p, q in EDGES.tolist()])
        face_goes = [next(g for g in range(6) if {moved[c] for c in f} == set(FACES[g])) for f in FACES.tolist()]
        for case in CASES:
            turned = sum((case >> c & 1) << moved[c] for c in range(8))
            assert {frozenset(edge_goes[list(loop)].tolist()) for loop in loops_of[case]} == loops_of[turned]
            assert FLAGGED[turned] == (face_goes[FLAGGED[case]] if FLAGGED[case] >= 0 else -1)


def test_flagged_are_those_whose_loop_passes_a_face_twice() -> None:
    assert (FLAGGED >= 0).sum() == 36
    twice = np.full(256, -1)
    for case in CASES:
        for face in ambiguous_faces(case):
            corners = FACES[face]
            around = [EDGE_AT[corners[k], (corners[k] ^ corners[k - 1]).item().bit_length() - 1] for k in range(4)]
            if len(set(LOOPS[case, around].tolist())) == 1:
                assert twice[case] == -1
                twice[case] = face
            if FLAGGED[case] == face:
                assert len(set(LOOPS[256 + case, around].tolist())) == 2
    assert (twice == FLAGGED).all()


def test_second_half_is_the_first_of_the_opposite_case() -> None:
    for case in CASES:
        assert (LOOPS[256 + case] == LOOPS[255 - case]).all()
        assert COUNTS[256 + case] == COUNTS[255 - case]


def test_regions() -> None:
    for row, regions in enumerate(REGIONS):
        inside = [bool(row >> c & 1) for c in range(8)]
        assert ((regions != NONE) == inside).all()
        for p, q in EDGES.tolist():
            assert not (inside[p] and inside[q]) or regions[p] == regions[q]
        for loop in range(COUNTS[row]):  # one side of a loop is one part of the inside
            ends = EDGES[LOOPS[row] == loop]
            assert len({int(regions[p] if inside[p] else regions[q]) for p, q in ends.tolist()}) == 1
