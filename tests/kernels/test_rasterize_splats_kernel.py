"""The kernel against its twin: float32 C++ against float64 torch, images and gradients, over scenes of every kind.

Both precisions agree only where no threshold lies within rounding: pixels where an α, a T or two depths come that near
are left out, of the images and of the loss (``discontinuous_pixels``); few may be.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from splat_scenes import (
    DIFFERENTIABLE,
    Arguments,
    cast,
    discontinuous_pixels,
    gradients,
    outputs,
    random_masks,
    random_scene,
    random_weights,
)
from thread_counts import check_same_bits

from kernels.rasterize_splats import rasterize_splats
from kernels.reference.rasterize_splats import rasterize_splats as reference


def needles() -> Arguments:
    arguments = random_scene(3, 200, [(48, 33)], scales=(0.1, 0.6))
    arguments["scales"][:, 1:] *= 1e-3
    return arguments


def not_finite() -> Arguments:
    """Every tenth splat has one value that is none, each time in another place."""
    arguments = random_scene(4, 200, [(48, 33)], render_mode="RGB+ED")
    places = [(n, k) for n, width in (("means", 3), ("quats", 4), ("scales", 3), ("colors", 3)) for k in range(width)]
    for i, (name, k) in enumerate(places):
        arguments[name][10 * i, k] = (math.nan, math.inf, -math.inf)[i % 3]
    arguments["opacities"][5], arguments["opacities"][6] = math.nan, math.inf
    arguments["quats"][7] = 0
    return arguments


def not_finite_harmonics() -> Arguments:
    arguments = random_scene(4, 100, [(48, 33)], sh_degree=2)
    for i, value in enumerate((math.nan, math.inf, -math.inf)):
        arguments["colors"][10 * i, i, i] = value
    return arguments


def ties() -> Arguments:
    """Every splat three times over, at exactly the same depth."""
    arguments = random_scene(5, 60, [(48, 32)], opacities=(0.05, 0.5))
    for name in ("means", "quats", "scales"):
        arguments[name] = arguments[name].repeat(3, 1)
    for name in ("opacities", "colors"):
        generated = random_scene(6, 180, [(48, 32)], opacities=(0.05, 0.5))
        arguments[name] = generated[name]
    arguments["viewmats"] = torch.eye(4, dtype=torch.float64)[None]
    return arguments


TWO_SIZES = [(33, 20), (16, 31)]
SCENES: dict[str, Any] = {
    "plain": lambda: random_scene(0, 400, [(48, 33)]),
    "odd size, background": lambda: random_scene(1, 300, [(34, 21)], backgrounds=True),
    "one pixel": lambda: random_scene(2, 100, [(1, 1)], scales=(0.05, 0.5), backgrounds=True),
    "needles": needles,
    "huge": lambda: random_scene(6, 60, [(48, 33)], scales=(1.0, 20.0), opacities=(0.02, 0.2)),
    "tiny": lambda: random_scene(7, 400, [(48, 33)], scales=(1e-5, 1e-3)),
    "behind the camera": lambda: random_scene(8, 300, [(48, 33)], depths=(-3, 3), near_plane=0.3, far_plane=2.5),
    "outside the image": lambda: random_scene(9, 300, [(48, 33)], spread=3.0, scales=(0.1, 2.0)),
    "not finite": not_finite,
    "not finite harmonics": not_finite_harmonics,
    "thousands in one tile": lambda: random_scene(10, 3000, [(16, 16)], scales=(0.05, 0.5), opacities=(0.005, 0.1)),
    "opaque": lambda: random_scene(11, 300, [(34, 21)], scales=(0.1, 0.5), opacities=(0.9, 1.0)),
    "ties": ties,
    "nothing": lambda: random_scene(12, 0, [(20, 18)], backgrounds=True, render_mode="RGB+ED"),
    "antialiased": lambda: random_scene(13, 300, [(34, 21)], scales=(0.005, 0.1), rasterize_mode="antialiased"),
    "no blur": lambda: random_scene(14, 200, [(34, 21)], scales=(0.05, 0.2), eps2d=0.0),
    "masks": lambda: random_scene(
        15, 200, [(34, 21)], backgrounds=True, masks=torch.stack(random_masks(0, [(34, 21)]))
    ),
    "one coefficient": lambda: random_scene(16, 200, [(34, 21)], sh_degree=0),
    "degree 1": lambda: random_scene(17, 200, [(34, 21)], sh_degree=1),
    "degree 2": lambda: random_scene(18, 200, [(34, 21)], sh_degree=2, render_mode="RGB+D"),
    "degree 3": lambda: random_scene(19, 200, [(34, 21)], sh_degree=3, backgrounds=True),
    "D": lambda: random_scene(20, 200, [(34, 21)], channels=1, render_mode="D"),
    "ED": lambda: random_scene(21, 200, [(34, 21)], channels=2, backgrounds=True, render_mode="ED"),
    "RGB+D": lambda: random_scene(22, 200, [(34, 21)], backgrounds=True, render_mode="RGB+D"),
    "RGB+ED, cameras of two sizes": lambda: random_scene(
        23, 200, TWO_SIZES, channels=5, backgrounds=True, masks=random_masks(1, TWO_SIZES), render_mode="RGB+ED"
    ),
    "cameras of one size": lambda: random_scene(24, 200, [(40, 30)] * 3, sh_degree=3, rasterize_mode="antialiased"),
}


def keep_smooth_pixels(weights: list[dict[str, torch.Tensor]], arguments: Arguments, noise: float = 5e-5) -> None:
    """Zero the weights of the pixels where rounding may move a threshold."""
    for images, bad in zip(weights, discontinuous_pixels(arguments, noise), strict=True):
        assert bad.float().mean() < 0.2
        for weight in images.values():
            weight[bad] = 0


def check_against_twin(arguments: Arguments, tolerance: float = 1e-5, gradient_tolerance: float = 5e-5) -> None:
    single = cast(arguments, torch.float32)
    with torch.no_grad():
        expected, got = reference(**arguments), rasterize_splats(**single)
    weights = random_weights(0, outputs(expected))
    keep_smooth_pixels(weights, arguments)

    for wanted, images, some in zip(outputs(expected), outputs(got), weights, strict=True):
        for name, image in images.items():
            shown = some[name] != 0
            torch.testing.assert_close(
                image.double()[shown], wanted[name][shown], atol=tolerance * max(1, wanted[name].abs().max()), rtol=0
            )
    check_meta(arguments, got[2], expected[2], weights, tolerance)

    want, have = gradients(reference, arguments, weights), gradients(rasterize_splats, single, weights)
    assert want.keys() == have.keys()
    for name, gradient in want.items():
        assert gradient.isfinite().all(), name
        largest = float(gradient.abs().max()) if gradient.numel() else 0.0
        difference = (have[name].double() - gradient).abs()
        assert not (difference > gradient_tolerance * largest + 1e-8).any(), (
            f"{name}: off by {difference.max():.2e} where the largest gradient is {largest:.2e}"
        )


def check_meta(arguments: Arguments, got: dict, expected: dict, weights: list, tolerance: float) -> None:
    for i in range(len(weights)):
        radii, wanted = got["radii"][i], expected["radii"][i]
        # A splat whose ellipse just meets the image, or passes its corner within its box, may count either way.
        assert (radii[wanted == 0] > 0).sum() <= 0.01 * len(wanted)
        drawn = (radii > 0) & (wanted > 0)
        assert drawn.sum() >= 0.9 * (wanted > 0).sum()
        assert ((radii - wanted)[drawn].abs() <= 1 + 1e-5 * wanted[drawn]).all()
        for name in ("means2d", "depths"):
            assert got[name][i].dtype == torch.float32
            torch.testing.assert_close(got[name][i][drawn].double(), expected[name][i][drawn], atol=1e-4, rtol=1e-5)
        if "median_depths" in expected:
            shown = weights[i]["alphas"] != 0
            torch.testing.assert_close(
                got["median_depths"][i][shown].double(),
                expected["median_depths"][i][shown],
                atol=20 * tolerance,
                rtol=0,
            )


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("name", SCENES)
def test_kernel_is_its_twin(name):
    # Needles 100 times as long as wide leave the conic two digits less; ED divides by alphas as small as 1/255.
    loose = {"needles": 3e-4, "ED": 2e-4, "RGB+ED, cameras of two sizes": 2e-4}
    check_against_twin(SCENES[name](), gradient_tolerance=loose.get(name, 5e-5))


@pytest.mark.parametrize("shape", ["splats", "needles", "huge"])
def test_many_tiles(shape):
    """Images alone, on 7 × 5 tiles: every pair of splat and tile is found."""
    scales = {"splats": (0.01, 0.3), "needles": (0.05, 1.0), "huge": (0.3, 5.0)}[shape]
    arguments = random_scene(32, 150, [(101, 70)], scales=scales, opacities=(0.01, 0.3), spread=0.8, channels=1)
    if shape == "needles":
        arguments["scales"][:, 1:] *= 1e-3
    expected, got = reference(**arguments), rasterize_splats(**cast(arguments, torch.float32))
    smooth = ~discontinuous_pixels(arguments, 1e-3 if shape == "needles" else 5e-5)[0]
    assert smooth.float().mean() > 0.9
    torch.testing.assert_close(got[0][0][smooth].double(), expected[0][0][smooth], atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "options",
    [{"sh_degree": 2, "render_mode": "RGB+ED"}, {"channels": 2, "rasterize_mode": "antialiased"}],
    ids=["harmonics", "antialiased"],
)
@pytest.mark.usefixtures("device")
def test_every_device(options):
    check_against_twin(random_scene(30, 150, [(37, 20)], backgrounds=True, **options))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 16, 17, 24])
def test_any_number_of_channels(channels):
    check_against_twin(random_scene(31, 40, [(19, 18)], channels=channels, backgrounds=True))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 10, 11, 18])
def test_any_number_of_channels_with_depth(channels):
    """Depth and normals take six channels more."""
    check_against_twin(
        random_scene(31, 40, [(19, 18)], channels=channels, backgrounds=True, render_mode="RGB+D"),
        gradient_tolerance=1e-4,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"render_mode": "RGB+ED", "channels": 2},
        {"render_mode": "D", "rasterize_mode": "antialiased"},
        {"sh_degree": 3},
    ],
    ids=["direct", "antialiased", "harmonics"],
)
def test_gradients_are_the_twins_finite_differences(options):
    """No autograd on the twin's side. Wide, faint splats: no threshold is crossed at any pixel by these steps."""
    arguments = random_scene(
        40, 2, [(9, 7)], scales=(1.2, 3.0), opacities=(0.1, 0.5), spread=0.2, backgrounds=True, **options
    )
    weights = random_weights(1, outputs(reference(**arguments)))
    assert not any(bad.any() for bad in discontinuous_pixels({**arguments, "render_mode": "RGB"}, 1e-3))
    have = gradients(rasterize_splats, cast(arguments, torch.float32), weights)
    step = 1e-5
    for name in DIFFERENTIABLE:
        differences = torch.zeros_like(arguments[name])
        for i in range(differences.numel()):
            at = arguments[name].flatten()[i].item()
            sides = []
            for value in (at + step, at - step):
                moved = arguments[name].clone()
                moved.flatten()[i] = value
                images = outputs(reference(**{**arguments, name: moved}))
                sides.append(
                    sum((image[k] * some[k]).sum() for image, some in zip(images, weights, strict=True) for k in image)
                )
            differences.view(-1)[i] = (sides[0] - sides[1]) / (2 * step)
        error = (have[name].double() - differences).abs().max()
        assert error <= 1e-4 * differences.abs().max(), name


def operator_arguments(requires_grad: bool, **options: Any) -> tuple[Any, ...]:
    arguments = cast(random_scene(50, 20, [(18, 17)], backgrounds=True, **options), torch.float32)
    names = ("means", "quats", "scales", "opacities", "colors")
    tensors = [arguments[n] for n in names]
    cameras = [arguments[n][0] for n in ("viewmats", "Ks", "backgrounds")]
    features = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    floats = [t.clone().requires_grad_(requires_grad) for t in (*tensors, features, *cameras)]
    background = torch.cat([floats[8], torch.zeros(2)]).detach().requires_grad_(requires_grad)
    degree = -1 if arguments["sh_degree"] is None else arguments["sh_degree"]
    return (*floats[:8], background, random_masks(2, [(18, 17)])[0], 18, 17, degree, 0.01, 1e10, 0.3, False, True)


@pytest.mark.parametrize("options", [{}, {"sh_degree": 1}], ids=["colors", "harmonics"])
def test_opcheck(options):
    operator = torch.ops.egregium.rasterize_splats.default
    torch.library.opcheck(operator, operator_arguments(False, **options))
    torch.library.opcheck(operator, operator_arguments(True, **options))


def test_same_bits_again_and_with_any_number_of_threads():
    arguments = cast(
        random_scene(60, 2500, [(80, 50)], sh_degree=1, render_mode="RGB+ED", backgrounds=True), torch.float32
    )
    weights = random_weights(0, outputs(rasterize_splats(**arguments)))

    def run() -> list[torch.Tensor]:
        images = outputs(rasterize_splats(**arguments))[0]
        return [*images.values(), *gradients(rasterize_splats, arguments, weights).values()]

    check_same_bits(run, (1, 1, 2, 3))


def test_gradients_reach_only_what_asks_for_them():
    arguments = cast(random_scene(61, 50, [(20, 18)], render_mode="RGB+ED"), torch.float32)
    arguments["opacities"].requires_grad_()
    image, _, meta = rasterize_splats(**arguments)
    assert not meta["means2d"].requires_grad
    image.sum().backward()
    assert arguments["opacities"].grad.any()
    assert arguments["means"].grad is None


def test_strided_inputs():
    """Transposed and expanded tensors are as good as contiguous ones."""
    arguments = cast(random_scene(62, 50, [(20, 18)]), torch.float32)
    image, _, _ = rasterize_splats(**arguments)
    strided = dict(arguments)
    for name in ("means", "quats", "scales", "colors"):
        strided[name] = arguments[name].T.contiguous().T
    assert not strided["means"].is_contiguous()
    again, _, _ = rasterize_splats(**strided)
    assert torch.equal(image, again)


def test_double_precision_is_refused():
    with pytest.raises(ValueError, match="float32"):
        rasterize_splats(**random_scene(63, 5, [(4, 4)]))


def test_bad_arguments_are_named():
    arguments = cast(random_scene(64, 5, [(4, 4)]), torch.float32)
    with pytest.raises(ValueError, match=r"quats must have shape \(5, 4\)"):
        rasterize_splats(**{**arguments, "quats": torch.zeros(5, 3)})
