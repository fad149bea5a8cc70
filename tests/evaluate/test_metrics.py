"""PSNR by hand, SSIM against scikit-image and by hand at the padded border."""

from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import structural_similarity

from recon.errors import InputError
from recon.evaluate.metrics import psnr, ssim


def pair(height: int = 40, width: int = 57, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    reference = torch.rand(height, width, 3, generator=generator, dtype=dtype)
    noise = torch.randn(height, width, 3, generator=generator, dtype=dtype)
    return (reference + 0.1 * noise).clamp(0, 1), reference


def test_psnr_of_a_constant_offset() -> None:
    reference = torch.full((4, 5, 3), 0.5)
    assert psnr(reference + 0.1, reference) == pytest.approx(20, abs=1e-4)  # −10 log10(0.01)
    assert psnr(reference + 0.5, reference) == pytest.approx(6.0206, abs=1e-4)  # −10 log10(1/4)


def test_psnr_averages_the_squares_over_pixels_and_channels() -> None:
    image, reference = torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)
    image[0, 0, 0] = 1  # one of twelve values is off by one
    assert psnr(image, reference) == pytest.approx(10 * math.log10(12))


def test_psnr_of_equal_images_is_infinite_and_of_nothing_nan() -> None:
    image = torch.rand(3, 3, 3)
    assert psnr(image, image) == math.inf
    assert math.isnan(psnr(image, image + 0.1, torch.zeros(3, 3)))
    assert math.isnan(ssim(image, image + 0.1, torch.zeros(3, 3)))


def test_masked_psnr_counts_the_weight_of_each_pixel() -> None:
    image, reference = torch.zeros(1, 3, 3), torch.zeros(1, 3, 3)
    image[0, 0], image[0, 1], image[0, 2] = 0.1, 0.2, 1.0
    mask = torch.tensor([[1.0, 0.5, 0.0]])
    assert psnr(image, reference, mask) == pytest.approx(-10 * math.log10((0.01 + 0.5 * 0.04) / 1.5), abs=1e-5)


def test_ssim_away_from_the_border_is_that_of_scikit_image() -> None:
    image, reference = pair()
    expected = structural_similarity(
        image.numpy(),
        reference.numpy(),
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    interior = torch.zeros(image.shape[:2])
    interior[5:-5, 5:-5] = 1
    assert ssim(image, reference, interior) == pytest.approx(expected, abs=1e-5)


def test_ssim_pads_with_zeros() -> None:
    # Two constant images: away from the border only the means differ. At the corner a quarter of the window plus its
    # axes lies inside; its weight m gives means m·a and m·b, and variances m·a² − (m·a)².
    a, b, c1, c2 = 0.8, 0.4, 1e-4, 9e-4
    image, reference = torch.full((30, 30, 3), a), torch.full((30, 30, 3), b)
    weights = [math.exp(-k * k / 4.5) for k in range(-5, 6)]
    m = (sum(weights[5:]) / sum(weights)) ** 2
    luminance = (2 * m * m * a * b + c1) / (m * m * (a * a + b * b) + c1)
    structure = (2 * (m - m * m) * a * b + c2) / ((m - m * m) * (a * a + b * b) + c2)
    for pixel, expected in ((15, (2 * a * b + c1) / (a * a + b * b + c1)), (0, luminance * structure)):
        mask = torch.zeros(30, 30)
        mask[pixel, pixel] = 1
        assert ssim(image, reference, mask) == pytest.approx(expected, abs=2e-4)  # variances cancel in float32


def test_ssim_is_one_for_equal_images_and_symmetric() -> None:
    image, reference = pair()
    assert ssim(image, image) == pytest.approx(1)
    assert ssim(image, reference) == pytest.approx(ssim(reference, image))


def test_shapes_that_do_not_match_are_told() -> None:
    with pytest.raises(InputError, match=r"\(4, 5, 3\).*\(5, 4, 3\)"):
        psnr(torch.zeros(4, 5, 3), torch.zeros(5, 4, 3))
    with pytest.raises(InputError, match="mask"):
        ssim(torch.zeros(4, 5, 3), torch.zeros(4, 5, 3), torch.zeros(5, 4))
