from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from recon.deform.rigid import align, rotations
from recon.deform.surface import surface_of
from recon.mesh.mesh import Mesh


def hook(part: float = 1.0) -> Mesh:
    """A surface without a symmetry, about 1 across, or what of it lies on one side."""
    mesh = trimesh.creation.icosphere(3)
    v = np.asarray(mesh.vertices)
    v = v * [1.0, 0.5, 0.3] + np.stack([0.3 * v[:, 1] ** 2, 0.4 * v[:, 0] ** 2, 0.3 * v[:, 0] * v[:, 1]], axis=1)
    v = v / np.linalg.norm(np.ptp(v, axis=0))
    kept = np.flatnonzero(v[mesh.faces].mean(axis=1)[:, 0] <= np.quantile(v[:, 0], part))
    return Mesh(v.astype(np.float32), np.asarray(mesh.faces, np.int32)[kept])


def moved(mesh: Mesh, turn: np.ndarray, shift: np.ndarray) -> Mesh:
    return Mesh((mesh.vertices @ turn.T + shift).astype(np.float32), mesh.faces)


@pytest.mark.parametrize("angle", [0.0, 1.0, 3.0])
def test_finds_a_motion(angle: float) -> None:
    turn, shift = Rotation.from_rotvec(angle * np.array([0.6, 0.0, 0.8])).as_matrix(), np.array([0.5, -2.0, 1.0])
    source = hook()
    found = align(surface_of(source, "source"), surface_of(moved(source, turn, shift), "target"))[0]
    np.testing.assert_allclose(found.rotation, turn, atol=1e-3)
    np.testing.assert_allclose(found.translation, shift, atol=1e-3)
    assert found.distance < 1e-3


def test_a_part_is_laid_on_the_whole() -> None:
    turn = Rotation.from_rotvec([0.0, 0.5, 0.4]).as_matrix()
    whole, part = hook(), hook(0.6)
    found = align(surface_of(part, "source"), surface_of(moved(whole, turn, np.zeros(3)), "target"))[0]
    np.testing.assert_allclose(found.apply(part.vertices), part.vertices @ turn.T, atol=0.03)


def test_rotations_are_proper_and_nearest() -> None:
    turn = Rotation.from_rotvec([0.1, 2.0, -0.4]).as_matrix()
    np.testing.assert_allclose(rotations(turn @ np.diag([3.0, 2, 1]) @ np.eye(3)), turn, atol=1e-12)
    assert np.linalg.det(rotations(np.diag([3.0, 2, -1]))) == pytest.approx(1)
