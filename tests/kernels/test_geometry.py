"""Depth planes and normals of splats: discs and spheres by hand, the ray's density maximum by search."""

from __future__ import annotations

import math

import pytest
import torch
from splat_scenes import intrinsics, tilted_view, uniform

from kernels.geometry import rotation_matrices, splat_planes

IDENTITY = torch.eye(4, dtype=torch.float64)
K = torch.tensor([[100.0, 0, 32], [0, 100, 24], [0, 0, 1]], dtype=torch.float64)


def f64(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_rotation_matrices():
    quats = f64([1, 0, 0, 0], [3, 0, 0, 3], [0, 0, 2, 0], [0.5, 0.5, 0.5, 0.5])
    expected = f64(
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
        [[-1, 0, 0], [0, 1, 0], [0, 0, -1]],
        [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    )
    torch.testing.assert_close(rotation_matrices(quats), expected)


def test_disc_facing_the_camera():
    planes, normals = splat_planes(f64([0.1, -0.2, 2]), f64([1, 0, 0, 0]), f64([0.1, 0.2, 0]), IDENTITY, K)
    torch.testing.assert_close(planes, f64([2, 0, 0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(normals, f64([0, 0, -1]), atol=1e-5, rtol=0)


def test_discs_of_one_plane_share_its_depth():
    """The plane z = 2 + y tan 40° is not linear in the pixel; each disc's depth is its tangent there."""
    half, tangent = math.radians(20), math.tan(math.radians(40))
    y = torch.linspace(-0.3, 0.3, 7, dtype=torch.float64)
    means = torch.stack([torch.full_like(y, 0.2), y, 2 + y * tangent], dim=1)
    quats = f64([math.cos(half), math.sin(half), 0, 0]).expand(7, 4)
    planes, normals = splat_planes(means, quats, f64([0.1, 0.1, 0]).expand(7, 3), IDENTITY, K)
    v = 100 * y / means[:, 2] + 24  # along the plane z = 2 / (1 − tan 40° (v − 24) / 100)
    slope = 2 / (1 - tangent * (v - 24) / 100) ** 2 * tangent / 100
    torch.testing.assert_close(planes[:, 1:], torch.stack([0 * slope, slope], 1), atol=1e-6, rtol=1e-5)
    u = 100 * means[:, 0] / means[:, 2] + 32
    depth = planes[:, 0] + planes[:, 1] * u + planes[:, 2] * v
    torch.testing.assert_close(depth, means[:, 2])
    normal = f64(0, math.sin(2 * half), -math.cos(2 * half))
    torch.testing.assert_close(normals, normal.expand(7, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.3, 0.0])
def test_sphere_faces_the_camera(scale):
    """A sphere (or point) off the axis has its plane across the ray, and its normal towards the camera."""
    mean = f64([1.0, 0.0, 2.0])
    planes, normals = splat_planes(mean, f64([1, 2, 3, 4]), f64([scale] * 3), IDENTITY, K)
    torch.testing.assert_close(normals, -mean / math.sqrt(5))
    # x + 2 z = 5 with x = (u − 32)/100 z: dz/du = −5/(x̂ + 2)² / 100 at x̂ = ½; a point has no extent to vary in.
    a = -5 / 2.5**2 / 100 if scale else 0
    torch.testing.assert_close(planes, f64([2 - a * 82, a, 0]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_depth_is_where_the_ray_is_densest(seed):
    """Along rays a hundredth of a pixel beside the centre's, a fine search finds the depth of the plane."""
    generator = torch.Generator().manual_seed(seed)
    mean, quat = uniform(generator, -0.5, 0.5, 1, 3) + f64([0, 0, 3]), uniform(generator, -1, 1, 1, 4)
    scale, viewmat, K = uniform(generator, 0.1, 0.5, 1, 3), tilted_view(generator), intrinsics(80, 64, 48)
    planes, normals = splat_planes(mean, quat, scale, viewmat, K)
    R = viewmat[:3, :3] @ rotation_matrices(quat)[0]
    precision = R @ torch.diag(scale[0] ** -2) @ R.T
    m = viewmat[:3, :3] @ mean[0] + viewmat[:3, 3]
    centre = (K @ m / m[2])[:2]
    for step in f64([0.01, 0], [0, 0.01], [-0.01, 0.01]):
        p = centre + step
        ray = torch.stack([(p[0] - K[0, 2]) / K[0, 0], (p[1] - K[1, 2]) / K[1, 1], torch.ones((), dtype=p.dtype)])
        t = torch.linspace(-1e-3, 1e-3, 20001, dtype=p.dtype) + m[2]
        offset = t[:, None] * ray - m
        densest = t[torch.einsum("ti,ij,tj->t", offset, precision, offset).argmin()]
        torch.testing.assert_close(planes[0, 0] + planes[0, 1:] @ p, densest, atol=1e-6, rtol=0)
    # The normal is the direction in which the density falls fastest per unit of distance from the camera: ∝ S⁻¹ m.
    expected = -viewmat[:3, :3].T @ torch.nn.functional.normalize(precision @ m, dim=0)
    torch.testing.assert_close(normals[0], expected, atol=1e-5, rtol=0)


def test_thin_splats_keep_their_depth():
    """Seen almost edge-on, the blur may move a disc's depth by no more than σ_z: √0.3 · |slope| ≤ σ_z."""
    angles = torch.linspace(60, 90, 31, dtype=torch.float64).deg2rad()
    quats = torch.stack([(angles / 2).cos(), (angles / 2).sin(), 0 * angles, 0 * angles], dim=1)
    means, scales = f64([0, 0, 2]).expand(31, 3), f64([0.05, 0.05, 0]).expand(31, 3)
    planes, normals = splat_planes(means, quats, scales, IDENTITY, K)
    sigma_z = 0.05 * angles.sin()
    assert (0.3**0.5 * planes[:, 1:].norm(dim=1) <= sigma_z * 1.00001).all()
    exact = 0.02 * angles.tan()  # dz/dv = z tan θ / f
    free = 0.3**0.5 * exact < sigma_z * 0.999
    assert 10 < free.sum() < 30
    torch.testing.assert_close(planes[free, 2], exact[free], atol=0, rtol=1e-4)
    unlimited, _ = splat_planes(means[:20], quats[:20], scales[:20], IDENTITY, K, eps2d=0.0)
    torch.testing.assert_close(unlimited[:, 2], exact[:20], atol=0, rtol=1e-3)
    assert (normals[:, 2] < 0).all()


def test_gradients():
    """A disc seen at 86°, whose slope is limited, a needle, a sphere and ordinary splats."""
    generator = torch.Generator().manual_seed(0)
    means = uniform(generator, -0.5, 0.5, 6, 3) + f64([0, 0, 3])
    quats, scales = uniform(generator, -1, 1, 6, 4), uniform(generator, 0.05, 0.3, 6, 3)
    means[0], quats[0] = f64(0, 0, 3), f64(math.cos(math.radians(43)), math.sin(math.radians(43)), 0, 0)
    scales[0], scales[1, :2], scales[2] = f64(0.1, 0.1, 0.001), 0.001, 0.1
    arguments = [means, quats, scales, tilted_view(generator), intrinsics(80, 64, 48)]
    assert torch.autograd.gradcheck(splat_planes, [a.requires_grad_() for a in arguments], eps=1e-7, rtol=1e-4)
    exact, _ = splat_planes(*arguments, eps2d=0.0)
    limited, _ = splat_planes(*arguments)
    assert (exact != limited).any(dim=1).tolist() == [True] + [False] * 5


def test_impossible_splats_are_finite_and_have_no_gradient():
    nan, inf = math.nan, math.inf
    means = f64([nan, 0, 2], [0, inf, 2], [0, 0, -1], [0, 0, 0], [0, 0, 2], [0, 0, 2], [0, 0, 2], [1e300, 0, 2])
    quats = f64([1, 0, 0, 0]).repeat(8, 1)
    quats[4] = 0
    scales = f64([0.1, 0.2, 0.3]).repeat(8, 1)
    scales[5], scales[6] = inf, 0
    arguments = [means, quats, scales, IDENTITY.clone(), K.clone()]
    arguments = [a.requires_grad_() for a in arguments]
    planes, normals = splat_planes(*arguments)
    assert planes.isfinite().all()
    assert normals.isfinite().all()
    (planes.square().sum() + normals.sum()).backward()
    for tensor in arguments:
        assert tensor.grad.isfinite().all()
    for tensor in arguments[:3]:
        assert not tensor.grad[[0, 1, 2, 3, 4, 5, 7]].any()


def test_no_splats():
    empty = f64([0, 0, 0])[:0]
    planes, normals = splat_planes(empty, f64([0, 0, 0, 0])[:0], empty, IDENTITY, K)
    assert planes.shape == normals.shape == (0, 3)
