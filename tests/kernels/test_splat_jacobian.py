"""Products of one view's Jacobian against the dense one, differentiated by autograd through the twin in float64."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.move_splats import move_splats
from kernels.reference import splat_jacobian as twin
from kernels.solve_blocks import solve_blocks
from kernels.splat_jacobian import UNKNOWNS, SplatJacobian

WIDTH, HEIGHT = 37, 29
BACKGROUND = torch.tensor([0.2, 0.5, 0.9])
UPPER = torch.triu_indices(UNKNOWNS, UNKNOWNS)


def scene(seed: int, count: int = 9, *, needles: bool = False, degree: int | None = None) -> tuple[Any, ...]:
    """Return splats before a turned camera, float64 of float32 values, and the camera."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, low: float = -1, high: float = 1) -> Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    scales = uniform(count, 3, low=-3, high=-1.2).exp()
    if needles:
        scales[:, 0], scales[:, 1:] = 1.5, 1e-3
    colors = uniform(count, 3, low=0.1, high=0.9) if degree is None else uniform(count, (degree + 1) ** 2, 3)
    splats = (uniform(count, 3), uniform(count, 4), scales, uniform(count, low=0.1, high=0.95), colors)
    viewmat = torch.eye(4)
    viewmat[:3, :3] = torch.linalg.qr(torch.eye(3) + 0.2 * uniform(3, 3))[0]
    viewmat[:3, :3] *= torch.sign(torch.linalg.det(viewmat[:3, :3]))
    if viewmat[2, 2] < 0:
        viewmat[1:3, :3] *= -1
    viewmat[:3, 3] = torch.tensor([0.1, -0.05, 3.0])
    K = torch.tensor([[30.0, 0, 18.2], [0, 33, 14.1], [0, 0, 1]])
    splats = (splats[0], torch.nn.functional.normalize(splats[1], dim=1), *splats[2:])
    return splats, viewmat, K


def kernel_of(antialiased: bool = False, degree: int | None = None, needles: bool = False) -> SplatJacobian:
    """Return the kernel's view of a scene of a few splats."""
    splats, viewmat, K = scene(3, 5, degree=degree, needles=needles)
    mode = "antialiased" if antialiased else "classic"
    return SplatJacobian(
        *splats, viewmat, K, WIDTH, HEIGHT, background=BACKGROUND, sh_degree=degree, rasterize_mode=mode
    )


@cache
def dense_of(antialiased: bool = False, degree: int | None = None, needles: bool = False) -> tuple[Tensor, ...]:
    """Return the dense Jacobian of the same view by geometry, by colours and by the camera."""
    splats, viewmat, K = scene(3, 5, degree=degree, needles=needles)
    return twin.jacobian(
        tuple(t.double() for t in splats),
        viewmat.double(),
        K.double(),
        WIDTH,
        HEIGHT,
        backgrounds=BACKGROUND.double()[None],
        sh_degree=degree,
        rasterize_mode="antialiased" if antialiased else "classic",
    )


def weights(seed: int) -> Tensor:
    return torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(seed + 99))


KINDS = [{}, {"antialiased": True}, {"degree": 0}, {"needles": True}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_blocks_are_those_of_the_dense_jacobian(kind, device):
    geometry, colors, _ = dense_of(**kind)
    expected = twin.blocks(geometry, weights(3).double())
    got = kernel_of(**kind).blocks(weights(3))
    diagonal = expected.diagonal(dim1=1, dim2=2)
    assert (diagonal.amax(1) > 1e-4).all()
    # A needle turned about itself changes nothing: its share is nothing, too, beside what the block holds else.
    diagonal = diagonal + 1e-9 * diagonal.amax(1, keepdim=True)
    size = (diagonal[:, UPPER[0]] * diagonal[:, UPPER[1]]).sqrt()
    error = (got.geometry.double() - expected[:, UPPER[0], UPPER[1]]).abs() / size
    assert error.amax() < 2e-3
    by_colour = torch.einsum("hwdnk,hwd,hwdnk->nk", colors.flatten(4), weights(3).double(), colors.flatten(4))
    torch.testing.assert_close(got.colors.flatten(1).double(), by_colour, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("needles", [False, True])
def test_thousands_of_blocks_are_positive_semidefinite_and_solved(needles, instruction_set):
    splats, viewmat, K = scene(7, 4000, needles=needles)
    splats = (*splats[:3], 0.02 * splats[3], splats[4])  # faint, so that the last is seen, too
    blocks = SplatJacobian(*splats, viewmat, K, WIDTH, HEIGHT).blocks(weights(7)).geometry
    full = torch.zeros(len(blocks), UNKNOWNS, UNKNOWNS, dtype=torch.float64)
    full[:, UPPER[0], UPPER[1]] = blocks.double()
    full[:, UPPER[1], UPPER[0]] = blocks.double()
    diagonal = full.diagonal(dim1=1, dim2=2)
    assert (diagonal >= 0).all()
    assert (diagonal.amax(1) > 0).sum() > 2000
    unit = torch.where(diagonal > 1e-6 * diagonal.amax(1, keepdim=True), diagonal.rsqrt(), 0)
    scaled = torch.linalg.eigvalsh(full * unit[:, :, None] * unit[:, None])
    assert scaled.amin() > -1e-3, "of a unit diagonal"
    gradients = torch.randn(len(blocks), UNKNOWNS, generator=torch.Generator().manual_seed(0)) * diagonal.sqrt().float()
    steps = solve_blocks(blocks, gradients, 0.01)
    assert steps.isfinite().all()
    assert ((steps * gradients).sum(1) >= 0).all(), "downhill"


@pytest.mark.parametrize("kind", [*KINDS, {"degree": 2}], ids=str)
def test_the_transposed_product_is_that_of_the_dense_jacobian(kind, instruction_set):
    geometry, colors, _ = dense_of(**kind)
    cotangent = weights(3) - 0.5
    got = kernel_of(**kind).vjp(cotangent)
    expected = torch.einsum("hwdni,hwd->ni", geometry, cotangent.double())
    torch.testing.assert_close(got.geometry.double(), expected, rtol=2e-3, atol=2e-3 * float(expected.abs().amax()))
    to_colors = torch.einsum("hwdnk,hwd->nk", colors.flatten(4), cotangent.double())
    torch.testing.assert_close(got.colors.flatten(1).double(), to_colors, rtol=2e-3, atol=1e-4)


def test_turning_is_a_rotation_about_the_splats_own_axes():
    quats = torch.nn.functional.normalize(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    turned = twin.turn(quats, torch.tensor([0.0, 0, 2.0]).expand(50, 3))  # by 2 atan(|ω| / 2) = π / 2
    expected = torch.tensor([0.5**0.5, 0, 0, 0.5**0.5])
    relative = torch.stack(
        [
            (quats * turned).sum(1),
            quats[:, 0] * turned[:, 3]
            - quats[:, 3] * turned[:, 0]
            + quats[:, 2] * turned[:, 1]
            - quats[:, 1] * turned[:, 2],
        ],
        1,
    )
    torch.testing.assert_close(relative.abs(), expected[[0, 3]].expand(50, 2), rtol=1e-5, atol=1e-5)
    assert torch.equal(twin.turn(quats, torch.zeros(50, 3)), torch.nn.functional.normalize(quats, dim=1))


def test_splats_move_as_their_twin_says(processor):
    generator = torch.Generator().manual_seed(1)
    splats = [torch.randn(5000, columns, generator=generator) for columns in (3, 3, 4, 1)]
    steps = 0.3 * torch.randn(5000, 10, generator=generator)
    means, log_scales, quats, logits = (t.clone() for t in splats)
    move_splats(means, log_scales, quats, logits[:, 0], steps)
    torch.testing.assert_close(means, splats[0] + steps[:, :3])
    torch.testing.assert_close(log_scales, splats[1] + steps[:, 3:6])
    torch.testing.assert_close(quats, twin.turn(splats[2], steps[:, 6:9]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits, splats[3] + steps[:, 9:])
    quats[0], steps[0, 6:9] = 0, 1
    steps[1, 8] = float("nan")
    move_splats(means, log_scales, quats, logits[:, 0], steps)
    assert not quats[0].any()
    assert quats[1].isnan().all()
    with pytest.raises(ValueError, match="steps must have shape"):
        move_splats(means, log_scales, quats, logits[:, 0], steps[:, :9].contiguous())
    with pytest.raises(ValueError, match="quats must be contiguous"):
        move_splats(means, log_scales, quats.double(), logits[:, 0], steps)
