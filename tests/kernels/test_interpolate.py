from __future__ import annotations

import pytest
import torch
from raster_scenes import random_triangles
from thread_counts import check_same_bits

from kernels.interpolate import interpolate
from kernels.rasterize_mesh import rasterize_mesh
from kernels.reference.interpolate import interpolate as reference
from kernels.reference.rasterize_mesh import rasterize_mesh as reference_rasterize


def scene(seed: int, batch: int = 2) -> tuple[torch.Tensor, ...]:
    positions, faces = random_triangles(seed, 30, batch=batch)
    rast, rast_db = rasterize_mesh(positions, faces, 17, 13)
    attributes = torch.randn(batch, 40, 5, generator=torch.Generator().manual_seed(seed))
    return attributes, rast, faces, rast_db


def test_by_hand():
    rast = torch.tensor([[[[0.25, 0.5, 0, 1], [0, 0, 0, 0]]]])
    rast_db = torch.tensor([[[[1.0, 2, 3, 4], [1, 1, 1, 1]]]])
    faces = torch.tensor([[2, 0, 1]], dtype=torch.int32)
    attributes = torch.tensor([[1.0, 10], [2, 20], [4, 40]])
    values, derivatives = interpolate(attributes, rast, faces, rast_db, [1])
    assert values[0, 0].tolist() == [[0.25 * 4 + 0.5 * 1 + 0.25 * 2, 20.0], [0, 0]]
    # da/dX = du/dX (40 - 20) + dv/dX (10 - 20)
    assert derivatives is not None
    assert derivatives[0, 0].tolist() == [[1 * 20 + 3 * -10, 2 * 20 + 4 * -10], [0, 0]]
    assert interpolate(attributes, rast, faces)[1] is None


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("diff_attrs", [None, "all", [1, 3, 3]])
def test_is_its_twin_with_gradients(shared, diff_attrs):
    attributes, rast, faces, rast_db = scene(0)
    attributes = attributes[0] if shared else attributes
    results = []
    for function, dtype in ((interpolate, torch.float32), (reference, torch.float64)):
        leaves = [t.to(dtype).requires_grad_() for t in (attributes, rast, rast_db)]
        outputs = [t for t in function(leaves[0], leaves[1], faces, leaves[2], diff_attrs) if t is not None]
        g = torch.Generator().manual_seed(1)
        loss = sum((t * torch.randn(t.shape, generator=g)).sum() for t in outputs)
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        results.append([*outputs, *(g for g in gradients if g is not None)])
    assert len(results[0]) == len(results[1])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5 * other.abs().max().item(), rtol=1e-5)


@pytest.mark.usefixtures("device")
def test_gradients_are_the_same_when_they_must_be_deterministic():
    attributes, rast, faces, rast_db = scene(7)
    leaf = attributes.requires_grad_()
    torch.use_deterministic_algorithms(True)
    try:
        values, derivatives = interpolate(leaf, rast, faces, rast_db, [1, 3])
        loss = (values**2).sum() + (derivatives**2).sum()
        one, again = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(one, again)
    torch.testing.assert_close(one, torch.autograd.grad(loss, leaf)[0], atol=1e-5, rtol=1e-5)


def test_derivatives_are_differences_of_neighbouring_pixels():
    """In float64, at pixels whose neighbours see the same triangle of a fine image."""
    positions, faces = random_triangles(2, 4, vertices=6)
    attributes = torch.randn(6, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rast, rast_db = reference_rasterize(positions.double(), faces, 200, 200)
    values, derivatives = reference(attributes, rast, faces, rast_db, "all")
    assert derivatives is not None
    for axis, dim in ((0, 2), (1, 1)):
        before, here, after = (values.narrow(dim, k, 198) for k in (0, 1, 2))
        ids = [rast[..., 3].narrow(dim, k, 198) for k in (0, 1, 2)]
        same = (ids[0] == ids[1]) & (ids[1] == ids[2]) & (ids[1] > 0)
        bend = (before - 2 * here + after).abs()
        slopes = derivatives.narrow(dim, 1, 198)[..., axis::2]
        assert same.sum() > 1000
        assert ((((after - before) / 2 - slopes).abs() <= 0.5 * bend + 1e-9) | ~same[..., None]).all()


def test_twins_gradients_are_finite_differences():
    attributes, rast, faces, rast_db = (t.double() if t.is_floating_point() else t for t in scene(3, batch=1))
    rast, rast_db = rast[:, 4:7, 4:8].clone(), rast_db[:, 4:7, 4:8].clone()

    def values(attributes, uv, rast_db):
        return reference(attributes, torch.cat([uv, rast[..., 2:]], dim=-1), faces, rast_db, "all")

    leaves = [t.requires_grad_() for t in (attributes, rast[..., :2].clone(), rast_db)]
    torch.autograd.gradcheck(values, leaves)


def test_same_bits_with_any_number_of_threads():
    positions, faces = random_triangles(5, 3000, vertices=400)
    rast, rast_db = rasterize_mesh(positions, faces, 150, 170)
    leaf = torch.randn(400, 3, generator=torch.Generator().manual_seed(5)).requires_grad_()

    def run() -> list[torch.Tensor]:
        values, derivatives = interpolate(leaf, rast, faces, rast_db, "all")
        return [values, derivatives, *torch.autograd.grad((values**2).sum() + derivatives.abs().sum(), leaf)]

    check_same_bits(run)


@pytest.mark.parametrize("diff_attrs", [[], [0, 2]])
def test_operator_is_well_formed(diff_attrs):
    attributes, rast, faces, rast_db = scene(4)
    arguments = (attributes.requires_grad_(), rast.requires_grad_(), faces, rast_db.requires_grad_(), diff_attrs)
    torch.library.opcheck(torch.ops.egregium.interpolate.default, arguments)


def test_numbers_that_are_no_triangle_are_background():
    attributes, rast, faces, _ = scene(6)
    rast[0, 0, :4, 3] = torch.tensor([-1.0, 31, float("nan"), float("inf")])
    values, _ = interpolate(attributes, rast, faces)
    assert not values[0, 0, :4].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attributes": torch.zeros(3, 40, 5)}, "attributes must have shape"),
        ({"attributes": torch.zeros(40, 0)}, "attributes must have shape"),
        ({"attributes": torch.zeros(20, 5)}, "faces names vertex"),
        ({"rast": torch.zeros(2, 13, 17, 3)}, "rast must have shape"),
        ({"rast": torch.zeros(1, 2, 13, 17, 4)}, "rast must have shape"),
        ({"rast": torch.zeros(2, 13, 17, 4, dtype=torch.float64)}, "rast is torch.float64"),
        ({"rast_db": None}, "diff_attrs needs rast_db"),
        ({"rast_db": torch.zeros(2, 5, 5, 4)}, "rast_db has shape"),
        ({"diff_attrs": "some"}, "diff_attrs = 'some'"),
        ({"diff_attrs": [5]}, r"diff_attrs = \[5\]"),
    ],
)
def test_bad_arguments_are_named(change, message):
    attributes, rast, faces, rast_db = scene(7)
    arguments = {"attributes": attributes, "rast": rast, "faces": faces, "rast_db": rast_db, "diff_attrs": "all"}
    with pytest.raises(ValueError, match=message):
        interpolate(**{**arguments, **change})
