"""The colours of the sample scene: every pattern is a function of the place on the object, none is a picture.

A paint takes places (N, 3) in the object's own metres and normals (N, 3), and returns sRGB colours (N, 3) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import still_life_shapes as shapes
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

Floats = NDArray[np.float64]
_LATTICE = np.random.default_rng(7).random((64, 64, 64))

CREAM, NAVY, TEAL = (0.90, 0.86, 0.77), (0.13, 0.19, 0.36), (0.16, 0.48, 0.50)
TERRACOTTA, MUSTARD, GREEN = (0.74, 0.31, 0.20), (0.87, 0.64, 0.20), (0.30, 0.48, 0.27)
COBALT, MAPLE = (0.10, 0.19, 0.50), (0.82, 0.66, 0.46)


def noise(p: ArrayLike, frequency: ArrayLike, octaves: int = 3) -> Floats:
    """Return fractal value noise in [0, 1], mean 0.5, at places (..., 3); ``frequency`` per metre, one or per axis."""
    x = np.asarray(p, float) * frequency
    total, weight = np.zeros(x.shape[:-1]), 0.0
    for octave in range(octaves):
        cell = np.floor(x)
        u, v, w = np.moveaxis((x - cell) ** 2 * (3 - 2 * (x - cell)), -1, 0)
        i, j, k = np.moveaxis(cell.astype(np.int64) & 63, -1, 0)
        i, j = (i << 12, (i + 1 & 63) << 12), (j << 6, (j + 1 & 63) << 6)
        value = []
        for a in i:
            low, high = (_LATTICE.take(a + b + k) * (1 - w) + _LATTICE.take(a + b + (k + 1 & 63)) * w for b in j)
            value.append(low + (high - low) * v)
        total += (value[0] + (value[1] - value[0]) * u) * 0.5**octave
        weight += 0.5**octave
        x = x * 2.03 + 17.3
    return np.asarray(total / weight)


def mix(a: ArrayLike, b: ArrayLike, t: Floats) -> Floats:
    """Return a + (b - a) t for colours (..., 3) and weights (...)."""
    return np.asarray(a) + (np.asarray(b) - np.asarray(a)) * np.clip(t, 0, 1)[..., None]


def ink(distance: Floats, blur: float = 0.0006) -> Floats:
    """Return the cover of a shape whose signed distance in metres is negative inside, with a soft edge."""
    return np.clip(0.5 - distance / (2 * blur), 0, 1)


def grain(colour: Floats, p: Floats, frequency: float, amount: float) -> Floats:
    """Vary the brightness of a colour by fractal noise, so that no surface is flat."""
    return colour * (1 + amount * (2 * noise(p, frequency) - 1)[:, None])


def vase(p: Floats, n: Floats) -> Floats:
    """Return white porcelain painted in cobalt: bands, waves, petals and zigzags."""
    angle, z = np.arctan2(p[:, 1], p[:, 0]), p[:, 2]
    r = np.hypot(p[:, 0], p[:, 1])
    cover = np.zeros(len(p))
    for band, half in (
        (0.010, 0.0022),
        (0.033, 0.0014),
        (0.122, 0.0014),
        (0.143, 0.0022),
        (0.172, 0.0012),
        (0.203, 0.004),
    ):
        cover = np.maximum(cover, ink(np.abs(z - band) - half))
    zigzag = np.abs((angle * 9 / np.pi) % 2 - 1)
    cover = np.maximum(cover, ink(np.abs(z - 0.0165 - 0.010 * zigzag) - 0.0016) * (z < 0.032))
    for turn in (0, np.pi):  # two strands that plait, and a dot in each eye
        strand = 0.077 + 0.024 * np.sin(4 * angle + turn)
        cover = np.maximum(cover, ink(np.abs(z - strand) - 0.0028, 0.0008))
    eye = np.hypot(((angle * 4 / np.pi) % 1 - 0.5) * np.pi / 4 * r, z - 0.077)
    cover = np.maximum(cover, ink(np.abs(eye - 0.0095) - 0.0012) + ink(eye - 0.0050))
    dots = np.hypot(((angle * 12 / np.pi) % 1 - 0.5) * np.pi / 12 * r, z - 0.132)
    cover = np.maximum(cover, ink(dots - 0.0028))
    leaf = np.abs((angle * 7 / np.pi) % 2 - 1)
    cover = np.maximum(cover, ink(np.abs(leaf - 0.5) * 0.010 - 0.0032 * (1 - ((z - 0.158) / 0.011) ** 2)) * (z < 0.17))
    cover *= 0.70 + 0.45 * noise(p, 160)  # the brush leaves more or less
    cover *= (p * n).sum(1) - n[:, 2] * z > -0.001  # outside only
    return grain(mix((0.89, 0.88, 0.83), COBALT, cover), p, 45, 0.05)


def pear(p: Floats, n: Floats) -> Floats:
    """Return a green and yellow skin, blushing on one side, with russet freckles."""
    colour = mix((0.62, 0.65, 0.20), (0.83, 0.73, 0.28), noise(p, 28) * 2.2 - 0.6)
    blush = n @ np.array([0.75, -0.62, 0.2]) * 0.8 - 0.15 + 0.9 * (noise(p, 60) - 0.5)
    colour = mix(colour, (0.72, 0.27, 0.14), blush * 1.1)
    freckle = noise(p, 520, 1) + 0.25 * noise(p, 50)
    colour = mix(colour, (0.42, 0.27, 0.12), (freckle - 0.88) * 9)
    colour = mix(colour, (0.45, 0.32, 0.14), (p[:, 2] - 0.088) / 0.010 * noise(p, 200))
    bark = ((p[:, 2] > 0.0995) | (np.hypot(p[:, 0] - 0.0105, p[:, 1] - 0.0045) < 0.0022)) & (p[:, 2] > 0.09)
    return grain(mix(colour, (0.27, 0.17, 0.10), bark.astype(float)), p, 300, 0.06)


def apple(p: Floats, n: Floats) -> Floats:
    """Return a red skin streaked with yellow from both dimples."""
    angle = np.arctan2(p[:, 1], p[:, 0])
    height = p[:, 2] / 0.07
    along = np.c_[np.cos(angle) * 7, np.sin(angle) * 7, height * 0.8]
    streak = noise(along, 1.9, 3)
    red = mix((0.66, 0.11, 0.10), (0.45, 0.06, 0.08), noise(p, 40) * 2 - 0.5)
    pole = np.abs(height - 0.52) * 2
    colour = mix(red, (0.87, 0.66, 0.26), (streak - 0.62 + 0.30 * pole**3) * 5)
    colour = mix(colour, (0.90, 0.80, 0.55), (noise(p, 430, 1) - 0.86) * 10)
    axis = np.hypot(p[:, 0] - 0.003 + 0.001, p[:, 1] + 0.006)
    green = np.clip((0.014 - axis) / 0.01, 0, 1) * (height > 0.7)
    colour = mix(colour, (0.50, 0.50, 0.16), green)
    return grain(mix(colour, (0.25, 0.16, 0.09), ((axis < 0.0036) & (height > 0.80)).astype(float)), p, 250, 0.05)


def gear(p: Floats, n: Floats) -> Floats:
    """Return brass, turned: fine rings on its faces, tarnish in its recess."""
    r = np.hypot(p[:, 0], p[:, 1])
    rings = noise(np.c_[r, 0 * r, np.sign(p[:, 2])], (900, 1, 1), 2)
    colour = mix((0.80, 0.60, 0.26), (0.62, 0.43, 0.17), rings * 1.8 - 0.4)
    patina = noise(p, 70) * 1.6 - 0.75 + 0.35 * ((r < 0.031) & (r > 0.0175))
    colour = mix(colour, (0.24, 0.40, 0.34), patina)
    return grain(colour, p, 400, 0.10)


def nut(p: Floats, n: Floats) -> Floats:
    """Return blued steel with worn edges and spots of rust."""
    colour = mix((0.34, 0.38, 0.44), (0.52, 0.55, 0.58), noise(p, (60, 60, 700), 3) * 2 - 0.5)
    colour = mix(colour, (0.50, 0.26, 0.13), (noise(p, 120) - 0.60) * 7)
    r = np.hypot(p[:, 0], p[:, 1])
    return grain(mix(colour, (0.70, 0.71, 0.70), ink(np.abs(r - 0.0258) - 0.0007) * 0.6), p, 500, 0.10)


def duck(p: Floats, n: Floats) -> Floats:
    """Return a yellow duck with an orange beak, painted wings, a striped scarf and eyes."""
    parts = shapes.duck_parts(p)
    colour = mix((0.90, 0.70, 0.15), (0.93, 0.79, 0.30), noise(p, 40) * 2 - 0.5)
    colour = mix(colour, (0.75, 0.45, 0.10), (noise(p, 330, 1) - 0.80) * 6)
    wing = np.minimum(parts["left"], parts["right"])
    row = np.floor((p[:, 0] + 0.1) / 0.011).astype(int)
    x = (p[:, 0] + 0.1) - (row + 0.5) * 0.011
    z = ((p[:, 2] + 0.006 * (row % 2)) / 0.012) % 1 * 0.012 - 0.006
    feather = np.abs(np.hypot(x + 0.002, z) - 0.0050)
    colour = mix(colour, TERRACOTTA, ink(feather - 0.0011) * (wing < 0.0015) * (x > -0.004))
    neck = p @ np.array([0.35, 0, 0.94]) - 0.0775  # height over the plane of the scarf
    scarf = ink(np.abs(neck) - 0.0065) * (p[:, 2] > 0.045)
    stripe = (np.floor(np.arctan2(p[:, 1], p[:, 0] - 0.02) * 14 / np.pi).astype(int) % 2).astype(float)
    colour = mix(colour, mix(TEAL, CREAM, stripe * ink(np.abs(neck) - 0.0035)), scarf)
    beak = (p[:, 0] > 0.0525) & (parts["beak"] < 0.0012)
    lip = ink(np.abs(p[:, 2] - 0.083) - 0.0007) * (p[:, 0] > 0.056)
    colour = mix(colour, mix((0.86, 0.38, 0.12), (0.45, 0.16, 0.08), lip), beak.astype(float))
    for side in (-1, 1):
        d = np.linalg.norm(p - [0.0505, 0.0185 * side, 0.0965], axis=1)
        colour = mix(colour, (0.93, 0.92, 0.88), ink(d - 0.0078))
        colour = mix(colour, (0.10, 0.09, 0.10), ink(d - 0.0052))
        glint = np.linalg.norm(p - [0.0535, 0.0185 * side, 0.0995], axis=1)
        colour = mix(colour, (0.90, 0.90, 0.90), ink(glint - 0.0022))
    spots = noise(p, 55, 1) * (parts["body"] < 0.004) * (wing > 0.004) * (p[:, 2] < 0.05)
    return grain(mix(colour, (0.95, 0.90, 0.70), (spots - 0.70) * 8), p, 120, 0.05)


def _face_uv(p: Floats, n: Floats, centre: ArrayLike) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return the two coordinates of a box's face about its middle, and the face's number 0 … 5."""
    q = p - np.asarray(centre)
    axis = np.abs(n).argmax(1)
    sign = np.sign(n[np.arange(len(n)), axis])
    u = np.where(axis == 0, q[:, 1] * sign, np.where(axis == 1, -q[:, 0] * sign, q[:, 0]))
    v = np.where(axis == 2, q[:, 1] * sign, q[:, 2])
    return u, v, axis * 2 + (sign > 0)


def carton(p: Floats, n: Floats) -> Floats:
    """Return a printed carton: tiles of quarter circles, triangles and rings within a border."""
    tile = 0.0175
    u, v, face = _face_uv(p, n, (0, 0, 0.0665))
    half = np.array([[0.035, 0.0665], [0.044, 0.0665], [0.044, 0.035]])[face // 2]
    i, j = np.floor(u / tile + 100.5).astype(int), np.floor(v / tile + 100.5).astype(int)
    x, y = (u / tile + 100.5) % 1, (v / tile + 100.5) % 1
    dice = _LATTICE[i % 64, j % 64, face * 9 % 64]
    turn = (dice * 997 % 4).astype(int)
    a = np.choose(turn, [x, 1 - x, y, 1 - y])
    b = np.choose(turn, [y, 1 - y, 1 - x, x])
    palette = np.array([CREAM, NAVY, TERRACOTTA, MUSTARD, TEAL])
    ground = palette[(dice * 131 % 5).astype(int)]
    first = ((dice * 131 % 5).astype(int) + 1 + (dice * 577 % 4).astype(int)) % 5
    radius = np.hypot(a, b) * tile
    middle = np.hypot(a - 0.5, b - 0.5) * tile
    shape = np.choose(
        (dice * 311 % 4).astype(int),
        [radius - tile, (a + b - 1) * tile * 0.7, np.abs(middle - 0.0055) - 0.0022, np.abs(radius - 0.011) - 0.0038],
    )
    colour = mix(ground, palette[first], ink(shape))
    edge = np.minimum(half[:, 0] - np.abs(u), half[:, 1] - np.abs(v))
    colour = mix(colour, CREAM, ink(edge - 0.0055))
    colour = mix(colour, NAVY, ink(np.abs(edge - 0.0045) - 0.0007))
    colour = mix(colour, mix(colour, (0.55, 0.47, 0.38), np.full(len(p), 0.6)), ink(edge - 0.0012) * noise(p, 200))
    return grain(colour, p, 90, 0.06)


def block(letters: str, colour: ArrayLike) -> Callable[[Floats, Floats], Floats]:
    """Return the paint of a maple block of 46 mm with a letter in a coloured field on each of its six faces."""
    size, half = 256, 0.023
    pictures = []
    for letter in letters:
        picture = Image.new("L", (size, size))
        font = ImageFont.load_default(190)
        box = ImageDraw.Draw(picture).textbbox((0, 0), letter, font)
        at = ((size - box[0] - box[2]) / 2, (size - box[1] - box[3]) / 2)
        ImageDraw.Draw(picture).text(at, letter, 255, font)
        pictures.append(np.asarray(picture, float) / 255)

    def paint(p: Floats, n: Floats) -> Floats:
        u, v, face = _face_uv(p, n, (0, 0, half))
        wood = mix(MAPLE, (0.66, 0.47, 0.28), noise(p, (40, 260, 260)) * 2 - 0.6)
        edge = half - np.maximum(np.abs(u), np.abs(v))
        ring = ink(np.abs(edge - 0.0065) - 0.0016)
        i = np.clip(((0.5 - v / 0.034) * size), 0, size - 1).astype(int)
        j = np.clip(((0.5 + u / 0.034) * size), 0, size - 1).astype(int)
        glyph = np.stack(pictures)[face, i, j] * (edge > 0.008)
        return grain(mix(wood, colour, np.maximum(ring, glyph) * (0.88 + 0.2 * noise(p, 300))), p, 150, 0.05)

    return paint


def table(p: Floats) -> Floats:
    """Return the planks of the table top: rings of growth, pores, joints; places (..., 3) in the world."""
    plank = np.floor(p[..., 1] / 0.105 + 0.5)
    dice = _LATTICE[plank.astype(int) % 64, 5, 11]
    q = np.stack([p[..., 0] + 7 * dice, p[..., 1] + 0.3 * dice, 3 * dice], -1)
    warp = noise(q, (2.2, 14, 1), 3)
    rings = np.abs(((warp * 9 + q[..., 1] * 16) % 1) - 0.5) * 2
    colour = mix((0.62, 0.45, 0.30), (0.46, 0.31, 0.19), rings**2.2 * 0.7 + 0.9 * (noise(q, (5, 160, 1)) - 0.45))
    colour = mix(colour, (0.30, 0.17, 0.09), (noise(q, (26, 900, 1), 2) - 0.60) * 2.6)
    wobble = noise(q, 120, 2)
    for k in range(5):  # a few knots
        at = _LATTICE[k, 1:3, 9] * 0.8 - 0.4
        d = np.hypot((p[..., 0] - at[0]) * 0.6, p[..., 1] - at[1]) + 0.004 * wobble
        colour = mix(colour, (0.29, 0.15, 0.08), np.exp(-((d / 0.007) ** 2)) * 0.9)
    colour = colour * (0.86 + 0.26 * dice)[..., None]
    joint = np.abs((p[..., 1] / 0.105 + 0.5) % 1 - 0.5)
    return mix(colour, (0.15, 0.09, 0.06), ink((0.5 - joint) * 0.105 - 0.0009, 0.0005) * 0.85)


def cloth(p: Floats) -> Floats:
    """Return woven linen with indigo and rust stripes; places (..., 3) in the cloth's own metres."""
    slub = noise(p, (35, 700, 1), 2) + noise(p, (700, 35, 1), 2) - 1
    colour = np.broadcast_to((0.84, 0.79, 0.69), p.shape) * (1 + 0.30 * slub)[..., None]
    ax = np.abs(p[..., 0])
    for at, half, dye in (
        (0.217, 0.006, NAVY),
        (0.203, 0.002, TERRACOTTA),
        (0.193, 0.0012, NAVY),
        (0.07, 0.0016, NAVY),
    ):
        colour = mix(colour, np.asarray(dye) * 1.15, ink(np.abs(ax - at) - half) * (0.75 + 0.8 * slub))
    ay = np.abs(p[..., 1])
    for at, half, dye in ((0.159, 0.005, NAVY), (0.146, 0.0016, TERRACOTTA), (0.05, 0.0014, TERRACOTTA)):
        colour = mix(colour, np.asarray(dye) * 1.15, ink(np.abs(ay - at) - half) * (0.65 + 0.8 * slub))
    cell = np.stack([p[..., 0] % 0.02 - 0.01, p[..., 1] % 0.02 - 0.01], -1)
    inside = (ax < 0.185) & (ay < 0.135)
    colour = mix(colour, np.asarray(TEAL), ink(np.abs(cell).sum(-1) - 0.0026) * inside * 0.75)
    return np.asarray(colour * (0.94 + 0.12 * noise(p, 14))[..., None])


def backdrop(p: Floats) -> Floats:
    """Return a painter's canvas of slate blue, dabbed and streaked; places (..., 3) in the world."""
    colour = mix((0.30, 0.39, 0.44), (0.45, 0.53, 0.55), noise(p, 2.3, 4) * 2.6 - 0.8)
    return mix(colour, (0.56, 0.53, 0.47), (noise(p, 5.1, 3) - 0.55) * 1.8)
