"""Templates: what is read, and which meshes cannot be bent."""

import numpy as np
import pytest
import trimesh
from deform_scenes import HEIGHT, WIDTH, K, obj_text, sheet, square
from PIL import Image

from recon.capture.capture import Camera
from recon.capture.template import read_template
from recon.capture.template_axes import in_view, overlap, place_template
from recon.errors import InputError


def write(path, *mesh, **more):
    path.write_text(obj_text(*mesh, **more))
    return path


def refused(path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_template(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("head", ["", "mtllib lost.mtl\nusemtl cloth"])
def test_a_texture_beside_it_is_taken(tmp_path, head):
    vertices, faces, uvs = sheet()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "texture.png")
    template = read_template(write(tmp_path / "a.obj", vertices, faces, uvs, head))
    np.testing.assert_allclose(template.vertices, vertices, atol=1e-7)
    np.testing.assert_array_equal(template.faces, faces)
    np.testing.assert_allclose(template.uvs, uvs[faces], atol=1e-6)
    np.testing.assert_allclose(template.texture, pixels / 255, atol=1e-6)
    assert template.warnings == ()


def test_without_a_texture_its_places_stay(tmp_path):
    template = read_template(write(tmp_path / "a.obj", *sheet()))
    assert template.texture is None
    np.testing.assert_allclose(template.uvs, sheet()[2][sheet()[1]], atol=1e-6)


def test_the_materials_texture_comes_first(tmp_path):
    (tmp_path / "a.mtl").write_text("newmtl cloth\nmap_Kd own.png\n")
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "own.png")
    Image.new("RGB", (4, 4), (0, 255, 0)).save(tmp_path / "texture.png")
    template = read_template(write(tmp_path / "a.obj", *sheet(), head="mtllib a.mtl\nusemtl cloth"))
    np.testing.assert_array_equal(template.texture[0, 0], [1, 0, 0])


def test_a_texture_without_places_is_said_not_to_be_used(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "texture.png")
    template = read_template(write(tmp_path / "a.obj", *sheet()[:2]))
    assert (template.uvs, template.texture) == (None, None)
    (warning,) = template.warnings
    assert "a.obj has no texture coordinates" in warning


def test_parts_are_warned_of(tmp_path):
    vertices, faces, _ = sheet()
    template = read_template(
        write(tmp_path / "a.obj", np.concatenate([vertices, vertices + 5]), np.concatenate([faces, faces + 25]))
    )
    assert len(template.faces) == 64
    assert "2 parts" in template.warnings[0]


def test_a_seam_is_no_border(tmp_path):
    """GLB and STL repeat vertices along seams, and at each corner."""
    trimesh.creation.icosphere(1).export(tmp_path / "a.stl")
    template = read_template(tmp_path / "a.stl")
    assert len(template.vertices) == 42
    assert template.warnings == ()


def test_meshes_that_cannot_be_bent(tmp_path):
    vertices, faces, uvs = sheet()
    fin = np.concatenate([vertices, [[0.3, 0.15, 2]]])
    error = refused(write(tmp_path / "a.obj", fin, np.concatenate([faces, [[12, 13, 25]]])))
    assert error.code == "non-manifold-template"
    assert "1 edges have more than two faces" in error.message
    assert "vertices 12 and 13 at [0.3, 0.15, 1.0]" in error.message
    flat = np.concatenate([faces[:7], [[0, 1, 2]], faces[7:]])
    error = refused(write(tmp_path / "a.obj", vertices, flat))
    assert error.code == "flat-template-faces"
    assert "1 of 33 faces have no area, number 7" in error.message
    for wrong in (np.nan, np.inf, 1e60):
        bad = vertices.copy()
        bad[3, 1] = wrong
        assert refused(write(tmp_path / "a.obj", bad, faces)).code == "broken-file"
    uvs[2] = np.nan
    assert "texture coordinate" in refused(write(tmp_path / "a.obj", vertices, faces, uvs)).message
    assert "no triangles" in refused(write(tmp_path / "a.obj", vertices, faces[:0])).message
    assert refused(tmp_path / "a.off").code == "bad-format"
    assert refused(tmp_path / "absent.obj").code == "cannot-read"
    (tmp_path / "a.glb").write_bytes(b"glTF nonsense")
    assert refused(tmp_path / "a.glb").code == "broken-file"


CAMERA = Camera(np.eye(4), K, WIDTH, HEIGHT)
FACES = sheet()[1].astype(np.int32)


def placed(turn, mask=None):
    vertices = sheet()[0].astype(np.float32)
    got, told = place_template(vertices * np.array(turn, np.float32), FACES, CAMERA, mask)
    return np.abs(np.array(turn) * got - 1).max(), told


def test_overlap_by_hand():
    """The sheet of 32 × 32 pixels against itself, against its right half, and behind the camera."""
    vertices, mask = sheet()[0].astype(np.float32), square().astype(np.float32) / 255
    assert overlap(vertices, FACES, CAMERA, mask) == 1
    half = mask.copy()
    half[:, :72] = 0
    assert overlap(vertices, FACES, CAMERA, half) == 0.5
    assert overlap(-vertices, FACES, CAMERA, mask) == 0
    assert overlap(vertices, FACES, CAMERA, 0 * mask) == 0
    assert in_view(vertices - np.float32([0.15, 0, 0]), CAMERA) == 1
    # Its columns lie at x = 56, 64, 72, 80 and 88 pixels; 1/8 to the right are 10 more.
    assert in_view(vertices + np.float32([0.125, 0, 0]), CAMERA) == 0.8
    assert in_view(-vertices, CAMERA) == 0


@pytest.mark.parametrize("turn", [(-1, -1, 1), (1, -1, -1), (-1, 1, -1)])
def test_axes_are_found_by_the_mask(turn):
    mask = square().astype(np.float32) / 255
    assert placed((1, 1, 1), mask) == (0, [])
    error, (told,) = placed(turn, mask)
    assert error == 0
    assert "negated" in told
    assert "100%, as it stands by 0%" in told


def test_without_a_mask_only_what_is_not_seen_is_turned():
    assert placed((1, 1, 1)) == (0, [])
    error, (told,) = placed((1, -1, -1))
    assert error == 0
    assert "OpenGL" in told


def test_a_sheet_about_its_own_half_turn_stays():
    vertices = sheet()[0].astype(np.float32) - np.float32([0.3, 0.15, 0])
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    mask[16:48, 32:63] = 1  # a column narrower, so that the half turn is no worse
    got, told = place_template(vertices, FACES, CAMERA, mask)
    assert got == (1, 1, 1)
    assert told == []


@pytest.mark.parametrize("mask", [square() / np.float32(255), None])
def test_a_template_elsewhere(mask):
    vertices = sheet()[0].astype(np.float32) + np.float32([5, 0, 0])
    with pytest.raises(InputError, match="does not lie where") as caught:
        place_template(vertices, FACES, CAMERA, mask)
    assert caught.value.code == "template-elsewhere"


@pytest.mark.data
def test_real_template(shared_data):
    """Its material is missing, its texture lies beside it."""
    template = read_template(shared_data / "cloth_r1" / "template.obj")
    assert (len(template.vertices), len(template.faces)) == (1024, 1922)
    assert template.texture.shape == (1080, 1920, 3)
    assert template.warnings == ()
