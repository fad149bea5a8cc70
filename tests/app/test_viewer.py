"""Splats and meshes before the page's 3D view: where things appear in it, what is left out, when it is made anew."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from app import viewer
from app.viewer import frame_of, framed, mesh_for_view, splats_for_view, thing_radius
from recon.export import read_mesh, read_splats, write_mesh, write_splats
from recon.mesh.mesh import Mesh
from recon.splats.model import Splats

CENTRE = np.array([3.0, -2.0, 5.0])
UP, FIRST = np.array([0, 0, 1.0]), np.array([0.6, -0.8, 0])  # where the first photo was taken from
RIGHT = np.cross(UP, FIRST)  # to the right of who stands there and looks at the centre


def look_at(eye, target, up=UP):
    """Camera to world, OpenGL axes."""
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.c_[right, np.cross(back, right), back, eye]
    return pose


def write_cameras(path: Path, azimuths, elevation=0.5, distance=4.0, scale=1.0):
    """Write cameras around CENTRE; azimuth 0 is FIRST."""
    frames = []
    for a in azimuths:
        out = math.cos(elevation) * (math.cos(a) * FIRST + math.sin(a) * RIGHT) + math.sin(elevation) * UP
        frames.append({"transform_matrix": look_at(scale * (CENTRE + distance * out), scale * CENTRE).tolist()})
    path.write_text(json.dumps({"w": 400, "h": 300, "fl_x": 300, "fl_y": 300, "frames": frames}))
    return path


AROUND = np.arange(12) * math.tau / 12


def splats_at(points, size=0.02, opacity=0.9) -> Splats:
    n = len(points)
    return Splats(
        means=torch.tensor(np.array(points), dtype=torch.float32),
        log_scales=torch.full((n, 3), math.log(size)),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        logits=torch.full((n,), math.log(opacity / (1 - opacity))),
        sh=torch.zeros(n, 9, 3),
    )


def ball(n=500, radius=1.0):
    directions = np.random.default_rng(0).normal(size=(n, 3))
    return CENTRE + radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)


def seen(means):
    """Where the view of splats shows points when it opens: (N, 3) right, up and away, and it is 5 off."""
    a = b = 0.5
    eye = 5 * np.array([math.sin(a) * math.cos(b), -math.sin(b), -math.cos(a) * math.cos(b)])  # y runs down there
    away = -eye / 5
    right = np.cross([0, 1, 0], away)
    right /= np.linalg.norm(right)
    return (np.asarray(means) - eye) @ np.stack([right, -np.cross(away, right), away]).T


@pytest.mark.parametrize("scale", [1.0, 250.0])
def test_it_opens_upright_centred_and_unmirrored_as_the_first_photo_saw_it(tmp_path, scale):
    cameras = write_cameras(tmp_path / "t.json", AROUND, scale=scale)
    marks = [CENTRE, CENTRE + UP, CENTRE + RIGHT, CENTRE + FIRST]
    result = framed(splats_at(scale * np.array([*marks, *ball()]), 0.02 * scale), frame_of(cameras))
    middle, up, right, front = seen(result.means[:4])  # all cover as much, so their order is as it was
    assert middle == pytest.approx([0, 0, 5], abs=1e-4)
    level, tilt = viewer.SHOWN, 0.5
    assert up == pytest.approx([0, level * math.cos(tilt), 5 + -level * math.sin(tilt)], abs=0.01)
    assert right == pytest.approx([level, 0, 5], abs=0.01)
    assert front == pytest.approx([0, -level * math.sin(tilt), 5 - level * math.cos(tilt)], abs=0.01)
    assert result.scales.numpy() == pytest.approx(0.02 * level, rel=0.01)


def test_everything_lies_within_a_small_window(tmp_path):
    result = framed(splats_at(ball()), frame_of(write_cameras(tmp_path / "t.json", AROUND)))
    x, y, away = seen(result.means).T
    assert (np.hypot(x, y) / away * 1132).max() < 170, "a phone's 3D view is 340 pixels wide"


def test_photos_from_one_side_open_in_their_middle(tmp_path):
    frame = frame_of(write_cameras(tmp_path / "t.json", [-0.9, -0.5, 0.5, 0.9]))
    assert frame.rotation @ FIRST == pytest.approx([0, 0, 1], abs=0.03)
    assert frame.rotation @ UP == pytest.approx([0, 1, 0], abs=0.03)


def test_the_room_and_floaters_are_left_out(tmp_path):
    frame = frame_of(write_cameras(tmp_path / "t.json", AROUND))
    room, veil = ball(200, 9.0), splats_at([CENTRE], size=4.0)
    result = framed(Splats.cat([splats_at(ball()), splats_at(room, 0.5), veil]), frame)
    assert len(result) == 500
    assert np.linalg.norm(result.means, axis=1) == pytest.approx(viewer.SHOWN, rel=1e-3)


def test_of_too_many_those_that_cover_most_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(viewer, "MOST_SPLATS", 50)
    splats = splats_at(ball())
    splats.log_scales[100:150] += 0.5
    splats.logits[:50] -= 3
    result = framed(splats, frame_of(write_cameras(tmp_path / "t.json", AROUND)))
    assert len(result) == 50
    assert result.scales.min() > 1.3 * 0.02 * viewer.SHOWN


def test_without_cameras_the_middle_of_the_splats_is_shown():
    result = framed(splats_at(ball()), frame_of(None))
    assert len(result) == 500
    assert seen(result.means).mean(axis=0) == pytest.approx([0, 0, 5], abs=0.15)
    assert len(framed(splats_at([CENTRE]), None)) == 1, "a single splat has no size, and is shown all the same"


def test_cameras_that_say_nothing(tmp_path):
    path = tmp_path / "t.json"
    for text in ("", "[]", '{"frames": []}', '{"frames": [{"transform_matrix": [[1]]}]}', '{"frames": [{}]}'):
        path.write_text(text)
        assert frame_of(path) is None
    every_way = [np.diag([1.0, s, s, 1.0]).tolist() for s in (1, -1)]
    path.write_text(
        json.dumps({"w": 4, "h": 4, "fl_x": 4, "fl_y": 4, "frames": [{"transform_matrix": p} for p in every_way]})
    )
    assert frame_of(path) is None
    ahead = [look_at(np.array([x, -4.0, 0]), np.array([x, 0.0, 0])).tolist() for x in (0.0, 1.0, 2.0)]
    path.write_text(json.dumps({"frames": [{"transform_matrix": p} for p in ahead]}))
    frame = frame_of(path)
    assert math.isinf(frame.reach), "parallel cameras look at nothing in common"
    assert frame.rotation @ np.array([0, -1.0, 0]) == pytest.approx([0, 0, 1], abs=1e-6)


def test_radius():
    distances = np.array([1.0, 2, 3, 50])
    assert thing_radius(distances, np.array([1.0, 1, 1, 1]), 10) == 3
    assert thing_radius(distances, np.array([1.0, 1, 0.01, 1]), 10) == 2
    assert thing_radius(distances, np.ones(4), 0.5) == 50, "nothing is seen by all: all of it"
    assert thing_radius(np.zeros(3), np.zeros(3), 1) > 0


@pytest.fixture
def job(tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    folder = tmp_path / "job"
    (folder / "exports").mkdir(parents=True)
    exports = {name: folder / "exports" / file for name, file in (("splats", "splats.ply"), ("mesh", "mesh.glb"))}
    write_splats(splats_at(ball()), exports["splats"])
    triangle = np.array([CENTRE, CENTRE + RIGHT, CENTRE + UP], dtype=np.float32)
    write_mesh(Mesh(triangle, np.array([[0, 1, 2]], dtype=np.int32)), exports["mesh"])
    return folder, exports | {"cameras": write_cameras(folder / "exports" / "transforms.json", AROUND)}


def test_splats_are_made_once_and_again_when_the_job_ran_again(job):
    folder, exports = job
    copy = splats_for_view(folder, exports)
    assert copy == folder / "previews" / "view.splat"
    assert len(read_splats(copy)) == 500
    made = copy.stat().st_mtime_ns
    assert splats_for_view(folder, exports) == copy
    assert copy.stat().st_mtime_ns == made
    os.utime(exports["splats"], (later := copy.stat().st_mtime + 10, later))
    splats_for_view(folder, exports)
    assert copy.stat().st_mtime_ns != made


def test_meshes_are_turned_and_nothing_else(job):
    folder, exports = job
    copy = mesh_for_view(folder, exports)
    assert copy == folder / "previews" / "view.glb"
    corners = read_mesh(copy).vertices
    assert corners[1:] - corners[0] == pytest.approx(np.array([[1, 0, 0], [0, 1, 0]]), abs=1e-5)
    del exports["cameras"]
    assert mesh_for_view(folder, exports) == exports["mesh"]


def test_a_mesh_that_cannot_be_turned_is_shown_as_it_is(job):
    folder, exports = job
    exports["mesh"].write_bytes(b"glTF, perhaps")
    assert mesh_for_view(folder, exports) == exports["mesh"]
    assert not (folder / "previews" / "view.glb").exists()
