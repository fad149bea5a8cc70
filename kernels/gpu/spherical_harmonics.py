"""Colours from spherical harmonics up to degree 3, a splat a lane; basis and order are 3DGS's, as on the CPU."""

from __future__ import annotations

import triton
import triton.language as tl

FIRST = tl.constexpr(0.28209479177387814)
C1 = tl.constexpr(0.4886025119029199)
C2 = tl.constexpr(1.0925484305920792)
C20 = tl.constexpr(0.31539156525252005)
C22 = tl.constexpr(0.5462742152960396)
C3 = tl.constexpr(0.5900435899266435)
C31 = tl.constexpr(2.890611442640554)
C32 = tl.constexpr(0.4570457994644658)
C33 = tl.constexpr(0.3731763325901154)
C34 = tl.constexpr(1.445305721320277)


@triton.jit
def _basis(k: tl.constexpr, x, y, z):
    """Return Y_k of a unit vector."""
    if k == 0:
        value = x * 0 + FIRST
    elif k == 1:
        value = -C1 * y
    elif k == 2:
        value = C1 * z
    elif k == 3:
        value = -C1 * x
    elif k == 4:
        value = C2 * x * y
    elif k == 5:
        value = -C2 * y * z
    elif k == 6:
        value = C20 * (2 * z * z - x * x - y * y)
    elif k == 7:
        value = -C2 * x * z
    elif k == 8:
        value = C22 * (x * x - y * y)
    elif k == 9:
        value = -C3 * y * (3 * x * x - y * y)
    elif k == 10:
        value = C31 * x * y * z
    elif k == 11:
        value = -C32 * y * (4 * z * z - x * x - y * y)
    elif k == 12:
        value = C33 * z * (2 * z * z - 3 * x * x - 3 * y * y)
    elif k == 13:
        value = -C32 * x * (4 * z * z - x * x - y * y)
    elif k == 14:
        value = C34 * z * (x * x - y * y)
    else:
        value = -C3 * x * (x * x - 3 * y * y)
    return value


@triton.jit
def _slope(k: tl.constexpr, x, y, z):
    """Return the gradient of the polynomial Y_k."""
    none = x * 0
    if k == 0:
        slope = (none, none, none)
    elif k == 1:
        slope = (none, none - C1, none)
    elif k == 2:
        slope = (none, none, none + C1)
    elif k == 3:
        slope = (none - C1, none, none)
    elif k == 4:
        slope = (C2 * y, C2 * x, none)
    elif k == 5:
        slope = (none, -C2 * z, -C2 * y)
    elif k == 6:
        slope = (-2 * C20 * x, -2 * C20 * y, 4 * C20 * z)
    elif k == 7:
        slope = (-C2 * z, none, -C2 * x)
    elif k == 8:
        slope = (2 * C22 * x, -2 * C22 * y, none)
    elif k == 9:
        slope = (-6 * C3 * x * y, -3 * C3 * (x * x - y * y), none)
    elif k == 10:
        slope = (C31 * y * z, C31 * x * z, C31 * x * y)
    elif k == 11:
        slope = (2 * C32 * x * y, -C32 * (4 * z * z - x * x - 3 * y * y), -8 * C32 * y * z)
    elif k == 12:
        slope = (-6 * C33 * x * z, -6 * C33 * y * z, C33 * (6 * z * z - 3 * x * x - 3 * y * y))
    elif k == 13:
        slope = (-C32 * (4 * z * z - 3 * x * x - y * y), 2 * C32 * x * y, -8 * C32 * x * z)
    elif k == 14:
        slope = (2 * C34 * x * z, -2 * C34 * y * z, C34 * (x * x - y * y))
    else:
        slope = (-3 * C3 * (x * x - y * y), 6 * C3 * x * y, none)
    return slope


@triton.jit
def _direction(mean, centre):
    """Return the unit vector from the centre to the mean and 1 / distance; zeros where they coincide."""
    x, y, z = mean[0] - centre[0], mean[1] - centre[1], mean[2] - centre[2]
    length2 = x * x + y * y + z * z
    inverse = tl.where(length2 > 0, 1.0 / tl.sqrt(length2), 0.0)
    return x * inverse, y * inverse, z * inverse, inverse


@triton.jit
def sh_color(sh, i, known, coefficients, mean, centre, DEGREE: tl.constexpr):
    """Return red, green and blue, max(0, ½ + Σ Y_k sh_k), and 1 / distance.

    What is not finite stays so, to be seen and culled; minus infinity, too.
    """
    x, y, z, inverse = _direction(mean, centre)
    red, green, blue = x * 0 + 0.5, x * 0 + 0.5, x * 0 + 0.5
    for k in tl.static_range((DEGREE + 1) * (DEGREE + 1)):
        value = _basis(k, x, y, z)
        at = sh + 3 * (i * coefficients + k)
        red += value * tl.load(at, mask=known, other=0.0)
        green += value * tl.load(at + 1, mask=known, other=0.0)
        blue += value * tl.load(at + 2, mask=known, other=0.0)
    return (
        tl.where(red < 0, 0 * red, red),
        tl.where(green < 0, 0 * green, green),
        tl.where(blue < 0, 0 * blue, blue),
        inverse,
    )


@triton.jit
def sh_color_backward(sh, to_sh, gradient, i, known, drawn, coefficients, mean, centre, DEGREE: tl.constexpr):
    """Write the coefficients' gradients, zeros above the degree too, and return that of mean − centre."""
    red, green, blue, inverse = sh_color(sh, i, drawn, coefficients, mean, centre, DEGREE)
    x, y, z, _ = _direction(mean, centre)
    to_red = tl.where(red > 0, tl.load(gradient, mask=drawn, other=0.0), 0.0)
    to_green = tl.where(green > 0, tl.load(gradient + 1, mask=drawn, other=0.0), 0.0)
    to_blue = tl.where(blue > 0, tl.load(gradient + 2, mask=drawn, other=0.0), 0.0)
    dx, dy, dz = x * 0, x * 0, x * 0
    for k in tl.static_range((DEGREE + 1) * (DEGREE + 1)):
        value = _basis(k, x, y, z)
        at = 3 * (i * coefficients + k)
        share = to_red * tl.load(sh + at, mask=drawn, other=0.0)
        share += to_green * tl.load(sh + at + 1, mask=drawn, other=0.0)
        share += to_blue * tl.load(sh + at + 2, mask=drawn, other=0.0)
        tl.store(to_sh + at, tl.where(drawn, value * to_red, 0.0), mask=known)
        tl.store(to_sh + at + 1, tl.where(drawn, value * to_green, 0.0), mask=known)
        tl.store(to_sh + at + 2, tl.where(drawn, value * to_blue, 0.0), mask=known)
        slope = _slope(k, x, y, z)
        dx += share * slope[0]
        dy += share * slope[1]
        dz += share * slope[2]
    for k in range((DEGREE + 1) * (DEGREE + 1), coefficients):
        for channel in tl.static_range(3):
            tl.store(to_sh + 3 * (i * coefficients + k) + channel, x * 0, mask=known)
    along = dx * x + dy * y + dz * z
    return (dx - along * x) * inverse, (dy - along * y) * inverse, (dz - along * z) * inverse


@triton.jit
def sh_tangent(sh, step, i, drawn, stepped, coefficients, mean, centre, moved, DEGREE: tl.constexpr):
    """Return the change of red, green and blue, unclamped, along a step of mean − centre and, if ``stepped``, of sh."""
    x, y, z, inverse = _direction(mean, centre)
    along = x * moved[0] + y * moved[1] + z * moved[2]
    dx, dy, dz = (moved[0] - along * x) * inverse, (moved[1] - along * y) * inverse, (moved[2] - along * z) * inverse
    red, green, blue = x * 0, x * 0, x * 0
    for k in tl.static_range((DEGREE + 1) * (DEGREE + 1)):
        value = _basis(k, x, y, z)
        slope = _slope(k, x, y, z)
        turned = slope[0] * dx + slope[1] * dy + slope[2] * dz
        at = 3 * (i * coefficients + k)
        red += turned * tl.load(sh + at, mask=drawn, other=0.0)
        green += turned * tl.load(sh + at + 1, mask=drawn, other=0.0)
        blue += turned * tl.load(sh + at + 2, mask=drawn, other=0.0)
        red += value * tl.load(step + at, mask=stepped, other=0.0)
        green += value * tl.load(step + at + 1, mask=stepped, other=0.0)
        blue += value * tl.load(step + at + 2, mask=stepped, other=0.0)
    return red, green, blue


@triton.jit
def sh_squares(to_sh, factors, i, known, drawn, coefficients, mean, centre, DEGREE: tl.constexpr):
    """Write Y_k² times the channels' factors, zeros above the degree."""
    x, y, z, _ = _direction(mean, centre)
    for k in tl.static_range((DEGREE + 1) * (DEGREE + 1)):
        value = _basis(k, x, y, z)
        for channel in tl.static_range(3):
            square = tl.where(drawn, value * value * factors[channel], 0.0)
            tl.store(to_sh + 3 * (i * coefficients + k) + channel, square, mask=known)
    for k in range((DEGREE + 1) * (DEGREE + 1), coefficients):
        for channel in tl.static_range(3):
            tl.store(to_sh + 3 * (i * coefficients + k) + channel, x * 0, mask=known)
