"""Meshes as clouds: what their points are coloured like, and where textures are found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh
from capture_scenes import make_photos
from PIL import Image

from recon.capture.capture import Points
from recon.capture.load import load
from recon.errors import InputError
from recon.events import Events

QUARTERS = np.array([[[200, 0, 0], [0, 200, 0]], [[0, 0, 100], [0, 200, 200]]], np.uint8)
"""A texture whose first row is at the top."""


def points_of(path: Path) -> Points:
    capture = load(path, Events(), path.parent / "work")
    assert capture.kind == "surface"
    assert capture.points is not None
    return capture.points


def quad(**visual: object) -> trimesh.Trimesh:
    """Return the unit square at z = 0 with texture coordinates like its own, v running up as trimesh has it."""
    made = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False)
    made.visual = trimesh.visual.TextureVisuals([[0, 0], [1, 0], [1, 1], [0, 1]], **visual)
    return made


def tile(size: int = 8) -> trimesh.Trimesh:
    return quad(image=Image.fromarray(np.kron(QUARTERS, np.ones((size // 2, size // 2, 1), np.uint8))))


def write(folder: Path, suffix: str) -> Path:
    folder.mkdir()
    tile().export(folder / f"a{suffix}")
    return folder / f"a{suffix}"


def check_quarters(points: Points) -> None:
    """Each quarter shows its colour, but for half a texel at the borders."""
    x, y = points.xyz[:, :2].T
    inside = (np.abs([x % 0.5 - 0.25, y % 0.5 - 0.25]) < 0.18).all(axis=0)
    assert inside.sum() > 30_000
    expected = QUARTERS[(y < 0.5).astype(int), (x > 0.5).astype(int)] / 255
    np.testing.assert_allclose(points.rgb[inside], expected[inside], atol=2 / 255)


@pytest.mark.parametrize("suffix", [".obj", ".glb"])
def test_a_texture_colours_the_points(tmp_path: Path, suffix: str) -> None:
    check_quarters(points_of(write(tmp_path / "in", suffix)))


@pytest.mark.parametrize("packed", [False, True])
def test_an_obj_with_its_texture_in_a_folder_or_a_zip(tmp_path: Path, packed: bool) -> None:
    folder = write(tmp_path / "in", ".obj").parent
    assert {path.suffix for path in folder.iterdir()} == {".obj", ".mtl", ".png"}
    source = Path(shutil.make_archive(str(tmp_path / "in"), "zip", tmp_path, "in")) if packed else folder
    check_quarters(points_of(source))


def test_an_image_that_no_material_names_is_a_photo(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", ".obj").parent
    make_photos(folder, 2)
    assert load(folder, Events(), tmp_path / "work").kind == "photos"


def test_a_texture_in_another_folder_is_not_looked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "in", ".obj")
    (tmp_path / "secret.png").write_bytes(next(path.parent.glob("*.png")).read_bytes())
    material = next(path.parent.glob("*.mtl"))
    name = next(path.parent.glob("*.png")).name
    material.write_text(material.read_text().replace(name, "../secret.png"))
    assert not points_of(path).coloured


def test_a_gigantic_texture_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Callable[..., None]
) -> None:
    limits(max_megapixels=1e-5)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match="megapixels") as caught:
        points_of(write(tmp_path / "in", ".obj"))
    assert caught.value.code == "image-too-large"


@pytest.mark.parametrize("material", [False, True])
def test_vertex_colours_of_a_glb_are_linear_light(tmp_path: Path, material: bool) -> None:
    box = trimesh.creation.box()
    box.visual.vertex_colors = np.full((8, 4), [255, 55, 0, 255], np.uint8)

    def add(tree: dict) -> None:
        if material:
            tree["materials"] = [{}]
            tree["meshes"][0]["primitives"][0]["material"] = 0

    data = trimesh.exchange.gltf.export_glb(trimesh.Scene(box), tree_postprocessor=add)
    (tmp_path / "a.glb").write_bytes(data)
    np.testing.assert_allclose(points_of(tmp_path / "a.glb").rgb, [[1, 0.5015, 0]] * 100_000, atol=2e-3)
    box.export(tmp_path / "a.ply")  # sRGB, as everybody writes it there
    np.testing.assert_allclose(points_of(tmp_path / "a.ply").rgb, [[1, 55 / 255, 0]] * 100_000, atol=1e-6)


def test_objects_stand_where_the_scene_puts_them_each_in_its_colours(tmp_path: Path) -> None:
    plain = trimesh.creation.box()
    scene = trimesh.Scene([tile()])
    scene.add_geometry(plain, transform=trimesh.transformations.translation_matrix([10, 0, 0]))
    (tmp_path / "a.glb").write_bytes(scene.export(file_type="glb"))
    points = points_of(tmp_path / "a.glb")
    far = points.xyz[:, 0] > 5
    assert far.mean() == pytest.approx(6 / 7, abs=0.01), "as large as its area"
    np.testing.assert_array_equal(points.rgb[far], 0.5)
    assert np.ptp(points.rgb[~far], axis=0).min() > 0.7


def test_the_same_file_gives_the_same_points(tmp_path: Path) -> None:
    path = write(tmp_path / "in", ".obj")
    np.testing.assert_array_equal(points_of(path).xyz, points_of(path).xyz)
