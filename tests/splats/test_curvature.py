"""What is said of the photometric loss near an image: never less curved than it is."""

from __future__ import annotations

import torch
from splat_worlds import ring

from recon.splats.curvature import curvature
from recon.splats.loss import photometric_loss
from recon.splats.photos import Target
from recon.splats.render import Pose


def target(mask: bool) -> Target:
    generator = torch.Generator().manual_seed(0)
    photo = torch.randint(0, 255, (40, 48, 3), generator=generator, dtype=torch.uint8)
    photo[:, 20:] = 130  # flat: the denominators of SSIM are at their smallest
    marked = torch.zeros(40, 48, dtype=torch.bool)
    marked[5:30, 3:40] = True
    return Target(photo, marked if mask else None, Pose.of(ring(3)[0]))


def test_is_that_of_small_errors() -> None:
    """Second differences of 1 − SSIM along any direction, around the photo itself, are below those of W."""
    for mask in (False, True):
        at, generator = target(mask), torch.Generator().manual_seed(1)
        flat = torch.nn.functional.avg_pool2d(torch.randn(3, 48, 56, generator=generator), 9, 1).permute(1, 2, 0)
        for direction in (torch.randn(40, 48, 3, generator=generator), 5 * flat):
            step = 2e-3 * direction
            inside = step if at.mask is None else torch.where(at.mask[..., None], step, 0)
            true = 2 * photometric_loss(at.rgb + inside, at, 1.0)
            bound = (curvature(at.rgb, at, 1.0) * inside.square()).sum()
            assert 0.1 * bound < true < 1.02 * bound


def test_counts_what_the_mask_counts() -> None:
    at = target(True)
    weights = curvature(torch.full((40, 48, 3), 0.5), at, 0.2)
    assert at.mask is not None
    assert (weights[at.mask] > 0).all()
    assert (weights[~at.mask] == 0).all()
    error = (torch.full((40, 48, 3), 0.5) - at.rgb)[at.mask]
    expected = 1 / (error.square() + 0.03**2).sqrt() / error.numel()
    torch.testing.assert_close(curvature(torch.full((40, 48, 3), 0.5), at)[at.mask], expected)
