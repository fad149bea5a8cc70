"""The tables of dual marching cubes, made from their definition when this file is imported.

A cube's corner is on one side of the surface or the other: 256 cases. On each face the surface runs between the edges
whose ends differ; following it from face to face gives closed loops, and each loop becomes one vertex of the dual mesh.
A face whose inside corners lie on a diagonal is ambiguous: there the inside corners are kept apart.

That fails in one place: two cubes whose common face is ambiguous, each with a single loop, which passes the face twice.
Both their vertices would be joined by an edge of four triangles. Such cubes keep the *outside* corners of that face
apart instead, which gives two loops each (cases C16 and C19 of Wenger).

Sources: Nielson 2004, "Dual Marching Cubes"; Wenger 2013, "Isosurfaces: Geometry, Topology, and Algorithms"; Shen et
al. 2023, "Flexible Isosurface Extraction for Gradient-Based Mesh Optimization" (FlexiCubes), §3 and §4.2.

Conventions: corner c lies at (c & 1, c >> 1 & 1, c >> 2 & 1); a case has bit c set where corner c is inside. Edge
4a + m runs along axis a from the m-th of the corners whose bit a is clear. Face 2a + h is at coordinate h of axis a.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NONE = 255
"""What tables have where there is nothing."""

CORNERS = np.array([[c & 1, c >> 1 & 1, c >> 2 & 1] for c in range(8)], np.uint8)
"""(8, 3) where a corner lies."""
EDGES = np.array([[c, c | 1 << a] for a in range(3) for c in range(8) if not c >> a & 1], np.uint8)
"""(12, 2) corners at an edge's ends, the lower first."""
EDGE_AT = np.full((8, 3), NONE, np.uint8)
"""(8, 3) the edge at a corner along an axis."""
for _edge, _ends in enumerate(EDGES):
    EDGE_AT[_ends, _edge // 4] = _edge
FACES = np.array(
    [
        [h << a, h << a | 1 << b, h << a | 1 << b | 1 << c, h << a | 1 << c]
        for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1))
        for h in (0, 1)
    ],
    np.uint8,
)
"""(6, 4) corners of a face, one after the other around it."""


def inside(case: int, corner: int) -> bool:
    """Return whether a corner is inside."""
    return bool(case >> corner & 1)


def ambiguous_faces(case: int) -> list[int]:
    """Return the faces whose inside corners lie on a diagonal."""
    around = [[inside(case, c) for c in corners] for corners in FACES.tolist()]
    return [face for face, at in enumerate(around) if at[0] == at[2] != at[1] == at[3]]


def trace_loops(case: int, apart: bool = True) -> list[list[int]]:
    """Return the loops of a case, each as the crossed edges in order, sorted by their lowest edge.

    Args:
        case: bit c is corner c.
        apart: which corners of ambiguous faces are kept apart: the inside ones, or the outside ones.
    """
    links: dict[int, list[int]] = {e: [] for e, (p, q) in enumerate(EDGES) if inside(case, p) != inside(case, q)}
    for corners in FACES.tolist():
        around = [_edge_between(corners[k - 1], corners[k]) for k in range(4)]  # around[k] ends at corner k
        crossed = [e for e in around if e in links]
        pairs = [(crossed[0], crossed[1])] if len(crossed) == 2 else []
        if len(crossed) == 4:
            pairs = [(around[k], around[(k + 1) % 4]) for k in range(4) if inside(case, corners[k]) == apart]
        for e, f in pairs:
            links[e].append(f)
            links[f].append(e)
    loops, seen = [], set[int]()
    for start in links:
        if start in seen:
            continue
        loop = [start]
        while (following := next((e for e in links[loop[-1]] if e not in loop), None)) is not None:
            loop.append(following)
        seen.update(loop)
        loops.append(loop)
    return loops


def trace_regions(case: int, apart: bool = True) -> list[set[int]]:
    """Return the connected parts of the inside on the cube's surface, as sets of corners, by their lowest corner."""
    joined = [{int(p), int(q)} for p, q in EDGES if inside(case, p) and inside(case, q)]
    if not apart:
        joined += [{int(c) for c in FACES[face] if inside(case, c)} for face in ambiguous_faces(case)]
    regions = [{c} for c in range(8) if inside(case, c)]
    for pair in joined:
        touched = [region for region in regions if region & pair]
        regions = [region for region in regions if not region & pair] + [set[int]().union(*touched)]
    return sorted(regions, key=min)


def _edge_between(p: int, q: int) -> int:
    return int(EDGE_AT[p, (p ^ q).bit_length() - 1])


def _flagged() -> NDArray[np.int8]:
    result = np.full(256, -1, np.int8)
    for case in range(256):
        faces = ambiguous_faces(case)
        if len(faces) == 1 and len(trace_loops(case)) == 1 and len(trace_loops(case, apart=False)) == 2:
            result[case] = faces[0]
    return result


def _number(parts: list[list[int]] | list[set[int]], count: int) -> NDArray[np.uint8]:
    result = np.full(count, NONE, np.uint8)
    for number, part in enumerate(parts):
        result[list(part)] = number
    return result


_CASES = [(case, apart) for apart in (True, False) for case in range(256)]

FLAGGED = _flagged()
"""(256,) the face across which a case is to be looked at (C16 and C19), or -1."""
LOOPS = np.stack([_number(trace_loops(case, apart), 12) for case, apart in _CASES])
"""(512, 12) the loop that an edge belongs to, NONE where it is not crossed; rows from 256 on: outside corners apart."""
COUNTS = np.array([len(set(row.tolist()) - {NONE}) for row in LOOPS], np.uint8)
"""(512,) how many loops."""
REGIONS = np.stack([_number(trace_regions(case, apart), 8) for case, apart in _CASES])
"""(512, 8) the part of the inside that a corner belongs to, NONE outside."""
