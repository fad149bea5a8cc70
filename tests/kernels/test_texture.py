from __future__ import annotations

import math

import pytest
import torch
from thread_counts import check_same_bits

from kernels.reference.texture import texture as reference
from kernels.texture import BOUNDARY_MODES, FILTER_MODES, halve, texture

PIXELS = (2, 11, 7)
"""On a GPU a program's 128 pixels end in the midst of an image."""


def lookups(
    seed: int, height: int, width: int, batch: int = 2, channels: int = 3, pixels: tuple[int, ...] = PIXELS
) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, height, width, channels, generator=g)
    uv = 3 * torch.rand(*pixels, 2, generator=g) - 1
    uv_da = torch.randn(*pixels, 4, generator=g) * torch.exp(torch.randn(*pixels, 1, generator=g)) * 0.2
    return images, uv, uv_da


def check_is_its_twin(inputs: tuple[torch.Tensor, ...], filter_mode: str, boundary_mode: str) -> None:
    results = []
    for function, dtype in ((texture, torch.float32), (reference, torch.float64)):
        leaves = [t.to(dtype).requires_grad_() for t in inputs]
        seen = function(*leaves, filter_mode=filter_mode, boundary_mode=boundary_mode)
        weights = torch.randn(seen.shape, generator=torch.Generator().manual_seed(2))
        gradients = torch.autograd.grad((seen * weights).sum(), leaves, allow_unused=True)
        results.append([seen, *gradients])
    for one, other in zip(*results, strict=True):
        if other is None:
            assert one is None or not one.any()
        else:
            tolerance = 1e-5 * max(1, other.abs().amax().item() if other.numel() else 0)
            torch.testing.assert_close(one.double(), other, atol=tolerance, rtol=0)


def at(*uv: float) -> torch.Tensor:
    return torch.tensor(uv).view(1, 1, -1, 2)


@pytest.mark.parametrize("function", [texture, reference])
def test_by_hand(function):
    image = torch.tensor([[0.0, 1], [2, 4]]).view(1, 2, 2, 1)

    def look(u, v, **options):
        return function(image, at(u, v), **options).item()

    assert look(0.25, 0.25) == 0, "the centre of the first texel: row 0 at v = 0"
    assert look(0.75, 0.25) == 1
    assert look(0.25, 0.75) == 2
    assert look(0.5, 0.5) == 7 / 4
    assert look(0.0, 0.25) == 0.5, "halfway to the texel on the other side"
    assert look(0.0, 0.25, boundary_mode="clamp") == 0
    assert look(-7.5, 0.9, boundary_mode="clamp") == 2
    assert look(1.0, 0.25, boundary_mode="zero") == 0.5
    assert look(1.3, 0.25, boundary_mode="zero") == 0
    assert look(-0.25, 1.25) == 1, "wrapped"
    assert look(0.49, 0.51, filter_mode="nearest") == 2
    assert look(math.nan, 0.5) == look(math.inf, 0.5) == 0
    assert look(1e30, 1e30, boundary_mode="clamp") == 4


def test_levels_average():
    """A constant stays, the mean stays, and the coarsest level is the mean."""
    image = torch.rand(1, 7, 12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    level = image
    sizes = []
    while max(level.shape[1:3]) > 1:
        level = halve(level)
        sizes.append(tuple(level.shape[1:3]))
        torch.testing.assert_close(level.mean(dim=(1, 2)), image.mean(dim=(1, 2)))
    assert sizes == [(3, 6), (1, 3), (1, 1)]
    torch.testing.assert_close(halve(torch.ones(1, 5, 9, 1)), torch.ones(1, 2, 4, 1))
    uv_da = torch.full((1, 1, 1, 4), 100.0, dtype=torch.float64)
    seen = reference(image, at(0.3, 0.9).double(), uv_da, filter_mode="linear-mipmap-linear")
    torch.testing.assert_close(seen[0, 0, 0], image.mean(dim=(0, 1, 2)))


@pytest.mark.parametrize("function", [texture, reference])
def test_level_is_the_footprints_longest_axis(function):
    """Texture whose level k is not the others': stripes of one texel average to ½ from level 1 on."""
    stripes = (torch.arange(16) % 2).float().view(1, 1, 16, 1).expand(1, 16, 16, 1)
    for texels, expected in ((0.5, 1.0), (1.0, 1.0), (math.sqrt(2), 0.75), (2.0, 0.5), (9.0, 0.5)):
        for turn in (0.0, 0.4, 1.5):
            step = texels / 16
            c, s = math.cos(turn), math.sin(turn)
            # Columns of the Jacobian: the longer axis along (c, s), the shorter a tenth of it.
            uv_da = torch.tensor([[[[step * c, -0.1 * step * s, step * s, 0.1 * step * c]]]])
            seen = function(stripes, at(1.5 / 16, 0.5), uv_da, filter_mode="linear-mipmap-linear")
            assert abs(seen.item() - expected) < 1e-5


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("size", "batch"), [((8, 8), 1), ((7, 5), 2), ((1, 9), 2), ((1, 1), 1), ((13, 16), 2)])
@pytest.mark.parametrize("filter_mode", FILTER_MODES)
def test_is_its_twin_with_gradients(size, batch, filter_mode):
    for boundary_mode in BOUNDARY_MODES:
        check_is_its_twin(lookups(1, *size, batch), filter_mode, boundary_mode)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("pixels", "channels"), [((1, 1, 1), 1), ((1, 1, 129), 2), ((3, 5, 1), 17), ((0, 3, 4), 3), ((1, 0, 4), 3)]
)
def test_any_number_of_pixels_and_channels(pixels, channels):
    batch = max(1, pixels[0])
    check_is_its_twin(lookups(6, 6, 9, batch, channels, pixels), "linear-mipmap-linear", "wrap")


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("filter_mode", FILTER_MODES)
def test_places_beyond_all_bounds(filter_mode):
    """Where u or v is no number, what is seen is black and moves nothing, whatever the gradient there."""
    ends = torch.tensor([0.3, 0.9, 3.4, -2.6, 1e30, -1e30, math.inf, -math.inf, math.nan])
    uv = torch.cartesian_prod(ends, ends).view(1, 9, 9, 2)
    uv_da = torch.tensor([0.0, 0.1, 1e8]).repeat(27).view(1, 9, 9, 1) * torch.ones(4)
    finite = uv.isfinite().all(dim=-1)
    image = torch.rand(1, 4, 6, 2, generator=torch.Generator().manual_seed(0))
    for boundary_mode in BOUNDARY_MODES:
        modes = {"filter_mode": filter_mode, "boundary_mode": boundary_mode}
        leaves = [t.clone().requires_grad_() for t in (image, uv)]
        seen = texture(*leaves, uv_da, **modes)
        assert not seen[~finite].any()
        expected = reference(image.double(), uv.double(), uv_da.double(), **modes)
        torch.testing.assert_close(seen.double(), expected, atol=1e-6, rtol=0)
        weights = torch.where(finite, 1.0, math.nan)[..., None]
        to_image, to_uv = torch.autograd.grad((seen * weights).sum(), leaves)
        assert to_image.isfinite().all()
        assert to_uv[finite].isfinite().all()
        just_left = texture(image, at(-1e-9, 0.1), **{**modes, "filter_mode": "nearest"})
        assert (just_left == image[0, 0, [0, -1]]).all(dim=-1).any() or boundary_mode == "zero"


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("filter_mode", FILTER_MODES)
def test_gradients_are_the_same_when_they_must_be_deterministic(filter_mode):
    image, uv, uv_da = (t.requires_grad_() for t in lookups(7, 7, 5, batch=1))
    leaves = (image, uv, uv_da) if filter_mode == "linear-mipmap-linear" else (image, uv)
    torch.use_deterministic_algorithms(True)
    try:
        loss = (texture(image, uv, uv_da, filter_mode=filter_mode) ** 2).sum()
        one, again = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    for first, second, other in zip(one, again, torch.autograd.grad(loss, leaves), strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("filter_mode", ["linear", "linear-mipmap-linear"])
def test_twins_gradients_are_finite_differences(filter_mode):
    """Random places: none is on a border between texels or on a whole level."""
    image, uv, uv_da = (t.double()[:1, :5, :5] for t in lookups(3, 5, 5))
    leaves = [t.clone().requires_grad_() for t in (image, uv[:, :3, :3], uv_da[:, :3, :3])]
    torch.autograd.gradcheck(lambda *t: reference(*t, filter_mode=filter_mode), leaves)


def test_same_bits_with_any_number_of_threads():
    g = torch.Generator().manual_seed(4)
    image, uv = torch.rand(1, 30, 20, 3, generator=g), torch.rand(1, 200, 150, 2, generator=g)
    leaves = [t.requires_grad_() for t in (image, uv)]

    def run() -> list[torch.Tensor]:
        seen = texture(*leaves)
        return [seen, *torch.autograd.grad((seen**2).sum(), leaves)]

    check_same_bits(run)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_operator_is_well_formed(mode):
    image, uv, uv_da = lookups(5, 4, 4)
    pyramid = torch.cat([image.flatten(1, 2), halve(image).flatten(1, 2)], dim=1).requires_grad_()
    levels = 2 if mode == 2 else 1
    arguments = (pyramid, uv.requires_grad_(), uv_da.requires_grad_() if mode == 2 else None, 4, 4, levels, mode, 0)
    torch.library.opcheck(torch.ops.egregium.texture.default, arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texture": torch.zeros(3, 4, 4, 1)}, "texture must have shape"),
        ({"texture": torch.zeros(4, 4, 1)}, "texture must have shape"),
        ({"texture": torch.zeros(1, 4, 4, 1, dtype=torch.float64)}, "uv is torch.float32"),
        ({"uv": torch.zeros(2, 5, 6, 3)}, "uv must have shape"),
        ({"uv_da": torch.zeros(2, 5, 6, 2)}, "uv_da must have shape"),
        ({"uv_da": None, "filter_mode": "linear-mipmap-linear"}, "needs uv_da"),
        ({"filter_mode": "cubic"}, "filter_mode = 'cubic'"),
        ({"boundary_mode": "mirror"}, "boundary_mode = 'mirror'"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"texture": torch.zeros(1, 4, 4, 1), "uv": torch.zeros(2, 5, 6, 2), "uv_da": torch.zeros(2, 5, 6, 4)}
    with pytest.raises(ValueError, match=message):
        texture(**{**arguments, **change})
