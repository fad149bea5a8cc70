"""The photographer's studio of the sample scene: Mitsuba 3's path tracer, its lamps, camera and development.

Mitsuba shares no line with Egregium: what a reconstruction is measured against was not made by the code under test.
Whoever calls sets Mitsuba's variant before anything here is used.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mitsuba as mi
import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

Floats = NDArray[np.float64]
SIZE = 480  # pixels, width and height
FOV = 36.0  # degrees, across


@dataclass
class Thing:
    """One object: its mesh in its own metres, where it stands, its colours and its roughness (None: matte)."""

    name: str
    mesh: trimesh.Trimesh
    place: Floats
    paint: Callable[[Floats, Floats], Floats]
    gloss: float | None = None
    smooth: bool = True


@dataclass
class Sheet:
    """Something flat with a fine pattern, painted as a picture of ±half metres in squares of ``step``."""

    name: str
    mesh: trimesh.Trimesh
    place: Floats
    paint: Callable[[Floats], Floats]
    half: tuple[float, float]
    step: float
    smooth: bool = False


def linear(srgb: Floats) -> Floats:
    """Return linear light of sRGB colours, kept between soot and snow as real surfaces are."""
    c = np.clip(srgb, 0.03, 0.95)
    return np.asarray(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4))


def write_ply(path: Path, columns: dict[str, Any], faces: NDArray[Any] | None = None) -> None:
    """Write a binary PLY: vertex properties by name, red, green and blue as bytes and the others as float32."""
    kinds = {name: "u1" if name in ("red", "green", "blue") else "<f4" for name in columns}
    vertices = np.zeros(len(columns["x"]), list(kinds.items()))
    for name, values in columns.items():
        vertices[name] = values
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property {'uchar' if kind == 'u1' else 'float'} {name}" for name, kind in kinds.items()]
    rows = np.zeros(0 if faces is None else len(faces), [("n", "u1"), ("v", "<i4", 3)])
    if faces is not None:
        header += [f"element face {len(rows)}", "property list uchar int vertex_indices"]
        rows["n"], rows["v"] = 3, faces
    path.write_bytes("\n".join([*header, "end_header", ""]).encode() + vertices.tobytes() + rows.tobytes())


def columns(names: str, table: Floats) -> dict[str, Floats]:
    """Return a table's columns (N, C) by their space-separated names."""
    return dict(zip(names.split(), table.T, strict=True))


def drawn(thing: Thing, path: Path) -> None:
    """Write a thing's surface cut so small (about 1 mm) that a colour per vertex shows its pattern."""
    v, f = np.asarray(thing.mesh.vertices), np.asarray(thing.mesh.faces)
    if thing.smooth:
        n = np.asarray(thing.mesh.vertex_normals)
        for _ in range(2):
            v, f, data = trimesh.remesh.subdivide(v, f, vertex_attributes={"n": n})
            n = data["n"] / np.linalg.norm(data["n"], axis=1, keepdims=True)
    else:
        v, f = trimesh.remesh.subdivide_to_size(v, f, 0.0012, max_iter=12)
        corner = v[f]
        n = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        keep = (size := np.linalg.norm(n, axis=1)) > 0
        v, n = corner[keep].reshape(-1, 3), np.repeat(n[keep] / size[keep, None], 3, 0)
        f = np.arange(len(v)).reshape(-1, 3)
    colour = linear(thing.paint(v, n))
    v, n = trimesh.transform_points(v, thing.place), n @ thing.place[:3, :3].T
    write_ply(path, columns("x y z nx ny nz r g b", np.c_[v, n, colour]), f)


def papered(sheet: Sheet, path: Path) -> dict[str, Any]:
    """Write a sheet's surface and return Mitsuba's shape of it, its picture painted from above."""
    own = sheet.mesh.vertices
    mesh = sheet.mesh.copy().apply_transform(sheet.place)
    uv = own[:, :2] / np.asarray(sheet.half) / 2 + 0.5
    write_ply(path, columns("x y z nx ny nz u v", np.c_[mesh.vertices, mesh.vertex_normals, uv]), mesh.faces)
    x, y = (np.arange(-half + sheet.step / 2, half, sheet.step) for half in sheet.half)
    image = linear(sheet.paint(np.stack([*np.meshgrid(x, y[::-1]), np.zeros((len(y), len(x)))], -1)))
    bsdf = {"type": "diffuse", "reflectance": {"type": "bitmap", "bitmap": mi.Bitmap(image.astype("f4")), "raw": True}}
    return {"type": "ply", "filename": str(path), "face_normals": not sheet.smooth, "bsdf": bsdf}


def build(things: Sequence[Thing], room: Thing, sheets: Sequence[Sheet]) -> tuple[Any, Any]:
    """Return the scene to photograph, and the same one with the things glowing in the dark, for the masks."""
    colour = {"type": "mesh_attribute", "name": "vertex_color"}
    glow = {"emitter": {"type": "area", "radiance": {"type": "rgb", "value": 1.0}}}
    black = {"bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.0}}}
    shown: dict[str, Any] = {"type": "scene"}
    dark: dict[str, Any] = {"type": "scene"}
    with tempfile.TemporaryDirectory() as folder:
        for thing in [*things, room]:
            path = Path(folder) / f"{thing.name}.ply"
            drawn(thing, path)
            bsdf: dict[str, Any] = {"type": "diffuse", "reflectance": colour}
            if thing.gloss is not None:
                bsdf = {"type": "principled", "base_color": colour, "roughness": thing.gloss, "specular": 0.45}
            shape = {"type": "ply", "filename": str(path), "face_normals": not thing.smooth}
            shown[thing.name] = shape | {"bsdf": bsdf}
            dark[thing.name] = shape | black | ({} if thing is room else glow)
        for sheet in sheets:
            shown[sheet.name] = papered(sheet, Path(folder) / f"{sheet.name}.ply")
            dark[sheet.name] = shown[sheet.name] | black
        return mi.load_dict(shown | lamps()), mi.load_dict(dark)


def lamps() -> dict[str, Any]:
    """Return a warm softbox at the left, a fainter cool one opposite, and a wide soft ceiling."""
    lights: dict[str, Any] = {}
    for name, at, half, rgb in (
        ("key", (-1.20, -0.50, 1.15), 0.26, (40.0, 35.5, 30.0)),
        ("rim", (1.20, 0.75, 1.30), 0.30, (3.6, 4.2, 5.0)),
        ("ceiling", (0.001, 0, 2.1), 1.7, (0.36, 0.40, 0.46)),
    ):
        look = mi.ScalarTransform4f().look_at(origin=at, target=[0, 0, 0.05], up=[0, 0, 1])
        lights[name] = {
            "type": "rectangle",
            "to_world": look @ mi.ScalarTransform4f().scale(half),
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": list(rgb)}},
        }
    return lights


def sensor(pose: Floats, rfilter: str) -> Any:
    """Return Mitsuba's camera of a camera-to-world matrix with OpenGL axes; Mitsuba's x points left and z forward."""
    return mi.load_dict({
        "type": "perspective", "fov": FOV, "fov_axis": "x", "near_clip": 0.01,
        "to_world": mi.ScalarTransform4f((pose @ np.diag([-1.0, 1, -1, 1])).tolist()),
        "film": {"type": "hdrfilm", "width": SIZE, "height": SIZE, "rfilter": {"type": rfilter}, "pixel_format": "rgb"},
        "sampler": {"type": "multijitter"},
    })  # fmt: skip


def shoot(scene: Any, pose: Floats, samples: int, seed: int) -> tuple[Floats, Floats]:
    """Return linear light (H, W, 3) seen from a pose, and the mean place (H, W, 3) on the surface in each pixel."""
    aov = mi.load_dict({"type": "aov", "aovs": "albedo:albedo,normal:sh_normal,place:position"})
    path = mi.load_dict({"type": "path", "max_depth": 4})
    camera = sensor(pose, "gaussian")
    halves = [mi.render(scene, sensor=camera, integrator=path, spp=samples // 2, seed=2 * seed + k) for k in (0, 1)]
    guide = np.array(mi.render(scene, sensor=camera, integrator=aov, spp=64, seed=seed))
    albedo, normal, place = guide[..., -9:-6], guide[..., -6:-3], guide[..., -3:]
    a, b = (np.minimum(np.array(half), 4.0) / (albedo + 0.02) for half in halves)
    return quieted(a, b, normal, place) * (albedo + 0.02), place


def quieted(a: Floats, b: Floats, normal: Floats, place: Floats, reach: int = 4) -> Floats:
    """Return the mean of two independent noisy pictures of the same light on surfaces, smoothed along the surface.

    Non-local means whose weights for one picture come from the other, so that noise does not choose its own company
    (Rousselle, Knaus and Zwicker 2012), held to pixels of like normal in one tangent plane. Pattern does not blur: the
    albedo was divided out before.
    """

    def box(x: Floats) -> Floats:
        return uniform_filter(x, (3, 3) + (0,) * (x.ndim - 2), mode="nearest")

    noise = gaussian_filter((((a - b) ** 2) / 2).mean(-1), 3) + 1e-6  # the variance of one picture
    out, weights = [np.zeros_like(a), np.zeros_like(b)], [np.zeros(a.shape[:2]), np.zeros(a.shape[:2])]
    for dy, dx in np.ndindex(2 * reach + 1, 2 * reach + 1):
        near = [np.roll(x, (dy - reach, dx - reach), (0, 1)) for x in (a, b, normal, place)]
        bend = ((normal - near[2]) ** 2).sum(-1) / 0.02
        off = (np.abs(((place - near[3]) * normal).sum(-1)) / 0.004) ** 2 + ((place - near[3]) ** 2).sum(-1) / 0.04**2
        for k, (own, moved) in enumerate(((b, near[1]), (a, near[0]))):
            unlike = box(((own - moved) ** 2).mean(-1)) / (2 * noise)
            w = np.exp(-bend - off - np.maximum(unlike - 1.0, 0) * 2.0)
            out[k] += w[..., None] * near[k]
            weights[k] += w
    return np.asarray(out[0] / weights[0][..., None] + out[1] / weights[1][..., None]) / 2


def photograph(light: Floats) -> Floats:
    """Develop linear light (H, W, 3) into sRGB in [0, 1]: Narkowicz's filmic curve (2015), no pure black or white."""
    x = 0.95 * np.maximum(light, 0)
    y = np.clip(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 0, 1)
    return np.asarray(0.03 + 0.95 * np.where(y <= 0.0031308, 12.92 * y, 1.055 * y ** (1 / 2.4) - 0.055))


def mask(dark: Any, pose: Floats) -> NDArray[np.bool_]:
    """Return (H, W), true where the objects that stand on the table cover at least half of the pixel."""
    glow = mi.load_dict({"type": "path", "max_depth": 1})
    return np.array(mi.render(dark, sensor=sensor(pose, "box"), integrator=glow, spp=64, seed=0))[..., 0] > 0.5
