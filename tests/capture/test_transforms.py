from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from capture_scenes import make_photos, make_transforms, ring_frames, ring_pose, write_json
from PIL import Image

from recon.capture.capture import Capture
from recon.capture.load import load
from recon.capture.transforms import viewmat_of
from recon.errors import InputError
from recon.events import Events


def load_quietly(path: Path) -> Capture:
    return load(path, Events(), path.parent / "work")


def failure(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        load_quietly(path)
    assert caught.value.hint
    return caught.value


def test_opengl_camera_to_world_becomes_opencv_world_to_camera() -> None:
    # A camera at (1, 2, 3), OpenGL axes along the world's: it looks along −z with y up.
    pose = np.eye(4)
    pose[:3, 3] = (1, 2, 3)
    viewmat = viewmat_of(pose.tolist())
    assert np.allclose(viewmat @ [1, 2, 3, 1], [0, 0, 0, 1])
    assert np.allclose(viewmat @ [1, 2, 1, 1], [0, 0, 2, 1])  # two ahead
    assert np.allclose(viewmat @ [1, 3, 3, 1], [0, -1, 0, 1])  # one above
    assert np.allclose(viewmat @ [2, 2, 3, 1], [1, 0, 0, 1])  # one to the right
    assert np.allclose(viewmat_of(pose[:3].tolist()), viewmat)


def test_scale_and_rounding_of_a_rotation_are_repaired() -> None:
    pose = ring_pose(0.7)
    exact = viewmat_of(pose)
    scaled = pose.copy()
    scaled[:3, :3] *= 3
    assert np.allclose(viewmat_of(scaled), exact)
    rounded = viewmat_of(pose.round(3))
    assert np.allclose(rounded[:3, :3] @ rounded[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.allclose(rounded, exact, atol=5e-3)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.diag([1.0, 1, 0, 1]), "singular"),
        (np.diag([1.0, 1, -1, 1]), "reflection"),
        (np.diag([1.0, 2, 3, 1]), "not a rotation"),
        (np.zeros((4, 4)), "singular"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.eye(2), "not 4 × 4"),
        ("abc", "not made of numbers"),
        (None, "not 4 × 4|not finite"),
        ([[1, 2], [3]], "not made of numbers"),
    ],
)
def test_matrices_that_are_no_pose(matrix: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        viewmat_of(matrix)


def test_cameras_and_points(tmp_path: Path) -> None:
    xyz = np.array([[0.0, 0, 0], [1, 2, 3]])
    tmp_path.joinpath("in").mkdir()
    trimesh.PointCloud(xyz, colors=[[255, 0, 0, 255], [0, 51, 0, 255]]).export(tmp_path / "in" / "points.ply")
    make_transforms(
        tmp_path / "in", ply_file_path="points.ply", aabb_scale=16, applied_transform=np.eye(4)[:3].tolist()
    )
    capture = load_quietly(tmp_path / "in")
    assert (capture.kind, capture.has_poses, capture.own_split) == ("transforms", True, False)
    camera = capture.views[1].camera
    assert camera is not None
    assert np.allclose(camera.K, [[50, 0, 31], [0, 52, 25], [0, 0, 1]])
    assert np.allclose(camera.position, [4 * math.cos(0.3), 4 * math.sin(0.3), 1])
    ahead = camera.viewmat @ [0, 0, 0, 1]  # the origin, which it looks at
    assert np.allclose(ahead, [0, 0, math.sqrt(17), 1])
    assert capture.points is not None
    assert np.allclose(capture.points.xyz, xyz)
    assert np.allclose(capture.points.rgb, [[1, 0, 0], [0, 0.2, 0]])


def test_intrinsics_in_every_spelling(tmp_path: Path) -> None:
    half = math.atan(0.5)

    def K(name: str, **fields: Any) -> list[float]:
        make_transforms(tmp_path / name, 2, **fields)
        camera = load_quietly(tmp_path / name).views[0].camera
        assert camera is not None
        return [camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]]

    bare = {"w": None, "h": None, "cx": None, "cy": None, "fl_x": None, "fl_y": None}
    assert np.allclose(K("angle", **{**bare, "camera_angle_x": 2 * half}), [64, 64, 32, 24])
    assert np.allclose(
        K("angles", **{**bare, "camera_angle_x": 2 * half, "camera_angle_y": 2 * half}), [64, 48, 32, 24]
    )
    assert np.allclose(K("one", **{**bare, "fl_x": 70}), [70, 70, 32, 24])
    assert np.allclose(K("simple", camera_model="SIMPLE_PINHOLE", fl_y=None), [50, 50, 31, 25])
    # Calibrated at twice the size of the photos that are here.
    assert np.allclose(K("resampled", w=128, h=96, fl_x=100, fl_y=104, cx=62, cy=50), [50, 52, 31, 25])


def test_a_frame_has_the_last_word_on_its_camera(tmp_path: Path) -> None:
    data = make_transforms(tmp_path / "in", 2)
    data["frames"][1] |= {"fl_x": 99.0}
    write_json(tmp_path / "in" / "transforms.json", data)
    focals = [view.camera.K[0, 0] for view in load_quietly(tmp_path / "in").views if view.camera]
    assert focals == [50, 99]


@pytest.mark.parametrize(
    "fields",
    [
        {"camera_model": "OPENCV", "k1": -0.1, "k2": 0.01, "p1": 1e-3, "p2": 1e-3},
        {"k1": -0.1, "k2": 0.01, "k3": 0.01},
        {"camera_model": "OPENCV_FISHEYE", "k1": 0.01},
        {"is_fisheye": True},
    ],
)
def test_distortion_is_removed_from_camera_and_pixels(tmp_path: Path, fields: dict[str, Any]) -> None:
    make_transforms(tmp_path / "in", 2, **fields)
    for view in load_quietly(tmp_path / "in").views:
        assert view.camera is not None
        assert (view.width, view.height) == (view.camera.width, view.camera.height) != (64, 48)
        assert view.load().rgb.shape == (view.height, view.width, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"camera_model": "EQUIRECTANGULAR"}, "camera model EQUIRECTANGULAR"),
        ({"camera_model": "VR180_L"}, "camera model VR180_L"),
        ({"is_equirectangular": True}, "is_equirectangular"),
        ({"k4": 0.1}, "OPENCV with k4"),
        ({"fl_x": None, "fl_y": None}, 'neither "fl_x" nor "camera_angle_x"'),
        ({"fl_x": "wide"}, "no number under \"fl_x\", but 'wide'"),
        ({"fl_x": -50.0}, "impossible parameters"),
    ],
)
def test_cameras_that_cannot_be_used(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    make_transforms(tmp_path / "in", **fields)
    assert message in failure(tmp_path / "in").message


def test_masks_named_by_frames_and_by_folder(tmp_path: Path) -> None:
    data = make_transforms(tmp_path / "in", 3)
    for folder, name in (("segmentation", "own.png"), ("masks", "001.png")):
        (tmp_path / "in" / folder).mkdir()
        Image.new("L", (64, 48)).save(tmp_path / "in" / folder / name)
    data["frames"][0]["mask_path"] = "segmentation/own.png"
    write_json(tmp_path / "in" / "transforms.json", data)
    capture = load_quietly(tmp_path / "in")
    masks = [view.load().mask for view in capture.views]
    assert [None if mask is None else mask.max() for mask in masks] == [0, 0, None]
    assert "Photos without a mask, used whole (1 of 3): 002.jpg." in capture.warnings


def test_exif_orientation_follows_the_calibrated_size(tmp_path: Path) -> None:
    root = tmp_path / "in"
    paths = make_photos(root / "images", 2)
    for path in paths:
        image = Image.open(path)
        exif = image.getexif()
        exif[274] = 6  # shown as 48 × 64
        image.save(path, exif=exif)
    camera = {"fl_x": 50.0, "w": 64, "h": 48}
    write_json(root / "transforms.json", {**camera, "frames": ring_frames(paths, root)})
    assert load_quietly(root).views[0].load().rgb.shape == (48, 64, 3)
    write_json(root / "transforms.json", {**camera, "w": 48, "h": 64, "frames": ring_frames(paths, root)})
    assert load_quietly(root).views[0].load().rgb.shape == (64, 48, 3)


def test_missing_photos(tmp_path: Path) -> None:
    make_transforms(tmp_path / "in", 4)
    (tmp_path / "in" / "images" / "002.jpg").unlink()
    capture = load_quietly(tmp_path / "in")
    assert len(capture.views) == 3
    assert capture.warnings == ("Photos named in transforms.json that are missing (1 of 4): images/002.jpg.",)
    for path in (tmp_path / "in" / "images").iterdir():
        path.unlink()
    error = failure(tmp_path / "in")
    assert "None of the photos that" in error.message
    assert "images/000.jpg" in error.message
    assert error.code == "photos-missing"


def test_a_matrix_of_nan(tmp_path: Path) -> None:
    data = make_transforms(tmp_path / "in", 4)
    data["frames"][1]["transform_matrix"][0][0] = math.nan
    write_json(tmp_path / "in" / "transforms.json", data)
    capture = load_quietly(tmp_path / "in")
    assert [view.name for view in capture.views] == ["images/000.jpg", "images/002.jpg", "images/003.jpg"]
    assert "images/001.jpg (its matrix is not finite)" in capture.warnings[0]
    for frame in data["frames"]:
        frame["transform_matrix"][0][0] = math.nan
    write_json(tmp_path / "in" / "transforms.json", data)
    assert "has no usable pose" in failure(tmp_path / "in").message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no valid JSON"),
        ("", "is no valid JSON"),
        ("[" * 100_000, "is no valid JSON"),
        ("[]", 'has no list "frames"'),
        ('{"frames": 3}', 'has no list "frames"'),
        ('{"frames": []}', "has no frames"),
        ('{"frames": [{}]}', 'without a "file_path"'),
        ('{"frames": [5]}', 'without a "file_path"'),
    ],
)
def test_invalid_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "transforms.json").write_text(text)
    error = failure(tmp_path / "in")
    assert message in error.message
    assert error.code == "invalid-transforms"
    assert failure(tmp_path / "in" / "transforms.json").message == error.message


def test_paths_of_another_machine_and_paths_that_lead_out(tmp_path: Path) -> None:
    data = make_transforms(tmp_path / "in", 4)
    secret = make_photos(tmp_path / "elsewhere", 1, suffix=".png")[0]
    names = [
        "/home/someone/capture/images/000.jpg",
        "..\\images\\001.jpg",
        "images/002.jpg",
        f"../elsewhere/{secret.name}",
    ]
    for frame, name in zip(data["frames"], names, strict=True):
        frame["file_path"] = name
    write_json(tmp_path / "in" / "transforms.json", data)
    capture = load_quietly(tmp_path / "in")
    assert [view.name for view in capture.views] == ["images/000.jpg", "images/001.jpg", "images/002.jpg"]
    assert "../elsewhere/000.png" in capture.warnings[0]


def test_a_photo_named_twice_and_one_of_another_shape(tmp_path: Path) -> None:
    data = make_transforms(tmp_path / "in", 4)
    data["frames"][3]["file_path"] = "images/000.jpg"
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "images" / "001.jpg")
    write_json(tmp_path / "in" / "transforms.json", data)
    capture = load_quietly(tmp_path / "in")
    assert [view.name for view in capture.views] == ["images/000.jpg", "images/002.jpg"]
    assert "names 000.jpg more than once" in capture.warnings[0]
    assert "001.jpg is 64 × 64, which does not fit its camera's 64 × 48" in capture.warnings[1]


@pytest.mark.parametrize("content", [b"", b"ply\nformat ascii 1.0\nelement vertex 5\n", None])
def test_damaged_points_cost_only_the_points(tmp_path: Path, content: bytes | None) -> None:
    make_transforms(tmp_path / "in", ply_file_path="points.ply")
    if content is not None:
        (tmp_path / "in" / "points.ply").write_bytes(content)
    capture = load_quietly(tmp_path / "in")
    assert capture.points is None
    assert "points.ply are" in capture.warnings[0]


def test_nerf_synthetic_with_its_own_split(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for split, count in (("train", 4), ("test", 2), ("val", 1)):
        paths = make_photos(root / split, count, suffix=".png")
        for path in paths:
            image = Image.open(path).convert("RGBA")
            image.putalpha(Image.new("L", (64, 48), 128))
            image.save(path)
        frames = ring_frames(paths, root)
        for frame in frames:
            frame["file_path"] = "./" + frame["file_path"].removesuffix(".png")
        write_json(root / f"transforms_{split}.json", {"camera_angle_x": 0.7, "frames": frames})
    for path in (root, root / "transforms_train.json"):
        capture = load_quietly(path)
        assert capture.own_split
        assert [(view.name, view.held_out) for view in capture.views] == [
            *((f"train/00{i}.png", False) for i in range(4)),
            *((f"test/00{i}.png", True) for i in range(2)),
        ]
        photo = capture.views[0].load()
        assert photo.mask_is_alpha
        assert photo.mask is not None
        assert np.allclose(photo.mask, 128 / 255)
        assert capture.views[0].camera is not None
        assert capture.views[0].camera.K[0, 0] == pytest.approx(32 / math.tan(0.35))


def test_a_test_split_without_its_photos_is_left_out(tmp_path: Path) -> None:
    root = tmp_path / "in"
    data = make_transforms(root)
    (root / "transforms.json").rename(root / "transforms_train.json")
    write_json(root / "transforms_test.json", {**data, "frames": [{**data["frames"][0], "file_path": "test/a"}]})
    capture = load_quietly(root)
    assert (len(capture.views), capture.own_split) == (3, False)
    assert capture.warnings[0].startswith("The test split is not used: None of the photos")


def test_nerfstudio_split_by_filenames(tmp_path: Path) -> None:
    make_transforms(tmp_path / "in", 4, test_filenames=["images/002.jpg"])
    capture = load_quietly(tmp_path / "in")
    assert capture.own_split
    assert [view.held_out for view in capture.views] == [False, False, True, False]
    make_transforms(tmp_path / "in", 2, test_filenames=["images/000.jpg", "images/001.jpg"])
    assert "leaves no view to fit to" in failure(tmp_path / "in").message


@pytest.mark.data
def test_real_phone_capture(shared_data: Path, tmp_path: Path) -> None:
    capture = load(shared_data / "snowmiku_plush", Events(), tmp_path)
    assert (capture.kind, len(capture.views), capture.warnings) == ("transforms", 97, ())
    assert capture.points is not None
    assert capture.points.xyz.shape == (25784, 3)
    # Poses, axes and points agree: nearly all points lie in front of a camera, and most within some picture.
    points = np.concatenate([capture.points.xyz, np.ones((25784, 1))], 1)
    seen = np.zeros(25784, bool)
    for view in capture.views:
        assert view.camera is not None
        x, y, z = (view.camera.viewmat[:3] @ points.T) * 1.0
        u, v = view.camera.K[0, 0] * x / z + view.camera.K[0, 2], view.camera.K[1, 1] * y / z + view.camera.K[1, 2]
        seen |= (z > 0) & (u > 0) & (u < view.width) & (v > 0) & (v < view.height)
    assert seen.mean() > 0.99
    photo = capture.views[0].load()
    assert photo.rgb.shape == (742, 989, 3)
    assert photo.mask is None


@pytest.mark.data
def test_real_nerf_synthetic(shared_data: Path, tmp_path: Path) -> None:
    capture = load(shared_data / "nerf_chair", Events(), tmp_path)
    assert sum(not view.held_out for view in capture.views) == 100
    assert sum(view.held_out for view in capture.views) == 25
    photo = capture.views[0].load()
    assert photo.mask_is_alpha
    assert photo.mask is not None
    assert 0.05 < photo.mask.mean() < 0.6
