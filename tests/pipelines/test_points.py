"""The ``points`` pipeline from a file to the mesh, the report and result.json."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from points_scenes import box, sphere

from recon import pipelines
from recon.errors import InputError
from recon.events import Event, Events, Progress
from recon.export import read_mesh
from recon.isosurface.points_fit import MATCH_EVERY
from recon.pipelines.evaluate import evaluate_job

ROOT = Path(__file__).parents[2]
SHORT: dict[str, Any] = {"resolution": 16, "steps": 10}


def write(path: Path, *columns: np.ndarray) -> Path:
    np.savetxt(path, np.column_stack(columns), fmt="%.9g")
    return path


def run(path: Path, job: Path, **settings: Any) -> dict[str, Any]:
    return pipelines.run(path, job, "points", **{**SHORT, **settings})


def test_from_a_cloud_to_a_coloured_mesh_in_its_units(tmp_path: Path) -> None:
    xyz, normals = sphere(2000, outliers=20)
    rgb = np.where(xyz[:, :1] > 0, (255, 0, 0), (0, 0, 255))
    path = write(tmp_path / "cloud.xyz", 1000 + 20 * xyz, normals, rgb)
    result = run(path, tmp_path / "job")
    assert result["status"] == "done"
    assert result["counts"]["points"] == 2020
    assert result["counts"]["faces"] > 1000
    assert result["metrics"]["watertight"] == 1
    assert result["metrics"]["volume"] == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.05)
    assert 0 < result["metrics"]["median_distance"] < result["metrics"]["rms_distance"] < 1
    assert any("lie apart" in warning for warning in result["warnings"])
    assert set(result["exports"]) == {"mesh", "mesh_ply", "report"}
    for name in ("mesh", "mesh_ply"):
        mesh = read_mesh(tmp_path / "job" / result["exports"][name])
        assert mesh.colours is not None
        side = mesh.vertices[:, 0] - 1000
        assert np.allclose(mesh.colours[side > 8], (1, 0, 0), atol=0.02)
        assert np.allclose(mesh.colours[side < -8], (0, 0, 1), atol=0.02)
    assert "rms_distance" in (tmp_path / "job" / "report.html").read_text()
    assert (tmp_path / "job" / "previews" / "mesh.jpg").is_file()

    own = tmp_path / "job" / "exports" / "mesh.ply"
    assert evaluate_job(tmp_path / "job", own)["metrics"]["chamfer"] == pytest.approx(0, abs=1e-3)
    assert evaluate_job(tmp_path / "job")["mesh"]["watertight"]

    again = pipelines.run(path, tmp_path / "job", resume=True, open=True)
    assert again["seconds"]["fit"] == result["seconds"]["fit"], "only the mesh is made anew"


def test_open_surfaces(tmp_path: Path) -> None:
    xyz, normals = sphere(3000)
    half = xyz[:, 2] > 0
    path = write(tmp_path / "half.xyz", xyz[half], normals[half])
    closed = run(path, tmp_path / "closed")
    opened = run(path, tmp_path / "open", open=True)
    assert closed["metrics"]["watertight"] == 1
    assert opened["metrics"]["watertight"] == 0
    assert "volume" not in opened["metrics"]
    vertices = read_mesh(tmp_path / "open" / "exports" / "mesh.ply").vertices
    assert vertices[:, 2].min() > -0.4
    assert np.abs(np.linalg.norm(vertices, axis=1) - 1).mean() < 0.05


def test_far_from_the_origin_it_is_as_good_and_says_what_files_cannot_hold(tmp_path: Path) -> None:
    xyz, _ = box(2000)
    path = tmp_path / "far.npz"
    np.savez(path, points=xyz + 1e9)
    result = run(path, tmp_path / "job")
    assert result["metrics"]["watertight"] == 1
    assert result["metrics"]["rms_distance"] < 0.05
    assert any("far from its origin" in warning for warning in result["warnings"])


def test_huge_and_tiny_clouds(tmp_path: Path) -> None:
    xyz, _ = sphere(1000)
    for scale in (1e9, 1e-9):
        path = write(tmp_path / f"{scale}.xyz", scale * xyz)
        result = run(path, tmp_path / f"job{scale}")
        assert result["metrics"]["area"] == pytest.approx(4 * np.pi * scale**2, rel=0.05)


def test_it_stops_within_two_seconds_and_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path / "cloud.xyz", sphere(2000)[0])
    events, asked = Events(), [0.0]

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "fit" and event.step % MATCH_EVERY and not asked[0]:
            asked[0] = time.monotonic()
            events.cancel()

    events.listen(listen)
    result = pipelines.run(path, tmp_path / "job", "points", events=events, **SHORT)
    assert result["status"] == "cancelled"
    assert time.monotonic() - asked[0] < 2
    parts = pipelines.run(path, tmp_path / "job", resume=True)
    whole = pipelines.run(path, tmp_path / "whole", "points", **SHORT)
    assert parts["metrics"] == whole["metrics"]
    file = "exports/mesh.ply"
    assert (tmp_path / "job" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_photos_are_sent_elsewhere_and_clouds_too(tmp_path: Path) -> None:
    from capture_scenes import make_photos

    make_photos(tmp_path / "photos", 3)
    assert run(tmp_path / "photos", tmp_path / "a")["error"]["code"] == "no-cloud"
    path = write(tmp_path / "cloud.xyz", sphere(200)[0])
    result = pipelines.run(path, tmp_path / "b", "splats")
    assert "--pipeline points" in result["error"]["hint"]


def test_settings_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "cloud.xyz", sphere(200)[0])
    with pytest.raises(InputError, match="resolution"):
        run(path, tmp_path / "job", resolution=10_000)


def test_by_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "run", "--pipeline", "points", "--json", "--preset", "fast"]
    command += ["--resolution", "12", "--steps", "5"]
    path = write(tmp_path / "cloud.pts", sphere(500)[0])
    done = subprocess.run([*command, path, "--out", tmp_path / "job"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["watertight"] == 1
    flat = write(tmp_path / "flat.xyz", sphere(500)[0] * [1, 1, 0])
    done = subprocess.run([*command, flat, "--out", tmp_path / "flat"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "flat-points"
    assert "Traceback" not in done.stderr
