"""Points of a surface: where they are put, which a camera sees, where pixels meet it, how a coarse one carries it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sheets import posed, project

from benchmarks.bent_sheets import K, cylinder, nodes
from recon.deform.anchoring import anchored
from recon.deform.coarse import Coarse
from recon.deform.flow import flowed
from recon.deform.observations import bilinear
from recon.deform.sampling import surface_samples
from recon.deform.sheet import grid_faces
from recon.deform.visibility import visible

FACES = grid_faces(20, 15)


@pytest.mark.parametrize("count", [1, 600, 5000])
def test_samples_are_spread_alike_and_the_border_is_told(count: int) -> None:
    points, border = surface_samples(torch.from_numpy(FACES), count)
    inside = int((~border).sum())
    assert count * 0.5 <= inside <= max(600, 2 * count)
    assert inside % len(FACES) == 0
    torch.testing.assert_close(points.weights.sum(1), torch.ones(len(border), dtype=torch.float64))
    assert points.weights.min() >= 0
    places = points.at(torch.from_numpy(np.column_stack([nodes(), np.zeros(len(nodes()))]))).numpy()
    on_rim = np.isclose(np.abs(places[:, 0]), 100) | np.isclose(np.abs(places[:, 1]), 75)
    np.testing.assert_array_equal(on_rim, border.numpy())
    assert border.sum() == 2 * (20 + 15)
    assert len(np.unique(places.round(6), axis=0)) == len(places)


def test_pixels_meet_the_nearest_surface() -> None:
    truth = posed(cylinder(nodes(), 45.0), 1)  # rolled so far that it hides itself
    pixels = np.concatenate([project(truth), [[-500.0, 10]]])
    points, found = anchored(pixels, truth, FACES, K)
    places = points.at(torch.from_numpy(truth)).numpy()
    assert not found[-1]
    assert found[:-1].mean() > 0.95, "but for some on the rim"
    np.testing.assert_allclose(project(places[found]), pixels[found], atol=1e-6)
    further = truth[found[:-1], 2] - places[found][:, 2]
    assert further.min() > -1e-6
    hidden = ~visible(points, torch.from_numpy(truth), torch.from_numpy(FACES), torch.from_numpy(K), 640, 480)
    assert hidden[torch.from_numpy(found)].double().mean() < 0.03, "where it turns away"
    assert (further > 20).any(), "some vertices lie behind"


def test_nothing_is_met_behind_the_camera() -> None:
    truth = posed(cylinder(nodes()), 1) * [1, 1, -1]
    assert not anchored(np.array([[320.0, 240]]), truth, FACES, K)[1].any()


def test_hidden_points_are_told() -> None:
    """Two sheets, one behind the other."""
    front = np.column_stack([nodes(), np.full(len(nodes()), 400.0)])
    both = torch.from_numpy(np.concatenate([front, front * [1.2, 1.2, 1.5]]))
    faces = torch.from_numpy(np.concatenate([FACES, FACES + len(front)]))
    points, border = surface_samples(faces, 600)
    seen = visible(points, both, faces, torch.from_numpy(K), 640, 480)
    behind = points.at(both)[:, 2] > 500
    assert seen[~behind & ~border].all()
    assert not seen[behind & ~border].any()
    assert not visible(points, -both, faces, torch.from_numpy(K), 640, 480).any()


def test_flow_follows_what_moves_and_doubts_what_does_not_come_back() -> None:
    import cv2

    grey = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(120, 160)), (0, 0), 3.0)
    grey = (127 + 300 * grey).clip(0, 255).astype(np.uint8)
    moved = np.roll(grey, (3, 5), (0, 1))
    moved[60:, 90:] = 0
    pixels = torch.tensor([[40.0, 40.0], [70, 20], [130, 90], [159, 5]], dtype=torch.float64)
    found, believed = flowed(grey, moved, pixels)
    torch.testing.assert_close(found[:2], pixels[:2] + torch.tensor([5.0, 3]), rtol=0, atol=0.3)
    assert believed.tolist() == [True, True, False, False]


def test_bilinear_is_exact_on_planes_and_constant_beyond() -> None:
    y, x = np.mgrid[0:4, 0:6] + 0.5
    image = torch.from_numpy((2 * x - 3 * y)[..., None])
    values, slopes = bilinear(image, torch.tensor([[2.3, 1.9], [0.1, 2.0], [5.9, 9.0]], dtype=torch.float64))
    torch.testing.assert_close(values[:, 0], torch.tensor([4.6 - 5.7, 1 - 6.0, 11 - 10.5], dtype=torch.float64))
    torch.testing.assert_close(slopes[:, 0], torch.tensor([[2.0, -3], [0, -3], [0, 0]], dtype=torch.float64))
    assert bilinear(image[:1, :1], torch.tensor([[3.0, 3.0]], dtype=torch.float64))[0].item() == image[0, 0, 0]


def test_a_fine_surface_is_carried_by_a_coarse_one() -> None:
    fine_faces = grid_faces(60, 45).astype(np.int32)
    flat = np.column_stack([nodes((60, 45)), np.full(len(nodes((60, 45))), 500.0)])
    coarse = Coarse(flat, fine_faces, 300)
    assert 150 < len(coarse.vertices) <= 330
    np.testing.assert_allclose(coarse.fine(coarse.vertices), flat, atol=1e-3, err_msg="also where corners were cut")
    bent = coarse.fine(cylinder(coarse.vertices[:, :2], 150.0))
    assert np.linalg.norm(bent - cylinder(flat[:, :2], 150.0), axis=1).max() < 2.0, "of 250"
    itself = Coarse(flat, fine_faces, 5000)
    assert itself.fine(flat) is flat
