"""3DGS PLY: exact round trips, foreign layouts, files that lie."""

import resource

import numpy as np
import pytest
import torch
import trimesh
from export_scenes import nothing_half_written, some_splats

from recon.errors import InputError
from recon.export.ply import is_splat_ply, read_ply, write_ply
from recon.splats.model import Splats


def same(a: Splats, b: Splats) -> bool:
    return all(torch.equal(t, b.tensors()[name]) for name, t in a.tensors().items())


def rewritten(splats, path, *, layout="binary_little_endian", kind="float", order=None, extra=()):
    """Write a PLY by hand: any layout, type and order of properties, elements before the vertices."""
    columns = {f"f_dc_{i}": splats.sh[:, 0, i] for i in range(3)}
    rest = splats.sh.shape[1] - 1
    for c in range(3):
        for k in range(rest):
            columns[f"f_rest_{c * rest + k}"] = splats.sh[:, k + 1, c]
    columns |= {axis: splats.means[:, i] for i, axis in enumerate("xyz")}
    columns |= {f"scale_{i}": splats.log_scales[:, i] for i in range(3)}
    columns |= {f"rot_{i}": splats.quats[:, i] for i in range(4)} | {"opacity": splats.logits}
    names = sorted(columns, reverse=order == "reversed")
    code = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}[layout] + {
        "float": "f4",
        "double": "f8",
    }[kind]
    table = np.stack([columns[n].numpy() for n in names], axis=1).astype(code)
    lines = ["ply", f"format {layout} 1.0", "comment made by hand"]
    lines += ["element camera 2", "property uchar a", "property short b"] if extra else []
    lines += [f"element vertex {len(splats)}", *(f"property {kind} {n}" for n in names), "end_header", ""]
    body = b""
    if layout == "ascii":
        body += b"1 2\n3 4\n" if extra else b""
        body += "".join(" ".join(repr(float(v)) for v in row) + "\n" for row in table).encode()
    else:
        body += (b"\x01" * 6 if extra else b"") + table.tobytes()
    path.write_bytes("\r\n".join(lines).encode() + body if kind == "double" else "\n".join(lines).encode() + body)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip_is_exact(tmp_path, degree):
    splats = some_splats(degree)
    write_ply(splats, tmp_path / "new folder" / "a.ply")
    assert same(read_ply(tmp_path / "new folder" / "a.ply"), splats)
    assert is_splat_ply(tmp_path / "new folder" / "a.ply")
    assert nothing_half_written(tmp_path)


def test_header_and_bytes_are_those_of_3dgs(tmp_path):
    splats = some_splats(1, 2)
    write_ply(splats, tmp_path / "a.ply")
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(9))]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    expected = ["ply", "format binary_little_endian 1.0", "element vertex 2", *(f"property float {n}" for n in names)]
    assert header.decode().splitlines() == expected
    row = dict(zip(names, np.frombuffer(body, "<f4").reshape(2, -1)[1], strict=True))
    assert row["nx"] == 0
    assert row["f_rest_1"] == splats.sh[1, 2, 0], "red comes first, coefficient after coefficient"
    assert row["f_rest_5"] == splats.sh[1, 3, 1]
    assert row["rot_0"] == splats.quats[1, 0]


@pytest.mark.parametrize("kind", ["float", "double"])
@pytest.mark.parametrize("layout", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("order", ["sorted", "reversed"])
def test_foreign_layouts(tmp_path, layout, kind, order):
    splats = some_splats(2)
    rewritten(splats, tmp_path / "a.ply", layout=layout, kind=kind, order=order, extra=True)
    assert same(read_ply(tmp_path / "a.ply"), splats)


def header(count="5", degree_rest=0, drop=""):
    names = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2"]
    names += [f"rot_{i}" for i in range(4)]
    names += [f"f_rest_{i}" for i in range(degree_rest)]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    return "\n".join([*lines, *(f"property float {n}" for n in names if n != drop), "end_header", ""]).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin"),
        (b"PNG whatever", "does not begin"),
        (b"ply\nformat binary_little_endian 1.0\nelement vertex 3\n", "does not end"),
        (b"ply\nformat middle_endian 1.0\n", "header has the line"),
        (b"ply\nformat ascii 1.0\nelement vertex -3\nend_header\n", "header has the line"),
        (b"ply\nformat ascii 1.0\nelement vertex 3\nproperty quaternion q\nend_header\n", "header has the line"),
        (b"ply\nformat ascii 1.0\nelement face 1\nproperty list uchar int i\nend_header\n1 0\n", "no readable element"),
        (b"ply\nformat ascii 1.0\ncomment " + b"\xff\x00" * 40 + b"\n", "does not end"),
        (header() + bytes(14 * 4 * 5 - 1), "ends early"),
        (header(count="4000000000") + bytes(1000), "ends early"),
        (header(degree_rest=10) + bytes(24 * 4 * 5), "no spherical harmonics"),
        (header(drop="opacity") + bytes(14 * 4 * 5), "lacks opacity"),
        (header(count="0"), "no splats"),
        (header() + np.full(70, np.nan, "<f4").tobytes(), "5 of 5 splats hold NaN"),
        (header().replace(b"binary_little_endian", b"ascii") + b"1 2 3\n" * 50, "rows of 14 numbers"),
        (header().replace(b"binary_little_endian", b"ascii") + b"a b c d e\n" * 50, "not made of numbers"),
        (header().replace(b"property float x", b"property float y") + bytes(14 * 4 * 5), "no readable element"),
    ],
)
def test_broken_files(tmp_path, content, message):
    (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_ply(tmp_path / "a.ply")
    assert error.value.hint
    assert "a.ply" in error.value.message


def test_a_count_that_lies_allocates_nothing(tmp_path):
    (tmp_path / "a.ply").write_bytes(header(count="4000000000"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError):
        read_ply(tmp_path / "a.ply")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_every_cut_is_noticed(tmp_path):
    write_ply(some_splats(0, 2), tmp_path / "a.ply")
    whole = (tmp_path / "a.ply").read_bytes()
    for size in range(0, len(whole), 7):
        (tmp_path / "b.ply").write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_ply(tmp_path / "b.ply")


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.ply", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_ply(path)


def test_nothing_is_written_of_a_model_with_nan(tmp_path):
    splats = some_splats(1)
    splats.logits[3] = float("inf")
    with pytest.raises(InputError, match=r"1 of 50 splats .* number 3"):
        write_ply(splats, tmp_path / "a.ply")
    with pytest.raises(InputError, match="no splats"):
        write_ply(splats[:0], tmp_path / "a.ply")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_ply(some_splats(0), tmp_path / "file" / "a.ply")
    (tmp_path / "a.ply").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_ply(some_splats(0), tmp_path / "a.ply")
    assert nothing_half_written(tmp_path)


def test_a_mesh_is_told_apart(tmp_path):
    properties = "".join(f"property float {axis}\n" for axis in "xyz")
    (tmp_path / "a.ply").write_text(f"ply\nformat ascii 1.0\nelement vertex 1\n{properties}end_header\n0 0 0\n")
    assert not is_splat_ply(tmp_path / "a.ply")
    with pytest.raises(InputError, match="not of splats"):
        read_ply(tmp_path / "a.ply")


def test_another_reader_finds_the_same_values(tmp_path):
    """As 3DGS's own loader does: each property by its name, out of any PLY reader."""
    splats = some_splats(degree=1)
    write_ply(splats, tmp_path / "a.ply")
    cloud = trimesh.load(tmp_path / "a.ply")
    np.testing.assert_allclose(cloud.vertices, splats.means, rtol=1e-6)
    found = cloud.metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_array_equal(np.stack([found[f"rot_{k}"] for k in range(4)], 1).reshape(-1, 4), splats.quats)
    np.testing.assert_array_equal(np.ravel(found["opacity"]), splats.logits)
    rest = np.stack([np.ravel(found[f"f_rest_{k}"]) for k in range(9)], 1).reshape(-1, 3, 3)  # channel by channel
    np.testing.assert_array_equal(rest.transpose(0, 2, 1), splats.sh[:, 1:])
