from __future__ import annotations

import pytest
import torch

from kernels.reference.ssim import ssim as reference
from kernels.ssim import ssim


def pictures(height: int, width: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    first = torch.rand(height, width, channels, generator=generator)
    return first, (0.7 * first + 0.3 * torch.rand(height, width, channels, generator=generator))


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 7, 3), (64, 48, 3), (33, 129, 3), (70, 40, 4)])
def test_is_its_twin(size: tuple[int, int, int]) -> None:
    x, y = pictures(*size)
    torch.testing.assert_close(ssim(x, y).double(), reference(x.double(), y.double()), atol=2e-5, rtol=0)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("size", [(5, 7, 3), (45, 37, 3)])
def test_gradient_is_the_finite_difference_of_the_twin(size: tuple[int, int, int]) -> None:
    x, y = pictures(*size)
    weights = torch.randn(size, generator=torch.Generator().manual_seed(4))
    x.requires_grad_()
    (ssim(x, y) * weights).sum().backward()
    direction = torch.randn(size, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def loss(step: float) -> torch.Tensor:
        return (reference(x.detach().double() + step * direction, y.double()) * weights).sum()

    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert x.grad is not None
    torch.testing.assert_close((x.grad.double() * direction).sum(), slope, rtol=1e-4, atol=1e-4)


def test_alike_is_one_and_noise_is_not() -> None:
    x, y = pictures(20, 20, 3)
    torch.testing.assert_close(ssim(x, x), torch.ones_like(x))
    assert ssim(x, y).mean() < 0.99


def test_operator_is_well_formed() -> None:
    x, y = pictures(12, 9, 3)
    torch.library.opcheck(torch.ops.egregium.ssim.default, (x.requires_grad_(), y, True))


def test_sizes_must_agree() -> None:
    x, _ = pictures(4, 4, 3)
    with pytest.raises(ValueError, match="alike"):
        ssim(x, x[:3])
