"""The sample scan is the formula's surface, seen by a scanner, and becomes a closed mesh."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import trimesh

from recon import pipelines
from recon.capture.load import load
from recon.events import Events

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_scan", ASSETS / "make_scan.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_points_are_the_formulas(script: ModuleType, tmp_path: Path) -> None:
    file = ASSETS / "scan" / "octopus.ply"
    assert file.stat().st_size < 1 << 20
    points = load(ASSETS / "scan", Events(), tmp_path).points
    assert len(points.xyz) == script.POINTS
    assert points.coloured
    assert points.xyz[:, 1].min() > script.FLOOR - 5 * script.NOISE, "nothing of the underside"
    few = slice(None, None, 40)
    xyz, normals = points.xyz[few], points.normals[few]
    assert np.linalg.norm(points.normals, axis=1) == pytest.approx(1, abs=1e-5)
    off, true = script.distance(xyz), script.normals(xyz)
    assert np.sqrt(np.square(off).mean()) == pytest.approx(script.NOISE, rel=0.15)
    # Two of three random angles tilt a normal: the mean cosine is about 1 - TILT².
    assert np.einsum("nx,nx->n", normals, true).mean() == pytest.approx(1 - script.TILT**2, abs=0.003)


def test_it_becomes_a_closed_mesh(script: ModuleType, tmp_path: Path) -> None:
    coarse = {"resolution": 32, "points": 6000, "steps": 20}
    result = pipelines.run(ASSETS / "scan", tmp_path / "job", "points", "fast", **coarse)
    assert (result["status"], result["counts"]["components"]) == ("done", 1)
    mesh = trimesh.load(tmp_path / "job" / "exports" / "mesh.ply")
    assert mesh.is_watertight
    above = mesh.vertices[mesh.vertices[:, 1] > 1][::10]
    assert np.median(np.abs(script.distance(above))) < 0.08
