"""Volume, centre of mass and drag of bodies whose figures are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from recon.isosurface.objectives import pressure_drag, volume_and_centre


def tensors(mesh: trimesh.Trimesh) -> tuple[Tensor, Tensor]:
    return torch.tensor(np.array(mesh.vertices)), torch.tensor(np.array(mesh.faces)).int()


def test_volume_and_centre_of_a_moved_box() -> None:
    vertices, faces = tensors(trimesh.creation.box((1, 2, 3)))
    move = torch.tensor([0.3, -5, 2], dtype=torch.float64)
    volume, centre = volume_and_centre(vertices + move, faces)
    assert volume.item() == pytest.approx(6)
    assert torch.allclose(centre, move)


@pytest.mark.parametrize("direction", [(0, 0, 1), (0.6, 0, -0.8)])
def test_a_ball_has_a_drag_coefficient_of_one(direction: tuple[float, float, float]) -> None:
    vertices, faces = tensors(trimesh.creation.icosphere(4, 0.7))
    flow = torch.tensor(direction, dtype=torch.float64)
    assert pressure_drag(vertices, faces, flow).item() == pytest.approx(math.pi * 0.7**2, rel=0.01)


def test_a_plate_across_the_flow_has_two_and_one_along_it_none() -> None:
    vertices, faces = tensors(trimesh.creation.box((2, 3, 1e-3)))
    across, along = torch.eye(3, dtype=torch.float64)[[2, 0]]
    assert pressure_drag(vertices, faces, across).item() == pytest.approx(2 * 6)
    assert pressure_drag(vertices, faces, along).item() == pytest.approx(2 * 3e-3)


def test_gradients() -> None:
    generator = np.random.default_rng(0)
    mesh = trimesh.creation.icosphere(1, 0.5)
    mesh.vertices *= generator.uniform(0.8, 1.2, (len(mesh.vertices), 1))
    vertices, faces = tensors(mesh)
    vertices.requires_grad_()
    flow = torch.tensor([2.0, -1, 2], dtype=torch.float64) / 3
    assert torch.autograd.gradcheck(lambda v: pressure_drag(v, faces, flow), vertices)
    assert torch.autograd.gradcheck(lambda v: volume_and_centre(v, faces), vertices)


def test_faces_without_an_area_meet_nothing() -> None:
    vertices = torch.zeros(3, 3, requires_grad=True)
    drag = pressure_drag(vertices, torch.tensor([[0, 1, 2]], dtype=torch.int32), torch.tensor([0.0, 0, 1]))
    drag.backward()
    assert drag == 0
    assert torch.isfinite(vertices.grad).all()
