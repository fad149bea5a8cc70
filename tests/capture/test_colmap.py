from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from capture_scenes import make_photos
from PIL import Image

from recon.capture.capture import Capture
from recon.capture.colmap import read_model
from recon.capture.load import load
from recon.errors import InputError
from recon.events import Events


@pytest.fixture(scope="module")
def reconstruction() -> pycolmap.Reconstruction:
    """A synthetic model of 6 photos of 64 × 48 and 40 points, names with a space in them."""
    pycolmap.set_random_seed(3)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 1, 1, 6, 40
    options.camera_width, options.camera_height = 64, 48
    options.camera_model_id = pycolmap.CameraModelId.SIMPLE_RADIAL
    options.camera_params = [50.0, 32.0, 24.0, -0.05]
    model = pycolmap.synthesize_dataset(options)
    for number, image in enumerate(model.images.values()):
        image.name = f"{number:03d} a.jpg"
    return model


def write(model: pycolmap.Reconstruction, folder: Path, text: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (model.write_text if text else model.write_binary)(folder)
    return folder


def photos(folder: Path, count: int = 6) -> None:
    for path in make_photos(folder, count):
        path.rename(path.with_name(f"{path.stem} a.jpg"))


def load_quietly(path: Path) -> Capture:
    return load(path, Events(), path.parent / "work")


def failure(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_quietly(path)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("text", [False, True])
def test_our_reader_agrees_with_pycolmap(reconstruction: pycolmap.Reconstruction, tmp_path: Path, text: bool) -> None:
    lenses, images, points = read_model(write(reconstruction, tmp_path / "model", text), [])
    assert {key: (lens.model, lens.width, lens.height) for key, lens in lenses.items()} == {
        key: (camera.model.name, camera.width, camera.height) for key, camera in reconstruction.cameras.items()
    }
    for key, lens in lenses.items():
        assert np.allclose(lens.params, reconstruction.cameras[key].params)
    expected = {image.name: image for image in reconstruction.images.values()}
    assert sorted(image.name for image in images) == sorted(expected)
    for image in images:
        assert np.allclose(image.viewmat[:3], expected[image.name].cam_from_world().matrix(), atol=1e-9)
    assert points is not None
    found = points.xyz[np.lexsort(points.xyz.T)]
    known = np.array([point.xyz for point in reconstruction.points3D.values()])
    assert np.allclose(found, known[np.lexsort(known.T)])
    assert sorted(map(tuple, (points.rgb * 255).round().astype(int))) == sorted(
        tuple(map(int, point.color)) for point in reconstruction.points3D.values()
    )


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("model", "folder"),
    [("sparse/0", "images"), ("sparse", "images"), ("colmap/sparse/0", "images"), ("", "images"), ("sparse/0", "")],
)
def test_usual_layouts(
    reconstruction: pycolmap.Reconstruction, tmp_path: Path, model: str, folder: str, text: bool
) -> None:
    root = tmp_path / "in"
    write(reconstruction, root / model, text)
    photos(root / folder)
    capture = load_quietly(root)
    assert (capture.kind, len(capture.views), capture.has_poses, capture.warnings) == ("colmap", 6, True, ())
    assert capture.views[2].name == (f"{folder}/" if folder else "") + "002 a.jpg"
    assert capture.points is not None
    # Each point is projected where COLMAP observed it, up to the lens's distortion, which is gone: it is in front.
    for view in capture.views:
        assert view.camera is not None
        depths = view.camera.viewmat[2, :3] @ capture.points.xyz.T + view.camera.viewmat[2, 3]
        assert (depths > 0).all()
        assert view.load().rgb.shape == (view.height, view.width, 3)


def test_observations_project_to_where_they_were_seen(reconstruction: pycolmap.Reconstruction, tmp_path: Path) -> None:
    root = tmp_path / "in"
    photos(root / "images")
    plain = pycolmap.Reconstruction(reconstruction)
    for camera in plain.cameras.values():
        camera.params = [50.0, 32.0, 24.0, 0.0]
    write(plain, root / "sparse" / "0")
    views = {view.name.removeprefix("images/"): view for view in load_quietly(root).views}
    for image in plain.images.values():
        camera = views[image.name].camera
        assert camera is not None
        for point in plain.points3D.values():
            x = camera.K @ (camera.viewmat[:3] @ [*point.xyz, 1])
            assert np.allclose(x[:2] / x[2], image.project_point(point.xyz), atol=1e-6)


def test_the_largest_of_several_models(reconstruction: pycolmap.Reconstruction, tmp_path: Path) -> None:
    root = tmp_path / "in"
    photos(root / "images")
    small = pycolmap.Reconstruction(reconstruction)
    for frame in list(small.reg_frame_ids())[:4]:
        small.deregister_frame(frame)
    write(small, root / "sparse" / "0")
    write(reconstruction, root / "sparse" / "1")
    capture = load_quietly(root)
    assert len(capture.views) == 6
    assert "Used the largest of 2 COLMAP models: 1, photos: 6." in capture.warnings


def test_resampled_photos_masks_and_photos_without_a_pose(
    reconstruction: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    root = tmp_path / "in"
    write(reconstruction, root / "sparse")
    photos(root / "images")
    for path in (root / "images").iterdir():
        Image.open(path).resize((128, 96)).save(path)
    Image.new("RGB", (64, 48)).save(root / "images" / "extra.jpg")
    (root / "images" / "005 a.jpg").unlink()
    (root / "masks").mkdir()
    Image.new("L", (128, 96), 255).save(root / "masks" / "000 a.jpg.png")
    capture = load_quietly(root)
    assert len(capture.views) == 5
    camera = capture.views[0].camera
    assert camera is not None
    assert camera.K[0, 0] == pytest.approx(100, rel=0.05)
    mask = capture.views[0].load().mask
    assert mask is not None
    assert mask.min() == 1
    assert capture.warnings[:2] == (
        "Photos of the COLMAP model that are missing (1): 005 a.jpg.",
        "Photos in images without a pose, left out: 1.",
    )


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("stem", ["cameras", "images"])
def test_missing_files(reconstruction: pycolmap.Reconstruction, tmp_path: Path, stem: str, text: bool) -> None:
    root = tmp_path / "in"
    name = stem + (".txt" if text else ".bin")
    (write(reconstruction, root / "sparse" / "0", text) / name).unlink()
    photos(root / "images")
    error = failure(root)
    assert f"has no {name}" in error.message
    assert error.code == "colmap-incomplete"


@pytest.mark.parametrize("stem", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.6, 0.97, "garbage"])
def test_cut_short(reconstruction: pycolmap.Reconstruction, tmp_path: Path, stem: str, keep: float | str) -> None:
    root = tmp_path / "in"
    file = write(reconstruction, root / "sparse" / "0") / f"{stem}.bin"
    photos(root / "images")
    data = file.read_bytes()
    file.write_bytes(b"\xff" * len(data) if isinstance(keep, str) else data[: int(keep * len(data))])
    if stem == "points3D":
        capture = load_quietly(root)
        assert capture.points is None
        assert "points3D.bin is damaged or cut short" in capture.warnings[0]
    else:
        error = failure(root)
        assert f"{stem}.bin of the COLMAP model" in error.message
        assert error.code == "colmap-damaged"


@pytest.mark.parametrize("stem", ["cameras", "images", "points3D"])
def test_text_that_is_none(reconstruction: pycolmap.Reconstruction, tmp_path: Path, stem: str) -> None:
    root = tmp_path / "in"
    file = write(reconstruction, root / "sparse" / "0", text=True) / f"{stem}.txt"
    photos(root / "images")
    file.write_text("hello world, this is some other file\n" * 3)
    if stem == "points3D":
        assert "points3D.txt is damaged" in load_quietly(root).warnings[0]
    else:
        assert failure(root).code == "colmap-damaged"


def test_no_photo_of_the_model_is_here(reconstruction: pycolmap.Reconstruction, tmp_path: Path) -> None:
    root = tmp_path / "in"
    write(reconstruction, root / "sparse" / "0")
    make_photos(root / "images", 3)
    error = failure(root)
    assert "None of the photos of the COLMAP model" in error.message
    assert "000 a.jpg" in error.message


def test_points_are_optional_and_colmap_points_follow_the_applied_transform(
    reconstruction: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    from capture_scenes import make_transforms

    root = tmp_path / "in"
    model = write(reconstruction, root / "colmap" / "sparse" / "0")
    applied = [[0.0, 1, 0, 1], [1, 0, 0, 2], [0, 0, -1, 3]]
    make_transforms(root, applied_transform=applied)
    points = load_quietly(root).points
    assert points is not None
    known = np.array([point.xyz for point in reconstruction.points3D.values()])
    expected = np.stack([known[:, 1] + 1, known[:, 0] + 2, 3 - known[:, 2]], 1)
    assert np.allclose(points.xyz[np.lexsort(points.xyz.T)], expected[np.lexsort(expected.T)])
    (root / "transforms.json").unlink()
    shutil.rmtree(root / "images")
    photos(root / "images")
    (model / "points3D.bin").unlink()
    assert load_quietly(root).points is None
