"""Colours in space: trilinear interpolation, its gradients, and that only what is looked at takes part."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import grid_sample

from recon.isosurface.colours import Colours
from recon.isosurface.grids import Box


def some() -> Colours:
    colours = Colours.grey(Box.around(np.array([-1.0, -0.5, 0.0]), np.array([1.0, 0.5, 0.7]), 9))
    colours.values[:] = torch.rand(colours.values.shape, generator=torch.Generator().manual_seed(0))
    return colours


def inside(box: Box, count: int) -> torch.Tensor:
    low, high = torch.from_numpy(box.low), torch.from_numpy(box.high)
    return (low + (high - low) * torch.rand(count, 3, generator=torch.Generator().manual_seed(1))).float()


def test_it_interpolates_as_grid_sample_does():
    colours = some()
    points = inside(colours.box, 200)
    volume = colours.values.view(*(n + 1 for n in colours.box.resolution), 3).permute(3, 2, 1, 0)[None]
    low, high = torch.from_numpy(colours.box.low), torch.from_numpy(colours.box.high)
    places = (2 * (points - low) / (high - low) - 1).float()
    expected = grid_sample(volume, places[None, None, None], align_corners=True)[0, :, 0, 0].T
    torch.testing.assert_close(colours(points), expected, atol=1e-5, rtol=0)


def test_the_lookup_names_what_it_looked_at():
    colours = some()
    points = inside(colours.box, 5).requires_grad_()
    found, few, numbers = colours.lookup(points)
    torch.testing.assert_close(found, colours(points))
    assert 8 <= len(numbers) <= 40
    assert (numbers.diff() > 0).all()
    torch.testing.assert_close(few.detach(), colours.values[numbers])
    weight = torch.tensor([1.0, 2, 3])
    to_few, to_points = torch.autograd.grad((found * weight).sum(), [few, points])
    torch.testing.assert_close(to_few.sum(dim=0), 5 * weight)  # the weights of a point are one in all
    step = 1e-2 * colours.box.cell
    for axis in range(3):
        moved = torch.zeros(3).index_fill(0, torch.tensor([axis]), step)
        slope = ((colours(points + moved) - colours(points - moved)) @ weight) / (2 * step)
        torch.testing.assert_close(to_points[:, axis], slope.detach(), atol=0.2, rtol=0.02)


def test_resampled_on_a_finer_grid_they_look_the_same():
    colours = some()
    finer = colours.resampled(colours.box.finer(18))
    points = inside(colours.box, 100)
    torch.testing.assert_close(finer(points), colours(points), atol=1e-4, rtol=0)
