"""Clouds whose surface is known: a sphere, a box, a plate with a step; with noise and outliers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]
HALF = np.array([1.0, 0.7, 0.5])
"""Half the box's sides."""


def sphere(count: int, noise: float = 0.0, outliers: int = 0, seed: int = 0) -> tuple[Vectors, Vectors]:
    """Return points of the unit sphere and their normals, outliers (with zero normals) last."""
    generator = np.random.default_rng(seed)
    normals = generator.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return spoilt(normals, normals, noise, outliers, generator)


def box(count: int, noise: float = 0.0, outliers: int = 0, seed: int = 0) -> tuple[Vectors, Vectors]:
    """Return points of a box with half sides HALF, spread by area, and their normals."""
    generator = np.random.default_rng(seed)
    area = np.prod(HALF) / HALF
    axis = generator.choice(3, count, p=area / area.sum())
    side = generator.choice([-1.0, 1.0], count)
    xyz = generator.uniform(-1, 1, (count, 3)) * HALF
    xyz[np.arange(count), axis] = side * HALF[axis]
    normals = np.zeros((count, 3))
    normals[np.arange(count), axis] = side
    return spoilt(xyz, normals, noise, outliers, generator)


def spoilt(
    xyz: Vectors, normals: Vectors, noise: float, outliers: int, generator: np.random.Generator
) -> tuple[Vectors, Vectors]:
    """Return the points displaced by normal noise, and ``outliers`` more anywhere in a box around."""
    far = generator.uniform(-1.6, 1.6, (outliers, 3))
    xyz = xyz + noise * generator.normal(size=xyz.shape)
    return np.concatenate([xyz, far]), np.concatenate([normals, np.zeros((outliers, 3))])


def box_distance(places: Vectors) -> NDArray[np.float64]:
    """Return the distance of places to the box's surface."""
    gap = np.abs(places) - HALF
    outside = np.linalg.norm(np.maximum(gap, 0), axis=1)
    return np.where((gap > 0).any(axis=1), outside, -gap.max(axis=1))


def box_edges(count: int = 400) -> Vectors:
    """Return points on the box's edges."""
    generator = np.random.default_rng(9)
    places = generator.choice([-1.0, 1.0], (count, 3))
    places[np.arange(count), generator.integers(0, 3, count)] = generator.uniform(-1, 1, count)
    return places * HALF
