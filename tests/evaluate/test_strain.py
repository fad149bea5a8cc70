"""Strain of deformed meshes against values by hand."""

import numpy as np
import pytest

from recon.errors import InputError
from recon.evaluate.previews import COLOR_MAP
from recon.evaluate.strain import face_strain, folds, strain_colours, strain_summary, stretches

N = 33


def sheet():
    """Return (N², 3) vertices of the unit square and its faces, whose diagonals all run one way."""
    y, x = np.mgrid[0 : 1 : N * 1j, 0 : 1 : N * 1j]
    i = (np.arange(N - 1)[:, None] * N + np.arange(N - 1)).ravel()
    faces = np.concatenate([np.stack([i, i + 1, i + N], 1), np.stack([i + 1, i + N + 1, i + N], 1)]).astype(np.int32)
    return np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3), faces


def turned(points):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    return points @ rotation.T + [3, -2, 5]


@pytest.mark.parametrize(
    ("gradient", "expected"),
    [
        ([[1, 0], [0, 1]], (1, 1)),
        ([[1.1, 0], [0, 1.1]], (1.1, 1.1)),
        ([[0.8, 0], [0, 1.25]], (1.25, 0.8)),
        ([[1, 1], [0, 1]], ((5**0.5 + 1) / 2, (5**0.5 - 1) / 2)),  # a shear by its own height: the golden ratio
        ([[1, 0], [1, 0]], (2**0.5, 0)),  # onto a line
        ([[-1, 0], [0, 1]], (1, 1)),  # a mirror keeps lengths
    ],
)
def test_principal_stretches(gradient, expected):
    rest, faces = sheet()
    bent = np.c_[rest[:, :2] @ np.array(gradient).T, rest[:, 2]]
    found = stretches(turned(bent), turned(rest[:, [2, 0, 1]]), faces)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-7)


def test_summary_by_hand():
    rest, faces = sheet()
    stretched = rest * np.array([1.1, 1, 1])
    found = strain_summary(stretched, rest, faces)
    assert found == pytest.approx({"strain_median": 0.1, "strain_p95": 0.1, "strain_max": 0.1, "folds": 0})
    pulled = rest.copy()
    pulled[-1, :2] += 1 / (N - 1)  # the corner of one face, to three times its height
    found = strain_summary(pulled, rest, faces)
    assert found == pytest.approx({"strain_median": 0, "strain_p95": 0, "strain_max": 2, "folds": 0}, abs=1e-9)


def test_rolling_up_is_isometric_up_to_the_chords():
    """A chord of the angle θ is shorter than its arc by θ²/24."""
    rest, faces = sheet()
    rolled = np.stack([np.sin(2 * rest[:, 0]) / 2, rest[:, 1], (1 - np.cos(2 * rest[:, 0])) / 2], axis=1)
    angle = 2 / (N - 1)
    found = strain_summary(turned(rolled), rest, faces)
    assert found["strain_max"] == pytest.approx(1 - np.sin(angle / 2) / (angle / 2), rel=1e-6)
    assert found["strain_max"] == pytest.approx(angle**2 / 24, rel=1e-3)
    single = strain_summary(rolled.astype(np.float32), rest.astype(np.float32), faces)
    assert single["strain_max"] == pytest.approx(found["strain_max"], abs=1e-5)
    assert found["folds"] == 0


def test_folds():
    """Folded along the middle, N - 1 edges; back onto itself they are creases of the template and no folds."""
    rest, faces = sheet()
    folded = np.stack([np.abs(rest[:, 0] - 0.5), rest[:, 1], 0.01 * rest[:, 0]], axis=1)
    found = folds(folded, rest, faces)
    assert len(found) == N - 1
    middles = rest[faces].mean(axis=1)[found]
    assert np.abs(middles[:, :, 0] - 0.5).max() < 1 / (N - 1)
    assert len(folds(folded, folded, faces)) == 0
    bent = np.stack([np.minimum(rest[:, 0], 0.5), rest[:, 1], np.maximum(rest[:, 0] - 0.5, 0)], axis=1)
    assert len(folds(bent * [1, 1, 0.99], rest, faces)) == 0, "a right angle is no fold"


def test_a_vertex_shows_its_worst_face():
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    colours = strain_colours(np.array([0.02, 0.05]), faces, 5, limit=0.04)
    np.testing.assert_array_equal(colours, COLOR_MAP[[128, 255, 255, 255, 0]])
    assert colours.dtype == np.float32
    np.testing.assert_array_equal(face_strain(np.array([[1.25, 0.8], [1.1, 0.5]])), [0.25, 0.5])


def test_what_has_no_strain():
    rest, faces = sheet()
    flat, lost = rest.copy(), rest.copy()
    flat[1] = flat[0]
    lost[5, 2] = np.nan
    for arguments, word in (
        ((rest, flat, faces), "no area, number 0"),
        ((lost, rest, faces), "NaN"),
        ((rest, lost, faces), "NaN"),
        ((rest[:-1], rest, faces), "not both"),
        ((rest, rest, faces[:0]), "F >= 1"),
        ((rest, rest, faces + 1), "names vertex 1089"),
    ):
        with pytest.raises(InputError, match=word):
            strain_summary(*arguments)
    np.testing.assert_allclose(face_strain(stretches(flat, rest, faces))[0], 1, atol=1e-12)
