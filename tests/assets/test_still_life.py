"""The sample capture says the same thing in its photos, cameras, masks, meshes and points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[2] / "assets" / "still_life"
Floats = NDArray[np.float64]


def mask_of(frame: dict[str, Any]) -> Path:
    return ROOT / "object_masks" / Path(frame["file_path"]).with_suffix(".png").name


@pytest.fixture(scope="module")
def capture() -> dict[str, Any]:
    return json.loads((ROOT / "transforms.json").read_text())


def project(capture: dict[str, Any], frame: dict[str, Any], xyz: Floats) -> tuple[Floats, Floats]:
    """Return pixel coordinates (N, 2) and depths (N,); the frame's camera looks along its -z with y up (OpenGL)."""
    to_camera = np.linalg.inv(np.array(frame["transform_matrix"]))
    local = xyz @ to_camera[:3, :3].T + to_camera[:3, 3]
    depth = -local[:, 2]
    u = capture["cx"] + capture["fl_x"] * local[:, 0] / depth
    v = capture["cy"] - capture["fl_y"] * local[:, 1] / depth
    return np.c_[u, v], depth


def test_it_is_complete_and_small(capture: dict[str, Any]) -> None:
    frames = capture["frames"]
    assert len(frames) == 48
    assert len({frame["file_path"] for frame in frames}) == 48
    for frame in frames:
        with Image.open(ROOT / frame["file_path"]) as photo, Image.open(mask_of(frame)) as mask:
            assert photo.size == mask.size == (capture["w"], capture["h"])
            assert (photo.mode, mask.mode) == ("RGB", "1")
    assert sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file()) <= 4 * 2**20


def test_cameras_surround_the_scene_and_look_at_it(capture: dict[str, Any]) -> None:
    poses = np.array([frame["transform_matrix"] for frame in capture["frames"]])
    turns, eyes = poses[:, :3, :3], poses[:, :3, 3]
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-7)
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-7)
    toward = -eyes / np.linalg.norm(eyes, axis=1, keepdims=True)
    assert ((-turns[:, :, 2] * toward).sum(1) > np.cos(np.radians(8))).all()
    bearings = np.sort(np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0])))
    assert np.diff(np.r_[bearings, bearings[0] + 360]).max() < 20
    elevations = np.degrees(np.arcsin(-toward[:, 2]))
    assert elevations.min() < 35
    assert elevations.max() > 55


@pytest.mark.parametrize("number", [0, 13, 29, 41, 47])
def test_mesh_projects_onto_the_mask(capture: dict[str, Any], number: int) -> None:
    frame = capture["frames"][number]
    mask = np.asarray(Image.open(mask_of(frame)))
    mesh = trimesh.load_mesh(ROOT / "mesh.ply")
    at, depth = project(capture, frame, mesh.vertices)
    assert (depth > 0).all()
    fine = 4  # drawn four times finer, a pixel counts when at least half of it is covered
    canvas = Image.new("L", (capture["w"] * fine, capture["h"] * fine))
    pen = ImageDraw.Draw(canvas)
    for corners in (at[mesh.faces] * fine).reshape(-1, 6).tolist():
        pen.polygon(corners, fill=255)
    drawn = np.asarray(canvas, float).reshape(capture["h"], fine, capture["w"], fine).mean((1, 3)) >= 127.5
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.98


def test_meshes_are_closed_and_stand_on_the_table() -> None:
    mesh, table = trimesh.load_mesh(ROOT / "mesh.ply"), trimesh.load_mesh(ROOT / "table.ply")
    assert mesh.is_watertight
    assert table.is_watertight
    assert mesh.volume > 0
    assert len(mesh.faces) <= 40_000
    assert mesh.bounds[0, 2] == pytest.approx(table.bounds[1, 2], abs=2e-4)


def test_points_have_the_colours_of_the_photos(capture: dict[str, Any]) -> None:
    cloud = trimesh.load(ROOT / capture["ply_file_path"])
    xyz, rgb = np.asarray(cloud.vertices), np.asarray(cloud.colors)[:, :3].astype(float)
    assert 4_000 <= len(xyz) <= 6_000
    like = np.zeros(len(xyz), int)
    for frame in capture["frames"]:
        photo = np.asarray(Image.open(ROOT / frame["file_path"]), float)
        at, depth = project(capture, frame, xyz)
        inside = (depth > 0) & (at >= 0).all(1) & (at < [capture["w"], capture["h"]]).all(1)
        column, row = np.where(inside[:, None], at, 0).astype(int).T
        like += inside & (np.abs(photo[row, column] - rgb).mean(1) < 25)
    assert (like >= 3).mean() > 0.99
    assert (like >= 8).mean() > 0.93  # cameras that are off by two pixels give 0.88


def test_points_lie_on_the_surfaces() -> None:
    cloud = np.asarray(trimesh.load(ROOT / "points3D.ply").vertices)
    table = trimesh.load_mesh(ROOT / "table.ply")
    mesh = trimesh.load_mesh(ROOT / "mesh.ply")
    near = (np.hypot(cloud[:, 0], cloud[:, 1]) < 0.40) & (cloud[:, 2] > -0.02)
    assert near.mean() > 0.5
    on_table = np.abs(cloud[near, 2]) < 0.005
    standing = cloud[near][~on_table]
    assert (standing[:, 2] > 0).all()
    assert (standing[:, 2] < mesh.bounds[1, 2] + 0.005).all()
    assert len(standing) > 1_000
    _, distance, _ = trimesh.proximity.closest_point_naive(mesh, standing[::40])
    assert np.quantile(distance, 0.95) < 0.004
    assert table.bounds[1, 2] < 0.005
