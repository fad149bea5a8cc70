from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from recon.deform.graph import REACH, DeformationGraph, unknowns


def line(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points at 0, 1, 2 … on x, each joined to the next."""
    points = np.zeros((count, 3))
    points[:, 0] = np.arange(count)
    return points, np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)


def test_nodes_cover_a_line_and_weights_are_those_of_the_formula() -> None:
    graph = DeformationGraph.on(*line(21), radius=4.0)
    apart = np.abs(graph.nodes[:, None, 0] - graph.nodes[None, :, 0])
    assert apart[apart > 0].min() > 4, "no two nodes within the radius"
    distance = np.abs(np.arange(21)[:, None] - graph.nodes[:, 0])
    assert distance.min(axis=1).max() <= 4
    expected = np.maximum(1 - (distance / (REACH * 4)) ** 2, 0) ** 3
    np.testing.assert_allclose(graph.weights.toarray(), expected / expected.sum(axis=1, keepdims=True), atol=1e-12)


def test_distance_is_along_the_surface_and_parts_have_nodes_of_their_own() -> None:
    """Two lines that lie side by side: no node of one moves the other."""
    points, edges = line(10)
    beside = points + np.array([0, 0.1, 0])
    graph = DeformationGraph.on(np.concatenate([points, beside]), np.concatenate([edges, edges + 10]), 3.0)
    first = graph.index < 10
    assert first.any()
    assert (~first).any()
    assert graph.weights.toarray()[:10][:, ~first].max() == 0


def test_the_same_motion_of_all_nodes_is_that_motion() -> None:
    points, edges = line(12)
    graph = DeformationGraph.on(points, edges, 3.0)
    turn = Rotation.from_rotvec([0.3, -0.2, 0.9]).as_matrix()
    affine, shift = 1.2 * turn, np.array([1.0, 2, 3])
    all_alike, places = np.tile(affine, (len(graph.nodes), 1, 1)), graph.nodes @ affine.T + shift
    np.testing.assert_allclose(graph.apply(all_alike, places), points @ affine.T + shift, atol=1e-12)
    np.testing.assert_allclose(graph.differences() @ unknowns(all_alike, places), 0, atol=1e-12)
    np.testing.assert_allclose(graph.basis @ graph.rest, points, atol=1e-12)
