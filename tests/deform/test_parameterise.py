"""Sheets are laid into the plane; what is no sheet is refused."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from sheets import posed

from benchmarks.bent_sheets import SIZE, cylinder, nodes
from recon.deform.parameterise import parameterise
from recon.deform.sheet import grid_faces
from recon.errors import InputError

FACES = grid_faces(20, 15)
FLAT = nodes() / SIZE + 0.5


def turned(uv: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (u, v) with the signs and the order of the axes that are nearest to the flat sheet's."""
    across = abs(np.corrcoef(uv[:, 0], FLAT[:, 0])[0, 1]) < 0.5
    uv = uv[:, ::-1] if across else uv
    signs = np.sign(((uv - 0.5) * (FLAT - 0.5)).sum(0))
    return (uv - 0.5) * signs + 0.5


def test_a_rolled_sheet_is_laid_flat() -> None:
    """The same as the flat one, but for the faces' chords."""
    rolled = posed(cylinder(nodes()), 3)
    np.testing.assert_allclose(turned(parameterise(rolled, FACES)), FLAT, atol=0.01)


def test_a_sheet_with_a_hole_is_laid_flat() -> None:
    middle = np.linalg.norm(FLAT[FACES].mean(1) - 0.5, axis=1)
    kept = FACES[middle > 0.2]
    used = np.unique(kept)
    faces = np.searchsorted(used, kept)
    uv = parameterise(posed(cylinder(nodes()), 3)[used], faces)
    assert np.ptp(uv, axis=0) == pytest.approx([1, 1])


def test_what_is_no_sheet_is_refused() -> None:
    sphere = trimesh.creation.icosphere(2)
    with pytest.raises(InputError, match="closes"):
        parameterise(sphere.vertices, sphere.faces)
    flat = np.concatenate([nodes(), np.zeros((len(FLAT), 1))], 1)
    two = np.concatenate([flat, flat + 1000]), np.concatenate([FACES, FACES + len(flat)])
    with pytest.raises(InputError, match="parts"):
        parameterise(*two)
    with pytest.raises(InputError, match="parts"):
        parameterise(np.concatenate([flat, flat[:1]]), FACES)
