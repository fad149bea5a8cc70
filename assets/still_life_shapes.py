"""The shapes of the sample scene: built by formula, in metres, z up, each closed and resting on z = 0.

Every builder returns a `trimesh.Trimesh` in the object's own coordinates (its axis is z).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline
from skimage.measure import marching_cubes

Floats = NDArray[np.float64]


def spline(points: ArrayLike, count: int) -> Floats:
    """Return ``count`` points on the natural cubic spline through ``points`` (P, D), by chord length."""
    knots = np.asarray(points, float)
    chord = np.r_[0, np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))]
    return np.asarray(CubicSpline(chord, knots, bc_type="natural")(np.linspace(0, chord[-1], count)))


def revolve(profile: Floats, sections: int) -> trimesh.Trimesh:
    """Turn a profile (P, 2) of (radius, z), from the axis to the axis and counter-clockwise, about z."""
    profile = profile.copy()
    profile[:, 0] = np.maximum(profile[:, 0], 0)
    profile[[0, -1], 0] = 0
    mesh = trimesh.creation.revolve(profile, sections=sections)
    trimesh.repair.fix_normals(mesh)
    return mesh


def loft(loops: Sequence[Floats], cyclic: bool) -> trimesh.Trimesh:
    """Join loops of equally many points (n, 3) by strips; cyclic closes the tube, else fans cap both ends."""
    n, m = len(loops[0]), len(loops)
    i = np.arange(n)
    j = (i + 1) % n
    faces = []
    for k in range(m if cyclic else m - 1):
        a, b = k * n, (k + 1) % m * n
        faces += [np.c_[a + i, a + j, b + j], np.c_[a + i, b + j, b + i]]
    vertices = np.concatenate(loops)
    if not cyclic:
        vertices = np.r_[vertices, [loops[0].mean(0), loops[-1].mean(0)]]
        faces += [np.c_[j, i, np.full(n, m * n)], np.c_[(m - 1) * n + i, (m - 1) * n + j, np.full(n, m * n + 1)]]
    mesh = trimesh.Trimesh(vertices, np.concatenate(faces))
    trimesh.repair.fix_normals(mesh)
    return mesh


def chamfered_box(size: Sequence[float], chamfer: float) -> trimesh.Trimesh:
    """Return a box of ``size`` with its edges cut at 45 degrees, ``chamfer`` wide."""
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).T.reshape(-1, 3) * (np.asarray(size) / 2)
    points = [corners - np.sign(corners) * chamfer * (np.arange(3) != axis) for axis in range(3)]
    mesh = trimesh.convex.convex_hull(np.concatenate(points))
    mesh.apply_translation([0, 0, size[2] / 2])
    return mesh


def disc(radius: float, thickness: float) -> trimesh.Trimesh:
    """Return a table top whose upper face is z = 0, with a rounded edge."""
    edge = thickness / 2 * np.c_[np.cos(a := np.linspace(-np.pi / 2, np.pi / 2, 9)), np.sin(a)]
    rim = edge * [0.6, 1] + [radius - 0.3 * thickness, -thickness / 2]
    return revolve(np.r_[[[0, -thickness]], rim, [[radius - thickness / 2, 0], [0, 0]]], 128)  # flat up to its edge


def studio(radius: float, floor: float, cove: float, height: float) -> trimesh.Trimesh:
    """Return the inside of a round studio: a floor that sweeps up through a cove into a wall, open above."""
    a = np.linspace(0, np.pi / 2, 12)
    sweep = np.c_[radius - cove + cove * np.sin(a), floor + cove - cove * np.cos(a)]
    profile = np.r_[[[0, floor]], sweep, [[radius, height]]]
    return trimesh.creation.revolve(profile[::-1], sections=96)  # downwards, so that faces look inside


def vase() -> trimesh.Trimesh:
    """Return a vase of 21 cm with a wall 3.5 mm thick."""
    outer = [
        (0.034, 0.003),
        (0.049, 0.035),
        (0.061, 0.085),
        (0.053, 0.13),
        (0.030, 0.165),
        (0.0245, 0.183),
        (0.034, 0.208),
    ]
    side = spline(outer, 38)
    inside = side[:4:-1] - [0.0035, 0]
    lip = side[-1] + 0.00175 * np.c_[np.cos(a := np.linspace(0, np.pi, 6)) - 1, 1.2 * np.sin(a)]
    return revolve(np.r_[[[0, 0], [0.031, 0]], side[:-1], lip, inside[1:], [[0, inside[-1, 1] - 0.002]]], 72)


def pear() -> trimesh.Trimesh:
    """Return a pear of 10 cm, a little bent, with its stem sunk into it."""
    profile = [(0, 0.005), (0.010, 0.0005), (0.025, 0.005), (0.0365, 0.022), (0.036, 0.042), (0.027, 0.064)]
    body = revolve(spline([*profile, (0.0185, 0.082), (0.0145, 0.092), (0.007, 0.0995), (0, 0.0985)], 44), 56)
    v = body.vertices
    bend = 0.010 * np.clip(v[:, 2] / 0.1, 0, 1) ** 2
    swell = 1 + 0.025 * np.sin(3 * np.arctan2(v[:, 1], v[:, 0]) + 1) * np.sin(np.pi * np.clip(v[:, 2] / 0.1, 0, 1))
    body.vertices = np.c_[v[:, :2] * swell[:, None] + np.c_[bend, 0.4 * bend], v[:, 2]]
    stalk = stem([(0.010, 0.004, 0.094), (0.0105, 0.005, 0.107), (0.0175, 0.007, 0.119)])
    return rest(trimesh.util.concatenate([body, stalk]))


def apple() -> trimesh.Trimesh:
    """Return an apple of 7 cm with five faint lobes and a stem."""
    t = np.linspace(0, np.pi, 40)
    r = 0.0375 * np.sin(t) * (1 - 0.10 * np.cos(t))
    z = -0.033 * np.cos(t) * (1 + 0.04 * np.cos(t))
    z += 0.008 * np.exp(-((r / 0.011) ** 2)) * (t < np.pi / 2) - 0.013 * np.exp(-((r / 0.012) ** 2)) * (t > np.pi / 2)
    body = revolve(np.c_[r, z], 60)
    v = body.vertices
    lobe = 1 + 0.028 * np.cos(5 * np.arctan2(v[:, 1], v[:, 0])) * np.clip(-v[:, 2] / 0.03 + 0.3, 0, 1)
    body.vertices = np.c_[v[:, :2] * lobe[:, None], v[:, 2]]
    top = body.bounds[1, 2]
    whole = trimesh.util.concatenate([body, stem([(0, 0, top - 0.016), (0.001, 0, top), (0.006, 0.002, top + 0.012)])])
    whole.apply_transform(trimesh.transformations.rotation_matrix(0.16, [1, 0.4, 0]))
    return rest(whole)


def stem(path: ArrayLike) -> trimesh.Trimesh:
    """Return a stalk of 4 mm along a path (P, 3) that climbs, wider at its upper end."""
    line = spline(path, 8)
    a = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.c_[np.cos(a), np.sin(a), 0 * a]
    return loft([p + (0.0017 + 0.0009 * k**3) * ring for p, k in zip(line, np.linspace(0, 1, 8), strict=True)], False)


def gear(teeth: int = 13, radius: float = 0.047, thickness: float = 0.016) -> trimesh.Trimesh:
    """Return a spur gear with a thinner web, a hub and a bore."""
    corner = np.array([0.0, 0.13, 0.27, 0.40, 0.50, 0.60, 0.73, 0.87])  # fractions of a pitch, four at the tip
    height = np.array([0.0, 0.0, 0.0, 0.55, 1.0, 1.0, 1.0, 0.55])
    angle = ((np.arange(teeth)[:, None] + corner) * 2 * np.pi / teeth).ravel()
    outline = radius - 0.0095 * (1 - np.tile(height, teeth))
    h, w, c = thickness / 2, thickness / 4, 0.0008
    rings: list[tuple[Floats | float, float]] = [
        (outline, h - c),
        (outline - c, h),
        (0.031, h),
        (0.030, w),
        (0.018, w),
        (0.017, h),
        (0.0095, h),
    ]
    return lathe(angle, [(r, z) for r, z in rings] + [(r, -z) for r, z in rings[::-1]])


def lathe(angle: Floats, rings: Sequence[tuple[Floats | float, Floats | float]]) -> trimesh.Trimesh:
    """Return the closed tube through rings of (radius, z), each a number or one number per ``angle`` (n,)."""
    turn = np.c_[np.cos(angle), np.sin(angle)]
    spread = [np.broadcast_arrays(angle, r, z)[1:] for r, z in rings]
    return loft([np.c_[turn * r[:, None], z] for r, z in spread], True)


def nut(flat: float = 0.023, thickness: float = 0.021) -> trimesh.Trimesh:
    """Return a hexagonal nut, ``flat`` from its axis to a flat, with the lathe's cone cut from its corners."""
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    hexagon = flat / np.cos((angle + np.pi / 6) % (np.pi / 3) - np.pi / 6)
    top = np.minimum(hexagon - 0.0003, 1.01 * flat)
    drop = (hexagon - top) * 0.6
    bore = 0.0125
    loops: list[tuple[Floats | float, Floats | float]] = [
        (top, thickness),
        (bore + 0.002, thickness),
        (bore, thickness - 0.002),
        (bore, 0.002),
        (bore + 0.002, 0),
    ]
    loops += [(top, 0), (hexagon, drop), (hexagon, thickness - drop)]
    return lathe(angle, loops)


# The duck: ellipsoids (centre, radii) joined by a smooth minimum (Quilez's polynomial form), cut flat below.
DUCK = {
    "body": ((0, 0, 0.034), (0.052, 0.040, 0.034)),
    "tail": ((-0.050, 0, 0.058), (0.020, 0.017, 0.012)),
    "head": ((0.030, 0, 0.088), (0.0285, 0.027, 0.0265)),
    "left": ((-0.010, 0.036, 0.040), (0.032, 0.009, 0.017)),
    "right": ((-0.010, -0.036, 0.040), (0.032, 0.009, 0.017)),
    "beak": ((0.061, 0, 0.083), (0.015, 0.0135, 0.0055)),
}


def duck_parts(p: Floats) -> dict[str, Floats]:
    """Return the approximate distance of points (..., 3) to each ellipsoid of the duck, negative inside."""
    return {name: (np.linalg.norm((p - c) / np.asarray(r), axis=-1) - 1) * min(r) for name, (c, r) in DUCK.items()}


def duck(step: float = 0.0032) -> trimesh.Trimesh:
    """Return a bathtub duck by marching cubes of its smooth distance field."""
    low, high = np.array([-0.08, -0.06, -0.01]), np.array([0.09, 0.06, 0.13])
    axes = [np.arange(a, b, step) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    parts = duck_parts(grid)
    field = parts.pop("body")
    for name, d in parts.items():
        k = {"head": 0.020, "tail": 0.022}.get(name, 0.005)
        blend = np.clip(k - np.abs(field - d), 0, None) / k
        field = np.minimum(field, d) - blend**2 * k / 4
    base = 0.002 - grid[..., 2]
    k = 0.004
    field = np.maximum(field, base) + (np.clip(k - np.abs(field - base), 0, None) / k) ** 2 * k / 4
    vertices, faces, _, _ = marching_cubes(field, 0.0, spacing=(step,) * 3)
    mesh = trimesh.Trimesh(vertices + low, faces)
    mesh.merge_vertices()
    trimesh.repair.fix_normals(mesh)
    return rest(mesh)


def rest(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Move a mesh along z until its lowest point is at z = 0."""
    mesh.apply_translation([0, 0, -mesh.bounds[0, 2]])
    return mesh
