"""Where the vertices of a sheet lie in a plane: (u, v) for methods that need a surface to be a function of them.

They are as conformal as can be: with the corners p of a triangle of area A in its own plane as complex numbers,
z = u + iv of its corners minimise

    Σ |(p₃ − p₂) z₁ + (p₁ − p₃) z₂ + (p₂ − p₁) z₃|² / 2A

two of the z, far apart, being given. For a sheet that is bent and not stretched the minimum is 0, its flat shape.

Source: Lévy, Petitjean, Ray & Maillot 2002, "Least squares conformal maps for automatic texture atlas generation", §2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array
from scipy.sparse.linalg import splu

from recon.errors import InputError
from recon.mesh.topology import components, directed_edges, fans

Array = NDArray[np.float64]


def parameterise(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> Array:
    """Return (V, 2) (u, v) of the vertices, which fill [0, 1] in both.

    All faces keep an area and the same side up. That faces far apart lie over each other is not looked for.

    Args:
        vertices: (V, 3).
        faces: (F, 3), manifold, wound alike.

    Raises:
        InputError: the mesh is not one sheet that can be laid into a plane (code ``"not-a-sheet"``).
    """
    places = _conformal(vertices.astype(np.float64), faces)
    low = places.min(0)
    return (places - low) / (places.max(0) - low)


def _conformal(vertices: Array, faces: NDArray[np.integer]) -> Array:
    """Return (V, 2) places that minimise the sum above, their principal axes those of the plane."""
    corners, count = faces.astype(np.int32), len(vertices)
    if components(directed_edges(corners), count).max() > 0 or fans(corners).max() + 1 != count:
        raise _no_sheet("it is of several parts, or of parts that share only a vertex")
    a, b, c = vertices[faces.T]
    second = np.linalg.norm(b - a, axis=1)
    doubled = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    third = (np.einsum("fi,fi->f", b - a, c - a) + 1j * doubled) / second  # the first corner lies at 0
    factors = np.stack([third - second, -third, second], 1) / np.sqrt(doubled)[:, None]
    row = np.repeat(np.arange(len(faces)), 3)
    matrix = csc_array((factors.ravel(), (row, faces.ravel())), shape=(len(faces), count))
    along = vertices @ _principal(vertices)[0]
    given = np.array([along.argmin(), along.argmax()])
    free = np.delete(np.arange(count), given)
    z = np.zeros(count, np.complex128)
    z[given[1]] = 1
    part = matrix[:, free]
    z[free] = splu(csc_array(part.conj().T @ part)).solve(-part.conj().T @ (matrix @ z))
    places = np.stack([z.real, z.imag], 1)
    if not _unfolded(places, faces):
        raise _no_sheet("it closes, or bulges so much that it would fold")
    return places @ _principal(places).T


def _principal(points: Array) -> Array:
    """Return the axes of points, as rows, the longest first."""
    axes: Array = np.linalg.svd(points - points.mean(0), full_matrices=False)[2]
    return axes


def _unfolded(places: Array, faces: NDArray[np.integer]) -> bool:
    """Return whether all faces of a plane mesh are wound alike and have an area."""
    a, b, c = places[faces.T]
    (x, y), (s, t) = (b - a).T, (c - a).T
    area = x * t - y * s
    return bool((area > 0).all() or (area < 0).all())


def _no_sheet(why: str) -> InputError:
    return InputError(
        f"The template cannot be laid into a plane: {why}.",
        "Cut it open into one sheet; method=lm needs none.",
        "not-a-sheet",
    )
