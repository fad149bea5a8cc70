"""Render Egregium's sample capture: a still life on a round table, seen by 48 cameras.

    pip install mitsuba                      # beside the project's own requirements; nothing else, nothing downloaded
    python assets/make_still_life.py         # writes assets/still_life, see assets/README.md

The pictures come from Mitsuba 3's path tracer, which shares no line with Egregium: what a reconstruction is measured
against here was not made by the code under test. Everything else is made by formula in `still_life_shapes.py` and
`still_life_paint.py`, and every random number comes from a fixed seed.

Conventions of what is written: metres, z up; `transforms.json` as nerfstudio reads it (camera to world, OpenGL axes: x
right, y up, z backward); the centre of pixel (0, 0) is at (0.5, 0.5), so cx = w / 2.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import mitsuba as mi
import numpy as np
import still_life_paint as paint
import still_life_shapes as shapes
import still_life_studio as studio
import trimesh
from numpy.typing import NDArray
from PIL import Image
from still_life_studio import SIZE, Sheet, Thing, columns, write_ply

Floats = NDArray[np.float64]
FOCAL = SIZE / 2 / np.tan(np.radians(studio.FOV) / 2)
CLOTH = 0.0016  # metres, thickness
POINTS = 5000
TURN = trimesh.transformations.rotation_matrix


def placed(x: float, y: float, degrees: float = 0, lift: float = CLOTH) -> Floats:
    """Return the matrix that turns about z and moves to (x, y) at the height ``lift``."""
    matrix = TURN(np.radians(degrees), [0, 0, 1])
    matrix[:3, 3] = x, y, lift
    return matrix


def things() -> list[Thing]:
    """Return the objects of the still life, those that masks show and mesh.ply holds."""
    cube = shapes.chamfered_box((0.046,) * 3, 0.0022)
    carton = shapes.chamfered_box((0.088, 0.070, 0.133), 0.0025)
    leaning = TURN(np.radians(72), [0, 1, 0])  # the gear stands on its rim against the carton
    gear = shapes.rest(shapes.gear().apply_transform(TURN(0.09, [0, 0, 1])).apply_transform(leaning))
    lift = float(gear.bounds[1, 2]) / 2
    lean_back = np.linalg.inv(trimesh.transformations.translation_matrix([0, 0, lift]) @ leaning)
    red = paint.block("EGRMUI", paint.TERRACOTTA)
    teal = paint.block("GREIUM", paint.TEAL)
    navy = paint.block("REGUME", paint.NAVY)

    def brass(p: Floats, n: Floats) -> Floats:
        return paint.gear(trimesh.transform_points(p, lean_back), n @ lean_back[:3, :3].T)

    return [
        Thing("vase", shapes.vase(), placed(-0.072, 0.075, 20), paint.vase, 0.24),
        Thing("carton", carton, placed(0.062, 0.082, 24), paint.carton, None, False),
        Thing("duck", shapes.duck(), placed(0.012, -0.062, -38), paint.duck, 0.36),
        Thing("pear", shapes.pear(), placed(0.128, -0.008, 150), paint.pear, 0.50),
        Thing("apple", shapes.apple(), placed(0.128, -0.098, 40), paint.apple, 0.33),
        Thing("block 1", cube, placed(-0.152, -0.022, 12), red, None, False),
        Thing("block 2", cube, placed(-0.096, -0.036, -7), teal, None, False),
        Thing("block 3", cube, placed(-0.122, -0.027, 34, CLOTH + 0.046), navy, None, False),
        Thing("gear", gear, placed(0.1232, 0.1089, 24), brass, 0.42, False),
        Thing("nut", shapes.nut(), placed(-0.062, -0.118, 8), paint.nut, 0.42, False),
    ]


def sheets() -> list[Sheet]:
    """Return the table top, whose upper face is z = 0, and the cloth on it: what table.ply holds."""
    cloth = shapes.chamfered_box((0.46, 0.34, CLOTH), 0.0004)
    return [
        Sheet("top", shapes.disc(0.43, 0.032), np.eye(4), paint.table, (0.43, 0.43), 0.0007, smooth=True),
        Sheet("cloth", cloth, placed(0, 0, 8, 0), paint.cloth, (0.23, 0.17), 0.0005),
    ]


def room() -> Thing:
    """Return the studio round the table."""
    return Thing("room", shapes.studio(1.9, -0.45, 0.8, 1.25), np.eye(4), lambda p, n: paint.backdrop(p))


def cameras() -> list[Floats]:
    """Return 48 camera-to-world matrices (OpenGL axes) on three rings and the top, each a little off its place."""
    rng = np.random.default_rng(1)
    poses = []
    for count, elevation, start in ((20, 27, -100), (16, 42, -91), (11, 58, -104), (1, 82, -90)):
        for k in range(count):
            e = np.radians(elevation + rng.uniform(-2.5, 2.5))
            a = np.radians(start + (k + rng.uniform(-0.2, 0.2)) * 360 / count)
            eye = 0.84 * rng.uniform(0.96, 1.04) * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
            target = np.array([0, 0, 0.052]) + rng.uniform(-0.012, 0.012, 3)
            back = (eye := eye + np.array([0, 0, 0.05])) - target
            back /= np.linalg.norm(back)
            right = np.cross([0, 0, 1], back)
            right /= np.linalg.norm(right)
            pose = np.eye(4)
            pose[:3] = np.c_[right, np.cross(back, right), back, eye]
            poses.append(np.round(pose, 9))
    return poses


def project(pose: Floats, xyz: Floats) -> tuple[Floats, Floats]:
    """Return pixel coordinates (N, 2) and distances ahead (N,) of places (N, 3)."""
    local = (xyz - pose[:3, 3]) @ pose[:3, :3]
    ahead = -local[:, 2]
    return SIZE / 2 + FOCAL * local[:, :2] * [1, -1] / ahead[:, None], ahead


def matched(poses: list[Floats], photos: Floats, places: Floats) -> tuple[Floats, Floats]:
    """Return POINTS places (N, 3) and colours (N, 3) in 0 … 255 as feature matching would find them.

    Pixels are drawn where the photos have contrast, and kept where at least three cameras see the same place; the
    noise is about two thirds of a pixel.
    """
    rng = np.random.default_rng(2)
    grey = photos.mean(-1)
    contrast = np.abs(np.gradient(grey, axis=1)) + np.abs(np.gradient(grey, axis=2)) + 0.8
    contrast[:, :2] = contrast[:, -2:] = contrast[:, :, :2] = contrast[:, :, -2:] = 0
    chosen = rng.choice(contrast.size, 8 * POINTS, replace=False, p=(contrast / contrast.sum()).ravel())
    view, row, column = np.unravel_index(chosen, contrast.shape)
    xyz = places[view, row, column]
    pixel = np.linalg.norm(xyz - np.array(poses)[view, :3, 3], axis=1) / FOCAL
    flat = np.ones(len(xyz), bool)  # not across an outline, where a pixel's mean place is on no surface
    for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        flat &= np.linalg.norm(places[view, row + dr, column + dc] - xyz, axis=1) < 4 * pixel
    seen, colour = np.zeros(len(xyz)), np.zeros((len(xyz), 3))
    for pose, photo, place in zip(poses, photos, places, strict=True):
        at, ahead = project(pose, xyz)
        inside = (ahead > 0) & (at >= 0).all(1) & (at < SIZE).all(1)
        j, i = np.where(inside[:, None], at, 0).astype(int).T
        same = inside & (np.linalg.norm(place[i, j] - xyz, axis=1) < 4 * pixel)
        seen += same
        colour += photo[i, j] * same[:, None]
    keep = np.flatnonzero(flat & (seen >= 3))[:POINTS]
    jitter = rng.normal(size=(len(keep), 3)) * 0.65 * pixel[keep, None]
    return xyz[keep] + jitter, np.round(colour[keep] / seen[keep, None])


def main() -> None:
    """Render the capture and write it."""
    parser = argparse.ArgumentParser(description="Render Egregium's sample capture.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "still_life")
    parser.add_argument("--variant", default="scalar_rgb", help="Mitsuba's; llvm_ad_rgb is faster where it runs")
    parser.add_argument("--samples", type=int, default=40, help="light paths a pixel")
    args = parser.parse_args()
    mi.set_variant(args.variant)
    for name in ("images", "object_masks"):
        (args.out / name).mkdir(parents=True, exist_ok=True)

    for name, parts in (("mesh.ply", things()), ("table.ply", sheets())):
        joined = trimesh.util.concatenate([part.mesh.copy().apply_transform(part.place) for part in parts])
        write_ply(args.out / name, columns("x y z", joined.vertices), joined.faces)

    scene, dark = studio.build(things(), room(), sheets())
    poses, photos, places, frames = cameras(), [], [], []
    for number, pose in enumerate(poses):
        start = time.perf_counter()
        light, place = studio.shoot(scene, pose, args.samples, number)
        photo = np.round(255 * studio.photograph(light)).astype(np.uint8)
        paths = {"file_path": f"images/{number:03}.jpg"}
        Image.fromarray(photo).save(
            args.out / paths["file_path"], quality=86, subsampling=0, optimize=True, progressive=True
        )
        Image.fromarray(studio.mask(dark, pose)).save(args.out / f"object_masks/{number:03}.png", optimize=True)
        photos.append(photo)
        places.append(place)
        frames.append(paths | {"transform_matrix": pose.tolist()})
        print(f"{number + 1}/{len(poses)}: {time.perf_counter() - start:.1f} s", flush=True)

    xyz, rgb = matched(poses, np.array(photos, np.float32), np.array(places))
    write_ply(args.out / "points3D.ply", columns("x y z red green blue", np.c_[xyz, rgb]))
    lens = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": SIZE / 2, "cy": SIZE / 2, "w": SIZE, "h": SIZE}
    capture = {"camera_model": "OPENCV"} | lens | dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0)
    capture |= {"ply_file_path": "points3D.ply", "frames": frames}
    (args.out / "transforms.json").write_text(json.dumps(capture, indent=1) + "\n")


if __name__ == "__main__":
    main()
