"""Meshes in files: round trips, what other readers see, damaged files."""

import io
import json
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from export_scenes import nothing_half_written
from PIL import Image

from recon.errors import InputError
from recon.export.mesh import FORMATS, TEXTURED, read_mesh, write_mesh
from recon.mesh.atlas import unwrap
from recon.mesh.mesh import Mesh
from recon.mesh.repair import repair
from recon.mesh.texture import surface_colours


def ball(colours: bool = True) -> Mesh:
    mesh = trimesh.creation.icosphere(2)
    vertices = np.asarray(mesh.vertices, np.float32) * [3, 2, 1] + [5, 0, 100]
    rgb = np.linspace(0, 1, mesh.vertices.size).reshape(-1, 3).astype(np.float32)
    return Mesh(vertices.astype(np.float32), np.asarray(mesh.faces, np.int32), rgb if colours else None)


def to_linear(c):
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize("suffix", [*FORMATS, ".GLB"])
def test_round_trip(tmp_path, suffix, colours):
    mesh = ball(colours)
    path = tmp_path / "new" / f"a{suffix}"
    write_mesh(mesh, path)
    back = read_mesh(path)
    if suffix == ".stl":  # corners only, in any order of vertices, no colours
        np.testing.assert_allclose(back.vertices[back.faces], mesh.vertices[mesh.faces], atol=1e-6)
        assert len(back.vertices) == len(mesh.vertices), "equal corners are merged"
        assert back.colours is None
    else:
        np.testing.assert_allclose(back.vertices, mesh.vertices, rtol=1e-7, atol=1e-6)
        np.testing.assert_array_equal(back.faces, mesh.faces)
        assert (back.colours is not None) == (colours and suffix != ".3mf")
    assert back.statistics().watertight
    assert nothing_half_written(tmp_path)
    if back.colours is not None:
        step = 0 if suffix.lower() == ".glb" else 0.5 / 255
        assert np.abs(back.colours - mesh.colours).max() <= step + 1e-5


@pytest.mark.parametrize("suffix", [suffix for suffix in FORMATS if suffix != ".zip"])
def test_trimesh_opens_it(tmp_path, suffix):
    mesh = ball()
    write_mesh(mesh, tmp_path / f"a{suffix}")
    other = trimesh.load_mesh(tmp_path / f"a{suffix}")
    assert (len(other.vertices), len(other.faces)) == (len(mesh.vertices), len(mesh.faces))
    assert other.is_watertight
    assert other.volume > 0
    np.testing.assert_allclose(other.bounds, [mesh.vertices.min(0), mesh.vertices.max(0)], atol=1e-5)
    if suffix == ".glb":  # trimesh keeps the colours of a mesh with a material as they stand there
        (whole,) = trimesh.load_scene(tmp_path / "a.glb").geometry.values()
        np.testing.assert_allclose(whole.visual.vertex_attributes["color"], to_linear(mesh.colours), atol=1e-6)
    elif suffix not in (".stl", ".3mf"):
        assert other.visual.kind == "vertex"
        assert np.abs(other.visual.vertex_colors[:, :3] / 255 - mesh.colours).max() <= 0.5 / 255 + 1e-5


@pytest.mark.parametrize("material", [True, False])
def test_foreign_glb_colours(tmp_path, material):
    """Bytes of linear light, with and without a material."""
    other = trimesh.creation.box()
    other.visual.vertex_colors = np.full((8, 4), [255, 55, 0, 255], np.uint8)
    data = other.export(file_type="glb")
    if material:

        def add(tree):
            tree["materials"] = [{}]
            tree["meshes"][0]["primitives"][0]["material"] = 0

        data = trimesh.exchange.gltf.export_glb(trimesh.Scene(other), tree_postprocessor=add)
    (tmp_path / "a.glb").write_bytes(data)
    colours = read_mesh(tmp_path / "a.glb").colours
    np.testing.assert_allclose(colours, np.broadcast_to([1, 0.5015, 0], (8, 3)), atol=1e-3)


@pytest.mark.parametrize("coloured", [False, True])
def test_a_colour_factor_without_an_image_colours_the_vertices(tmp_path, coloured):
    """The factor is linear light, and multiplies colours at vertices."""
    other = trimesh.creation.box()
    if coloured:
        other.visual.vertex_colors = np.full((8, 4), [128, 255, 255, 255], np.uint8)

    def add(tree):
        tree["materials"] = [{"pbrMetallicRoughness": {"baseColorFactor": [1, 55 / 255, 0, 1]}}]
        tree["meshes"][0]["primitives"][0]["material"] = 0

    (tmp_path / "a.glb").write_bytes(trimesh.exchange.gltf.export_glb(other.scene(), tree_postprocessor=add))
    red = 0.7370 if coloured else 1  # half the light
    expected = np.broadcast_to([red, 0.5015, 0], (8, 3))
    np.testing.assert_allclose(read_mesh(tmp_path / "a.glb").colours, expected, atol=1e-3)


def tile(colours) -> trimesh.Trimesh:
    """Return a quad whose lower left quarter is dark, as trimesh's users see it: v runs up."""
    quad = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False)
    picture = Image.fromarray(np.asarray(colours, np.uint8))
    quad.visual = trimesh.visual.TextureVisuals([[0, 0], [1, 0], [1, 1], [0, 1]], image=picture)
    return quad


QUARTERS = [[[200, 0, 0], [0, 200, 0]], [[0, 0, 100], [0, 200, 200]]]


@pytest.mark.parametrize("suffix", [".glb", ".obj"])
def test_a_foreign_texture_is_the_right_way_up(tmp_path, suffix):
    quad = tile(np.kron(np.array(QUARTERS), np.ones((4, 4, 1))))
    quad.export(tmp_path / f"a{suffix}")
    mesh = read_mesh(tmp_path / f"a{suffix}")
    assert mesh.texture.shape == (8, 8, 3)
    assert mesh.colours is None
    face, weights = np.array([0, 0, 1]), np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    found = surface_colours(mesh, face, weights)
    np.testing.assert_allclose(found * 255, [[0, 0, 100], [0, 200, 200], [200, 0, 0]], atol=1)


def test_a_material_that_is_missing_gives_no_colours(tmp_path):
    """What trimesh puts in its place is grey."""
    (tmp_path / "a.obj").write_text("mtllib no.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n")
    back = read_mesh(tmp_path / "a.obj")
    assert (back.texture, back.uvs, back.colours) == (None, None, None)


def test_different_textures_become_vertex_colours(tmp_path):
    scene = trimesh.Scene([tile(np.full((4, 4, 3), 200)), tile(np.full((4, 4, 3), 100))])
    (tmp_path / "a.glb").write_bytes(scene.export(file_type="glb"))
    mesh = read_mesh(tmp_path / "a.glb")
    assert mesh.texture is None
    colours = np.sort(mesh.colours, axis=0) * 255  # objects come in any order
    np.testing.assert_allclose(colours, np.repeat([[100.0], [200]], [4, 4], axis=0).repeat(3, axis=1), atol=1e-4)


def textured() -> Mesh:
    """Return a ball with an atlas; its texture is what its places are."""
    mesh = unwrap(ball(False), 64)
    i, j = np.mgrid[:64, :48] / 64
    return replace(mesh, texture=np.stack([i, j, 0.5 + 0 * i], axis=2).astype(np.float32))


@pytest.mark.parametrize("suffix", TEXTURED)
def test_textures_come_back(tmp_path, suffix):
    mesh = textured()
    write_mesh(mesh, tmp_path / f"a b{suffix}")
    back = read_mesh(tmp_path / f"a b{suffix}")
    assert back.statistics() == mesh.statistics(), "no cuts along the seams"
    assert back.statistics().watertight
    assert np.abs(back.texture - mesh.texture).max() <= 0.5 / 255 + 1e-6
    # Faces may begin at another corner or come in another order, so compare places on the surface.
    weights = np.array([[0.5, 0.3, 0.2]]).repeat(len(mesh.faces), axis=0)
    there = [np.einsum("nk,nkx->nx", weights, m.vertices[m.faces]) for m in (mesh, back)]
    np.testing.assert_allclose(there[1], there[0], atol=1e-5)
    found = [surface_colours(m, np.arange(len(m.faces)), weights) for m in (mesh, back)]
    np.testing.assert_allclose(found[1], found[0], atol=0.01)
    assert nothing_half_written(tmp_path)
    names = {".obj": {"a b.obj", "a_b.mtl", "a_b_texture.png"}}.get(suffix, {f"a b{suffix}"})
    assert {file.name for file in tmp_path.iterdir()} == names


@pytest.mark.parametrize("suffix", TEXTURED)
def test_trimesh_sees_the_texture(tmp_path, suffix):
    mesh = textured()
    path = tmp_path / f"a{suffix}"
    write_mesh(mesh, path)
    if suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.namelist() == ["mesh_texture.png", "mesh.mtl", "mesh.obj"]
            archive.extractall(tmp_path)
        path = tmp_path / "mesh.obj"
    (other,) = trimesh.load_scene(path, process=False).geometry.values()
    picture = getattr(other.visual.material, "baseColorTexture", None) or other.visual.material.image
    assert picture.size == (48, 64)
    middle = other.visual.uv[other.faces].mean(axis=1)
    expected = surface_colours(mesh, np.arange(len(mesh.faces)), np.full((len(mesh.faces), 3), 1 / 3))
    seen = trimesh.visual.color.uv_to_interpolated_color(middle, picture)[:, :3] / 255
    np.testing.assert_allclose(seen, expected, atol=0.04)  # half a texel is 1/128, and trimesh takes texels' corners


def test_vertex_formats_sample_the_texture(tmp_path):
    mesh = textured()
    mesh = replace(mesh, texture=np.full_like(mesh.texture, 0.2))
    for suffix in (".ply", ".stl", ".3mf"):
        write_mesh(mesh, tmp_path / f"a{suffix}")
        back = read_mesh(tmp_path / f"a{suffix}")
        assert back.statistics().area == pytest.approx(mesh.statistics().area, rel=1e-5)
        assert back.texture is None
        if suffix == ".ply":
            np.testing.assert_allclose(back.colours, 0.2, atol=0.5 / 255)
        else:
            assert back.colours is None


def test_textured_glb_by_hand(tmp_path):
    uvs = np.array([[[0, 0], [1, 0], [0, 1]]], np.float32)
    picture = np.zeros((2, 2, 3), np.float32)
    picture[0, 1] = 1
    mesh = Mesh(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32), None, uvs, picture)
    write_mesh(mesh, tmp_path / "a.glb")
    data = (tmp_path / "a.glb").read_bytes()
    length = struct.unpack("<I", data[12:16])[0]
    tree, binary = json.loads(data[20 : 20 + length]), data[28 + length :]
    image = tree["bufferViews"][tree["images"][0]["bufferView"]]
    assert image["byteOffset"] % 4 == 0
    pixels = Image.open(io.BytesIO(binary[image["byteOffset"] :][: image["byteLength"]]))
    assert np.asarray(pixels)[..., 0].tolist() == [[0, 255], [0, 0]], "row 0 at the top, as glTF's v runs down"
    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    places = tree["bufferViews"][tree["accessors"][attributes["TEXCOORD_0"]]["bufferView"]]
    stored = np.frombuffer(binary[places["byteOffset"] :][: places["byteLength"]], "<f4").reshape(-1, 2)
    np.testing.assert_array_equal(stored[np.argsort(stored @ [1, 2])], uvs[0])
    assert "COLOR_0" not in attributes, "glTF would multiply them"
    assert tree["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"] == {"index": 0}


def test_zips_of_other_things(tmp_path):
    wrong = (
        ({"a.txt": "no"}, r"/a\.zip: it holds no \.obj file, but 1 \.txt"),
        ({}, "but nothing"),
        ({"../a.obj": "no"}, "unsafe"),
        ({"b/bad.obj": "no"}, rf"^{tmp_path}/a\.zip/b/bad\.obj: it holds no triangles"),
    )
    for content, match in wrong:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name, text in content.items():
                archive.writestr(name, text)
        with pytest.raises(InputError, match=match):
            read_mesh(tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="damaged zip"):
        read_mesh(tmp_path / "a.zip")


def test_glb_by_hand(tmp_path):
    """Chunks are padded, colours are linear floats, the material is no metal."""
    mesh = Mesh(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32), np.full((3, 3), 0.5, np.float32))
    write_mesh(mesh, tmp_path / "a.glb")
    data = (tmp_path / "a.glb").read_bytes()
    magic, version, length, json_length, json_type = struct.unpack("<4sIII4s", data[:20])
    assert (magic, version, length, json_type) == (b"glTF", 2, len(data), b"JSON")
    tree = json.loads(data[20 : 20 + json_length])
    binary_length, binary_type = struct.unpack("<I4s", data[20 + json_length : 28 + json_length])
    assert (binary_length, binary_type) == (36 + 12 + 36, b"BIN\0")
    assert length % 4 == json_length % 4 == 0
    colours = np.frombuffer(data[-36:], "<f4")
    np.testing.assert_allclose(colours, 0.21404114, rtol=1e-6)
    assert tree["materials"][0]["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert tree["accessors"][0]["max"] == [1, 1, 1]
    assert {"componentType": 5126, "type": "VEC3"}.items() <= tree["accessors"][2].items()


def test_obj_and_ply_colours_are_srgb(tmp_path):
    mesh = Mesh(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32), np.full((3, 3), 0.2, np.float32))
    write_mesh(mesh, tmp_path / "a.obj")
    assert "v 1.00000000 0.00000000 0.00000000 0.2" in (tmp_path / "a.obj").read_text()
    write_mesh(mesh, tmp_path / "a.ply")
    assert b"property uchar red" in (tmp_path / "a.ply").read_bytes()


def test_objects_of_a_scene_are_joined_where_they_stand(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box(), transform=trimesh.transformations.translation_matrix([10, 0, 0]))
    scene.add_geometry(trimesh.creation.icosphere(1), transform=np.diag([-1.0, 1, 1, 1]))
    (tmp_path / "a.glb").write_bytes(scene.export(file_type="glb"))
    mesh = read_mesh(tmp_path / "a.glb")
    s = mesh.statistics()
    assert (s.components, s.watertight) == (2, True)
    assert s.volume > 4, "a mirrored part is wound outward still"
    assert mesh.vertices[:, 0].max() == pytest.approx(10.5)
    assert mesh.colours is None


def test_polygons_and_foreign_obj(tmp_path):
    (tmp_path / "a.obj").write_text(
        "# quad\nmtllib none.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nusemtl x\nf 1 2 3 4\n"
    )
    assert read_mesh(tmp_path / "a.obj").statistics().area == pytest.approx(1)
    latin = (tmp_path / "a.obj").read_bytes().replace(b"# quad", "# Würfel".encode("latin-1"))
    (tmp_path / "a.obj").write_bytes(latin)
    assert read_mesh(tmp_path / "a.obj").statistics().area == pytest.approx(1)


PLY = "ply\nformat ascii 1.0\nelement vertex {v}\nproperty float x\nproperty float y\nproperty float z\n"
PLY += "element face {f}\nproperty list uchar int vertex_indices\nend_header\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.glb", b""),
        ("a.glb", b"glTF" + bytes(8)),
        ("a.glb", struct.pack("<4sIII4s", b"glTF", 2, 24, 4, b"JSON") + b"{}  "),
        ("a.glb", b"no glb at all, just text that is long enough"),
        ("a.obj", b""),
        ("a.obj", b"\xff\xfe\x00binary rubbish\x00"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n"),
        ("a.stl", b""),
        ("a.stl", b"solid nothing\nendsolid\n"),
        ("a.stl", bytes(80) + struct.pack("<I", 1000) + bytes(50)),
        ("a.ply", b"ply\n"),
        ("a.ply", PLY.format(v=3, f=1).encode() + b"0 0 0\n1 0 0\n"),
        ("a.ply", PLY.format(v=3, f=1).encode() + b"0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n"),
        ("a.ply", PLY.format(v=3, f=1).encode() + b"0 0 0\n1 0 nan\n0 1 0\n3 0 1 2\n"),
        ("a.ply", PLY.format(v=3, f=0).encode() + b"0 0 0\n1 0 0\n0 1 0\n"),
    ],
)
def test_broken_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        read_mesh(tmp_path / name)
    assert error.value.code == "broken-file"
    assert name in error.value.message
    assert error.value.hint


@pytest.mark.parametrize("suffix", [".glb", ".stl", ".ply"])
def test_every_cut_is_noticed(tmp_path, suffix):
    write_mesh(ball(), tmp_path / f"a{suffix}")
    whole = (tmp_path / f"a{suffix}").read_bytes()
    for size in range(0, len(whole) - 1, len(whole) // 12):
        (tmp_path / f"b{suffix}").write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_mesh(tmp_path / f"b{suffix}")


def test_bad_meshes_and_places(tmp_path):
    with pytest.raises(InputError, match="no faces"):
        write_mesh(Mesh(np.zeros((3, 3), np.float32), np.zeros((0, 3), np.int32)), tmp_path / "a.glb")
    with pytest.raises(InputError, match="no mesh format"):
        write_mesh(ball(), tmp_path / "a.fbx")
    with pytest.raises(InputError, match="no mesh format"):
        read_mesh(tmp_path / "a")
    with pytest.raises(InputError, match="cannot be read"):
        read_mesh(tmp_path / "a.glb")
    (tmp_path / "b.glb").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_mesh(ball(), tmp_path / "b.glb")
    assert nothing_half_written(tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("name", ["flexicubes/block.obj", "spot_textured"])
def test_real_meshes(shared_data, tmp_path, name):
    path = shared_data / "meshes" / name
    path = path if path.is_file() else next(path.glob("*.obj"))
    mesh = read_mesh(path)
    assert repair(mesh).statistics().watertight
    for suffix in FORMATS:
        write_mesh(mesh, tmp_path / f"a{suffix}")
        assert read_mesh(tmp_path / f"a{suffix}").statistics().area == pytest.approx(mesh.statistics().area, rel=1e-5)
