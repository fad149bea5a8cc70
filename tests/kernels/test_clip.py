from __future__ import annotations

import pytest
import torch

from kernels.clip import clip_positions


def camera() -> tuple[torch.Tensor, torch.Tensor]:
    K = torch.tensor([[[50.0, 2, 20], [0, 60, 15], [0, 0, 1]]], dtype=torch.float64)
    viewmat = torch.eye(4, dtype=torch.float64)[None].clone()
    viewmat[0, :3, 3] = torch.tensor([0.1, -0.2, 3.0])
    return viewmat, K


def test_lands_where_the_pinhole_camera_puts_it():
    viewmats, Ks = camera()
    vertices = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clip = clip_positions(vertices, viewmats, Ks, 40, 30, 0.5, 20)[0]
    seen = vertices @ viewmats[0, :3, :3].T + viewmats[0, :3, 3]
    pixels = seen @ Ks[0].T
    expected = pixels[:, :2] / pixels[:, 2:]
    got = (clip[:, :2] / clip[:, 3:] + 1) * torch.tensor([40, 30]) / 2
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(clip[:, 3], seen[:, 2])


def test_near_is_minus_one_and_far_is_one():
    vertices = torch.tensor([[0.0, 0, 0.5], [0, 0, 20]])
    clip = clip_positions(vertices, torch.eye(4)[None], torch.eye(3)[None], 4, 4, 0.5, 20)[0]
    torch.testing.assert_close(clip[:, 2] / clip[:, 3], torch.tensor([-1.0, 1.0]))


def test_gradients_to_everything():
    viewmats, Ks = camera()
    vertices = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inputs = [t.requires_grad_() for t in (vertices, viewmats, Ks)]
    torch.autograd.gradcheck(lambda *t: clip_positions(*t, 40, 30), inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": torch.zeros(5, 4)}, "vertices must have shape"),
        ({"viewmats": torch.zeros(4, 4)}, "viewmats must have shape"),
        ({"Ks": torch.zeros(2, 3, 3)}, "Ks must have shape"),
        ({"Ks": torch.zeros(1, 3, 3, dtype=torch.float64)}, "Ks is torch.float64"),
        ({"width": 0}, "width = 0"),
        ({"near": 0.0}, "near = 0.0"),
        ({"near": 5.0, "far": 1.0}, "far = 1.0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"vertices": torch.zeros(5, 3), "viewmats": torch.eye(4)[None], "Ks": torch.eye(3)[None]}
    with pytest.raises(ValueError, match=message):
        clip_positions(**{**arguments, "width": 4, "height": 4, **change})
