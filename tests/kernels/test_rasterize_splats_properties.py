"""What must hold for any splats whatever: ranges, order, translation, linearity, and no NaN from any input."""

from __future__ import annotations

import hypothesis.strategies as st
import torch
from hypothesis import given, settings
from splat_scenes import Arguments, cast, outputs, random_scene, weighted_sum

from kernels.rasterize_splats import rasterize_splats

quick = settings(max_examples=40, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)
counts = st.integers(0, 60)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def float32_scene(seed: int, count: int, size: tuple[int, int], **options) -> Arguments:
    return cast(random_scene(seed, count, [size], **options), torch.float32)


@quick
@given(seeds, counts, sizes, st.sampled_from(["classic", "antialiased"]))
def test_images_stay_in_range(seed, count, size, mode):
    """Alphas lie in [0, 1], and a blend of colours and a background in [0, 1] does too."""
    arguments = float32_scene(seed, count, size, backgrounds=True, scales=(0.005, 1.0), opacities=(0, 1))
    image, alphas, _ = rasterize_splats(**arguments, rasterize_mode=mode)
    assert alphas.min() >= 0
    assert alphas.max() <= 1
    assert image.min() >= 0
    assert image.max() <= 1 + 1e-6


@quick
@given(seeds, counts, sizes)
def test_the_order_of_splats_is_no_matter(seed, count, size):
    """Where depths differ, any permutation gives the same bits."""
    arguments = float32_scene(seed, count, size, opacities=(0, 1), render_mode="RGB+ED")
    arguments["viewmats"] = torch.eye(4)[None]
    generator = torch.Generator().manual_seed(seed)
    arguments["means"][:, 2] = 2 + torch.randperm(count, generator=generator) / 16
    order = torch.randperm(count, generator=generator)
    shuffled = {
        name: value[order] if name in ("means", "quats", "scales", "opacities", "colors") else value
        for name, value in arguments.items()
    }
    for one, other in zip(outputs(rasterize_splats(**arguments)), outputs(rasterize_splats(**shuffled)), strict=True):
        for name, image in one.items():
            assert torch.equal(image, other[name]), name


@quick
@given(
    st.lists(st.tuples(*[st.integers(-8, 8)] * 3, st.integers(1, 16), st.integers(1, 8)), min_size=1, max_size=10),
    st.integers(-6, 6),
    st.integers(-6, 6),
)
def test_moving_the_principal_point_moves_the_image(rows, right, down):
    """By whole pixels, and with numbers that are exact in binary: to the bit."""
    table = torch.tensor(rows, dtype=torch.float32)
    depth = 2.0 ** (1 + table[:, 2].remainder(2))
    arguments = {
        "means": torch.stack([table[:, 0] / 64 * depth, table[:, 1] / 64 * depth, depth], dim=1),
        "quats": torch.tensor([1.0, 0, 0, 0]).repeat(len(rows), 1),
        "scales": table[:, 3:4].repeat(1, 3) / 64,
        "opacities": table[:, 4] / 8,
        "colors": table[:, :3] / 8,
        "viewmats": torch.eye(4)[None],
        "width": 40,
        "height": 36,
    }
    images = [
        rasterize_splats(**arguments, Ks=torch.tensor([[[64.0, 0, 20 + x], [0, 64, 18 + y], [0, 0, 1]]]))[0][0]
        for x, y in ((0, 0), (right, down))
    ]
    there = images[1][max(0, down) : 36 + min(0, down), max(0, right) : 40 + min(0, right)]
    here = images[0][max(0, -down) : 36 + min(0, -down), max(0, -right) : 40 + min(0, -right)]
    assert torch.equal(here, there)


@quick
@given(seeds, counts, sizes, st.floats(-2, 2), st.floats(-2, 2))
def test_images_are_linear_in_colours(seed, count, size, a, b):
    arguments = float32_scene(seed, count, size, channels=4)
    one, other = arguments["colors"], arguments["colors"].flip(1).square()
    images = [rasterize_splats(**{**arguments, "colors": c})[0] for c in (one, other, a * one + b * other)]
    torch.testing.assert_close(a * images[0] + b * images[1], images[2], atol=1e-5, rtol=0)


GOOD = [0.1, 0.1, 3.0, 1.0, 0.2, 0.1, 0.0, 0.1, 0.2, 0.3, 0.5, 0.1, 0.2, 0.3]
wild = st.floats(width=32) | st.sampled_from([0.0, 1e-30, -1e-10, 1e10, 1e19, 3e38])
spoilt = st.dictionaries(st.integers(0, len(GOOD) - 1), wild, min_size=1, max_size=3)


@settings(quick, max_examples=150)
@given(st.lists(spoilt, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_no_input_makes_a_nan(rows, antialiased, harmonics):
    """Whatever stands in a few parameters of some splats, images and all gradients are finite."""
    table = torch.tensor([GOOD] + [[row.get(k, value) for k, value in enumerate(GOOD)] for row in rows])
    arguments = {
        "means": table[:, :3],
        "quats": table[:, 3:7],
        "scales": table[:, 7:10],
        "opacities": table[:, 10],
        "colors": table[:, None, 11:].repeat(1, 4, 1) if harmonics else table[:, 11:],
        "viewmats": torch.eye(4)[None],
        "Ks": torch.tensor([[[20.0, 0, 10], [0, 20, 8], [0, 0, 1]]]),
    }
    # Colours near the largest float are sums' business, not the rasterizer's.
    arguments["colors"] = torch.where(arguments["colors"].abs() < 1e6, arguments["colors"], torch.nan)
    leaves = {name: value.clone().requires_grad_() for name, value in arguments.items()}
    rendered = rasterize_splats(
        **leaves,
        width=20,
        height=16,
        sh_degree=1 if harmonics else None,
        rasterize_mode="antialiased" if antialiased else "classic",
        render_mode="RGB+D",
    )
    images = outputs(rendered)
    weighted_sum(rendered, [{name: torch.ones_like(image) for name, image in one.items()} for one in images]).backward()
    for one in images:
        for name, image in one.items():
            assert image.isfinite().all(), name
    for name, leaf in leaves.items():
        assert leaf.grad.isfinite().all(), name
