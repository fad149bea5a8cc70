"""Sheets found again from where their points are seen, without being told where they were before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sheets import Array, posed, project, tracked_sheet

from benchmarks.bent_sheets import SIZE, K, cone, cylinder, folded, nodes
from recon.deform.farthest import farthest_points
from recon.deform.sheet import grid_faces, neighbours, sheet_through
from recon.deform.track_fit import TrackFit
from recon.errors import InputError

BENT: dict[str, Callable[[Array], Array]] = {"cylinder": cylinder, "cone": cone, "folded": folded}
LENGTH = float(np.linalg.norm(SIZE))


@pytest.mark.parametrize("name", BENT)
def test_finds_bent_sheets(name: str) -> None:
    """To half a percent of their size, whichever way they are bent."""
    for seed in (0, 1):
        sheet = tracked_sheet(90, seed)
        truth = posed(BENT[name](nodes()) * [1, 1, 1 - 2 * seed], seed)
        pixels = project(sheet.points.at(torch.from_numpy(truth)).numpy())
        found = TrackFit(sheet, K, 0.1).frame(pixels, np.ones(90), None)
        error = np.linalg.norm(found.vertices.numpy() - truth, axis=1).mean()
        assert error < 0.005 * LENGTH, f"{error / LENGTH:.2%}"
        assert found.bent
        assert sheet.membrane.strain(found.vertices).abs().max() < 0.02


def test_wrong_tracks_do_not_matter() -> None:
    """A tenth of them off by far, a tenth not seen, a pixel of noise on all."""
    generator = np.random.default_rng(3)
    sheet = tracked_sheet(120, 2)
    truth = posed(cylinder(nodes(), 90.0), 2)
    before = posed(cylinder(nodes(), 110.0), 2)
    pixels = project(sheet.points.at(torch.from_numpy(truth)).numpy()) + generator.normal(size=(120, 2))
    belief = np.ones(120)
    pixels[:12] += generator.normal(0, 40, (12, 2))
    pixels[12:24], belief[12:24] = np.nan, 0
    found = TrackFit(sheet, K).frame(pixels, belief, torch.from_numpy(before))
    error = np.linalg.norm(found.vertices.numpy() - truth, axis=1).mean()
    assert error < 0.015 * LENGTH, f"{error / LENGTH:.2%}"
    assert np.median(found.pixels[24:]) < 2 < np.median(found.pixels[:12])


def test_a_frame_without_tracks_stays_as_it_was() -> None:
    sheet = tracked_sheet(20, 0)
    found = TrackFit(sheet, K).frame(np.zeros((20, 2)), np.zeros(20), sheet.template)
    torch.testing.assert_close(found.vertices, sheet.template)


def test_farthest_points_are_about_where_the_surface_is() -> None:
    truth = posed(cone(nodes()), 4)
    rest = np.concatenate([nodes(), np.zeros((len(nodes()), 1))], 1)
    found = farthest_points(project(truth), K, *neighbours(rest), 0.1)
    assert np.linalg.norm(found - truth, axis=1).mean() < 0.02 * LENGTH
    np.testing.assert_allclose(project(found), project(truth), atol=1e-9)


def test_a_sheet_runs_through_its_points() -> None:
    generator = np.random.default_rng(5)
    uv = generator.uniform(-0.5, 0.5, (80, 2)) * SIZE
    points = posed(cylinder(uv, 110.0), 0)
    grid = sheet_through(points)
    on = (grid.weights[:, :, None] * grid.vertices[grid.corners]).sum(1)
    assert np.linalg.norm(on - points, axis=1).max() < 0.01 * LENGTH, "the grid's faces are flat"
    assert grid.weights.min() > -1e-9
    np.testing.assert_allclose(grid.weights.sum(1), 1)
    assert grid.uvs.min() == 0
    assert grid.uvs.max() == 1
    with pytest.raises(InputError, match="at least four"):
        sheet_through(points[:3])
    with pytest.raises(InputError, match="line"):
        sheet_through(np.linspace(0, 1, 9)[:, None] * [1.0, 2, 3])


def test_grids_are_wound_alike() -> None:
    faces = grid_faces(2, 3)
    corners = np.stack(np.meshgrid(np.arange(3), np.arange(4), indexing="ij"), -1).reshape(-1, 2)[faces]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    assert (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] == 1).all()
    assert len(faces) == 12
