"""A cloud made fit for reconstruction: finite, without repeats, without outliers, not more points than asked for.

An outlier is a point whose mean distance d to its nearest neighbours is much larger than its neighbours' own, or than
that of most points:

    d_i > 3 median over neighbours j of d_j     or     d_i > 8 median of d
                                                or     d_i > 2 median of d and σ_i > 0.2

with σ the deviation of the neighbours from their plane, as a share of the larger one in it. The first alone would keep
outliers that are neighbours of each other, the second alone would cut away whatever was scanned from afar; outliers
that are many lie in space, not on a surface, which the third sees. Thinning averages positions, normals and colours
over a grid's cells, which also takes noise out.

Source: the second rule is Rusu et al. 2008, "Towards 3D Point Cloud Based Object Maps", §3.1 (there with mean and
deviation, which outliers themselves move); the first is the local outlier factor of Breunig et al. 2000, simplified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from recon.errors import InputError
from recon.isosurface.cloud_normals import neighbours

FEWEST = 50
"""Fewer points than this determine no surface."""
_NEIGHBOURS = 8
_LOCAL, _GLOBAL, _SPARSE = 3.0, 8.0, 2.0
_ROUND = 0.2
_PASSES = 4
_AVERAGED = 20
"""No more points than this, on the mean, are averaged into one: of larger clouds every second, third … is taken."""
_FLAT = 1e-4
"""A cloud thinner than this share of its length has no volume that a surface could enclose."""

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Cloud:
    """Points to be reconstructed.

    Attributes:
        xyz: (P, 3) float64.
        rgb: (P, 3) float32 in [0, 1], None where there are no colours.
        normals: (P, 3) float64 unit vectors, None where there are none.
    """

    xyz: NDArray[np.float64]
    rgb: NDArray[np.float32] | None = None
    normals: NDArray[np.float64] | None = None

    def __getitem__(self, index: NDArray[np.generic]) -> Cloud:
        """Return the points of an index or a mask."""
        rgb, normals = self.rgb, self.normals
        return Cloud(self.xyz[index], None if rgb is None else rgb[index], None if normals is None else normals[index])

    def __len__(self) -> int:
        return len(self.xyz)


def clean(cloud: Cloud, most: int, outliers: bool, warn: Warn, check: Callable[[], None] = lambda: None) -> Cloud:
    """Return the cloud without what would spoil a reconstruction.

    Args:
        cloud: any points; normals of any length, also 0.
        most: thin to about this many points.
        outliers: whether to leave out outliers.
        warn: is told what was left out.
        check: called now and then; may raise.

    Returns:
        At least FEWEST points; unit normals for all of them, or none.

    Raises:
        InputError: too few points, or all on one point, line or plane.
    """
    cloud = _distinct(_finite(cloud, warn), warn)
    _check_count(len(cloud))
    check()
    cloud = thin(_unit_normals(cloud, warn), most, check)
    if outliers:
        for _ in range(_PASSES):  # those that are taken away hid others
            kept = ~isolated(cloud.xyz, check)
            if kept.all() or kept.sum() < FEWEST:
                break
            warn(f"Points that lie apart from all others, left out: {int((~kept).sum()):,} of {len(cloud):,}.")
            cloud = cloud[kept]
    _check_shape(cloud.xyz)
    return cloud


def isolated(xyz: NDArray[np.float64], check: Callable[[], None] = lambda: None) -> NDArray[np.bool_]:
    """Return (P,) which points are outliers."""
    distance, index = neighbours(xyz, _NEIGHBOURS, check)
    mean = distance.mean(axis=1)
    typical = np.median(mean)
    found = (mean > _LOCAL * np.median(mean[index], axis=1)) | (mean > _GLOBAL * typical)
    some = np.flatnonzero(~found & (mean > _SPARSE * typical))
    near = np.concatenate([xyz[some, None], xyz[index[some]]], axis=1)
    near -= near.mean(axis=1, keepdims=True)
    squares = np.linalg.eigvalsh(np.einsum("pki,pkj->pij", near, near))
    found[some] = np.sqrt(np.maximum(squares[:, 0], 0)) > _ROUND * np.sqrt(squares[:, 2])
    result: NDArray[np.bool_] = found
    return result


def thin(cloud: Cloud, most: int, check: Callable[[], None] = lambda: None) -> Cloud:
    """Return the cloud averaged over the cells of a grid, the finest that leaves at most about ``most`` points."""
    if len(cloud) <= most:
        return cloud
    cloud = cloud[np.arange(0, len(cloud), max(1, len(cloud) // (_AVERAGED * most)))]
    low = cloud.xyz.min(axis=0)
    side = float(np.ptp(cloud.xyz, axis=0).max())
    fine, coarse = side / 4096, side / 4  # cell sizes with too many and too few points; they close in on each other
    keys = _cells(cloud.xyz - low, coarse)
    for _ in range(14):
        check()
        cell = float(np.sqrt(fine * coarse))
        tried = _cells(cloud.xyz - low, cell)
        if len(np.unique(tried)) > most:
            fine = cell
        else:
            coarse, keys = cell, tried
    _, index, counts = np.unique(keys, return_inverse=True, return_counts=True)

    def mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
        sums = [np.bincount(index, values[:, i].astype(np.float64), len(counts)) for i in range(3)]
        return np.stack(sums, axis=1) / counts[:, None]

    normals = None
    if cloud.normals is not None:
        sums = mean(cloud.normals)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        first = np.full(len(counts), len(cloud))
        np.minimum.at(first, index, np.arange(len(cloud)))
        normals = np.where(length > 0.1, sums / np.maximum(length, 1e-12), cloud.normals[first])
    rgb = None if cloud.rgb is None else mean(cloud.rgb).astype(np.float32)
    return Cloud(mean(cloud.xyz - low) + low, rgb, normals)


def _cells(offsets: NDArray[np.float64], cell: float) -> NDArray[np.int64]:
    i, j, k = np.floor(offsets / cell).astype(np.int64).T
    return (i << 42) | (j << 21) | k


def _finite(cloud: Cloud, warn: Warn) -> Cloud:
    with np.errstate(invalid="ignore"):
        finite = np.asarray((np.abs(cloud.xyz) < 1e30).all(axis=1))  # beyond, squares overflow
    if not finite.all():
        warn(f"Points that are not finite, left out: {int((~finite).sum()):,} of {len(cloud):,}.")
    return cloud[finite]


def _distinct(cloud: Cloud, warn: Warn) -> Cloud:
    """Return the cloud with each position once."""
    if len(cloud) == 0:
        return cloud
    order = np.lexsort(cloud.xyz.T)
    new = np.r_[True, (np.diff(cloud.xyz[order], axis=0) != 0).any(axis=1)]
    if not new.all():
        warn(f"Points given more than once, left out: {int((~new).sum()):,} of {len(cloud):,}.")
    return cloud[np.sort(order[new])]


def _unit_normals(cloud: Cloud, warn: Warn) -> Cloud:
    """Return the cloud with normals of length 1; of the points without one that of the nearest with one."""
    if cloud.normals is None:
        return cloud
    normals = np.nan_to_num(cloud.normals.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    length = np.linalg.norm(normals, axis=1)
    there = length > 1e-6 * max(1e-30, float(np.median(length)))
    if there.mean() < 0.5:
        warn("Most normals are zero or not finite: they are estimated instead.")
        return replace(cloud, normals=None)
    normals[there] /= length[there, None]
    if not there.all():
        warn(f"Normals that are zero or not finite, taken from neighbours: {int((~there).sum()):,} of {len(cloud):,}.")
        normals[~there] = normals[there][cKDTree(cloud.xyz[there]).query(cloud.xyz[~there])[1]]
    return replace(cloud, normals=normals)


def _check_count(count: int) -> None:
    if count < FEWEST:
        raise InputError(
            f"The cloud has {count} different points that can be used.",
            f"A surface needs {FEWEST} at least, and some thousands to look like something.",
            "too-few-points",
        )


def _check_shape(xyz: NDArray[np.float64]) -> None:
    """Refuse points on one line or plane."""
    centred = xyz - xyz.mean(axis=0)
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(centred.T @ centred / len(xyz)), 0))
    if values[1] <= _FLAT * values[2] or values[2] == 0:
        raise InputError("The points lie on one line.", "A surface needs points all over it.", "collinear-points")
    if values[0] <= _FLAT * values[2]:
        raise InputError(
            "The points lie on one plane, which encloses nothing.",
            "Give points of a thing's whole surface.",
            "flat-points",
        )
