"""More than the kernels can number is refused, before anything of that size is allocated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kernels.antialias import antialias
from kernels.arguments import check_splats
from kernels.clip import clip_positions
from kernels.dual_contour import dual_contour
from kernels.face_neighbors import face_neighbors
from kernels.interpolate import interpolate
from kernels.nearest import nearest
from kernels.rasterize_mesh import rasterize_mesh
from kernels.ssim import ssim
from kernels.texture import texture


def floats(*shape: int) -> torch.Tensor:
    """A tensor of any shape in the memory of one number."""
    return torch.zeros(()).expand(shape)


def integers(*shape: int) -> torch.Tensor:
    return torch.zeros((), dtype=torch.int32).expand(shape)


ONE = integers(1, 3)
MANY = (2, 32768, 32768)  # 2³¹ pixels
CALLS: dict[str, Callable[[], Any]] = {
    "2147483648 pixels of rast: at most 1073741824": lambda: antialias(
        floats(*MANY, 3), floats(*MANY, 4), floats(2, 3, 4), ONE
    ),
    "pixels of rast: at most": lambda: interpolate(floats(3, 1), floats(*MANY, 4), ONE),
    "vertices in all sets of attributes: at most": lambda: interpolate(floats(2**31, 1), floats(1, 2, 2, 4), ONE),
    "texels in all textures: at most": lambda: texture(floats(*MANY, 3), floats(2, 4, 4, 2)),
    "pixels of uv: at most": lambda: texture(floats(1, 4, 4, 3), floats(*MANY, 2)),
    "values in a row of image: at most": lambda: ssim(floats(1, 2**23, 3), floats(1, 2**23, 3)),
    "16777216 triangles: at most 16777215": lambda: rasterize_mesh(floats(3, 4), integers(2**24, 3), 4, 4),
    "triangles: at most": lambda: face_neighbors(integers(2**24, 3)),
    "width = 32769": lambda: rasterize_mesh(floats(3, 4), ONE, 32769, 4),
    "height = 32769": lambda: clip_positions(floats(3, 3), floats(1, 4, 4), floats(1, 3, 3), 4, 32769),
    "width = 40000": lambda: check_splats(
        floats(5, 3),
        floats(5, 4),
        floats(5, 3),
        floats(5),
        floats(5, 3),
        floats(1, 4, 4),
        floats(1, 3, 3),
        40000,
        8,
    ),
    "2147483648 vertices: at most 2147483647": lambda: nearest(floats(1, 3), floats(2**31, 3)),
    "2147483648 triangles: at most 2147483647": lambda: nearest(floats(1, 3), floats(3, 3), integers(2**31, 3)),
    "inside holds 2147483648 samples": lambda: dual_contour(
        torch.zeros((), dtype=torch.bool).expand(2**31), (2, 2, 2), integers(1), integers(1, 8)
    ),
    "resolution": lambda: dual_contour(torch.zeros((), dtype=torch.bool), (2**10, 2**10, 2**11)),
}


@pytest.mark.parametrize("message", CALLS)
def test_too_many_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CALLS[message]()
