"""Moving surfaces in files: what is in them gives the frames back, and other readers open them."""

import io
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from animation_scenes import N, rolling
from export_scenes import nothing_half_written

from recon.errors import InputError
from recon.export.animation import write_animation, write_sequence
from recon.export.mesh import read_mesh
from recon.mesh.normals import vertex_normals

LOOKS = ["textured", "coloured", "plain"]


def parsed(path):
    """Return a GLB's JSON and its accessors as arrays, checking each on the way as the specification asks."""
    data = path.read_bytes()
    magic, version, length, size, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    tree = json.loads(data[20 : 20 + size])
    (packed,) = tree["buffers"]
    binary = data[20 + size + 8 :]
    assert (packed["byteLength"], size % 4, len(binary) % 4) == (len(binary), 0, 0)
    arrays = []
    for accessor in tree["accessors"]:
        view = tree["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        kind = {5126: "<f4", 5125: "<u4"}[accessor["componentType"]]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[accessor["type"]]
        assert view["byteLength"] == 4 * width * accessor["count"]
        array = np.frombuffer(binary, kind, accessor["count"] * width, view["byteOffset"]).reshape(-1, width)
        if "min" in accessor:
            np.testing.assert_array_equal(array.min(0), np.array(accessor["min"], kind))
            np.testing.assert_array_equal(array.max(0), np.array(accessor["max"], kind))
        assert np.isfinite(array).all()
        arrays.append(array)
    return tree, arrays


def played(tree, arrays, what: str, frame: int):
    """Return the positions or normals in the file when the animation is at a frame's own time."""
    primitive = tree["meshes"][0]["primitives"][0]
    sampler = tree["animations"][0]["samplers"][0]
    weights = arrays[sampler["output"]].reshape(len(arrays[sampler["input"]]), -1)[frame]
    deltas = np.stack([arrays[target[what]] for target in primitive["targets"]])
    return arrays[primitive["attributes"][what]] + np.einsum("k,kvx->vx", weights, deltas)


@pytest.mark.parametrize("look", LOOKS)
def test_the_weights_give_each_frame_back(tmp_path, look):
    animation = rolling(look)
    write_animation(animation, tmp_path / "new" / "a.glb")
    tree, arrays = parsed(tmp_path / "new" / "a.glb")
    primitive = tree["meshes"][0]["primitives"][0]
    faces = arrays[primitive["indices"]].reshape(-1, 3)
    for i, frame in enumerate(animation.frames):
        places = played(tree, arrays, "POSITION", i)[faces]
        np.testing.assert_allclose(places, frame[animation.mesh.faces], rtol=0, atol=2.5e-7)
        normals = played(tree, arrays, "NORMAL", i)[faces]
        expected = vertex_normals(frame, animation.mesh.faces)[animation.mesh.faces]
        np.testing.assert_allclose(normals, expected, rtol=0, atol=2.5e-7)
    for accessor in [primitive["attributes"]["POSITION"], *(target["POSITION"] for target in primitive["targets"])]:
        assert {"min", "max"} <= tree["accessors"][accessor].keys()
    assert len(arrays[primitive["attributes"]["POSITION"]]) == N * N + (N if look == "textured" else 0)
    assert nothing_half_written(tmp_path)


@pytest.mark.parametrize("interpolation", ["LINEAR", "STEP"])
def test_times_and_weights_are_as_gltf_asks(tmp_path, interpolation):
    write_animation(rolling(), tmp_path / "a.glb", interpolation)
    tree, arrays = parsed(tmp_path / "a.glb")
    ((sampler,), (channel,)) = (tree["animations"][0][key] for key in ("samplers", "channels"))
    assert channel == {"sampler": 0, "target": {"node": 0, "path": "weights"}}
    assert sampler["interpolation"] == interpolation
    np.testing.assert_allclose(arrays[sampler["input"]][:, 0], [0, 0.04, 0.08, 0.12, 0.16], rtol=1e-6)
    assert {"min", "max"} <= tree["accessors"][sampler["input"]].keys()
    np.testing.assert_array_equal(arrays[sampler["output"]].reshape(5, 4), np.eye(5)[:, 1:])
    assert tree["meshes"][0]["weights"] == [0, 0, 0, 0]
    views = [tree["bufferViews"][tree["accessors"][sampler[key]]["bufferView"]] for key in ("input", "output")]
    assert not any("target" in view for view in views), "a view for the GPU must not be an animation's"


@pytest.mark.parametrize("look", LOOKS)
def test_other_readers_see_the_first_frame(tmp_path, look):
    animation = replace(rolling(look), frames=rolling(look).frames[::-1])
    write_animation(animation, tmp_path / "a.glb")
    (whole,) = trimesh.load_scene(tmp_path / "a.glb").geometry.values()
    np.testing.assert_array_equal(whole.vertices[whole.faces], animation.frames[0][animation.mesh.faces])
    back = read_mesh(tmp_path / "a.glb")
    np.testing.assert_array_equal(back.vertices[back.faces], animation.frames[0][animation.mesh.faces])
    assert (back.texture is not None, back.colours is not None) == (look == "textured", look == "coloured")


def test_one_frame_is_a_mesh_that_stands(tmp_path):
    write_animation(rolling(count=1), tmp_path / "a.glb")
    tree, _ = parsed(tmp_path / "a.glb")
    assert "animations" not in tree
    assert "targets" not in tree["meshes"][0]["primitives"][0]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("suffix", [".obj", ".ply"])
def test_sequences(tmp_path, suffix, look):
    animation = rolling(look, count=3)
    folder = tmp_path / "new" / "frames"
    write_sequence(rolling(look, count=5), folder, suffix)
    write_sequence(animation, folder, suffix)
    shared = ["surface.mtl", "surface_texture.png"] if (suffix, look) == (".obj", "textured") else []
    assert sorted(file.name for file in folder.iterdir()) == [f"frame_{i:04d}{suffix}" for i in range(3)] + shared
    for i, frame in enumerate(animation.frames):
        back = read_mesh(folder / f"frame_{i:04d}{suffix}")
        np.testing.assert_allclose(back.vertices, frame, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(back.faces, animation.mesh.faces)
        assert (back.texture is not None) == bool(shared)
        assert (back.colours is not None) == (look != "plain" and not shared)
        if shared:
            assert np.abs(back.texture - animation.mesh.texture).max() <= 0.5 / 255 + 1e-6
            np.testing.assert_allclose(back.uvs, animation.mesh.uvs, atol=1e-6)
    assert nothing_half_written(tmp_path)


@pytest.mark.parametrize("look", LOOKS)
def test_npz(tmp_path, look):
    animation = rolling(look)
    write_animation(animation, tmp_path / "a.npz")
    first = (tmp_path / "a.npz").read_bytes()
    with np.load(io.BytesIO(first), allow_pickle=False) as arrays:
        assert set(arrays) == {"vertices", "faces", "times"} | ({"uvs"} if look == "textured" else set())
        np.testing.assert_array_equal(arrays["vertices"], animation.frames)
        np.testing.assert_array_equal(arrays["faces"], animation.mesh.faces)
        np.testing.assert_allclose(arrays["times"], np.arange(5) / 25, rtol=1e-6)
        assert [arrays[name].dtype for name in ("vertices", "faces", "times")] == [np.float32, np.int32, np.float32]
    write_animation(animation, tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == first


def test_what_cannot_be_written(tmp_path):
    good = rolling(count=2)
    broken = good.frames.copy()
    broken[1, 3] = np.nan
    for bad, word in (
        (replace(good, frames=broken), "frame 1 first"),
        (replace(good, frames=good.frames[:, :-1]), r"not \(T, 81, 3\)"),
        (replace(good, frames=good.frames[:0]), "T >= 1"),
        (replace(good, rate=0.0), "0.0 frames a second"),
        (replace(good, rate=float("nan")), "nan frames a second"),
    ):
        with pytest.raises(InputError, match=word):
            write_animation(bad, tmp_path / "a.glb")
        with pytest.raises(InputError, match=word):
            write_sequence(bad, tmp_path / "a", ".obj")
    with pytest.raises(InputError, match="no format of an animation"):
        write_animation(good, tmp_path / "a.stl")
    with pytest.raises(InputError, match=r"\.stl is not written"):
        write_sequence(good, tmp_path / "a", ".stl")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="something else"):
        write_sequence(good, tmp_path / "mine", ".obj")
    assert [file.name for file in tmp_path.rglob("*")] == ["mine", "letter.txt"]
