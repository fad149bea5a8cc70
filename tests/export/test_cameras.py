"""Camera poses written for other tools, and read back by them."""

import json

import numpy as np
import pycolmap
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from recon.capture.capture import Camera, Points, View
from recon.capture.load import load
from recon.errors import InputError
from recon.events import Events
from recon.export.cameras import read_transforms, write_colmap, write_transforms


def some_views(count=5, same_lens=True, held_out=()):
    rng = np.random.default_rng(2)
    views = []
    for i in range(count):
        viewmat = np.eye(4)
        viewmat[:3, :3], viewmat[:3, 3] = Rotation.random(rng=rng).as_matrix(), rng.normal(size=3) * 5
        K = np.array([[50.25 + (0 if same_lens else i), 0, 31.5], [0, 51, 24.75], [0, 0, 1]])
        camera = Camera(viewmat, K, 64, 48)
        views.append(View(f"images/{i:03}.png", 64, 48, lambda: None, camera, held_out=i in held_out))
    return views


def photos(folder, views):
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for view in views:
        Image.fromarray(rng.integers(0, 255, (view.height, view.width, 3), np.uint8)).save(folder / view.name)


def assert_same_cameras(capture, views):
    assert [v.name.removeprefix("images/") for v in capture.views] == [v.name.removeprefix("images/") for v in views]
    for got, view in zip(capture.views, views, strict=True):
        np.testing.assert_allclose(got.camera.viewmat, view.camera.viewmat, atol=1e-9)
        np.testing.assert_allclose(got.camera.K, view.camera.K, atol=1e-9)
        assert (got.camera.width, got.camera.height) == (64, 48)


@pytest.mark.parametrize("same_lens", [True, False])
def test_transforms_come_back(tmp_path, same_lens):
    views = some_views(5, same_lens, held_out=(1, 4))
    photos(tmp_path, views)
    write_transforms(views, tmp_path / "transforms.json")
    capture = load(tmp_path, Events(), tmp_path / "work")
    assert_same_cameras(capture, views)
    assert [v.held_out for v in capture.views] == [False, True, False, False, True]
    content = read_transforms(tmp_path / "transforms.json")
    assert ("fl_x" in content) == same_lens


def test_transforms_by_hand(tmp_path):
    """An OpenCV camera at (0, 0, −3) looking along +z looks along its own −z in OpenGL."""
    viewmat = np.eye(4)
    viewmat[2, 3] = 3
    view = View("a.png", 8, 6, lambda: None, Camera(viewmat, np.array([[4.0, 0, 4], [0, 5, 3], [0, 0, 1]]), 8, 6))
    unposed = View("b.png", 8, 6, lambda: None)
    write_transforms([view, unposed], tmp_path / "new" / "transforms.json")
    assert json.loads((tmp_path / "new" / "transforms.json").read_text()) == {
        "camera_model": "PINHOLE",
        **{"fl_x": 4, "fl_y": 5, "cx": 4, "cy": 3, "w": 8, "h": 6},
        "frames": [
            {
                "file_path": "a.png",
                "transform_matrix": [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, -3], [0, 0, 0, 1]],
            }
        ],
    }


@pytest.mark.parametrize("kind", ["bin", "txt"])
def test_colmap_comes_back(tmp_path, kind):
    views = some_views(5, same_lens=False)
    photos(tmp_path, views)
    rng = np.random.default_rng(1)
    points = Points(rng.normal(size=(20, 3)), rng.integers(0, 256, (20, 3)).astype(np.float32) / 255)
    sparse = tmp_path / "sparse" / "0"
    write_colmap([*views, View("images/none.png", 64, 48, lambda: None)], sparse, points)
    assert not list(sparse.glob(".*"))
    for file in sparse.iterdir():
        if file.suffix != f".{kind}":
            file.unlink()
    model = pycolmap.Reconstruction(str(sparse))
    assert model.num_reg_images() == 5
    assert len(model.cameras) == 5
    by_name = {image.name: image for image in model.images.values()}
    for view in views:
        image = by_name[view.name]
        np.testing.assert_allclose(image.cam_from_world().matrix(), view.camera.viewmat[:3], atol=1e-9)
        np.testing.assert_allclose(model.cameras[image.camera_id].calibration_matrix(), view.camera.K, atol=1e-9)
    capture = load(tmp_path, Events(), tmp_path / "work")
    assert_same_cameras(capture, views)
    order = np.argsort(capture.points.xyz[:, 0])
    expected = np.argsort(points.xyz[:, 0])
    np.testing.assert_allclose(capture.points.xyz[order], points.xyz[expected], atol=1e-9)
    np.testing.assert_allclose(capture.points.rgb[order], points.rgb[expected], atol=1e-6)


def test_one_lens_is_one_colmap_camera_and_strangers_stay(tmp_path):
    (tmp_path / "photo.jpg").write_text("somebody's")
    write_colmap(some_views(4), tmp_path)
    write_colmap(some_views(3), tmp_path)
    model = pycolmap.Reconstruction(str(tmp_path))
    assert (len(model.cameras), model.num_reg_images(), len(model.points3D)) == (1, 3, 0)
    assert (tmp_path / "photo.jpg").read_text() == "somebody's"


def test_no_cameras_and_bad_places(tmp_path):
    unposed = [View("a.png", 8, 6, lambda: None)]
    (tmp_path / "file").write_text("in the way")
    for write in (write_transforms, write_colmap):
        with pytest.raises(InputError, match="No photo has a camera"):
            write(unposed, tmp_path / "x")
        with pytest.raises(InputError, match="cannot be written"):
            write(some_views(1), tmp_path / "file" / "x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"frames": 3}'])
def test_broken_transforms(tmp_path, content):
    (tmp_path / "transforms.json").write_text(content)
    with pytest.raises(InputError) as error:
        read_transforms(tmp_path / "transforms.json")
    assert error.value.code == "broken-file"
