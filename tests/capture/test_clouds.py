"""Point clouds of every format, whole and damaged; RGB-D folders."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from recon.capture import cloud
from recon.capture.capture import Capture, Points
from recon.capture.inspect import inspect
from recon.capture.load import load
from recon.errors import InputError
from recon.events import Events

GENERATOR = np.random.default_rng(0)
XYZ = GENERATOR.normal(size=(60, 3)).astype(np.float32).astype(np.float64)
NORMALS = (XYZ / np.linalg.norm(XYZ, axis=1, keepdims=True)).astype(np.float32)
RGB = GENERATOR.integers(0, 256, (60, 3)).astype(np.uint8)

EARLY = ("broken-file", "ends early")
TURNED = np.column_stack([np.arange(60), RGB[:, ::-1], XYZ[:, ::-1], NORMALS[:, ::-1]])


def read(path: Path) -> Capture:
    return load(path, Events(), path.parent / "work")


def points_of(path: Path) -> Points:
    capture = read(path)
    assert capture.kind == "cloud"
    assert capture.points is not None
    return capture.points


def ply(layout: str = "binary_little_endian", count: int = len(XYZ)) -> bytes:
    order = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}[layout]
    names = ["nx", "x", "y", "z", "ny", "nz", "red", "green", "blue"]
    dtype = np.dtype([(n, order + ("u1" if n in ("red", "green", "blue") else "f4")) for n in names])
    table = np.empty(len(XYZ), dtype)
    for columns, values in ((["x", "y", "z"], XYZ), (["nx", "ny", "nz"], NORMALS), (names[6:], RGB)):
        for i, n in enumerate(columns):
            table[n] = values[:, i]
    kinds = ["uchar" if n in ("red", "green", "blue") else "float" for n in names]
    header = [f"property {kind} {n}" for kind, n in zip(kinds, names, strict=True)]
    head = "\n".join(["ply", f"format {layout} 1.0", "comment x", f"element vertex {count}", *header, "end_header", ""])
    body = table.tobytes() if layout != "ascii" else "\n".join(" ".join(map(repr, r)) for r in table.tolist()).encode()
    return head.encode() + body


def pcd(kind: str, count: int = len(XYZ)) -> bytes:
    packed = (RGB.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=1).astype(np.uint32).view(np.float32)
    columns = np.column_stack([XYZ, packed, NORMALS]).astype("<f4")
    columns[:, 3] = packed  # bit for bit
    fields = "x y z rgb normal_x normal_y normal_z"
    head = f"# .PCD v0.7\nVERSION 0.7\nFIELDS {fields}\nSIZE{' 4' * 7}\nTYPE{' F' * 7}\nCOUNT{' 1' * 7}\n"
    head += f"WIDTH {count}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {count}\nDATA {kind}\n"
    if kind == "ascii":
        body = "\n".join(" ".join(f"{v:.9g}" for v in row) for row in columns).encode()
    elif kind == "binary":
        body = columns.tobytes()
    else:
        raw = columns.T.tobytes()
        runs = [raw[i : i + 32] for i in range(0, len(raw), 32)]
        packed_bytes = b"".join(bytes([len(run) - 1]) + run for run in runs)
        body = struct.pack("<II", len(packed_bytes), len(raw)) + packed_bytes
    return head.encode() + body


def text(values: np.ndarray, head: str = "", gap: str = " ") -> bytes:
    return (head + "\n".join(gap.join(f"{v:.9g}" for v in row) for row in values)).encode()


def npz(path: Path, **arrays: np.ndarray) -> bytes:
    np.savez(path / "made.npz", **arrays)
    return (path / "made.npz").read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ply", ply()),
        ("a.ply", ply("binary_big_endian")),
        ("a.ply", ply("ascii")),
        ("a.ply.gz", gzip.compress(ply(), mtime=0)),
        ("a.pcd", pcd("ascii")),
        ("a.pcd", pcd("binary")),
        ("a.PCD", pcd("binary_compressed")),
        ("a.pcd.gz", gzip.compress(pcd("binary"), mtime=0)),
        ("a.xyz", text(np.column_stack([XYZ, NORMALS, RGB]))),
        ("a.txt", text(np.column_stack([XYZ, RGB, NORMALS]), "# a comment\n")),
        ("a.pts", text(np.column_stack([XYZ, np.ones(60), RGB, NORMALS]), "60\n")),
        ("a.csv", text(np.column_stack([XYZ, NORMALS, RGB]), "x,y,z,nx,ny,nz,r,g,b\n", ",")),
        ("a.csv", "\ufeff".encode() + text(TURNED, '"t","b","g","r","z","y","x","nz","ny","nx"\n', ",")),
        ("a.xyz", text(TURNED, "//T Blue Green Red Z Y X Normal_Z Normal_Y Normal_X\n60\n")),
        ("a.xyz", text(np.column_stack([XYZ, NORMALS, RGB]), "# x y z then more\n")),
    ],
)
def test_every_format_brings_the_same_points(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    points = points_of(tmp_path / name)
    assert np.allclose(points.xyz, XYZ, atol=1e-6)
    assert points.normals is not None
    assert np.allclose(points.normals, NORMALS, atol=1e-5)
    assert points.coloured
    assert np.allclose(points.rgb, RGB / 255, atol=1e-6)


def test_positions_alone(tmp_path: Path) -> None:
    (tmp_path / "a.pts").write_bytes(text(XYZ, "60\n"))
    points = points_of(tmp_path / "a.pts")
    assert (len(points.xyz), points.normals, points.coloured) == (60, None, False)
    (tmp_path / "b.npz").write_bytes(npz(tmp_path, points=XYZ, normals=NORMALS))
    assert np.array_equal(points_of(tmp_path / "b.npz").xyz, XYZ)


def test_compressed_runs_may_overlap(tmp_path: Path) -> None:
    """30 equal points: a literal run of one number, then copies of what has just been written."""
    xyz = np.full((30, 3), 1.5, "<f4")
    raw, packed = xyz.T.tobytes(), b"\x03" + xyz[:1, 0].tobytes()
    left = len(raw) - 4
    while left:
        step = min(left, 7 + 2 + 200)
        packed += bytes([7 << 5, step - 9, 3]) if step >= 9 else bytes([(step - 2) << 5, 3])
        left -= step
    head = b"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 30\nHEIGHT 1\nPOINTS 30\nDATA binary_compressed\n"
    (tmp_path / "a.pcd").write_bytes(head + struct.pack("<II", len(packed), len(raw)) + packed)
    assert np.array_equal(points_of(tmp_path / "a.pcd").xyz, xyz)


def test_a_mesh_is_sampled_on_its_surface(tmp_path: Path) -> None:
    box = trimesh.creation.box((2, 2, 2))
    for name in ("a.obj", "a.stl", "a.glb", "a.off", "a.ply"):
        box.export(tmp_path / name)
        capture = read(tmp_path / name)
        assert capture.kind == "surface"
        assert capture.points is not None
        assert np.abs(np.abs(capture.points.xyz).max(axis=1) - 1).max() < 1e-6
        assert capture.points.normals is not None
        assert (np.einsum("ij,ij->i", capture.points.normals, capture.points.xyz) > 0.99).all(), "outward"


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("a.ply", b"ply\nformat ascii 1.0\n", "broken-file", "does not end"),
        ("a.ply", b"png", "broken-file", "does not begin as a PLY"),
        ("a.ply", ply()[:-9], "broken-file", "ends early"),
        ("a.ply", ply("ascii")[:-200], "broken-file", "not made of numbers|60 points"),
        ("a.ply", ply(count=3_000_000_000), "broken-file", "3,000,000,000 of vertex"),
        ("a.ply", ply().replace(b"float z", b"float q"), "broken-file", "lack x, y or z"),
        ("a.pcd", pcd("binary")[:-9], "broken-file", "ends early"),
        ("a.pcd", pcd("binary_compressed")[:-9], "broken-file", "ends early"),
        ("a.pcd", pcd("binary", 10**10), "too-large", "announces"),
        ("a.pcd", b"FIELDS x y z\n", "broken-file", "DATA"),
        ("a.pcd.gz", gzip.compress(pcd("binary"), mtime=0)[:-20], "broken-file", "unpacked"),
        ("a.xyz", b"1 2 3\n4 5\n", "broken-file", "line 2 has 2 numbers"),
        ("a.xyz", b"1 2 3\n4 five 6\n", "broken-file", "line 2 is not made of numbers"),
        ("a.txt", b"notes of today\n1 2 3\n", "unknown-input", "no point cloud: line 1"),
        ("a.xyz", b"1 2\n", "broken-file", "line 1 has 2 numbers"),
        ("a.pts", text(XYZ, "61\n"), "broken-file", "61 points are announced, 60 are there"),
        ("a.pts", text(XYZ, "99999999999\n"), "too-large", "99,999,999,999 points"),
        ("a.pts", text(XYZ, "9" * 5000 + "\n"), "too-large", "announces"),
        ("a.csv", b"x,y,z,r\n1,2,3\n", "broken-file", "has 3 numbers, and 4 columns have names"),
        ("a.xyz", b"\0\1\2", "broken-file", "not text"),
        ("a.xyz", b"", "no-points", "no point"),
        ("a.pts", b"0\n", "no-points", "no point"),
        ("a.npz", b"nothing", "broken-file", "cannot be read"),
        ("a.stl", b"nothing", "no-points", "no point"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, content: bytes, code: str, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path / name)
    assert caught.value.code == code
    assert name in caught.value.message
    assert caught.value.hint.endswith(".")


def npy(shape: str, descr: str = "<f8") -> bytes:
    """Return a .npz of one array, of which there is nothing but the header."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("points.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header)
    return packed.getvalue()


def mesh_ply(vertices: int, faces: int = 1, layout: str = "ascii") -> bytes:
    head = (
        f"ply\nformat {layout} 1.0\nelement vertex {vertices}\nproperty float x\nproperty float y\nproperty float z\n"
    )
    head += f"element face {faces}\nproperty list uchar int vertex_indices\nend_header\n"
    return head.encode() + b"0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"


def changed(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("a.ply", ply(count=-5), "broken-file", "has the line 'element vertex -5'"),
        ("a.ply", ply(count=40_000_000), "broken-file", "ends early"),
        ("a.ply", ply("ascii", 40_000_000), "broken-file", "ends early"),
        ("a.ply", changed(ply(), b"vertex 60", b"vertex " + b"9" * 5000), "broken-file", "PLY header"),
        ("a.ply", changed(ply(), b"element vertex", b"element x 999999999\nproperty int i\nelement vertex"), *EARLY),
        ("a.ply", changed(ply(), b"property float x\n", b""), "broken-file", "lack x, y or z"),
        (
            "a.ply",
            changed(ply(), b"property float x", b"property list uchar int x"),
            "broken-file",
            "no readable element",
        ),
        ("a.ply", mesh_ply(40_000_000), *EARLY),
        ("a.ply", mesh_ply(3, 2_000_000_000), *EARLY),
        ("a.ply", mesh_ply(40_000_000, 2_000_000_000, "binary_little_endian"), *EARLY),
        ("a.pcd", changed(pcd("binary"), b"POINTS 60", b"POINTS -1"), "broken-file", "'-1' is no count"),
        ("a.pcd", changed(pcd("binary"), b"POINTS 60", b"POINTS " + b"9" * 5000), "broken-file", "is no count"),
        (
            "a.pcd",
            changed(pcd("binary"), b"POINTS 60\n", b"").replace(b"WIDTH 60", b"WIDTH -6"),
            "broken-file",
            "no count",
        ),
        ("a.pcd", changed(pcd("binary"), b"SIZE 4", b"SIZE 999999999"), "broken-file", "header is not whole"),
        ("a.pcd", changed(pcd("binary"), b"COUNT 1", b"COUNT -1"), "broken-file", "header is not whole"),
        ("a.pcd", changed(pcd("binary"), b"COUNT 1", b"COUNT 9"), *EARLY),
        ("a.pcd", changed(pcd("binary"), b"SIZE 4 ", b"SIZE "), "broken-file", "header is not whole"),
        ("a.pcd", changed(pcd("binary"), b"FIELDS x", b"FIELDS q"), "broken-file", "lacks a field x"),
        ("a.pcd", changed(pcd("binary"), b"TYPE F", b"TYPE Q"), "broken-file", "header is not whole"),
        ("a.pcd", pcd("binary", 40_000_000), *EARLY),
        ("a.pcd", pcd("ascii", 40_000_000), *EARLY),
        ("a.pcd", pcd("binary_compressed", 40_000_000), *EARLY),
        ("a.npz", npy("(40000000, 3)"), *EARLY),
        ("a.npz", npy("(4000000000, 3)"), "too-large", "4,000,000,000 points"),
        ("a.npz", npy("(-5, 3)"), "broken-file", "not numbers of shape"),
        ("a.npz", npy("(5, 4000000000)"), "broken-file", "not numbers of shape"),
        ("a.npz", npy("()"), "broken-file", "not numbers of shape"),
        ("a.npz", npy("(5, 3)", "|O"), "broken-file", "object of shape"),
        ("a.npz", npy("nothing"), "broken-file", "cannot be read as arrays"),
        ("a.stl", bytes(80) + struct.pack("<I", 4_000_000_000) + bytes(50), "broken-file", "cannot be read as STL"),
    ],
)
def test_what_a_header_claims_costs_nothing(tmp_path: Path, name: str, content: bytes, code: str, words: str) -> None:
    read_once = tmp_path / "first.ply"  # what is imported on the way costs something
    read_once.write_bytes(mesh_ply(3))
    read(read_once)
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=words) as caught:
            read(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert caught.value.code == code
    assert name in caught.value.message


@pytest.mark.parametrize(
    ("name", "content"), [("a.ply", ply()), ("a.pcd", pcd("binary")), ("a.xyz", text(XYZ)), ("a.npz", None)]
)
def test_more_points_than_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None
) -> None:
    (tmp_path / name).write_bytes(content or npz(tmp_path, points=XYZ))
    monkeypatch.setattr(cloud, "MOST_POINTS", 50)
    with pytest.raises(InputError, match="and 50 are read at most") as caught:
        read(tmp_path / name)
    assert caught.value.code == "too-large"


def test_a_list_of_arrays_says_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(npz(tmp_path, depth=XYZ, normals=NORMALS))
    with pytest.raises(InputError, match="no array 'points', but depth, normals"):
        read(tmp_path / "a.npz")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    content = npz(tmp_path, points=np.array([{"a": 1}], dtype=object))
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match="object of shape"):
        read(tmp_path / "a.npz")


def test_points_that_are_not_finite_arrive(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(b"nan nan nan\n1 2 3\ninf 0 0\n")
    assert np.isfinite(points_of(tmp_path / "a.xyz").xyz).all(axis=1).tolist() == [False, True, False]


def test_inspect_says_what_a_cloud_is(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(text(XYZ) + b"\nnan 0 0\n")
    found = inspect(tmp_path / "a.xyz", Events(), tmp_path / "work")
    assert (found.kind, found.points, found.pipelines, found.normals) == ("cloud", 61, ("points",), False)
    assert found.extent == pytest.approx(tuple(np.ptp(XYZ, axis=0)), rel=1e-6)
    for words in ("point cloud", "points: 61", "to be estimated", "1 of 61 points are not finite", "60 points are few"):
        assert words in found.text()
    assert "photos" not in found.text()


def make_rgbd(root: Path, frames: int = 2) -> None:
    """A wall 2 m in front of a camera that moves sideways."""
    (root / "color").mkdir(parents=True)
    (root / "depth").mkdir()
    lines = []
    for i in range(frames):
        cv2.imwrite(str(root / f"color/{i}.png"), np.full((24, 32, 3), (0, 0, 255), np.uint8))
        depth = np.full((24, 32), 2000, np.uint16)
        depth[:, :4] = 0
        cv2.imwrite(str(root / f"depth/{i}.png"), depth)
        pose = np.eye(4)
        pose[0, 3] = i
        lines += [f"{i} {i} {i + 1}", *(" ".join(map(str, row)) for row in pose)]
    (root / "trajectory.log").write_text("\n".join(lines))
    K = [40.0, 0, 0, 0, 40.0, 0, 15.5, 11.5, 1]
    (root / "camera.json").write_text(json.dumps({"width": 32, "height": 24, "intrinsic_matrix": K}))


def test_rgbd_becomes_posed_photos_and_a_cloud(tmp_path: Path) -> None:
    make_rgbd(tmp_path / "in")
    capture = read(tmp_path / "in")
    assert (capture.kind, len(capture.views), capture.has_poses) == ("rgbd", 2, True)
    points = capture.points
    assert points is not None
    assert points.normals is not None
    assert np.allclose(points.xyz[:, 2], 2)
    assert np.allclose(points.normals, (0, 0, -1), atol=1e-5), "towards the camera"
    assert np.allclose(points.rgb, (1, 0, 0))
    # Columns 6 to 30 of either frame: 0 to 3 are unknown, those beside them and beside the border left out.
    x = (np.array([6.5, 30.5]) - 16) / 40 * 2
    assert points.xyz[:, 0].min() == pytest.approx(x[0], abs=0.06)
    assert points.xyz[:, 0].max() == pytest.approx(x[1] + 1, abs=0.06)


def test_frames_are_paired_by_their_numbers(tmp_path: Path) -> None:
    """Names without leading zeros: 10 comes after 2, and each depth map belongs to its own pose."""
    make_rgbd(tmp_path / "in", 12)
    for i in range(12):
        cv2.imwrite(str(tmp_path / f"in/depth/{i}.png"), np.full((24, 32), 1000 * (i + 1), np.uint16))
    capture = read(tmp_path / "in")
    assert [view.name for view in capture.views] == [f"color/{i}.png" for i in range(12)]
    assert capture.points is not None
    # Frame i looks along z from x = i, at i + 1 metres: its middle column shows x = i.
    middle = capture.points.xyz[np.isin(np.round(capture.points.xyz[:, 2]), (11,))]
    assert middle[:, 0].mean() == pytest.approx(10, abs=0.3)


def test_smaller_depth_maps_fit_if_their_shape_does(tmp_path: Path) -> None:
    make_rgbd(tmp_path / "in")
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"in/depth/{i}.png"), np.full((12, 16), 2000, np.uint16))
    points = read(tmp_path / "in").points
    assert points is not None
    assert np.allclose(points.xyz[:, 2], 2)
    assert np.abs(points.xyz[:, 1]).max() < 12 / 40 * 2


def narrow_depth(root: Path) -> None:
    cv2.imwrite(str(root / "depth/1.png"), np.full((24, 24), 2000, np.uint16))


def gigantic_depth(root: Path) -> None:
    """A picture of 30000 × 22500 pixels, of which there is nothing but the header."""
    header = struct.pack(">IIBBBBB", 30_000, 22_500, 16, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    (root / "depth/0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def damage_camera(root: Path) -> None:
    (root / "camera.json").write_text("{}")


def damage_poses(root: Path) -> None:
    (root / "trajectory.log").write_text("0 0 1\n1 0 0\n")


def damage_depth(root: Path) -> None:
    cv2.imwrite(str(root / "depth/0.png"), np.zeros((24, 32, 3), np.uint8))


def empty_depth(root: Path) -> None:
    for path in (root / "depth").iterdir():
        cv2.imwrite(str(path), np.zeros((24, 32), np.uint16))


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda root: (root / "camera.json").unlink(), "no-intrinsics"),
        (lambda root: (root / "trajectory.log").unlink(), "no-trajectory"),
        (damage_camera, "bad-intrinsics"),
        (damage_poses, "bad-trajectory"),
        (damage_depth, "bad-depth"),
        (empty_depth, "no-points"),
        (narrow_depth, "size-mismatch"),
        (gigantic_depth, "image-too-large"),
        (lambda root: (root / "depth/0.png").write_bytes(b"none"), "unreadable-image"),
    ],
)
def test_what_an_rgbd_folder_lacks_is_named(tmp_path: Path, damage: Callable[[Path], None], code: str) -> None:
    make_rgbd(tmp_path / "in")
    damage(tmp_path / "in")
    with pytest.raises(InputError) as caught:
        read(tmp_path / "in")
    assert caught.value.code == code


@pytest.mark.data
def test_real_clouds(shared_data: Path) -> None:
    bunny = read(shared_data / "open3d_bunny" / "bunnyData.pts").points
    assert bunny is not None
    assert (len(bunny.xyz), bunny.normals) == (30571, None)
    fragment = read(shared_data / "open3d_rgbd" / "fragment.pcd.gz").points
    assert fragment is not None
    assert fragment.normals is not None
    assert (len(fragment.xyz), fragment.coloured) == (113662, True)
    fused = read(shared_data / "open3d_rgbd").points
    assert fused is not None
    assert len(fused.xyz) > 500_000
