"""The twin's gradients against central finite differences in float64, for every input.

The scenes avoid what makes an image jump, or no difference quotient would agree: every splat is wide and strong enough
to stay above the 1/255 cut at every pixel, none reaches the clamp of 0.999, T stays far above 1e-4, and depths differ;
``smooth_scene`` checks that it is so. ``gradcheck``'s fast mode compares Jacobians along random directions.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from splat_scenes import (
    DIFFERENTIABLE,
    Arguments,
    as_splats,
    cameras,
    outputs,
    random_scene,
    random_weights,
    weighted_sum,
)

from kernels.reference.rasterize_splats import (
    LEAST_ALPHA,
    blending_weights,
    falloff,
    pixel_centres,
    project,
    rasterize_splats,
    visible_splats,
)


def smooth_scene(seed: int = 0, **options: Any) -> Arguments:
    """Five wide splats before two cameras."""
    arguments = random_scene(
        seed, 5, [(9, 7), (5, 6)], scales=(1.2, 3.0), opacities=(0.1, 0.5), spread=0.2, backgrounds=True, **options
    )
    for camera in cameras(arguments):
        index = visible_splats(as_splats(arguments), camera)
        prints = project(as_splats(arguments).take(index), camera)
        pixels = pixel_centres(camera.width, camera.height, prints.depths)
        alphas = falloff(prints, pixels)
        _, transmittances = blending_weights(alphas, torch.ones(len(pixels), dtype=torch.bool))
        assert len(index) == 5
        assert alphas.min() > 1.2 * LEAST_ALPHA
        assert alphas.max() < 0.9
        assert transmittances.min() > 1e-2
        assert prints.depths.diff().min() > 1e-3
    return arguments


@pytest.mark.parametrize("wanted", DIFFERENTIABLE)
@pytest.mark.parametrize(
    "options",
    [
        {"render_mode": "RGB+ED", "channels": 2},
        {"render_mode": "D", "rasterize_mode": "antialiased"},
        {"sh_degree": 3},
    ],
    ids=["direct", "antialiased", "sh"],
)
def test_gradients_are_the_finite_differences(wanted, options):
    arguments = smooth_scene(**options)
    with torch.no_grad():
        weights = random_weights(1, outputs(rasterize_splats(**arguments)))

    def loss(value: torch.Tensor) -> torch.Tensor:
        return weighted_sum(rasterize_splats(**{**arguments, wanted: value}), weights)

    assert torch.autograd.gradcheck(
        loss, arguments[wanted].requires_grad_(), eps=1e-5, atol=1e-6, rtol=1e-5, fast_mode=True
    )


@pytest.mark.parametrize("wanted", ["means", "quats", "scales"])
def test_gradients_beyond_the_margin(wanted):
    """Far outside the image the Jacobian's x/z is clamped to a constant; the gradients know it."""
    arguments = random_scene(3, 4, [(8, 8)], scales=(2.0, 3.0), opacities=(0.5, 0.9), depths=(2, 3), spread=0.1)
    arguments["means"][:, 0] += 4.0
    camera = cameras(arguments)[0]
    prints = project(as_splats(arguments), camera)
    assert (prints.means2d[:, 0] > 1.2 * camera.width).all()
    with torch.no_grad():
        weights = random_weights(1, outputs(rasterize_splats(**arguments)))
    assert falloff(prints, pixel_centres(8, 8, prints.depths)).min() > 1.2 * LEAST_ALPHA

    def loss(value: torch.Tensor) -> torch.Tensor:
        return weighted_sum(rasterize_splats(**{**arguments, wanted: value}), weights)

    assert torch.autograd.gradcheck(
        loss, arguments[wanted].requires_grad_(), eps=1e-5, atol=1e-6, rtol=1e-5, fast_mode=True
    )


def test_chunks_of_rows_change_nothing(monkeypatch):
    arguments = random_scene(0, 50, [(16, 12)], render_mode="RGB+ED")
    whole = rasterize_splats(**arguments)
    monkeypatch.setattr("kernels.reference.rasterize_splats.PAIRS_AT_ONCE", 1)
    by_rows = rasterize_splats(**arguments)
    torch.testing.assert_close(by_rows, whole, atol=1e-12, rtol=0)
