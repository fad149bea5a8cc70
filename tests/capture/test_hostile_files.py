"""Files made to break their reader: each kind was found by benchmarks.fuzz, or by thinking like a stranger."""

from __future__ import annotations

import gzip
import io
import json
import math
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_scenes import make_photos, make_transforms, pixels, write_json
from PIL import EpsImagePlugin, Image

from recon.capture import archive
from recon.capture.capture import Capture
from recon.capture.files import listed
from recon.capture.load import load
from recon.errors import InputError
from recon.events import Events
from recon.export import read_mesh, read_splats

HUGE = 10**400  # JSON holds it, no float does


def loaded(path: Path) -> Capture:
    capture = load(path, Events(), path.parent / "work")
    for view in capture.views:
        view.load()
    return capture


def refused(path: Path, read: Callable[[Path], Any] = loaded) -> InputError:
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        read(path)
    assert caught.value.hint
    assert time.monotonic() - started < 5
    return caught.value


# --- cameras ---


@pytest.mark.parametrize(
    "fields",
    [
        {"w": 0},
        {"w": 0, "h": 0},
        {"h": 0},
        {"w": -64, "h": -48},
        {"w": 64e18, "h": 48e18},
        {"w": 64e-300, "h": 48e-300},
        {"w": HUGE},
        {"fl_x": HUGE},
        {"k1": HUGE},
        {"fl_x": math.inf},
        {"test_filenames": 3},
        {"test_filenames": {"a": 1}},
    ],
    ids=lambda fields: str(fields)[:30],
)
def test_impossible_numbers_in_transforms(tmp_path: Path, fields: dict[str, Any]) -> None:
    make_transforms(tmp_path, **fields)
    assert refused(tmp_path).code in ("invalid-transforms", "invalid-camera")


@pytest.mark.parametrize("matrix", [[[HUGE] * 4] * 4, [[math.nan] * 4] * 4, "x", {"a": 1}, [[1e-320] * 4] * 4])
def test_an_impossible_pose_costs_its_frame_alone(tmp_path: Path, matrix: object) -> None:
    data = make_transforms(tmp_path)
    data["frames"][0]["transform_matrix"] = matrix
    write_json(tmp_path / "transforms.json", data)
    assert len(loaded(tmp_path).views) == 2


@pytest.mark.parametrize("size", ["0 48", "64 0", "0 0", "-64 -48", f"{64 << 60} {48 << 60}", f"{64**200} {48**200}"])
def test_impossible_sizes_in_a_colmap_model(tmp_path: Path, size: str) -> None:
    make_photos(tmp_path / "images", 3)
    (tmp_path / "cameras.txt").write_text(f"1 PINHOLE {size} 50 50 32 24\n")
    (tmp_path / "images.txt").write_text("".join(f"{i} 1 0 0 0 {i} 0 4 1 00{i}.jpg\n\n" for i in range(3)))
    assert refused(tmp_path).code == "invalid-camera"


def test_a_point_with_more_views_than_the_file_has_bytes(tmp_path: Path) -> None:
    make_photos(tmp_path / "images", 3)
    (tmp_path / "cameras.bin").write_bytes(struct.pack("<QIiQQ4d", 1, 1, 1, 64, 48, 50, 50, 32, 24))
    data = struct.pack("<Q", 3)
    for i in range(3):
        data += struct.pack("<I7dI", i, 1, 0, 0, 0, i, 0, 4, 1) + f"00{i}.jpg".encode() + b"\0" + bytes(8)
    (tmp_path / "images.bin").write_bytes(data)
    point = struct.pack("<Q3d3BdQ", 1, 0, 0, 0, 1, 2, 3, 0.5, 2**64 - 1)
    (tmp_path / "points3D.bin").write_bytes(struct.pack("<Q", 2) + 2 * point)
    capture = loaded(tmp_path)
    assert len(capture.views) == 3
    assert capture.points is None
    assert "points3D.bin is damaged" in capture.warnings[0]


@pytest.mark.parametrize(
    "change",
    [
        {"width": math.inf},
        {"width": HUGE},
        {"intrinsic_matrix": [HUGE] * 9},
        {"intrinsic_matrix": [50, 0, 0, 0, 50, 0, 32, 24, 0]},
        {"intrinsic_matrix": [50, 0, 0, 0, 50, 0, math.nan, 24, 1]},
    ],
    ids=lambda change: str(change)[:40],
)
def test_impossible_lenses_of_an_rgbd_folder(tmp_path: Path, change: dict[str, Any]) -> None:
    make_photos(tmp_path / "color", 2)
    (tmp_path / "depth").mkdir()
    for i in range(2):
        Image.fromarray(np.full((48, 64), 1000, np.uint16)).save(tmp_path / f"depth/{i}.png")
    (tmp_path / "trajectory.log").write_text("0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n" * 2)
    lens = {"width": 64, "height": 48, "intrinsic_matrix": [50, 0, 0, 0, 50, 0, 32, 24, 1]}
    write_json(tmp_path / "camera.json", lens)
    assert len(loaded(tmp_path).views) == 2
    write_json(tmp_path / "camera.json", {**lens, **change})
    assert refused(tmp_path).code in ("bad-intrinsics", "invalid-camera")


# --- names ---


def test_names_in_messages_steer_no_terminal(tmp_path: Path) -> None:
    assert listed(["\x1b[2J\ud800\n", "a" * 10_000]) == "\ufffd[2J\ufffd\ufffd, " + "a" * 119 + "…"
    data = make_transforms(tmp_path)
    data["frames"][0]["file_path"] = "\x1b]0;owned\x07"
    write_json(tmp_path / "transforms.json", data)
    (warning,) = loaded(tmp_path).warnings
    assert warning.isprintable()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(zipfile.ZipInfo("\x1b[2J.jpg"), b"x")
    assert refused(tmp_path / "a.zip").code == "archive-unsafe"
    assert refused(tmp_path / "a.zip").message.isprintable()


# --- what unfolds ---


def test_a_header_of_arrays_that_python_cannot_parse(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3), (\n"
    array = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(36)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as packed:
        packed.writestr("points.npy", array)
    assert refused(tmp_path / "a.npz").code == "broken-file"


def test_a_packed_cloud_that_unfolds_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.xyz.gz"
    path.write_bytes(gzip.compress(b"0 0 0\n" * (archive.FREE_CLOUD // 5)))
    assert refused(path).code == "too-large"


def test_splats_that_unfold_without_end(tmp_path: Path) -> None:
    count = archive.FREE_CLOUD // 19
    header = struct.pack("<4sIIBBBB", b"NGSP", 3, count, 0, 12, 0, 0)
    (tmp_path / "a.spz").write_bytes(gzip.compress(header + bytes(20 * count)))
    assert refused(tmp_path / "a.spz", read_splats).code == "broken-file"


def test_a_3mf_that_unfolds_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FREE_BYTES", 1_000_000)
    with zipfile.ZipFile(tmp_path / "a.3mf", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("3D/3dmodel.model", b" " * 5_000_000)
    assert "unfolds" in refused(tmp_path / "a.3mf", read_mesh).message


def test_a_3mf_reads_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('<vertex x="7" y="7" z="7"/>')
    corners = "".join(f'<vertex x="{x}" y="{y}" z="0"/>' for x, y in ((0, 0), (1, 0), (0, 1)))
    model = (
        f'<!DOCTYPE m [<!ENTITY x SYSTEM "file://{tmp_path / "secret"}">]>'
        '<model xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02"><resources><object id="1"><mesh>'
        f'<vertices>{corners}&x;</vertices><triangles><triangle v1="0" v2="1" v3="2"/></triangles></mesh></object>'
        '</resources><build><item objectid="1"/></build></model>'
    )
    with zipfile.ZipFile(tmp_path / "a.3mf", "w") as packed:
        packed.writestr("3D/3dmodel.model", model)
    assert read_mesh(tmp_path / "a.3mf").vertices.max() == 1


# --- meshes ---


def glb(change: dict[str, Any], binary: bytes = b"") -> bytes:
    """Return a GLB of one triangle, with these entries of its JSON changed."""
    data = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0]]).tobytes() + binary
    tree = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": len(data)}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
    }
    text = json.dumps({**tree, **change}).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(data), 0x4E4942) + data
    return struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(body), len(text), 0x4E4F534A) + text + body


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"accessors": [{"componentType": 5126, "count": 10**9, "type": "VEC3"}]}, "announces more"),
        ({"accessors": [{"bufferView": 0, "componentType": 5126, "count": -3, "type": "VEC3"}]}, "negative"),
        ({"nodes": [{"mesh": 0, "children": [i + 1]} for i in range(1999)] + [{"mesh": 0}]}, "deep"),
        ({"nodes": [{"mesh": 0, "children": [0]}]}, "deep"),
        ({"nodes": [{"mesh": 0}] * 20_000}, "objects"),
        ({"meshes": [{"primitives": [{"attributes": {"POSITION": 0}}] * 20_000}]}, "objects"),
    ],
    ids=["count", "negative", "chain", "circle", "nodes", "primitives"],
)
def test_a_glb_that_announces_more_than_it_is(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "a.glb"
    path.write_bytes(glb({}))
    assert len(read_mesh(path).faces) == 1
    path.write_bytes(glb(change))
    assert words in refused(path, read_mesh).message


def test_a_glb_that_repeats_a_large_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.glb"
    path.write_bytes(glb({"nodes": [{"mesh": 0}] * 50, "scenes": [{"nodes": list(range(50))}]}))
    assert len(read_mesh(path).faces) == 50
    monkeypatch.setattr("recon.capture.mesh_file.MOST_NUMBERS", 100)
    monkeypatch.setattr("recon.capture.mesh_file.len", lambda data: min(len(data), 20), raising=False)
    assert "repeats" in refused(path, read_mesh).message


def test_an_obj_of_thousands_of_materials(tmp_path: Path) -> None:
    lines = ["v 0 0 0", "v 1 0 0", "v 0 1 0", *(f"usemtl m{i}\nf 1 2 3" for i in range(20_000))]
    (tmp_path / "a.obj").write_text("\n".join(lines))
    assert "materials" in refused(tmp_path / "a.obj", read_mesh).message


def picture(kind: str) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels()).save(data, kind)
    return data.getvalue()


@pytest.mark.parametrize("extension", [False, True])
def test_a_texture_of_a_glb_runs_no_program_and_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Callable[..., None], extension: bool
) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was run"))
    texture = {"index": 0}
    material: dict[str, Any] = {"pbrMetallicRoughness": {"baseColorTexture": texture}}
    if extension:  # which trimesh decodes on its own account
        material = {"extensions": {"KHR_materials_pbrSpecularGlossiness": {"diffuseTexture": texture}}}
    views = [{"buffer": 0, "byteLength": 36}, {"buffer": 0, "byteOffset": 36, "byteLength": 24}]
    uvs = np.float32([[0, 0], [1, 0], [0, 1]]).tobytes()

    def of(image: bytes) -> Path:
        whole = {
            "bufferViews": [*views, {"buffer": 0, "byteOffset": 60, "byteLength": len(image)}],
            "accessors": [
                {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
                {"bufferView": 1, "componentType": 5126, "count": 3, "type": "VEC2"},
            ],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "material": 0}]}],
            "materials": [material],
            "textures": [{"source": 0}],
            "images": [{"bufferView": 2, "mimeType": "image/png"}],
        }
        (tmp_path / "a.glb").write_bytes(glb(whole, uvs + image))
        return tmp_path / "a.glb"

    assert read_mesh(of(picture("PNG"))).texture is not None
    assert read_mesh(of(picture("EPS"))).texture is None
    large = of(picture("PNG"))
    limits(max_megapixels=1e-3)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    assert refused(large, read_mesh).code == "image-too-large"
