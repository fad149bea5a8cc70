import numpy as np

from recon.mesh.normals import vertex_normals


def test_normals_of_a_cylinder_point_away_from_its_axis():
    """Inside the sheet, where as many faces of either side meet at a vertex."""
    n, angles = 9, np.linspace(0, 2, 9)
    angle, y = (grid.ravel() for grid in np.meshgrid(angles, np.linspace(0, 1, n)))
    i = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate([np.stack([i, i + n, i + 1], 1), np.stack([i + 1, i + n, i + n + 1], 1)]).astype(np.int32)
    normals = vertex_normals(np.stack([np.sin(angle), y, np.cos(angle)], axis=1), faces)
    outside = np.stack([np.sin(angle), 0 * y, np.cos(angle)], axis=1)
    inner = (angle > 0) & (angle < 2) & (y > 0) & (y < 1)
    np.testing.assert_allclose(normals[inner], -outside[inner], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)


def test_areas_weigh_and_what_has_no_face_has_no_normal():
    vertices = np.array([[0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 1], [9, 9, 9]])
    normals = vertex_normals(vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32))
    np.testing.assert_allclose(normals[0], np.array([1, 0, 3]) / np.sqrt(10), atol=1e-7)  # areas 3/2 and 1/2
    np.testing.assert_array_equal(normals[4], 0)
