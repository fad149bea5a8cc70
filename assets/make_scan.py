"""Make Egregium's second sample capture: the scan of an octopus, a cloud of points with normals and colours.

    python assets/make_scan.py         # writes assets/scan/octopus.ply, see assets/README.md; about a minute

The animal is a formula, a distance field: round cones along eight curling arms, joined to a head and a mantle by smooth
minima. Points are drawn evenly from its surface, then get what a scanner adds: noise, normals that are a little off,
and nothing of the underside, which it cannot see. Every random number comes from a fixed seed.

Conventions of what is written: centimetres, y up, the animal looks along +z; binary PLY, float32 places and normals.

Sources: Quílez, "Distance functions" (round cones as spheres along a segment) and "Smooth minimum" (the quadratic one).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from skimage.measure import marching_cubes

Floats = NDArray[np.float64]

POINTS = 34_000
NOISE = 0.015  # centimetres, standard deviation along the normal
TILT = 0.08  # radians, standard deviation of the normals' two angles
FLOOR = 0.25  # centimetres; below it a scanner sees nothing
CELL = 0.14  # centimetres, of the grid that the first mesh is cut from
ARMS, JOINTS = 8, 26
LOW, HIGH = np.array([-12.5, -0.6, -12.5]), np.array([12.5, 13.0, 12.5])


def arms() -> tuple[Floats, Floats]:
    """Return the arms' joints (ARMS, JOINTS, 3) and radii there (ARMS, JOINTS)."""
    rng = np.random.default_rng(3)
    t = np.linspace(0, 1, JOINTS)
    places, radii = [], []
    for i in range(ARMS):
        turn = 2 * np.pi * (i + 0.5) / ARMS + rng.uniform(-0.1, 0.1)
        sway, reach, lift = rng.uniform(0.5, 0.9) * (-1) ** i, rng.uniform(8.2, 9.6), rng.uniform(0.8, 2.4)
        thick = 1.35 * (1 - t) ** 0.8 + 0.26
        out = 1.6 + reach * t
        height = 3.6 * np.exp(-((t / 0.26) ** 2)) + lift * np.exp(-(((t - 0.62) / 0.16) ** 2))
        along = np.c_[out, thick + height]
        curl = np.clip((t - 0.72) / 0.28, 0, 1)  # the last quarter rolls up, as a spiral in its own plane
        spin, centre = 1.5 * np.pi * curl, along[np.searchsorted(t, 0.72)] + [0, 1.5]
        rolled = centre + (1.5 - 0.85 * curl)[:, None] * np.c_[np.sin(spin), -np.cos(spin)]
        along = np.where(curl[:, None] > 0, rolled, along)
        angle = turn + sway * t**1.6
        places.append(np.c_[along[:, 0] * np.sin(angle), along[:, 1], along[:, 0] * np.cos(angle)])
        radii.append(thick)
    return np.array(places), np.array(radii)


def joined(a: Floats, b: Floats, width: float) -> Floats:
    """Return the smooth minimum of two distances, rounded over ``width``."""
    overlap = np.maximum(width - np.abs(a - b), 0) / width
    return np.minimum(a, b) - overlap**2 * width / 4


def ellipsoid(p: Floats, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Floats:
    """Return about the distance to an ellipsoid: exact on it, and its sign is right."""
    q = p - np.array(centre)
    near, slope = np.linalg.norm(q / radii, axis=1), np.linalg.norm(q / np.square(radii), axis=1)
    return near * (near - 1) / np.maximum(slope, 1e-9)


def chain(p: Floats, places: Floats, radii: Floats) -> Floats:
    """Return the distance to balls that slide along a line of joints (J, 3), their radii (J,) changing evenly."""
    best = np.full(len(p), np.inf)
    for a, b, ra, rb in zip(places[:-1], places[1:], radii[:-1], radii[1:], strict=True):
        along = np.clip((p - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        best = np.minimum(best, np.linalg.norm(p - a - along[:, None] * (b - a), axis=1) - ra - along * (rb - ra))
    return best


EYES = ((-1.75, 7.1, 2.3), (1.75, 7.1, 2.3))
EYE = 1.0


def distance(p: Floats) -> Floats:
    """Return about the distance (N,) of places (N, 3) to the animal's surface, negative inside."""
    limbs = np.full(len(p), np.inf)
    for places, radii in zip(*ARM, strict=True):
        limbs = joined(limbs, chain(p, places, radii), 0.5)
    body = ellipsoid(p, (0, 4.6, 0.1), (3.1, 2.3, 2.9))
    body = joined(body, ellipsoid(p, (0, 6.1, 0.5), (2.5, 1.9, 2.2)), 1.5)
    body = joined(body, ellipsoid(p, (0, 8.8, -1.4), (3.2, 3.9, 3.1)), 1.6)
    for eye in EYES:
        body = joined(body, np.linalg.norm(p - eye, axis=1) - EYE, 0.25)
    return joined(limbs, body, 1.6)


ARM = arms()


def normals(p: Floats, step: float = 1e-3) -> Floats:
    """Return the unit normals (N, 3) at places (N, 3): the field's slope."""
    slope = np.stack([distance(p + step * e) - distance(p - step * e) for e in np.eye(3)], axis=1)
    return slope / np.linalg.norm(slope, axis=1, keepdims=True)


def surface() -> trimesh.Trimesh:
    """Return the animal cut from a grid, which is off by a few thousandths of a centimetre."""
    counts = np.ceil((HIGH - LOW) / CELL).astype(int)
    axes = [low + CELL * np.arange(n) for low, n in zip(LOW, counts, strict=True)]
    slabs = [np.stack(np.meshgrid([x], *axes[1:], indexing="ij"), -1).reshape(-1, 3) for x in axes[0]]
    field = np.stack([distance(slab).reshape(counts[1:]) for slab in slabs])
    vertices, faces, _, _ = marching_cubes(field, 0.0, spacing=(CELL,) * 3, gradient_direction="ascent")
    return trimesh.Trimesh(vertices + LOW, faces)


def paint(p: Floats) -> Floats:
    """Return the colours (N, 3) in [0, 1]: terracotta with pale spots, paler below, the eyes white and black."""
    u, v, w = (1.15 * p).T
    spots = np.sin(u + 1.3 * np.sin(w)) * np.sin(v + 0.7 * np.sin(u)) * np.sin(w + 1.1 * np.sin(v))
    share = np.clip((np.abs(spots) - 0.30) / 0.08, 0, 1)[:, None]
    skin = (1 - share) * np.array([0.71, 0.27, 0.16]) + share * np.array([0.95, 0.62, 0.38])
    low = np.clip(1 - p[:, 1:2] / 1.6, 0, 1)
    skin = (1 - 0.6 * low) * skin + 0.6 * low * np.array([0.98, 0.86, 0.74])
    for eye in EYES:
        away = p - eye
        ahead = away @ np.array([0.22 * np.sign(eye[0]), 0.22, 0.95]) / np.maximum(np.linalg.norm(away, axis=1), 1e-9)
        near = np.linalg.norm(away, axis=1) < 1.05 * EYE
        skin[near & (ahead > 0.30)] = 0.96, 0.95, 0.90
        skin[near & (ahead > 0.84)] = 0.06, 0.06, 0.09
    return skin


def scanned() -> tuple[Floats, Floats, Floats]:
    """Return places, normals and colours (POINTS, 3) as a scanner would bring them."""
    rng = np.random.default_rng(4)
    mesh = surface()
    corners = np.asarray(mesh.triangles, np.float64)
    chosen = rng.choice(len(corners), 2 * POINTS, p=mesh.area_faces / mesh.area_faces.sum())
    a, b = np.sort(rng.random((2, len(chosen))), axis=0)
    shares = np.stack([a, b - a, 1 - b], axis=1)
    p = np.einsum("nk,nkx->nx", shares, corners[chosen])
    for _ in range(2):  # onto the surface of the formula itself
        p = p - distance(p)[:, None] * normals(p)
    p = p[p[:, 1] > FLOOR][:POINTS]
    n = normals(p)
    tilted = n + TILT * rng.normal(size=n.shape)
    tilted /= np.linalg.norm(tilted, axis=1, keepdims=True)
    return p + NOISE * rng.normal(size=(len(p), 1)) * n, tilted, paint(p)


def main() -> None:
    """Make the scan and write it."""
    parser = argparse.ArgumentParser(description="Make Egregium's sample scan.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "scan" / "octopus.ply")
    out = parser.parse_args().out
    places, directions, colours = scanned()
    names = ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue"]
    rows = np.zeros(len(places), [(name, "<f4" if i < 6 else "u1") for i, name in enumerate(names)])
    for name, values in zip(names, np.c_[places, directions, np.rint(255 * colours)].T, strict=True):
        rows[name] = values
    header = ["ply", "format binary_little_endian 1.0", f"comment centimetres, y up\nelement vertex {len(rows)}"]
    header += [f"property {'float' if i < 6 else 'uchar'} {name}" for i, name in enumerate(names)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes("\n".join([*header, "end_header", ""]).encode() + rows.tobytes())
    print(f"{out}: {len(rows):,} points, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
