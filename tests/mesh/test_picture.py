"""The picture of a mesh: in the middle, lit from the camera, the nearest in front."""

from __future__ import annotations

import numpy as np
import trimesh

from recon.mesh.mesh import Mesh
from recon.mesh.picture import picture


def test_the_nearest_is_in_front_and_lit_from_the_camera() -> None:
    ball = trimesh.creation.icosphere(3)
    vertices = ball.vertices.astype(np.float32)
    colours = np.where(vertices[:, 2:] > 0, (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)).astype(np.float32)
    seen = picture(Mesh(vertices, ball.faces.astype(np.int32), colours), side=64, turn=0, tilt=0)
    assert (seen.shape, seen.dtype) == ((64, 64, 3), np.float32)
    assert np.allclose(seen[0, 0], seen[-1, -1])
    assert np.allclose(seen[32, 32], (1, 0, 0), atol=0.03), "the front, facing the camera"
    inside = seen[..., 0] - seen[..., 2] > 0.1
    # Nine tenths of the picture's side are filled.
    assert abs(inside.mean() - np.pi / 4 * 0.81) < 0.02
    rim = seen[32, np.flatnonzero(inside[32])[1]]
    assert rim[0] < 0.75
    assert (seen[..., 2] > seen[..., 0] + 0.1).sum() == 0, "nothing of the back"
