from __future__ import annotations

import pytest
import torch

from kernels.adam_step import BETAS, adam_step


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("columns", [1, 3, 4, 48])
def test_is_torch_adam(columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(700, columns, generator=generator)
    theirs = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([theirs], lr=0.01, betas=BETAS, eps=1e-15)
    ours, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, 6):
        gradient = torch.randn(700, columns, generator=generator)
        theirs.grad = gradient
        optimiser.step()
        factors = torch.full((700,), (1 - BETAS[1] ** step) ** 0.5 / (1 - BETAS[0] ** step))
        adam_step(ours, gradient, first, second, factors, torch.full((columns,), 0.01))
    torch.testing.assert_close(ours, theirs.detach(), atol=2e-6, rtol=0)


@pytest.mark.usefixtures("device")
def test_rows_may_sit_out_and_steps_are_cut() -> None:
    parameter, first, second = torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3, 2)
    gradient = torch.tensor([[1.0, -1.0]]).expand(3, 2).contiguous()
    adam_step(
        parameter,
        gradient,
        first,
        second,
        torch.tensor([1.0, 0.0, 1.0]),
        torch.tensor([1.0, 0.5]),
        torch.tensor([0.25, 1.0, 100.0]),
    )
    # m / √v = 0.1 / √0.001 = √10 after one step without correction.
    expected = torch.tensor([[-0.25, 0.25], [0.0, 0.0], [-(10**0.5), 0.5 * 10**0.5]])
    # In float32, 1 − 0.999 is off by 1e-5 of itself.
    torch.testing.assert_close(parameter, expected, rtol=2e-5, atol=0)
    assert first[1].abs().sum() == 0
    assert second[1].abs().sum() == 0


def test_shapes_are_checked() -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="factors"):
        adam_step(x, x, x, x, torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="limits must have shape"):
        adam_step(x, x, x, x, torch.zeros(3), torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="rates must be contiguous float32 on cpu"):
        adam_step(x, x, x, x, torch.zeros(3), torch.zeros(2, device="meta"))
    with pytest.raises(ValueError, match="1 to 1024"):
        adam_step(*torch.zeros(4, 3, 1025), torch.zeros(3), torch.zeros(1025))


def test_operator_is_well_formed() -> None:
    arrays = (*torch.rand(4, 5, 3), torch.ones(5), torch.ones(3), torch.ones(5), 0.0)
    torch.library.opcheck(torch.ops.egregium.adam_step.default, arrays)
