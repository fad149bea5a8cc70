"""What ``check_splats`` refuses, and that it names it."""

from __future__ import annotations

import pytest
import torch

from kernels.arguments import check_splats


def valid() -> dict:
    return {
        "means": torch.zeros(5, 3),
        "quats": torch.zeros(5, 4),
        "scales": torch.zeros(5, 3),
        "opacities": torch.zeros(5),
        "colors": torch.zeros(5, 2),
        "viewmats": torch.zeros(2, 4, 4),
        "Ks": torch.zeros(2, 3, 3),
        "width": 8,
        "height": [6, 7],
    }


def test_sizes_come_back_per_camera():
    assert check_splats(**valid()) == [(8, 6), (8, 7)]
    masks = [torch.ones(6, 8, dtype=torch.bool), torch.ones(7, 8, dtype=torch.bool)]
    assert check_splats(**valid(), masks=masks, backgrounds=torch.zeros(2, 2)) == [(8, 6), (8, 7)]
    assert check_splats(**{**valid(), "colors": torch.zeros(5, 16, 3)}, sh_degree=2) == [(8, 6), (8, 7)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("means", torch.zeros(5, 2)),
        ("means", torch.zeros(())),
        ("means", [0.0]),
        ("means", torch.zeros(5, 3, dtype=torch.long)),
        ("quats", torch.zeros(5, 3)),
        ("quats", torch.zeros(4, 4)),
        ("quats", torch.zeros(5, 4, dtype=torch.float64)),
        ("scales", torch.zeros(3)),
        ("opacities", torch.zeros(5, 1)),
        ("opacities", torch.zeros(5, device="meta")),
        ("colors", torch.zeros(5)),
        ("colors", torch.zeros(5, 0)),
        ("colors", torch.zeros(5, 16, 3)),
        ("viewmats", torch.zeros(4, 4)),
        ("viewmats", torch.zeros(0, 4, 4)),
        ("Ks", torch.zeros(1, 3, 3)),
        ("width", 0),
        ("width", 8.0),
        ("height", [6, 7, 8]),
        ("sh_degree", 1),
        ("sh_degree", 4),
        ("near_plane", -1.0),
        ("near_plane", 1e11),
        ("far_plane", float("nan")),
        ("eps2d", -0.1),
        ("backgrounds", torch.zeros(2, 3)),
        ("backgrounds", torch.zeros(2)),
        ("masks", torch.ones(2, 6, 8, dtype=torch.bool)),
        ("masks", [torch.ones(6, 8, dtype=torch.bool)]),
        ("masks", [torch.ones(6, 8), torch.ones(7, 8)]),
        ("rasterize_mode", "sharp"),
        ("render_mode", "depth"),
    ],
)
def test_errors_name_the_argument(name, value):
    about = {"far_plane": "near_plane = 0.01 and far_plane"}.get(name, name)
    if name == "sh_degree" and value == 1:
        about = "colors"
    with pytest.raises(ValueError, match=f"^{about}"):
        check_splats(**{**valid(), name: value})


def test_spherical_harmonics_need_their_coefficients():
    with pytest.raises(ValueError, match=r"K >= 9 for sh_degree = 2, not \(5, 4, 3\)"):
        check_splats(**{**valid(), "colors": torch.zeros(5, 4, 3)}, sh_degree=2)
