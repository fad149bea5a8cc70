"""Large steps: the equation, its gradient, and a fit that plain Adam tangles."""

import numpy as np
import pytest
import torch
from mesh_scenes import box, sphere

from recon.evaluate.mesh_quality import mesh_quality
from recon.mesh.large_steps import AdamUniform, Smoothed


def test_the_matrix_by_hand():
    """A tetrahedron's vertices each have the three others as neighbours."""
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.int32)
    expected = vertices + 2 * (4 * vertices - vertices.sum(dim=0))
    smoothed = Smoothed(faces, 4, smoothness=2)
    torch.testing.assert_close(smoothed.parameters(vertices), expected)
    torch.testing.assert_close(smoothed.vertices(expected), vertices)


def test_gradient():
    cube = box()
    smoothed = Smoothed(cube.faces, len(cube.vertices))
    u = torch.from_numpy(cube.vertices.astype(np.float64)).requires_grad_()
    assert torch.autograd.gradcheck(smoothed.vertices, (u,))


def test_adam_uniform_steps_by_the_largest_second_moment():
    x = torch.tensor([1.0, 1.0, 1.0], requires_grad=True)
    optimizer = AdamUniform([x], lr=0.1, betas=(0.5, 0.5))
    for gradient, expected in (([4.0, 2, 0], [0.9, 0.95, 1]), ([4.0, 2, 0], [0.8, 0.9, 1])):
        x.grad = torch.tensor(gradient)
        optimizer.step()
        torch.testing.assert_close(x.detach(), torch.tensor(expected))


def test_a_closure_computes_the_loss_anew():
    x = torch.tensor([3.0], requires_grad=True)
    optimizer = AdamUniform([x], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = x.square().sum()
        loss.backward()
        return loss

    assert [float(optimizer.step(closure).detach()) for _ in range(2)] == [9, 6.25]


@pytest.mark.parametrize("large_steps", [True, False])
def test_a_noisy_sphere_finds_its_shape_by_the_radii_of_few_vertices(large_steps):
    """Only every fourth vertex is told how far out it belongs; smooth steps take the others with them."""
    ball = sphere(3)
    rng = np.random.default_rng(0)
    start = torch.from_numpy((ball.vertices + 0.02 * rng.standard_normal(ball.vertices.shape)).astype(np.float32))
    smoothed = Smoothed(ball.faces, len(start))
    u = (smoothed.parameters(start) if large_steps else start.clone()).requires_grad_()
    optimizer = AdamUniform([u], 0.02) if large_steps else torch.optim.Adam([u], 0.02)
    for _ in range(200):
        x = smoothed.vertices(u) if large_steps else u
        loss = (x[::4].norm(dim=1) - 1.5).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = (smoothed.vertices(u) if large_steps else u).detach()
    assert (x[::4].norm(dim=1) - 1.5).abs().max() < 0.1
    error = float((x.norm(dim=1) - 1.5).abs().mean())
    worst = mesh_quality(x.numpy(), ball.faces)["angle_below_10"]
    if large_steps:
        assert error < 0.05
        assert worst == 0
    else:  # so that the test can fail
        assert error > 0.3
