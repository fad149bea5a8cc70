"""Small valid files of every format that is read, and what is done to them for benchmarks.fuzz."""

from __future__ import annotations

import copy
import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from PIL import Image

from recon.capture.capture import Camera, Photo, Points, View
from recon.export import write_colmap, write_mesh, write_splats, write_transforms
from recon.mesh.mesh import Mesh
from recon.splats.model import Splats

SIZE = (24, 16)
INTERESTING = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
INTERESTING += (100_000, 50_000_000, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
WORDS = (
    "0",
    "-1",
    "1",
    "3",
    "99999999",
    "4294967295",
    "9223372036854775807",
    "18446744073709551616",
    "1e308",
    "1e-320",
)
WORDS += ("nan", "inf", "-inf", "1e999", "", "null", "true", "[]", "{}", '"a"', "\0", "é", "0x10", "1_000", "½", "٣")
ODD: tuple[Any, ...] = (None, True, "", "x", [], {}, 0, -1, 0.5, 1e308, 10**400, float("nan"), float("inf"), [[]])
ODD += ("a" * 5000, "../a", ".", "\ud800", "a\0b", [0] * 1000, {"a": 1}, "64", -1e-320)

Change = Callable[[bytes, np.random.Generator], bytes]


@dataclass(frozen=True)
class Seed:
    """A valid input.

    Attributes:
        format: the line of the table that it counts for.
        files: contents by path, in a folder of its own.
        target: the one that is changed.
        reader: ``capture``, ``splats`` or ``mesh``.
        open: what is read: a path in the folder, empty for the folder itself.
        inside: changes what is packed in the file, and packs it again; None where nothing is.
    """

    format: str
    files: dict[str, bytes]
    target: str
    reader: str
    open: str = ""
    inside: Change | None = None


def mutate(data: bytes, generator: np.random.Generator) -> bytes:
    """Return ``data`` with one to five changes."""
    for _ in range(int(generator.choice([1, 1, 1, 2, 3, 5]))):
        data = CHANGES[int(generator.integers(len(CHANGES)))](data, generator)
    return data


def _span(data: bytes, generator: np.random.Generator, most: int = 64) -> tuple[int, int]:
    start = int(generator.integers(0, len(data) + 1))
    return start, min(len(data), start + int(generator.integers(1, most)))


def _flip(data: bytes, generator: np.random.Generator) -> bytes:
    out = bytearray(data)
    for at in generator.integers(0, max(len(out), 1), int(generator.integers(1, 5))):
        if out:
            out[at] ^= 1 << int(generator.integers(8))
    return bytes(out)


def _noise(data: bytes, generator: np.random.Generator) -> bytes:
    start, end = _span(data, generator, 16)
    return data[:start] + generator.bytes(end - start) + data[end:]


def _number(data: bytes, generator: np.random.Generator) -> bytes:
    """Write a whole number, or a float that is none, in either endianness."""
    width = int(generator.choice([1, 2, 4, 8]))
    if width >= 4 and generator.random() < 0.2:
        value = generator.choice([np.nan, np.inf, -np.inf, 1e38, -1e-45, 0.0])
        packed = struct.pack(str(generator.choice(["<", ">"])) + ("f" if width == 4 else "d"), value)
    else:
        whole = INTERESTING[int(generator.integers(len(INTERESTING)))] % 256**width
        packed = whole.to_bytes(width, "little" if generator.random() < 0.7 else "big")
    # Headers are short, and are what is believed.
    at = int(generator.integers(0, min(len(data), 200 if generator.random() < 0.4 else len(data)) + 1))
    return data[:at] + packed + data[at + width :]


def _cut(data: bytes, generator: np.random.Generator) -> bytes:
    return data[: int(generator.integers(0, len(data) + 1))]


def _delete(data: bytes, generator: np.random.Generator) -> bytes:
    start, end = _span(data, generator)
    return data[:start] + data[end:]


def _repeat(data: bytes, generator: np.random.Generator) -> bytes:
    start, end = _span(data, generator, 256)
    return data[:end] + data[start:end] * int(generator.choice([1, 1, 1, 3, 50])) + data[end:]


def _move(data: bytes, generator: np.random.Generator) -> bytes:
    start, end = _span(data, generator)
    at = int(generator.integers(0, len(data) + 1))
    return data[:at] + data[start:end] + data[at + (end - start) :]


def _word(data: bytes, generator: np.random.Generator) -> bytes:
    """Replace a number that is written in words by another word."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", data[:20_000]))
    if not found:
        return _number(data, generator)
    match = found[int(generator.integers(len(found) if generator.random() < 0.5 else min(len(found), 20)))]
    return data[: match.start()] + WORDS[int(generator.integers(len(WORDS)))].encode() + data[match.end() :]


def _line(data: bytes, generator: np.random.Generator) -> bytes:
    """Delete, double or exchange lines."""
    lines = data.split(b"\n")
    a, b = (int(each) for each in generator.integers(0, len(lines), 2))
    match int(generator.integers(4)):
        case 0:
            del lines[a]
        case 1:
            lines.insert(a, lines[b])
        case 2:
            lines[a], lines[b] = lines[b], lines[a]
        case _:
            lines[a] = lines[a] + b" " + lines[b]
    return b"\n".join(lines)


CHANGES: tuple[Change, ...] = (_flip, _noise, _number, _number, _cut, _delete, _repeat, _move, _word, _word, _line)


def _inside_gzip(data: bytes, generator: np.random.Generator) -> bytes:
    return gzip.compress(mutate(gzip.decompress(data), generator), 1, mtime=0)


def _inside_zip(data: bytes, generator: np.random.Generator) -> bytes:
    """Change one member's content or name, or how it is packed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(member, archive.read(member)) for member in archive.infolist()]
    chosen = int(generator.integers(len(members)))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, (member, content) in enumerate(members):
            name = member.filename
            if number == chosen:
                if generator.random() < 0.2:
                    name = mutate(name.encode(), generator).decode("latin-1")[:60_000]
                else:
                    content = mutate(content, generator)
            archive.writestr(zipfile.ZipInfo(name), content, int(generator.choice([0, 8])))
    return out.getvalue()


def _inside_png(data: bytes, generator: np.random.Generator) -> bytes:
    """Change one chunk, and make its checksum right; of the pixels, those that are packed."""
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    chosen = chunks[int(generator.integers(len(chunks)))]
    if chosen[0] == b"IDAT" and generator.random() < 0.5:
        chosen[1] = zlib.compress(mutate(zlib.decompress(chosen[1]), generator))
    else:
        chosen[1] = mutate(chosen[1], generator)
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _inside_glb(data: bytes, generator: np.random.Generator) -> bytes:
    """Change the JSON's values one by one, so that it stays JSON."""
    (length,) = struct.unpack_from("<I", data, 12)
    rest = data[20 + length :]
    text = _inside_json(data[20 : 20 + length], generator)
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A) + text + rest


def _inside_json(data: bytes, generator: np.random.Generator) -> bytes:
    tree = json.loads(data)
    for _ in range(int(generator.integers(1, 4))):
        if not tree:
            break
        holder, key = _place(tree, generator)
        match int(generator.integers(6)):
            case 0:
                del holder[key]
            case 1:
                other, place = _place(tree, generator)
                holder[key] = json.loads(json.dumps(other[place]))
            case 2:
                holder[key] = INTERESTING[int(generator.integers(len(INTERESTING)))]
            case 3:
                holder[key] = -INTERESTING[int(generator.integers(len(INTERESTING)))]
            case _:
                holder[key] = copy.deepcopy(ODD[int(generator.integers(len(ODD)))])
    return json.dumps(tree).encode()


def _place(tree: Any, generator: np.random.Generator) -> tuple[Any, Any]:
    """Return a container in the tree and a key of it, those near the root more often than their number."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        key = keys[int(generator.integers(len(keys)))]
        if not isinstance(tree[key], dict | list) or not tree[key] or generator.random() < 0.25:
            return tree, key
        tree = tree[key]


# --- the valid files ---


def seeds(folder: Path) -> list[Seed]:
    """Return all seeds; ``folder`` is for files that writers need."""
    folder.mkdir(parents=True, exist_ok=True)
    return [*_splats(folder), *_clouds(), *_meshes(folder), *_captures(folder), *_images()]


def _written(folder: Path, name: str, write: Callable[[Path], object]) -> bytes:
    write(folder / name)
    return (folder / name).read_bytes()


def _splats(folder: Path) -> list[Seed]:
    found = []
    for degree in (0, 1, 3):
        g, n = torch.Generator().manual_seed(degree), 12
        some = Splats(
            torch.randn(n, 3, generator=g),
            torch.randn(n, 3, generator=g) - 3,
            torch.randn(n, 4, generator=g),
            torch.randn(n, generator=g),
            torch.randn(n, (degree + 1) ** 2, 3, generator=g) * 0.3,
        )
        for suffix in (".ply", ".splat", ".spz"):
            name = f"a{suffix}"
            data = _written(folder, name, lambda path, some=some: write_splats(some, path))
            inside = _inside_gzip if suffix == ".spz" else None
            found.append(Seed(f"splats {suffix}", {name: data}, name, "splats", name, inside))
    return found


def _clouds() -> list[Seed]:
    xyz = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    rgb = np.random.default_rng(1).integers(0, 256, (20, 3), np.uint8)
    names = ("x", "y", "z"), ("nx", "ny", "nz"), ("red", "green", "blue")
    heads = [f"property float {n}" for n in (*names[0], *names[1])] + [f"property uchar {n}" for n in names[2]]
    rows = np.zeros(20, [(n, "f4") for n in (*names[0], *names[1])] + [(n, "u1") for n in names[2]])
    for i in range(3):
        rows[names[0][i]], rows[names[1][i]], rows[names[2][i]] = xyz[:, i], xyz[:, i], rgb[:, i]
    text = "\n".join(" ".join(map(str, row)) for row in rows.tolist()) + "\n"

    def ply(layout: str, body: bytes) -> bytes:
        return "\n".join(["ply", f"format {layout} 1.0", "element vertex 20", *heads, "end_header", ""]).encode() + body

    swapped = rows.astype(rows.dtype.newbyteorder(">"))
    fields = "FIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\nWIDTH 20\nHEIGHT 1\nPOINTS 20\nDATA "
    points = np.zeros(20, [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4")])
    for i in range(3):
        points["xyz"[i]] = xyz[:, i]
    columns = b"".join(np.ascontiguousarray(points[n]).tobytes() for n in points.dtype.names or ())
    runs = b"".join(bytes([len(columns[i : i + 32]) - 1]) + columns[i : i + 32] for i in range(0, len(columns), 32))
    pcds = [
        b"ascii\n" + "\n".join(" ".join(map(str, row)) for row in points.tolist()).encode() + b"\n",
        b"binary\n" + points.tobytes(),
        b"binary_compressed\n" + struct.pack("<II", len(runs), len(columns)) + runs,
    ]
    arrays = io.BytesIO()
    np.savez_compressed(arrays, points=xyz, normals=xyz, colors=rgb)
    texts = [text.encode(), b"20\n" + text.encode(), b"x,y,z,nx,ny,nz,r,g,b\n" + text.replace(" ", ",").encode()]
    made = [("ply", ply("ascii", text.encode())), ("ply", ply("binary_little_endian", rows.tobytes()))]
    made += [("ply", ply("binary_big_endian", swapped.tobytes()))]
    made += [("pcd", fields.encode() + body) for body in pcds] + [("xyz", body) for body in texts]
    found = [Seed(f"cloud .{kind}", {f"a.{kind}": data}, f"a.{kind}", "capture", f"a.{kind}") for kind, data in made]
    found += [Seed("cloud .npz", {"a.npz": arrays.getvalue()}, "a.npz", "capture", "a.npz", _inside_zip)]
    packed = gzip.compress(ply("binary_little_endian", rows.tobytes()), mtime=0)
    return [*found, Seed("cloud .gz", {"a.ply.gz": packed}, "a.ply.gz", "capture", "a.ply.gz", _inside_gzip)]


def _meshes(folder: Path) -> list[Seed]:
    box = trimesh.creation.box()
    faces, vertices = box.faces.astype(np.int32), box.vertices.astype(np.float32)
    coloured = Mesh(vertices, faces, np.clip(vertices + 0.5, 0, 1))
    uvs = np.random.default_rng(0).random((len(faces), 3, 2)).astype(np.float32)
    textured = Mesh(vertices, faces, None, uvs, np.random.default_rng(0).random((8, 8, 3)).astype(np.float32))
    found = []
    for suffix, mesh in [(".ply", coloured), (".stl", coloured), (".3mf", coloured), (".zip", textured)]:
        data = _written(folder, f"m{suffix}", lambda path, mesh=mesh: write_mesh(mesh, path))
        inside = _inside_zip if suffix in (".3mf", ".zip") else None
        found.append(Seed(f"mesh {suffix}", {f"m{suffix}": data}, f"m{suffix}", "mesh", f"m{suffix}", inside))
        if suffix in (".ply", ".stl", ".zip"):
            found.append(Seed(f"mesh {suffix}", {f"m{suffix}": data}, f"m{suffix}", "capture", f"m{suffix}", inside))
    for mesh in (coloured, textured):
        data = _written(folder, "m.glb", lambda path, mesh=mesh: write_mesh(mesh, path))
        for reader in ("mesh", "capture"):
            found.append(Seed("mesh .glb", {"m.glb": data}, "m.glb", reader, "m.glb", _inside_glb))
    write_mesh(textured, folder / "o.obj")
    files = {name: (folder / name).read_bytes() for name in ("o.obj", "o.mtl", "o_texture.png")}
    found += [Seed("mesh .obj", files, name, "mesh", "o.obj") for name in ("o.obj", "o.obj", "o.mtl", "o_texture.png")]
    off = box.export(file_type="off").encode()
    return [*found, Seed("mesh .off", {"m.off": off}, "m.off", "capture", "m.off")]


def _views(names: list[str]) -> list[View]:
    views = []
    for i, name in enumerate(names):
        viewmat = np.eye(4)
        viewmat[:3, 3] = (i - 1, 0, 4)
        K = np.array([[20.0, 0, 12], [0, 20, 8], [0, 0, 1]])
        empty = Photo(np.zeros((SIZE[1], SIZE[0], 3), np.float32))
        views.append(View(name, *SIZE, lambda empty=empty: empty, Camera(viewmat, K, *SIZE)))
    return views


def _picture(kind: str, seed: int = 0, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    image = Image.fromarray(blocks)
    if mode == "I;16":
        image = Image.fromarray(blocks[..., 0].astype(np.uint16) * 200)
    image = image if image.mode == mode else image.convert(mode)
    image.save(out, kind, **options)
    return out.getvalue()


def _captures(folder: Path) -> list[Seed]:
    names = [f"images/{i}.jpg" for i in range(3)]
    photos = {name: _picture("JPEG", i) for i, name in enumerate(names)}
    points = Points(np.random.default_rng(0).normal(size=(10, 3)), np.full((10, 3), 0.5, np.float32))
    write_colmap(_views([name.removeprefix("images/") for name in names]), folder / "sparse", points)
    found = []
    for suffix in (".bin", ".txt"):
        model = {f"sparse/0/{stem}{suffix}": (folder / f"sparse/{stem}{suffix}").read_bytes() for stem in _MODEL}
        for stem in _MODEL:
            target = f"sparse/0/{stem}{suffix}"
            found.append(Seed(f"COLMAP {suffix}", {**photos, **model}, target, "capture"))
    write_transforms(_views(names), folder / "transforms.json")
    plain = json.loads((folder / "transforms.json").read_bytes())
    rich = {**plain, "k1": 0.01, "p1": 0.001, "camera_model": "OPENCV", "ply_file_path": "points.ply"}
    rich["applied_transform"] = np.eye(4)[:3].tolist()
    rich["frames"] = [{**frame, "mask_path": "images/0.jpg", "fl_x": 20.0} for frame in plain["frames"]]
    cloud = next(seed for seed in _clouds() if seed.target == "a.ply").files["a.ply"]
    for tree in (plain, rich, {**rich, "camera_model": "OPENCV_FISHEYE"}):
        files = {**photos, "points.ply": cloud, "transforms.json": json.dumps(tree).encode()}
        found.append(Seed("transforms.json", files, "transforms.json", "capture", "", _inside_json))
    synthetic = {"camera_angle_x": 0.7, "frames": [{**f, "file_path": f["file_path"][:-4]} for f in plain["frames"]]}
    files = {**photos, "transforms_train.json": json.dumps(synthetic).encode()}
    found.append(Seed("transforms.json", files, "transforms_train.json", "capture", "", _inside_json))
    rgbd = {f"color/{i}.jpg": _picture("JPEG", i) for i in range(2)}
    rgbd |= {f"depth/{i}.png": _picture("PNG", i, "I;16") for i in range(2)}
    lens = {"width": SIZE[0], "height": SIZE[1], "intrinsic_matrix": [20, 0, 0, 0, 20, 0, 12, 8, 1]}
    rgbd["camera.json"] = json.dumps(lens).encode()
    rgbd["trajectory.log"] = b"".join(b"0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1 %d\n0 0 0 1\n" % i for i in range(2))
    for target, inside in (("camera.json", _inside_json), ("trajectory.log", None), ("depth/0.png", _inside_png)):
        found.append(Seed("RGB-D", rgbd, target, "capture", "", inside))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**photos, "transforms.json": json.dumps(plain).encode()}.items():
            archive.writestr(zipfile.ZipInfo(f"set/{name}"), content, zipfile.ZIP_DEFLATED)
    return [*found, *[Seed("zip", {"a.zip": packed.getvalue()}, "a.zip", "capture", "a.zip", _inside_zip)] * 2]


_MODEL = ("cameras", "images", "points3D")


def _images() -> list[Seed]:
    exif = Image.Exif()
    exif.update({274: 6, 271: "maker"})
    exif.get_ifd(0x8769).update({37386: 35.0, 41989: 50, 41486: 100.0})
    made = [
        ("JPEG", _picture("JPEG", exif=exif)),
        ("JPEG", _picture("JPEG", progressive=True)),
        ("JPEG", _picture("JPEG", mode="CMYK")),
        ("PNG", _picture("PNG")),
        ("PNG", _picture("PNG", mode="I;16")),
        ("PNG", _picture("PNG", mode="RGBA", exif=exif)),
        ("PNG", _picture("PNG", mode="P", transparency=3)),
        ("TIFF", _picture("TIFF", exif=exif)),
        ("TIFF", _picture("TIFF", compression="tiff_lzw")),
        ("TIFF", _picture("TIFF", compression="tiff_adobe_deflate", mode="I;16")),
        ("TIFF", _picture("TIFF", compression="jpeg")),
        ("WebP", _picture("WEBP", exif=exif)),
        ("WebP", _picture("WEBP", lossless=True, mode="RGBA")),
        ("BMP", _picture("BMP")),
        ("BMP", _picture("BMP", mode="P")),
        ("AVIF", _picture("AVIF", exif=exif)),
    ]
    found = []
    for kind, data in made:
        name = {"JPEG": "0.jpg", "TIFF": "0.tif"}.get(kind, f"0.{kind.lower()}")
        files = {name: data, "1.png": _picture("PNG", 1), "2.png": _picture("PNG", 2)}
        if kind == "PNG":
            files["masks/1.png"] = data
        found.append(Seed(kind, files, name, "capture", "", _inside_png if kind == "PNG" else None))
    return found
