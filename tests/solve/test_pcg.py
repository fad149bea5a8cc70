"""Conjugate gradients against a direct solve, and what makes them stop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from recon.solve.pcg import pcg


def system(n: int, condition: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return (n, n) A with a spectrum from 1 to ``condition`` and (n,) b."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    spectrum = torch.logspace(0, torch.tensor(condition).log10().item(), n, dtype=torch.float64)
    return (Q * spectrum) @ Q.T, torch.randn(n, generator=generator, dtype=torch.float64)


def times(A: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda p: A @ p


def same(r: Tensor) -> Tensor:
    return r


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_is_the_direct_solution(dtype: torch.dtype, close: float) -> None:
    A, b = system(40, 100.0)
    found = pcg(
        times(A.to(dtype)), b.to(dtype), lambda r: r / A.diag().to(dtype), iterations=200, tolerance=close / 100
    )
    assert found.x.dtype == dtype
    torch.testing.assert_close(found.x.double(), torch.linalg.solve(A, b), rtol=0, atol=close)
    torch.testing.assert_close(found.residual.double(), b - A @ found.x.double(), rtol=0, atol=20 * close)


def test_the_residual_gives_the_decrease_wherever_it_stopped() -> None:
    A, b = system(40, 1e4)
    for iterations in (1, 3, 10):
        found = pcg(times(A), b, same, iterations=iterations)
        assert found.iterations == iterations
        model = 0.5 * found.x @ A @ found.x - b @ found.x
        torch.testing.assert_close(-0.5 * found.x @ (b + found.residual), model, rtol=1e-10, atol=0)


def test_stops_at_the_residual_asked_for() -> None:
    A, b = system(60, 1e3)
    counts = []
    for tolerance in (0.5, 1e-2, 1e-6):
        found = pcg(times(A), b, same, iterations=1000, tolerance=tolerance)
        assert found.residual.norm() <= tolerance * b.norm()
        before = pcg(times(A), b, same, iterations=found.iterations - 1)
        assert before.residual.norm() > tolerance * b.norm(), "no step too many"
        counts.append(found.iterations)
    assert counts[0] < counts[1] < counts[2]


def test_stops_where_the_model_brings_little_more() -> None:
    A, b = system(60, 1e3)
    least = -0.5 * b @ torch.linalg.solve(A, b)
    short = pcg(times(A), b, same, iterations=1000, stagnation=0.1)
    assert 1 < short.iterations < pcg(times(A), b, same, iterations=1000, tolerance=1e-8).iterations / 2
    model = 0.5 * short.x @ A @ short.x - b @ short.x
    assert least <= model < 0.9 * least


def test_nothing_to_do() -> None:
    A, _ = system(5, 10.0)
    found = pcg(times(A), torch.zeros(5, dtype=torch.float64), same, iterations=10)
    assert found.iterations == 0
    assert not found.x.any()


def damped(blocks: Tensor, damping: float) -> Tensor:
    return blocks + damping * torch.diag_embed(blocks.diagonal(dim1=1, dim2=2))


def test_a_preconditioner_that_knows_the_damping_takes_fewer_steps() -> None:
    """Triples coupled strongly, in a whole that is not: far damped, the matrix is nearly its diagonal."""
    generator = torch.Generator().manual_seed(3)
    J = torch.randn(400, 60, generator=generator, dtype=torch.float64)
    J = J.view(400, 20, 3) @ torch.tensor([[1, 0.99, 0.95], [0, 0.1, 0.3], [0, 0, 0.01]], dtype=torch.float64)
    H = J.view(400, 60).T @ J.view(400, 60)
    blocks = torch.stack([H[k : k + 3, k : k + 3] for k in range(0, 60, 3)])
    b = torch.randn(60, generator=generator, dtype=torch.float64)

    def steps(damping: float, aware: bool) -> int:
        A = damped(H[None], damping)[0]
        M = damped(blocks, damping if aware else 0.0)
        exact = torch.linalg.solve(A, b)
        for count in range(1, 200):
            found = pcg(times(A), b, lambda r: torch.linalg.solve(M, r.view(20, 3)).reshape(60), iterations=count)
            error = found.x - exact
            if error @ A @ error < 1e-6 * (exact @ A @ exact):
                return count
        return 200

    assert steps(1e3, aware=True) <= 2
    assert steps(1e3, aware=False) > 5
    assert abs(steps(1e-9, aware=True) - steps(1e-9, aware=False)) <= 1, "no damping, no difference"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_null_space_is_no_failure(dtype: torch.dtype) -> None:
    """A semi-definite system that has a solution, asked for far more than there is: rounding alone is left to solve."""
    J = torch.randn(10, 25, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    b = J.T @ torch.ones(10, dtype=dtype)
    found = pcg(lambda p: J.T @ (J @ p), b, same, iterations=12)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(J @ found.x, torch.ones(10, dtype=dtype), rtol=0, atol=1e4 * eps)
    flat = torch.tensor([4.0, 0.0, 1.0], dtype=dtype)
    ends = pcg(lambda p: flat * p, torch.tensor([0.0, 1.0, 0.0], dtype=dtype), same, iterations=9)
    assert not ends.x.any()
    assert torch.equal(ends.residual, torch.tensor([0.0, 1.0, 0.0], dtype=dtype))


def test_negative_curvature_fails_loudly() -> None:
    A, b = system(20, 10.0)
    A = A - 3 * torch.eye(20, dtype=torch.float64)
    with pytest.raises(FloatingPointError, match="matrix has negative curvature"):
        pcg(times(A), b, same, iterations=50)
    with pytest.raises(FloatingPointError, match="preconditioner is not positive definite"):
        pcg(times(A), b, lambda r: -r, iterations=50)


def test_rounding_is_told_from_negative_curvature() -> None:
    """By the direction's own length: a curvature of -1 is one, too, when little is left to solve."""

    def solve(last: float, share: float) -> Tensor:
        A, b = torch.tensor([4.0, 1.0, last]).double(), torch.tensor([1.0, 1.0, share]).double()
        return pcg(lambda p: A * p, b, same, iterations=9).x

    for rounding in (-1e-17, -2e-14):
        found = solve(rounding, 1e-9)
        torch.testing.assert_close(found[:2], torch.tensor([0.25, 1.0]).double(), rtol=0, atol=1e-6)
    for share in (1.0, 1e-9):
        with pytest.raises(FloatingPointError, match="matrix has negative curvature"):
            solve(-1.0, share)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_fails_loudly(bad: float) -> None:
    A, b = system(5, 10.0)
    spoilt = b.clone()
    spoilt[2] = bad
    with pytest.raises(FloatingPointError, match="residual or its preconditioned form is not finite"):
        pcg(times(A), spoilt, same, iterations=5)
    with pytest.raises(FloatingPointError, match="product with the matrix is not finite"):
        pcg(lambda p: A @ p * (spoilt / b), b, same, iterations=5)
    with pytest.raises(FloatingPointError, match="residual or its preconditioned form is not finite"):
        pcg(times(A), b, lambda r: r * (spoilt / b), iterations=5)
    with pytest.raises(FloatingPointError, match="solution of conjugate gradients is not finite"):
        pcg(lambda p: p * 1e-30, torch.full((1,), 1e20), same, iterations=1)


def test_a_long_solve_can_be_given_up() -> None:
    A, b = system(60, 1e6)
    calls = []

    class Stopped(Exception):
        pass

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        pcg(times(A), b, same, iterations=1000, check=check)
    assert len(calls) == 3
