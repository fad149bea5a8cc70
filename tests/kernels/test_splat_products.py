"""J p, Jᵀ r and Jᵀ W J p of one view: against the dense Jacobian, against one another, and what the algebra demands."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from kernels.reference import splat_jacobian as twin
from kernels.splat_jacobian import CAMERA_UNKNOWNS, TILE, UNKNOWNS, SplatJacobian
from tests.kernels.test_splat_jacobian import HEIGHT, WIDTH, scene
from tests.kernels.thread_counts import check_same_bits


class Step(NamedTuple):
    """Of all unknowns, or a gradient by them."""

    geometry: Tensor
    colors: Tensor
    camera: Tensor

    def dot(self, other: Any) -> float:
        pairs = ((self.geometry, other.geometry), (self.colors, other.colors), (self.camera, other.camera))
        return sum(float((a.double() * b.double()).sum()) for a, b in pairs)

    def size(self) -> float:
        return self.dot(self) ** 0.5


def inputs(seed: int, count: int, kind: dict[str, Any]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Return splats, camera and size, and the settings, of a kind of scene."""
    generator = torch.Generator().manual_seed(seed)
    degree = kind.get("degree")
    splats, viewmat, K = scene(seed, count, degree=degree, needles=kind.get("needles", False))
    channels = kind.get("channels", 3)
    if channels != 3:
        splats = (*splats[:4], torch.rand(count, channels, generator=generator))
    if kind.get("wide"):  # to where the projection is no longer linearised at the mean
        splats = (splats[0] * torch.tensor([3.0, 3.0, 1.0]), splats[1], splats[2] * 3, *splats[3:])
    settings = {
        "sh_degree": degree,
        "rasterize_mode": "antialiased" if kind.get("antialiased") else "classic",
        "background": torch.rand(channels, generator=generator) if kind.get("background", True) else None,
        "mask": torch.rand(HEIGHT, WIDTH, generator=generator) < 0.7 if kind.get("mask") else None,
    }
    return (*splats, viewmat, K, WIDTH, HEIGHT), settings


def view_of(seed: int, count: int, kind: dict[str, Any]) -> SplatJacobian:
    arguments, settings = inputs(seed, count, kind)
    return SplatJacobian(*arguments, **settings)


@cache
def dense_of(kind: tuple[tuple[str, Any], ...]) -> tuple[Tensor, ...]:
    """Return the dense Jacobian of five splats by geometry, colours and camera, in float64."""
    arguments, settings = inputs(3, 5, dict(kind))
    splats = tuple(t.double() for t in arguments[:5])
    background, mask = settings.pop("background"), settings.pop("mask")
    return twin.jacobian(
        splats,
        arguments[5].double(),
        arguments[6].double(),
        WIDTH,
        HEIGHT,
        backgrounds=None if background is None else background.double()[None],
        masks=None if mask is None else mask[None],
        **settings,
    )


def random_step(view: SplatJacobian, seed: int) -> Step:
    """Return a step of all unknowns whose parts change the image about as much as one another."""
    generator = torch.Generator().manual_seed(seed)
    count = len(view.touched)
    colors = torch.randn(view.vjp(torch.zeros_like(view.image)).colors.shape, generator=generator)
    camera = torch.randn(CAMERA_UNKNOWNS, generator=generator)
    camera *= torch.tensor([0.1, 0.1, 0.1, 0.3, 0.3, 0.3, 3, 3, 1, 1])
    return Step(torch.randn(count, UNKNOWNS, generator=generator), colors, camera)


def random_image(view: SplatJacobian, seed: int) -> Tensor:
    return torch.randn(view.image.shape, generator=torch.Generator().manual_seed(seed))


def tiles_of(view: SplatJacobian, chosen: Tensor) -> Tensor:
    """Spread a value a tile over the image."""
    height, width, _ = view.image.shape
    return chosen.repeat_interleave(16, 0).repeat_interleave(16, 1)[:height, :width, None]


KINDS = [
    {},
    {"background": False},
    {"antialiased": True},
    {"needles": True},
    {"needles": True, "antialiased": True},
    {"wide": True},
    {"mask": True},
    {"channels": 1},
    {"channels": 7},
    *({"degree": degree} for degree in range(4)),
    {"degree": 3, "antialiased": True, "mask": True, "wide": True},
]


FEW_KINDS = [{}, {"needles": True, "antialiased": True}, {"channels": 7}, KINDS[-1]]


def check_products(kind: dict[str, Any]) -> None:
    view = view_of(3, 5, kind)
    step, image = random_step(view, 1), random_image(view, 2)
    gradients = view.vjp(image)
    for part, dense in zip(step._fields, dense_of(tuple(kind.items())), strict=True):
        expected = dense.flatten(3) @ getattr(step, part).double().flatten()
        got = view.jvp(**{part: getattr(step, part)}).double()
        assert (got - expected).abs().amax() < 1e-4 * expected.abs().amax(), part
        expected = torch.einsum("hwdk,hwd->k", dense.flatten(3), image.double())
        got = getattr(gradients, part).double().flatten()
        assert (got - expected).abs().amax() < 1e-4 * expected.abs().amax(), part


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_products_are_those_of_the_dense_jacobian(kind, instruction_set):
    check_products(kind)


@pytest.mark.parametrize("kind", FEW_KINDS, ids=str)
def test_they_are_on_any_device(kind, device):
    check_products(kind)


@pytest.mark.parametrize("kind", [{}, KINDS[-1]], ids=str)
def test_the_cameras_block_is_that_of_the_dense_jacobian(kind, processor):
    view = view_of(3, 5, kind)
    _, _, by_camera = dense_of(tuple(kind.items()))
    image = random_image(view, 2)
    sampled = image.abs()
    sampled[:TILE] = 0
    for weights, unknowns in ((image.abs(), 2), (sampled, 10)):
        columns = by_camera[..., :unknowns]
        block = torch.einsum("hwdi,hwd,hwdj->ij", columns, weights.double(), columns)
        scale = block.diagonal().sqrt()
        got = view.camera_block(weights, unknowns).double()
        assert ((got - block) / scale / scale[:, None]).abs().amax() < 1e-3


def check_adjoint(view: SplatJacobian, k: int) -> None:
    step, image = random_step(view, 10 + k), random_image(view, 20 + k)
    change, gradient = view.jvp(*step).double(), view.vjp(image)
    size = float(change.norm() * image.double().norm())
    assert abs(float((image.double() * change).sum()) - step.dot(gradient)) < 1e-5 * size


@pytest.mark.parametrize("kind", [*KINDS, {"channels": 13}], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_the_products_are_adjoint(kind, seed, instruction_set):
    view = view_of(seed, 60, kind)
    for k in range(3):
        check_adjoint(view, k)


@pytest.mark.parametrize("kind", [FEW_KINDS[1], {"channels": 13}], ids=str)
def test_they_are_adjoint_on_any_device(kind, processor):
    check_adjoint(view_of(0, 60, kind), 0)


@pytest.mark.parametrize("kind", [*KINDS, {"channels": 13}], ids=str)
def test_the_fused_product_is_that_of_its_two_factors(kind, instruction_set):
    view = view_of(5, 60, kind)
    step, weights = random_step(view, 1), random_image(view, 2).abs()
    expected = view.vjp(weights * view.jvp(*step))
    for kept_bytes in (1 << 20, 0, 20_000, 3_000):
        got = view.gauss_newton(*step, weights, kept_bytes=kept_bytes)
        for name, one, other in zip(got._fields, got, expected, strict=True):
            assert (one - other).abs().amax() <= 2e-5 * other.abs().amax(), (name, kept_bytes)


@pytest.mark.parametrize("kind", [{}, {"needles": True, "antialiased": True}, {"degree": 2, "mask": True}], ids=str)
def test_the_fused_product_is_symmetric_and_positive(kind, instruction_set):
    view = view_of(6, 60, kind)
    weights = random_image(view, 2).abs()
    steps = [random_step(view, k) for k in range(4)]
    products = [view.gauss_newton(*step, weights) for step in steps]
    squares = [step.dot(product) for step, product in zip(steps, products, strict=True)]
    assert min(squares) > 0
    for i, step in enumerate(steps):
        for j in range(i):
            difference = step.dot(products[j]) - steps[j].dot(products[i])
            assert abs(difference) < 1e-5 * (squares[i] * squares[j]) ** 0.5


def test_a_sample_of_tiles_is_its_part_of_the_whole(instruction_set):
    """Tile by tile the products add up to the whole, so that samples weighted by 1 / probability are unbiased."""
    view = view_of(4, 60, {"degree": 1})
    step, weights = random_step(view, 1), random_image(view, 2).abs()

    def products(weights: Tensor) -> list[Tensor]:
        blocks = view.blocks(weights)
        return [*view.gauss_newton(*step, weights), *view.vjp(weights), *blocks, view.camera_block(weights)]

    totals: list[Tensor] = []
    for tile in range(6):
        chosen = torch.zeros(6).index_fill(0, torch.tensor(tile), 1).view(2, 3)
        part = products(weights * tiles_of(view, chosen))
        totals = [a + b for a, b in zip(totals, part, strict=True)] if totals else part
    for got, expected in zip(totals, products(weights), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().amax()))
    assert not any(t.any() for t in products(torch.zeros_like(weights)))


def test_a_tile_without_weights_is_as_one_with_hardly_any(processor):
    """A tile that is skipped and one that is walked for the sake of a weight too small to be seen: the same sums."""
    view = view_of(4, 60, {})
    step, weights = random_step(view, 1), random_image(view, 2).abs()
    chosen = tiles_of(view, torch.tensor([[1.0, 0, 1], [0, 0, 1]]))
    none, hardly = weights * chosen, weights * chosen + (1 - chosen) * 1e-30
    for one, other in (
        (view.gauss_newton(*step, none), view.gauss_newton(*step, hardly)),
        (view.vjp(none), view.vjp(hardly)),
        (view.blocks(none), view.blocks(hardly)),
    ):
        assert all((a - b).abs().amax() < 1e-20 for a, b in zip(one[:2], other[:2], strict=True))
        for a, b in zip(one[2:], other[2:], strict=True):  # of the camera, summed in another order
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().amax()))
    nothing = torch.zeros_like(weights)
    assert not any(t.any() for t in (*view.gauss_newton(*step, nothing), *view.vjp(nothing), *view.blocks(nothing)))


def test_no_number_of_threads_changes_a_bit():
    view = view_of(8, 3000, {"degree": 1})
    step, weights = random_step(view, 1), random_image(view, 2).abs()
    sample = weights * tiles_of(view, torch.tensor([[1.0, 0, 1], [0, 1, 0]]))
    check_same_bits(
        lambda: [
            view.jvp(*step),
            *view.vjp(sample),
            *view.blocks(sample),
            *(t for w in (weights, sample) for t in view.gauss_newton(*step, w)),
            *view.gauss_newton(*step, weights, kept_bytes=10_000),
        ]
    )


def test_splats_that_are_not_seen_have_no_part(processor):
    arguments, settings = inputs(3, 5, {})
    means = arguments[0].clone()
    means[1, 2], means[3] = -10, float("nan")  # behind the camera; nowhere
    view = SplatJacobian(means, *arguments[1:], **settings)
    step = random_step(view, 1)
    step.geometry[1], step.colors[3] = float("inf"), float("nan")
    assert view.jvp(*step).isfinite().all()
    product = view.gauss_newton(*step, torch.ones_like(view.image))
    assert all(t.isfinite().all() for t in product)
    assert not product.geometry[[1, 3]].any()
    assert not product.colors[[1, 3]].any()


def test_what_is_not_finite_shows(processor):
    view = view_of(3, 5, {})
    step, weights = random_step(view, 1), torch.ones_like(view.image)
    seen = int(view.vjp(weights).geometry.abs().sum(1).argmax())
    bad = Step(step.geometry.clone(), step.colors, step.camera)
    bad.geometry[seen, 4] = float("nan")
    assert view.jvp(*bad).isnan().any()
    assert view.gauss_newton(*bad, weights).geometry[seen].isnan().any()
    weights[10, 18] = float("nan")
    assert view.gauss_newton(*step, weights).camera.isnan().all()


def test_opcheck():
    view = view_of(3, 5, {"degree": 1})
    step, weights = random_step(view, 1), torch.ones_like(view.image)
    operators = torch.ops.egregium
    for operator, own in (
        (operators.splat_vjp, (weights,)),
        (operators.splat_jvp, (step.geometry, None, None, None)),
        (operators.splat_gauss_newton, (*step, weights, 0)),
        (operators.splat_blocks, (weights,)),
    ):
        torch.library.opcheck(operator.default, (*own, *view._view))


def test_what_does_not_fit_is_named():
    view = view_of(3, 5, {})
    step, weights = random_step(view, 1), torch.ones_like(view.image)
    with pytest.raises(ValueError, match=r"geometry must be float32 \(5, 10\)"):
        view.jvp(step.geometry[:4])
    with pytest.raises(ValueError, match=r"colors must be float32 \(5, 3\)"):
        view.jvp(step.geometry, step.colors.double())
    with pytest.raises(ValueError, match=r"camera must be float32 \(10,\)"):
        view.gauss_newton(step.geometry, None, torch.zeros(6), weights)
    with pytest.raises(ValueError, match="weights must be"):
        view.gauss_newton(*step, weights[1:])
    with pytest.raises(ValueError, match="kept_bytes"):
        view.gauss_newton(*step, weights, kept_bytes=-1)
    with pytest.raises(ValueError, match=r"camera must be float32 \(10,\) on cpu, not .* on meta"):
        view.jvp(camera=torch.zeros(10, device="meta"))
    assert not view.jvp().any()
