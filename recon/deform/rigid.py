"""Rigid alignment of two surfaces that lie anywhere: many starts, each improved by trimmed closest points.

    (R, t) ← argmin Σₖ ‖R sₖ + t − uₖ‖²

over the pairs (sₖ, uₖ) of nearest points, those of the source and those of the target, nearest first up to a share of
all. Pairs both ways let either surface be a part of the other: all points of the part have partners, and what is
trimmed is of the whole. The same measure, the root mean square distance of the pairs that are kept, orders what the
starts lead to; those whose normals disagree count as far apart.

Starts: as it lies; centred, turned by the 24 rotations of a cube, and with the principal axes on each other in the four
ways that are rotations, since a turn about them is what a surface is most likely to need.

Sources: Besl & McKay 1992, "A Method for Registration of 3-D Shapes"; Chetverikov et al. 2002, "The Trimmed Iterative
Closest Point Algorithm"; Kabsch 1976 for the rotation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from recon.deform.surface import Indices, Surface, Vectors

SAMPLES = 400
"""Points of each surface that the starts are tried with."""
FINE_SAMPLES = 2000
CANDIDATES, AMBIGUOUS = 4, 1.5
"""At most so many motions are returned, within so many times the least distance."""
KEPT = 0.6
"""Share of the pairs that are not trimmed."""
_POOL = 20_000  # points that samples are chosen from
_COARSE, _FINE = 20, 30
_APART = 10.0  # degrees between motions that are not the same
_STILL = 1e-4  # change of a rotation's entries, and of a translation in diagonals, that counts as none
_AS_GOOD = 0.9  # as it lies is preferred unless another start ends nearer than this share of its distance


@dataclass(frozen=True)
class Rigid:
    """x → R x + t.

    Attributes:
        rotation: (3, 3) R.
        translation: (3,) t.
        distance: root mean square of the pairs kept, in the surfaces' units.
    """

    rotation: Vectors
    translation: Vectors
    distance: float

    def apply(self, points: Vectors) -> Vectors:
        """Return (P, 3) points where they go."""
        moved: Vectors = points @ self.rotation.T + self.translation
        return moved


def align(source: Surface, target: Surface, check: Callable[[], None] = lambda: None) -> list[Rigid]:
    """Return the motions that may lay the source onto the target, both of about unit size, the likeliest first.

    The first is as it lies, improved, unless another is clearly nearer. More than one where others are nearly as near
    (AMBIGUOUS): what they are worth shows when the source is deformed. ``check`` is called often; what it raises ends
    the search.
    """
    small, large = (_Pair(_sampled(source, count), _sampled(target, count), check) for count in (SAMPLES, FINE_SAMPLES))
    tried = [small.improved(start, _COARSE) for start in _starts(small.source[0], small.target[0])]
    limit = AMBIGUOUS * min(found.distance for found in tried)
    distinct: list[Rigid] = []
    for found in sorted(tried, key=lambda found: found.distance):
        alone = all(_angle(found.rotation, other.rotation) > _APART for other in distinct)
        if alone and found.distance <= limit and len(distinct) < CANDIDATES:
            distinct.append(found)
    finals = [large.improved(found, _FINE) for found in distinct]

    def worth(found: Rigid) -> float:
        return found.distance * (_AS_GOOD if _angle(found.rotation, tried[0].rotation) < _APART else 1)

    finals.sort(key=worth)
    return [found for found in finals if worth(found) <= AMBIGUOUS * worth(finals[0])]


class _Pair:
    """Two sets of points with normals, (S, 3) each."""

    def __init__(
        self, source: tuple[Vectors, Vectors], target: tuple[Vectors, Vectors], check: Callable[[], None]
    ) -> None:
        self.source, self.target, self._check = source, target, check
        self._trees = cKDTree(source[0]), cKDTree(target[0])

    def improved(self, start: Rigid, iterations: int) -> Rigid:
        """Return what closest points make of a start."""
        rotation, translation = start.rotation, start.translation
        for _ in range(iterations):
            self._check()
            s, u, squared = self._nearest(rotation, translation)
            near = np.argsort(squared, kind="stable")[: int(KEPT * len(squared))]
            before = np.append(rotation, translation)
            rotation, translation = kabsch(s[near], u[near])
            if np.abs(np.append(rotation, translation) - before).max() < _STILL:
                break
        s, u, squared = self._nearest(rotation, translation)
        kept = np.sort(squared)[: int(KEPT * len(squared))]
        return Rigid(rotation, translation, float(np.sqrt(kept.mean())))

    def _nearest(self, rotation: Vectors, translation: Vectors) -> tuple[Vectors, Vectors, Vectors]:
        """Return the pairs, from source and target, and their squared distances; far where normals oppose."""
        (s, s_normals), (u, u_normals) = self.source, self.target
        forth, there = self._trees[1].query(s @ rotation.T + translation)
        back, here = self._trees[0].query((u - translation) @ rotation)
        cosine = np.einsum(
            "pi,pi->p", np.r_[s_normals, s_normals[here]] @ rotation.T, np.r_[u_normals[there], u_normals]
        )
        squared = np.r_[forth, back] ** 2
        return np.r_[s, s[here]], np.r_[u[there], u], squared + np.where(cosine < 0, squared.max(), 0)


def kabsch(source: Vectors, target: Vectors) -> tuple[Vectors, Vectors]:
    """Return the rotation (3, 3) and translation (3,) that bring (P, 3) points nearest to as many others."""
    centres = source.mean(axis=0), target.mean(axis=0)
    rotation = rotations((target - centres[1]).T @ (source - centres[0]))
    return rotation, centres[1] - rotation @ centres[0]


def rotations(matrices: Vectors) -> Vectors:
    """Return (…, 3, 3) the rotations R that maximise tr(Rᵀ M)."""
    u, _, vt = np.linalg.svd(matrices)
    turn = np.ones((*matrices.shape[:-2], 3))
    turn[..., 2] = np.sign(np.linalg.det(u @ vt))
    found: Vectors = (u * turn[..., None, :]) @ vt
    return found


def _angle(one: Vectors, other: Vectors) -> float:
    """Return the angle between two rotations, in degrees."""
    return float(np.degrees(np.arccos(np.clip((np.trace(one @ other.T) - 1) / 2, -1, 1))))


def farthest(points: Vectors, count: int) -> Indices:
    """Return the (min(count, P),) points that are each the farthest from those before."""
    least = np.linalg.norm(points - points.mean(axis=0), axis=1)
    chosen = np.empty(min(count, len(points)), np.int64)
    for i in range(len(chosen)):
        chosen[i] = least.argmax()
        distance = np.linalg.norm(points - points[chosen[i]], axis=1)
        least = distance if i == 0 else np.minimum(least, distance)
    return chosen


def _sampled(surface: Surface, count: int) -> tuple[Vectors, Vectors]:
    """Return points and normals spread evenly; normals whose sign means nothing are zero."""
    pool = np.random.default_rng(0).permutation(len(surface.points))[:_POOL]
    chosen = pool[farthest(surface.points[pool], count)]
    return surface.points[chosen], surface.normals[chosen] * surface.oriented


def _starts(source: Vectors, target: Vectors) -> list[Rigid]:
    middles = source.mean(axis=0), target.mean(axis=0)
    frames = [_principal(points) for points in (source, target)]
    signs = [np.diag([a, b, a * b]) for a, b in itertools.product((1.0, -1.0), repeat=2)]
    turns = _cube() + [frames[1] @ sign @ frames[0].T for sign in signs]
    return [Rigid(np.eye(3), np.zeros(3), np.inf)] + [
        Rigid(turn, middles[1] - turn @ middles[0], np.inf) for turn in turns
    ]


def _principal(points: Vectors) -> Vectors:
    """Return the (3, 3) principal axes in columns, a rotation."""
    axes: Vectors = np.linalg.eigh(np.cov(points.T))[1]
    return axes * np.sign(np.linalg.det(axes))


def _cube() -> list[Vectors]:
    """Return the 24 rotations that bring a cube onto itself."""
    matrices = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.diag(signs)[:, order]
            if np.linalg.det(matrix) > 0:
                matrices.append(matrix)
    return matrices
