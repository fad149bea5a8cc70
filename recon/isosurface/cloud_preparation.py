"""From a clean cloud to the oriented points that a surface is fitted to: normals, noise, and a frame of unit size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.errors import InputError
from recon.isosurface.cloud_cleaning import Cloud, Warn
from recon.isosurface.cloud_filter import CLEAN, SCALES, measure_noise, smooth
from recon.isosurface.cloud_normals import (
    GRAPH,
    Indices,
    Vectors,
    areas,
    estimate_normals,
    is_closed,
    neighbours,
    orient,
    sharpen,
    volume,
)

_ALONG = 0.7
"""Given normals whose median |cosine| with estimated ones is below this are not normals of this surface."""
_CONTRARY = 0.02
"""Share of neighbours with opposite normals from which on signs are not trusted."""
_AREA = 8  # neighbours in whose disc a point's area is measured


@dataclass(frozen=True)
class Prepared:
    """Points as they are fitted, in a frame where they are centred and 2 long.

    Attributes:
        xyz, normals: (P, 3) smoothed points and unit normals.
        measured: (P, 3) the points before smoothing.
        weight: (P,) area that each stands for.
        spacing: typical distance between neighbours.
        noise: standard deviation along the normals.
        centre, scale: the input's coordinates are ``centre + xyz / scale``.
    """

    xyz: Vectors
    normals: Vectors
    measured: Vectors
    weight: NDArray[np.float64]
    spacing: float
    noise: float
    centre: Vectors
    scale: float


def prepare(
    cloud: Cloud, normals: str, denoise: bool, generator: np.random.Generator, warn: Warn, check: Callable[[], None]
) -> Prepared:
    """Return the points to fit.

    Args:
        cloud: what :func:`~recon.isosurface.cloud_cleaning.clean` returns.
        normals: ``auto``, ``given`` or ``estimated``, see ``PointsConfig``.
        denoise: whether to smooth.
        generator: for the sample on which noise is measured.
        warn: is told what was repaired.
        check: called now and then; may raise.

    Raises:
        InputError: normals were to be the given ones, and there are none (code ``"no-normals"``).
    """
    low, high = cloud.xyz.min(axis=0), cloud.xyz.max(axis=0)
    centre, scale = (low + high) / 2, 2 / float((high - low).max())
    measured = (cloud.xyz - centre) * scale
    noise, count = measure_noise(measured, generator)
    check()
    distance, index = neighbours(measured, max(count, SCALES[0]), check)
    weight = areas(distance[:, :_AREA])
    given = None if normals == "estimated" else cloud.normals
    if normals == "given" and given is None:
        raise InputError("The cloud has no normals.", "Leave --normals out: they are estimated then.", "no-normals")
    if given is not None and normals == "auto":
        given = trusted(measured, given, weight, (distance, index), warn, check)
    if given is None:
        given = estimate_normals(measured, index, check)
        given = orient(measured, given, distance, index, check)
    xyz = measured
    if denoise and noise > CLEAN * float(np.median(distance[:, 0])):
        xyz, given = smooth(xyz, given, count, check)
    given = sharpen(xyz, given, noise, check)
    return Prepared(xyz, given, measured, weight, float(np.sqrt(np.median(weight))), noise, centre, scale)


def trusted(
    xyz: Vectors,
    normals: Vectors,
    weight: NDArray[np.float64],
    near: tuple[Vectors, Indices],
    warn: Warn,
    check: Callable[[], None],
) -> Vectors | None:
    """Return given normals, their signs mended where they contradict each other; None where they are of no use."""
    distance, index = near
    some = np.arange(0, len(xyz), max(1, len(xyz) // 2000))
    along = np.abs(np.einsum("ij,ij->i", estimate_normals(xyz, index, of=some), normals[some]))
    if np.median(along) < _ALONG:
        warn("The given normals do not stand on the surface: they are estimated instead.")
        return None
    dots = np.einsum("ij,ikj->ik", normals, normals[index[:, :GRAPH]])
    if (dots < -0.5).mean() > _CONTRARY:
        warn("Many of the given normals point against their neighbours': their signs are found anew.")
        return orient(xyz, normals, distance, index, check)
    if is_closed(normals, weight) and volume(xyz, normals, weight) < 0:
        warn("The given normals point inward: they are turned. Keep them with --normals given.")
        return -normals
    return normals
