"""Scenes worked out by hand: what a splat, two splats, a camera and each option must give, in twin and kernel alike.

The camera sits at the origin, focal length 10 pixels, 17 × 13 pixels, principal point in the middle of pixel (8, 6): a
splat at (0, 0, 2) of standard deviation 0.4 is drawn there with σ² = (10 · 0.4 / 2)² + 0.3 = 4.3 square pixels.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

WIDTH, HEIGHT, FOCAL = 17, 13, 10.0
X, Y = 8, 6
C0, C1 = 0.28209479177387814, 0.4886025119029199


def camera(rasterizer, **changes: Any) -> dict[str, Any]:
    K = rasterizer.tensor([[[FOCAL, 0, X + 0.5], [0, FOCAL, Y + 0.5], [0, 0, 1]]])
    return {"viewmats": torch.eye(4, dtype=K.dtype)[None], "Ks": K, "width": WIDTH, "height": HEIGHT, **changes}


def splats(rasterizer, means, opacities, colors, scales=0.4, quats=(1.0, 0, 0, 0)) -> dict[str, Any]:
    means = rasterizer.tensor(means)
    count = len(means)
    return {
        "means": means,
        "quats": rasterizer.tensor(quats).expand(count, 4).contiguous(),
        "scales": rasterizer.tensor(scales).expand(count, 3).contiguous(),
        "opacities": rasterizer.tensor(opacities),
        "colors": rasterizer.tensor(colors),
    }


def close(rasterizer, got, expected) -> None:
    expected = rasterizer.tensor(expected).expand(got.shape)
    torch.testing.assert_close(got, expected, atol=rasterizer.tolerance, rtol=rasterizer.tolerance)


def test_one_splat(rasterizer):
    colors, alphas, meta = rasterizer.render(
        **splats(rasterizer, [[0, 0, 2]], [0.5], [[0.2, 0.4, 0.8]]), **camera(rasterizer)
    )
    assert colors.shape == (1, HEIGHT, WIDTH, 3)
    assert alphas.shape == (1, HEIGHT, WIDTH, 1)
    offset = 0.5 * math.exp(-0.5 * (2**2 + 1**2) / 4.3)
    close(rasterizer, alphas[0, [Y, Y + 1], [X, X - 2], 0], [0.5, offset])
    close(rasterizer, colors[0, Y + 1, X - 2], [0.2 * offset, 0.4 * offset, 0.8 * offset])
    # ½ exp(−r²/8.6) falls below 1/255 at r² = 8.6 ln 127.5, r = 6.46: six pixels away it is drawn, seven not.
    close(rasterizer, alphas[0, Y, [X - 7, X - 6, X + 6, X + 7], 0], [0, *[0.5 * math.exp(-36 / 8.6)] * 2, 0])
    assert meta["radii"].tolist() == [[7]]
    assert meta["radii"].dtype == torch.int32
    close(rasterizer, meta["means2d"], [[[X + 0.5, Y + 0.5]]])
    close(rasterizer, meta["depths"], [[2]])


def test_anisotropic_splat_off_the_axis(rasterizer):
    """At (0.5, 0, 2): J = [[5, 0, −1.25], [0, 5, 0]]; 2(1, 0, 0, 1) turns by 90° about z, so the scales x, y swap."""
    arguments = splats(rasterizer, [[0.5, 0, 2]], [0.5], [[1.0]], scales=[0.2, 0.3, 0.4], quats=[2.0, 0, 0, 2.0])
    _, alphas, meta = rasterizer.render(**arguments, **camera(rasterizer))
    xx = 5**2 * 0.3**2 + 1.25**2 * 0.4**2 + 0.3
    yy = 5**2 * 0.2**2 + 0.3
    close(rasterizer, meta["means2d"], [[[11, Y + 0.5]]])
    expected = [0.5 * math.exp(-0.5 * ((x + 0.5 - 11) ** 2 / xx + (y - Y) ** 2 / yy)) for x, y in [(9, 6), (11, 8)]]
    close(rasterizer, alphas[0, [6, 8], [9, 11], 0], expected)


def test_needle_at_45_degrees(rasterizer):
    """A needle along (1, 1, 0)/√2: Σ₂ = 25 s²/2 · [[1, 1], [1, 1]] + 0.3 I has eigenvalues 25 s² + 0.3 and 0.3."""
    half = math.pi / 8
    arguments = splats(
        rasterizer, [[0, 0, 2]], [0.9], [[1.0]], scales=[0.6, 0, 0], quats=[math.cos(half), 0, 0, math.sin(half)]
    )
    _, alphas, _ = rasterizer.render(**arguments, **camera(rasterizer))
    along, across = 0.9 * math.exp(-0.5 * 8 / (25 * 0.36 + 0.3)), 0.9 * math.exp(-0.5 * 2 / 0.3)
    close(rasterizer, alphas[0, [Y + 2, Y - 1], [X + 2, X + 1], 0], [along, across])


@pytest.mark.parametrize("near_first", [True, False])
def test_two_splats_blend_front_to_back(rasterizer, near_first):
    order = [0, 1] if near_first else [1, 0]
    means, opacities, colors = [[0, 0, 2], [0, 0, 3]], [0.5, 0.8], [[1.0, 0.0], [0.0, 1.0]]
    arguments = splats(rasterizer, [means[i] for i in order], [opacities[i] for i in order], [colors[i] for i in order])
    image, alphas, meta = rasterizer.render(**arguments, **camera(rasterizer))
    close(rasterizer, image[0, Y, X], [0.5, 0.5 * 0.8])
    close(rasterizer, alphas[0, Y, X], [1 - 0.5 * 0.2])
    close(rasterizer, meta["depths"], [[means[i][2] for i in order]])


def test_equal_depths_blend_by_index(rasterizer):
    arguments = splats(rasterizer, [[0, 0, 2]] * 3, [0.5] * 3, [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    image, _, _ = rasterizer.render(**arguments, **camera(rasterizer))
    close(rasterizer, image[0, Y, X], [0.5, 0.25, 0.125])


def test_opaque_splats_clamp_and_stop(rasterizer):
    """α is at most 0.999, so T = 1, 1e-3, 1e-6: the third splat is not drawn where T < 1e-4 before it."""
    arguments = splats(rasterizer, [[0, 0, 2], [0, 0, 3], [0, 0, 4]], [1.0] * 3, [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    arguments = {name: value.requires_grad_() for name, value in arguments.items()}
    image, alphas, _ = rasterizer.render(**arguments, **camera(rasterizer))
    close(rasterizer, image[0, Y, X], [0.999, 0.000999, 0])
    close(rasterizer, alphas[0, Y, X], [1 - 1e-6])
    image[0, Y, X].sum().backward()
    close(rasterizer, arguments["colors"].grad, [[0.999] * 3, [0.000999] * 3, [0] * 3])
    assert not arguments["opacities"].grad.any()  # at their centres all three are clamped, or not drawn
    assert not arguments["means"].grad.any()


def test_background_and_mask(rasterizer):
    mask = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[0, Y, X + 1] = False
    backgrounds = rasterizer.tensor([[1.0, 0.5, 0.0]]).requires_grad_()
    arguments = splats(rasterizer, [[0, 0, 2]], [0.5], [[0.2, 0.4, 0.8]])
    arguments = {name: value.requires_grad_() for name, value in arguments.items()}
    image, alphas, _ = rasterizer.render(**arguments, **camera(rasterizer), backgrounds=backgrounds, masks=mask)
    close(rasterizer, image[0, Y, X], [0.1 + 0.5, 0.2 + 0.25, 0.4])
    close(rasterizer, image[0, Y, X + 1], [1, 0.5, 0])
    close(rasterizer, image[0, 0, 0], [1, 0.5, 0])
    assert alphas[0, Y, X + 1] == 0
    image[0, Y, X : X + 2].sum().backward()
    close(rasterizer, backgrounds.grad, [[1.5] * 3])
    close(rasterizer, arguments["colors"].grad, [[0.5] * 3])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("means", [0, 0, -2]),
        ("means", [0, 0, 0]),
        ("means", [0, 0, 0.5]),
        ("means", [0, 0, 9]),
        ("means", [math.nan, 0, 2]),
        ("means", [0, 0, math.inf]),
        ("quats", [0, 0, 0, 0]),
        ("quats", [1, math.nan, 0, 0]),
        ("scales", [0.4, math.inf, 0.4]),
        ("opacities", math.nan),
        ("opacities", 0.9 / 255),
        ("opacities", -0.5),
        ("colors", [math.nan, 0, 0]),
    ],
)
def test_culled_splats_leave_no_trace(rasterizer, name, value):
    """A splat that is out of range or not a number is not drawn, and its gradients are zero rather than NaN."""
    arguments = splats(rasterizer, [[0, 0, 2], [0, 0, 3]], [0.5, 0.5], [[1.0, 0, 0], [0, 1, 0]])
    arguments[name][0] = rasterizer.tensor(value)
    arguments = {name: t.requires_grad_() for name, t in arguments.items()}
    view = camera(rasterizer, near_plane=0.5, far_plane=9.0, render_mode="RGB+ED")
    poses = {name: view[name].requires_grad_() for name in ("viewmats", "Ks")}
    image, alphas, meta = rasterizer.render(**arguments, **{**view, **poses})
    close(rasterizer, image[0, Y, X], [0, 0.5, 0, 3])
    assert meta["radii"][0, 0] == 0
    assert meta["radii"][0, 1] > 0
    (image.square().sum() + alphas.sum() + meta["normals"].square().sum()).backward()
    for tensor in (*arguments.values(), *poses.values()):
        assert tensor.grad.isfinite().all()
    for tensor in arguments.values():
        assert not tensor.grad[0].any()
    assert arguments["means"].grad[1].any()


def test_scales_count_by_their_square(rasterizer):
    rendered = [
        rasterizer.render(
            **splats(rasterizer, [[0.1, 0, 2]], [0.5], [[1.0]], scales=[sign * 0.4, 0.2, 0]), **camera(rasterizer)
        )[0]
        for sign in (1, -1)
    ]
    assert torch.equal(*rendered)
    assert rendered[0].any()


def test_spherical_harmonics_face_the_splat(rasterizer):
    """Degree 1: 0.5 + C0 c₀ + C1 (−y c₁ + z c₂ − x c₃), first along the world's +z, then along its +x."""
    coefficients = [[[0.1, 0.2, 0.3], [9, 9, 9], [0.4, 0.5, -3], [0.6, -0.7, 3]]]
    arguments = splats(rasterizer, [[0, 0, 2]], [0.5], coefficients)
    image, _, _ = rasterizer.render(**arguments, **camera(rasterizer), sh_degree=1)
    expected = [0.5 + C0 * 0.1 + C1 * 0.4, 0.5 + C0 * 0.2 + C1 * 0.5, 0]  # blue: 0.5 + … − 3 C1 < 0
    close(rasterizer, image[0, Y, X], [0.5 * c for c in expected])

    centre, looking_along_x = rasterizer.tensor([-2, 0, 2]), rasterizer.tensor([[0, 0, -1], [0, 1, 0], [1, 0, 0]])
    viewmats = torch.eye(4, dtype=rasterizer.dtype)[None].clone()
    viewmats[0, :3, :3], viewmats[0, :3, 3] = looking_along_x, -looking_along_x @ centre
    image, _, _ = rasterizer.render(**arguments, **camera(rasterizer, viewmats=viewmats), sh_degree=1)
    expected = [0.5 + C0 * 0.1 - C1 * 0.6, 0.5 + C0 * 0.2 + C1 * 0.7, 0]
    close(rasterizer, image[0, Y, X], [0.5 * c for c in expected])

    image, _, _ = rasterizer.render(**arguments, **camera(rasterizer), sh_degree=0)
    close(rasterizer, image[0, Y, X], [0.5 * (0.5 + C0 * c) for c in (0.1, 0.2, 0.3)])


def test_antialiased_splats_keep_their_light(rasterizer):
    """Σ₂ = 4 I before the blur: ρ = √(16 / 4.3²) = 4 / 4.3."""
    arguments = splats(rasterizer, [[0, 0, 2]], [0.5], [[1.0]])
    _, alphas, _ = rasterizer.render(**arguments, **camera(rasterizer), rasterize_mode="antialiased")
    close(rasterizer, alphas[0, Y, [X, X + 2], 0], [0.5 * 4 / 4.3, 0.5 * 4 / 4.3 * math.exp(-2 / 4.3)])


def test_antialiasing_hides_splats_without_area(rasterizer):
    arguments = splats(rasterizer, [[0, 0, 2]], [0.5], [[1.0]], scales=[0.4, 0, 0])
    arguments = {name: t.requires_grad_() for name, t in arguments.items()}
    _, alphas, meta = rasterizer.render(**arguments, **camera(rasterizer), rasterize_mode="antialiased")
    assert not alphas.any()
    assert meta["radii"].tolist() == [[0]]
    alphas.sum().backward()
    for name, tensor in arguments.items():
        assert tensor.grad is None or not tensor.grad.any(), name


def test_eps2d_is_the_blur(rasterizer):
    arguments = splats(rasterizer, [[0, 0, 2]], [0.5], [[1.0]])
    _, alphas, _ = rasterizer.render(**arguments, **camera(rasterizer), eps2d=0.0)
    close(rasterizer, alphas[0, Y, X + 2], [0.5 * math.exp(-0.5 * 4 / 4)])


def test_far_outside_the_image_the_projection_is_linearised_at_its_margin(rasterizer):
    """At x/z = 2 the limit is (17 − 8.5)/10 + 0.3 · 0.85 = 1.105, so J = [[5, 0, −5 · 1.105], [0, 5, 0]].

    The splat's centre stays at its own place, 20 pixels right of the principal point.
    """
    arguments = splats(rasterizer, [[4, 0, 2]], [0.9], [[1.0]], scales=1.0)
    _, alphas, meta = rasterizer.render(**arguments, **camera(rasterizer))
    close(rasterizer, meta["means2d"], [[[X + 20.5, Y + 0.5]]])
    xx = 25 * (1 + 1.105**2) + 0.3
    close(rasterizer, alphas[0, Y, 15], [0.9 * math.exp(-0.5 * 13**2 / xx)])


def test_depth_modes(rasterizer):
    """Two splats facing the camera at depths 2 and 3 with weights 0.4 and 0.6 · 0.5."""
    arguments = splats(rasterizer, [[0, 0, 2], [0, 0, 3]], [0.4, 0.5], [[1.0], [0.0]], scales=[0.4, 0.4, 0])
    backgrounds = rasterizer.tensor([[1.0]])
    depth, expected_depth = 0.4 * 2 + 0.3 * 3, (0.4 * 2 + 0.3 * 3) / 0.7
    for mode, pixel in {
        "RGB": [0.4 + 0.3],
        "D": [depth],
        "ED": [expected_depth],
        "RGB+D": [0.7, depth],
        "RGB+ED": [0.7, expected_depth],
    }.items():
        image, alphas, meta = rasterizer.render(
            **arguments, **camera(rasterizer), backgrounds=backgrounds, render_mode=mode
        )
        close(rasterizer, image[0, Y, X], pixel)
        close(rasterizer, alphas[0, Y, X], [0.7])
        assert ("median_depths" in meta) == ("normals" in meta) == ("D" in mode)
    assert not image[0, 0, 0, 1]
    close(rasterizer, meta["normals"][0, Y, X], [0, 0, -0.7])
    assert meta["normals"].shape == (1, HEIGHT, WIDTH, 3)
    assert meta["median_depths"].shape == (1, HEIGHT, WIDTH, 1)


@pytest.mark.parametrize(("opacities", "median"), [((0.4, 0.4), 3), ((0.6, 0.4), 2), ((0.2, 0.2), 0), ((0.5, 0.2), 2)])
def test_median_depth(rasterizer, opacities, median):
    """The first splat behind which T ≤ ½; at 0.5 exactly, the half is reached."""
    arguments = splats(rasterizer, [[0, 0, 2], [0, 0, 3]], opacities, [[1.0], [0.0]], scales=[0.4, 0.4, 0])
    _, _, meta = rasterizer.render(**arguments, **camera(rasterizer), render_mode="ED")
    close(rasterizer, meta["median_depths"][0, Y, X], [median])
    assert not meta["median_depths"][0, 0, 0]


def test_depth_of_a_tilted_disc(rasterizer):
    """Turned by 30° about x, the disc's plane is z = 2 + y tan 30°; per pixel y = (p_y − 6.5) · 2 / 10."""
    half, tangent = math.pi / 12, math.tan(math.pi / 6)
    arguments = splats(
        rasterizer, [[0, 0, 2]], [0.6], [[1.0]], scales=[0.4, 0.4, 0], quats=[math.cos(half), math.sin(half), 0, 0]
    )
    image, alphas, meta = rasterizer.render(**arguments, **camera(rasterizer), render_mode="ED")
    expected = rasterizer.tensor([2 + 0.2 * v * tangent for v in (-2, 0, 2)])
    got = image[0, [Y - 2, Y, Y + 2], X + 1, 0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)  # the disc counts as 1e-6 thick
    torch.testing.assert_close(meta["median_depths"][0, Y, X], expected[1:2], atol=1e-5, rtol=0)
    normal = rasterizer.tensor([0, math.sin(math.pi / 6), -math.cos(math.pi / 6)])
    torch.testing.assert_close(meta["normals"][0, Y, X + 1], normal * alphas[0, Y, X + 1], atol=1e-5, rtol=0)


def test_cameras_of_different_sizes(rasterizer):
    view = camera(rasterizer, width=[17, 9], height=[13, 7])
    view["viewmats"], view["Ks"] = view["viewmats"].expand(2, 4, 4), view["Ks"].expand(2, 3, 3)
    arguments = splats(rasterizer, [[0, 0, 2]], [0.5], [[1.0]])
    masks = [torch.ones(13, 17, dtype=torch.bool), torch.ones(7, 9, dtype=torch.bool)]
    images, alphas, meta = rasterizer.render(**arguments, **view, masks=masks, render_mode="RGB+D")
    assert [tuple(i.shape) for i in images] == [(13, 17, 2), (7, 9, 2)]
    assert [tuple(i.shape) for i in alphas] == [(13, 17, 1), (7, 9, 1)]
    assert [tuple(i.shape) for i in meta["normals"]] == [(13, 17, 3), (7, 9, 3)]
    assert [tuple(i.shape) for i in meta["median_depths"]] == [(13, 17, 1), (7, 9, 1)]
    assert meta["radii"].tolist() == [[7], [7]]
    close(rasterizer, images[1], images[0][:7, :9])


def test_no_splats(rasterizer):
    arguments = splats(rasterizer, torch.zeros(0, 3), torch.zeros(0), torch.zeros(0, 3))
    arguments["means"].requires_grad_()
    backgrounds = rasterizer.tensor([[0.1, 0.2, 0.3]])
    image, alphas, meta = rasterizer.render(
        **arguments, **camera(rasterizer), backgrounds=backgrounds, render_mode="RGB+ED"
    )
    close(rasterizer, image, [0.1, 0.2, 0.3, 0])
    assert not alphas.any()
    assert not meta["median_depths"].any()
    assert meta["radii"].shape == (1, 0)
