"""The cells of an octree, and the complex of samples, edges and faces that they share.

A cell is split into eight, or it is a leaf. Leaves that touch, be it at a corner, differ by one level at most. That is
so if and only if

    a split cell of level l has neighbours of level l, all 26 of them (in the box),

so that going from the finest level to the coarsest once, splitting the parents of neighbours, is enough.

Where leaves of two sizes meet, the coarser one's face counts as four and its edge as two: *minimal* edges and faces
have nothing finer on them. Every minimal face lies between two leaves; every minimal edge has four quadrants around it,
two of which belong to one leaf if the edge runs across that leaf's face. A sample in the middle of some leaf's edge or
face *hangs*: its value is the mean of those at the ends or corners there. There is one such edge or face only: in
halves of that leaf one coordinate of the sample is odd on an edge, two are on a face, and no other unit gives that.

Sources: Ju et al. 2002, "Dual Contouring of Hermite Data", §4 (minimal edges); Shen et al. 2023, "Flexible Isosurface
Extraction for Gradient-Based Mesh Optimization", supplement A.2 (hanging samples).
Conventions: places are whole numbers in units of the finest leaf. A leaf's lattice is its corners and middles, 27 in
all: number i + 3 j + 9 k lies at (i, j, k) halves of it. Corners and edges are those of kernels/contour_tables.py. The
quadrants around an edge along axis a are ++, -+, --, +- in axes a + 1 and a + 2: counter-clockwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.contour_tables import CORNERS, EDGES
from kernels.dual_contour import Resolution

Ints = NDArray[np.int64]

LATTICE: Ints = np.array([[n % 3, n // 3 % 3, n // 9] for n in range(27)])
"""(27, 3) places on a leaf's lattice, in halves of the leaf."""
_STRIDE = np.array([1, 3, 9])
CORNER_AT: Ints = 2 * CORNERS.astype(np.int64) @ _STRIDE
"""(8,) a leaf's corners on its lattice."""


def _quadrants(axis: int, at: int) -> list[int]:
    """Return the quadrants, around an edge of a leaf's boundary at a place of its lattice, in which the leaf lies."""
    signs = [{0: (0,), 1: (0, 1), 2: (1,)}[int(LATTICE[at, (axis + k) % 3])] for k in (1, 2)]  # 1: it lies below
    return [(0, 1, 3, 2)[b + 2 * c] for b in signs[0] for c in signs[1]]


def _edge_rows() -> tuple[Ints, Ints]:
    """Return rows (axis, low, high, middle, quadrant) of whole edges, and of halves, those across faces included.

    A whole edge is minimal if its middle is no sample. A half is if the middle, of edge or face, where it ends is one.
    """
    whole = [
        (e // 4, low, high, (low + high) // 2, quadrant)
        for e, (low, high) in enumerate(CORNER_AT[EDGES].tolist())
        for quadrant in _quadrants(e // 4, low)
    ]
    halves = []
    for axis in range(3):
        for low in np.nonzero(LATTICE[:, axis] < 2)[0].tolist():
            high = low + int(_STRIDE[axis])
            middle = max(low, high, key=lambda at: int((LATTICE[at] == 1).sum()))
            if (LATTICE[middle] == 1).sum() < 3:  # not within the leaf
                halves += [(axis, low, high, middle, quadrant) for quadrant in _quadrants(axis, low)]
    return np.array(whole), np.array(halves)


def _face_rows() -> tuple[Ints, Ints, Ints]:
    """Return (6, 2) axis and middle of a leaf's faces, and (6, 4, 3) axis, low end and middle of each face's sides.

    Third, (3, 4, 2) for a face across each axis: the quadrant around each side of the leaf below and the leaf above.
    """
    faces, sides, quadrants = [], [], np.zeros((3, 4, 2), np.int64)
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        # Around the face from corner to corner: along b, along c, back along b, back along c.
        along = [(b, c, 0), (c, b, 2), (b, c, 2), (c, b, 0)]
        for half in (0, 2):
            corner = half * _STRIDE[a]
            faces.append((a, corner + _STRIDE[b] + _STRIDE[c]))
            sides.append([(d, corner + t * _STRIDE[e], corner + t * _STRIDE[e] + _STRIDE[d]) for d, e, t in along])
        for k, (d, e, t) in enumerate(along):
            for above in (0, 1):
                below_in = {a: 1 - above, e: t // 2}
                quadrants[a, k, above] = (0, 1, 3, 2)[below_in[(d + 1) % 3] + 2 * below_in[(d + 2) % 3]]
    return np.array(faces), np.array(sides), quadrants


_WHOLE, _HALVES = _edge_rows()
_FACES, _SIDES, QUADRANTS = _face_rows()


@dataclass(frozen=True)
class OctreeGrid:
    """The complex: M leaves, P samples of which the first S are free, E minimal edges, F minimal faces.

    Attributes:
        resolution: (Nx, Ny, Nz) cells of level 0.
        splits: for each level the (n, 3) cells that are split.
        places: (M, 3) the leaves' lowest corners; leaves ascend lexically.
        sizes: (M,) their sides.
        corners: (M, 8) their samples.
        samples: (P, 3) places, free ones first, ascending lexically.
        hanging: (n, 4) samples whose mean are the next n samples; one after the other the hanging samples.
        edges: (E, 2) samples, the lower first.
        edge_axis: (E,) the axis along which it runs.
        edge_leaves: (E, 4) the leaf in each quadrant, -1 outside the box.
        edge_ends: (E, 4, 2) the edge's ends on that leaf's lattice.
        face_axis: (F,) the axis across which it lies.
        face_corner: (F,) its lowest sample.
        face_sides: (F, 4, 2) the minimal edges on each side: two, or one twice.
    """

    resolution: Resolution
    splits: tuple[Ints, ...]
    places: Ints
    sizes: Ints
    corners: Ints
    samples: Ints
    hanging: tuple[Ints, ...]
    edges: Ints
    edge_axis: Ints
    edge_leaves: Ints
    edge_ends: Ints
    face_axis: Ints
    face_corner: Ints
    face_sides: Ints

    @property
    def extent(self) -> Ints:
        """Return the box's (3,) sides in units of the finest leaf."""
        return np.array(self.resolution) << len(self.splits)

    @property
    def levels(self) -> Ints:
        """Return (M,) how often the leaves' ancestors were split."""
        return len(self.splits) - np.log2(self.sizes).astype(np.int64)

    @staticmethod
    def of(resolution: Resolution, splits: tuple[Ints, ...]) -> OctreeGrid:
        """Return the complex of an octree whose split cells are known and balanced."""
        extent = np.array(resolution) << len(splits)
        places, sizes = _leaves(resolution, splits)
        numbers, corners = np.unique(
            _number(places[:, None] + sizes[:, None, None] * CORNERS.astype(np.int64), extent + 1), return_inverse=True
        )
        corners = corners.reshape(-1, 8)
        lattice = np.full((len(places), 27), -1)
        lattice[:, CORNER_AT] = corners
        coarse = np.nonzero(sizes > 1)[0]  # the finest have nothing finer around
        middles = np.setdiff1d(np.arange(26), np.append(CORNER_AT, 13))
        at = places[coarse, None] + sizes[coarse, None, None] // 2 * LATTICE[middles]
        lattice[np.ix_(coarse, middles)] = _find(_number(at, extent + 1), numbers)

        order, hanging = _hang(lattice, sizes)
        rank = np.append(np.argsort(order), -1)  # so that -1 stays -1
        lattice, corners, hanging = rank[lattice], rank[corners], tuple(rank[each] for each in hanging)
        samples = np.stack(np.unravel_index(numbers[order], extent + 1), axis=1)
        edges, axis, leaves, ends = _edges(lattice, coarse)
        return OctreeGrid(
            resolution,
            splits,
            places,
            sizes,
            corners,
            samples,
            hanging,
            edges,
            axis,
            leaves,
            ends,
            *_faces(lattice, 3 * edges[:, 0] + axis),
        )

    def refined(self, leaves: Ints) -> OctreeGrid:
        """Return the octree with some leaves split, and what balance needs; no leaf is split more than once."""
        depth, levels = len(self.splits), self.levels
        splits = [*self.splits, np.zeros((0, 3), np.int64)]
        for level in range(depth + 1):
            chosen = leaves[levels[leaves] == level]
            splits[level] = np.concatenate([splits[level], self.places[chosen] >> (depth - level)])
        steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        for level in range(depth, -1, -1):
            shape = np.array(self.resolution) << level
            splits[level] = np.stack(np.unravel_index(np.unique(_number(splits[level], shape)), shape), axis=1)
            if level > 0:
                near = (splits[level][:, None] + steps).reshape(-1, 3)
                near = near[((near >= 0) & (near < shape)).all(axis=1)]
                splits[level - 1] = np.concatenate([splits[level - 1], near >> 1])
        return OctreeGrid.of(self.resolution, tuple(splits if len(splits[-1]) else splits[:-1]))

    def ancestors(self, finer: OctreeGrid) -> tuple[Ints, Ints]:
        """Return, of each leaf of an octree that this one was refined to, the leaf here that it is or was part of.

        Returns:
            Numbers of leaves here, and which of the eight parts it is, numbered as corners; -1 if it was not split.
        """
        scale = len(finer.splits) - len(self.splits)
        here = _number(self.places << scale, finer.extent + 1)
        same = _find(_number(finer.places, finer.extent + 1), here)
        same = np.where((self.sizes[same] << scale) == finer.sizes, same, -1)
        twice = 2 * finer.sizes[:, None]
        whole = _find(_number(finer.places // twice * twice, finer.extent + 1), here)
        part = (finer.places // finer.sizes[:, None] % 2) @ np.array([1, 2, 4])
        return np.where(same >= 0, same, whole), np.where(same >= 0, -1, part)


def _number(places: Ints, shape: Ints) -> Ints:
    return (places[..., 0] * shape[1] + places[..., 1]) * shape[2] + places[..., 2]


def _find(numbers: Ints, among: Ints) -> Ints:
    """Return where numbers are among ascending ones, -1 where they are not."""
    place = np.searchsorted(among, numbers).clip(max=len(among) - 1)
    return np.where(among[place] == numbers, place, -1)


def _leaves(resolution: Resolution, splits: tuple[Ints, ...]) -> tuple[Ints, Ints]:
    depth = len(splits)
    cells = np.stack(np.meshgrid(*[np.arange(n) for n in resolution], indexing="ij"), axis=-1).reshape(-1, 3)
    places, sizes = [], []
    for level in range(depth + 1):
        shape = np.array(resolution) << level
        if level < depth:
            cells = cells[~np.isin(_number(cells, shape), _number(splits[level], shape))]
        places.append(cells << (depth - level))
        sizes.append(np.full(len(cells), 1 << (depth - level)))
        if level < depth:
            cells = (2 * splits[level][:, None] + CORNERS.astype(np.int64)).reshape(-1, 3)
    at, size = np.concatenate(places), np.concatenate(sizes)
    order = np.argsort(_number(at, (np.array(resolution) << depth) + 1))
    return at[order], size[order]


def _hang(lattice: Ints, sizes: Ints) -> tuple[Ints, tuple[Ints, ...]]:
    """Return the samples' order, free ones first, then hanging ones from coarse to fine, and what these hang on."""
    found, parents, size = [], [], []
    ends = [(at, (low, high) * 2) for _, low, high, at, _ in _WHOLE.tolist()]
    around = {int(at): CORNER_AT[(LATTICE[CORNER_AT] == LATTICE[at])[:, axis]] for axis, at in _FACES}
    for at, on in [*ends, *around.items()]:
        leaves = np.nonzero(lattice[:, at] >= 0)[0]
        found.append(lattice[leaves, at])
        parents.append(lattice[np.ix_(leaves, on)])
        size.append(sizes[leaves])
    hanging, first = np.unique(np.concatenate(found), return_index=True)
    of, coarse = np.concatenate(parents)[first], np.concatenate(size)[first]
    by_size = np.argsort(-coarse, kind="stable")
    hanging, of, coarse = hanging[by_size], of[by_size], coarse[by_size]
    free = np.setdiff1d(np.arange(lattice.max() + 1), hanging)
    groups = np.split(of, np.nonzero(np.diff(coarse))[0] + 1) if len(of) else []
    return np.concatenate([free, hanging]), tuple(groups)


def _edges(lattice: Ints, coarse: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    every = np.arange(len(lattice))
    keys, entries = [], []
    for rows, leaves, minimal in ((_WHOLE, every, False), (_HALVES, coarse, True)):
        for axis, low, high, middle, quadrant in rows.tolist():
            of = leaves[(lattice[leaves, middle] >= 0) == minimal]
            keys.append(3 * lattice[of, low] + axis)
            fixed = np.array([quadrant, low, high])
            entries.append(np.column_stack([lattice[of, high], of, np.broadcast_to(fixed, (len(of), 3))]))
    key, first, edge = np.unique(np.concatenate(keys), return_index=True, return_inverse=True)
    end, leaf, quadrant, low, high = np.concatenate(entries).T
    edge_leaves, ends = np.full((len(key), 4), -1), np.zeros((len(key), 4, 2), np.int64)
    edge_leaves[edge, quadrant] = leaf
    ends[edge, quadrant] = np.stack([low, high], axis=1)
    return np.stack([key // 3, end[first]], axis=1), key % 3, edge_leaves, ends


def _faces(lattice: Ints, edge_keys: Ints) -> tuple[Ints, Ints, Ints]:
    keys, sides = [], []
    for (axis, middle), around in zip(_FACES.tolist(), _SIDES, strict=True):
        of = lattice[lattice[:, middle] < 0]
        keys.append(3 * of[:, around[0, 1]] + axis)
        low, half = of[:, around[:, 1]], of[:, around[:, 2]]
        sides.append(3 * np.stack([low, np.where(half >= 0, half, low)], axis=2) + around[:, :1])
    key, first = np.unique(np.concatenate(keys), return_index=True)
    return key % 3, key // 3, _find(np.concatenate(sides)[first], edge_keys)
