"""The real spherical-harmonic basis: hand values, orthonormality, colours."""

import math

import numpy as np
import pytest
import torch

from kernels.reference.spherical_harmonics import spherical_harmonics, spherical_harmonics_basis


def test_hand_values():
    """Along the axes and one diagonal the polynomials are worked out by hand."""
    directions = torch.tensor([[2.0, 0, 0], [0, 3, 0], [0, 0, 0.5], [1, 1, 1]], dtype=torch.float64)
    got = spherical_harmonics_basis(3, directions)
    pi = math.pi
    one, three = math.sqrt(3 / (4 * pi)), 1 / math.sqrt(3)
    b2, b2_0, b2_2 = math.sqrt(15 / (4 * pi)), math.sqrt(5 / (16 * pi)), math.sqrt(15 / (16 * pi))
    b3_3, b3_2, b3_1, b3_0 = (
        math.sqrt(35 / (32 * pi)),
        math.sqrt(105 / (4 * pi)),
        math.sqrt(21 / (32 * pi)),
        math.sqrt(7 / (16 * pi)),
    )
    c = math.sqrt(1 / (4 * pi))
    d = three**3
    diagonal = [-b3_3 * 2 * d, b3_2 * d, -b3_1 * 2 * d, -b3_0 * 4 * d, -b3_1 * 2 * d, 0, b3_3 * 2 * d]
    expected = [
        [c, 0, 0, -one, 0, 0, -b2_0, 0, b2_2, 0, 0, 0, 0, b3_1, 0, -b3_3],
        [c, -one, 0, 0, 0, 0, -b2_0, 0, -b2_2, b3_3, 0, b3_1, 0, 0, 0, 0],
        [c, 0, one, 0, 0, 0, 2 * b2_0, 0, 0, 0, 0, 0, 2 * b3_0, 0, 0, 0],
        [c, -one * three, one * three, -one * three, b2 / 3, -b2 / 3, 0, -b2 / 3, 0, *diagonal],
    ]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


def test_orthonormal_on_the_sphere():
    """Gauss–Legendre in z and even spacing in azimuth integrate products of degree 6 exactly."""
    z, weight = np.polynomial.legendre.leggauss(8)
    phi = np.arange(16) * 2 * np.pi / 16
    r = np.sqrt(1 - z**2)[:, None]
    directions = np.stack([r * np.cos(phi), r * np.sin(phi), np.broadcast_to(z[:, None], (8, 16))], -1)
    weights = np.broadcast_to(weight[:, None] * 2 * np.pi / 16, (8, 16)).ravel()
    basis = spherical_harmonics_basis(3, torch.from_numpy(directions.reshape(-1, 3))).numpy()
    np.testing.assert_allclose(basis.T @ (weights[:, None] * basis), np.eye(16), atol=1e-12)


def test_lower_degree_ignores_higher_bands():
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(5, 2, 3, generator=generator)
    coefficients = torch.randn(5, 2, 16, 3, generator=generator)
    for degree in range(4):
        cut = coefficients.clone()
        cut[..., (degree + 1) ** 2 :, :] = float("nan")
        got = spherical_harmonics(degree, directions, cut)
        basis = spherical_harmonics_basis(3, directions)[..., : (degree + 1) ** 2]
        torch.testing.assert_close(
            got, torch.einsum("...k,...kc->...c", basis, coefficients[..., : basis.shape[-1], :])
        )


def test_length_of_the_direction_does_not_matter():
    direction = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    coefficients = torch.arange(48, dtype=torch.float64).reshape(16, 3) / 10
    colour = spherical_harmonics(3, direction, coefficients)
    torch.testing.assert_close(colour, spherical_harmonics(3, 7 * direction, coefficients))
    (gradient,) = torch.autograd.grad(colour.sum(), direction)
    assert abs(float(gradient @ direction.detach())) < 1e-12, "a longer direction must not change the colour"


@pytest.mark.parametrize("degree", [-1, 4])
def test_refuses_other_degrees(degree):
    with pytest.raises(ValueError, match="degree"):
        spherical_harmonics(degree, torch.ones(3), torch.ones(25, 3))


def test_refuses_too_few_coefficients():
    with pytest.raises(ValueError, match="needs 9 coefficients"):
        spherical_harmonics(2, torch.ones(3), torch.ones(4, 3))
