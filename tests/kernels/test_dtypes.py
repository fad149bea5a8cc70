"""Results have their inputs' dtype and values whatever torch's default is, and no kernel converts what it writes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from surface_scenes import random_field, samples
from torch import Tensor

from kernels import _cpu
from kernels.adam_step import adam_step
from kernels.antialias import antialias
from kernels.clip import clip_positions
from kernels.dual_contour import cell_samples, dual_contour
from kernels.face_neighbors import face_neighbors
from kernels.flexicubes import WEIGHTS, flexicubes
from kernels.geometry import splat_planes
from kernels.interpolate import interpolate
from kernels.nearest import nearest
from kernels.rasterize_mesh import rasterize_mesh
from kernels.rasterize_splats import rasterize_splats
from kernels.ssim import ssim
from kernels.texture import texture


@pytest.fixture
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def given(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def seen() -> tuple[Tensor, ...]:
    positions = 2 * given(0, 1, 20, 4) - 1
    positions[..., 3] += 1.5
    faces = torch.randperm(20, generator=torch.Generator().manual_seed(0))[:18].view(6, 3).int()
    rast, rast_db = rasterize_mesh(positions.requires_grad_(), faces, 9, 7)
    return positions, faces, rast, rast_db


def run_rasterize_splats(render_mode: str = "RGB+ED") -> tuple[list[Tensor], Any]:
    view, K = torch.eye(4, dtype=torch.float32)[None].clone(), torch.eye(3, dtype=torch.float32)[None].clone()
    K[0, 0, 0] = K[0, 1, 1] = 9
    means = given(0, 20, 3) + torch.tensor([0, 0, 2], dtype=torch.float32)
    leaves = [means, given(1, 20, 4), given(2, 20, 3), given(3, 20), given(4, 20, 3), view, K, given(5, 1, 3)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    image, alpha, meta = rasterize_splats(*leaves[:7], 9, 7, backgrounds=leaves[7], render_mode=render_mode)
    return leaves, (image, alpha, *meta.values())


def run_rasterize_splats_without_depth() -> tuple[list[Tensor], Any]:
    return run_rasterize_splats("RGB")


def run_splat_planes() -> tuple[list[Tensor], Any]:
    leaves = [t.requires_grad_() for t in (given(0, 5, 3), given(1, 5, 4), given(2, 5, 3))]
    return leaves, splat_planes(*leaves, torch.eye(4, dtype=torch.float32), torch.eye(3, dtype=torch.float32))


def run_rasterize_mesh() -> tuple[list[Tensor], Any]:
    positions, _, *images = seen()
    return [positions], images


def run_interpolate() -> tuple[list[Tensor], Any]:
    positions, faces, rast, rast_db = seen()
    attributes = given(1, 20, 2).requires_grad_()
    return [positions, attributes], interpolate(attributes, rast, faces, rast_db, "all")


def run_texture() -> tuple[list[Tensor], Any]:
    leaves = [given(0, 1, 8, 6, 3).requires_grad_(), given(1, 1, 5, 4, 2).requires_grad_(), given(2, 1, 5, 4, 4)]
    return leaves[:2], [texture(*leaves, filter_mode="linear-mipmap-linear")]


def run_antialias() -> tuple[list[Tensor], Any]:
    positions, faces, rast, _ = seen()
    color = given(0, 1, 7, 9, 3).requires_grad_()
    return [positions, color], [antialias(color, rast.detach(), positions, faces, face_neighbors(faces))]


def run_clip_positions() -> tuple[list[Tensor], Any]:
    leaf = given(0, 5, 3).requires_grad_()
    eyes = [torch.eye(n, dtype=torch.float32)[None] for n in (4, 3)]
    return [leaf], [clip_positions(leaf, *eyes, 9, 7)]


def run_ssim() -> tuple[list[Tensor], Any]:
    leaf = given(0, 9, 7, 3).requires_grad_()
    return [leaf], [ssim(leaf, given(1, 9, 7, 3))]


def run_flexicubes() -> tuple[list[Tensor], Any]:
    field = random_field((3, 4, 5), 0, torch.float32)
    contour = dual_contour(field < 0, (3, 4, 5))
    places = samples((3, 4, 5), torch.float32).view(-1, 3)[contour.samples].requires_grad_()
    values, weights = field.flatten()[contour.samples].requires_grad_(), 0.1 + given(0, len(contour.rows), WEIGHTS)
    leaves = [places, values, weights.requires_grad_()]
    return leaves, flexicubes(*leaves, contour, True)


def run_cell_samples() -> tuple[list[Tensor], Any]:
    return [], cell_samples(torch.arange(3, dtype=torch.int32), (2, 2, 4))


def run_nearest() -> tuple[list[Tensor], Any]:
    leaves = [given(0, 9, 3).requires_grad_(), given(1, 8, 3).requires_grad_()]
    return leaves, nearest(*leaves)


def run_adam_step() -> tuple[list[Tensor], Any]:
    arrays = [given(seed, 5, 3) for seed in range(4)]
    adam_step(*arrays, given(4, 5), given(5, 3), given(6, 5))
    return [], arrays


OPERATIONS = {name.removeprefix("run_"): run for name, run in list(globals().items()) if name.startswith("run_")}


def results(name: str) -> list[Tensor]:
    leaves, outputs = OPERATIONS[name]()
    smooth = [o for o in outputs if o.requires_grad]
    gradients = torch.autograd.grad([o.sum() for o in smooth], leaves) if smooth else ()
    return [*(o.detach() for o in outputs), *gradients]


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_default_dtype_does_not_matter(name: str, request: pytest.FixtureRequest) -> None:
    expected = results(name)
    request.getfixturevalue("float64_by_default")
    for one, other in zip(results(name), expected, strict=True):
        assert one.dtype == other.dtype != torch.float64
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_arrays_of_another_type_are_refused() -> None:
    """They were converted, and results written to the copy."""
    x = given(0, 9, 7, 3)
    for wrong in (x.double(), x.transpose(0, 1)):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            _cpu.ssim(x, x, wrong, None, 1)
