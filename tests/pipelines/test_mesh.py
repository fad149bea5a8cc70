"""Photos in, a watertight textured mesh out: a small thing of known shape and colours, all the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mesh_capture import SETTINGS, VIEWS, camera, colour, distance, seen, true_mesh, write_capture
from safetensors.torch import load_file

from recon import pipelines
from recon.capture.load import load
from recon.capture.normalise import normalising_transform
from recon.errors import InputError
from recon.evaluate.surface import compare_surfaces
from recon.events import Events, Progress, StageStarted
from recon.export import export, read_mesh
from recon.isosurface import FlexiCubes
from recon.mesh.mesh import Mesh
from recon.mesh.texture import sample
from recon.pipelines import mesh_field
from recon.pipelines.evaluate import evaluate_job
from recon.pipelines.mesh_field import box_of

ROOT = Path(__file__).parents[2]
QUICK = {**SETTINGS, "resolution": 20, "steps": 30, "finish": 10, "texture": 64, "turntable": 0, "faces": 800}


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("mesh") / "capture")


@pytest.fixture(scope="module")
def job(capture: Path) -> Path:
    """Return a job that the command line has done."""
    folder = capture.parent / "job"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    command = [sys.executable, "-m", "app.cli", "run", capture, "--pipeline", "mesh", "--out", folder, "--json", *flags]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "done"
    return folder


@pytest.fixture
def result(job: Path) -> dict:
    return json.loads((job / "result.json").read_text())


def chamfer(mesh: Mesh) -> float:
    truth = true_mesh()
    return compare_surfaces(mesh.vertices, mesh.faces, truth.vertices, truth.faces, samples=5000)["chamfer"]


def hull(capture: Path, job: Path) -> Mesh:
    """Return the surface of the first field, in the input's world."""
    kept = load_file(job / "stages/field/field.safetensors")
    cubes = FlexiCubes(tuple(kept["resolution"].tolist()), kept["low"].tolist(), kept["high"].tolist())
    found = cubes(kept["field"])
    back = np.linalg.inv(normalising_transform(load(capture, Events(), job)))
    vertices = found.vertices.numpy() @ back[:3, :3].T + back[:3, 3]
    return Mesh(vertices.astype(np.float32), found.faces.numpy())


def test_the_mesh_is_closed_and_nearer_to_the_truth_than_the_hull(capture, job):
    mesh = read_mesh(job / "exports/mesh.glb")
    statistics = mesh.statistics()
    assert statistics.watertight
    assert statistics.components == 1
    assert statistics.volume > 0
    first, last = chamfer(hull(capture, job)), chamfer(mesh)
    assert last < 0.0115 < first, "the ball's diameter is 1.6; the bowl, 0.25 deep, is not in the silhouettes"
    assert last < 0.8 * first


def test_the_texture_shows_the_colours(job):
    mesh = read_mesh(job / "exports/mesh.glb")
    assert mesh.texture is not None
    assert mesh.texture.shape == (128, 128, 3)
    middles = mesh.vertices[mesh.faces].mean(axis=1)
    shown = sample(mesh.texture, mesh.uvs.mean(axis=1))
    above = middles[:, 2] > -0.3  # what lies below is seen by few cameras
    assert np.abs(shown - colour(torch.from_numpy(middles)).numpy())[above].mean() < 0.1


def test_exports_of_the_job_keep_its_texture(job, tmp_path):
    export(job, tmp_path / "all.glb")
    export(job, tmp_path / "few.zip", faces=1000)
    own, whole, few = (read_mesh(p) for p in (job / "exports/mesh.glb", tmp_path / "all.glb", tmp_path / "few.zip"))
    assert np.array_equal(whole.texture, own.texture)
    assert few.texture is not None
    assert len(few.faces) <= 1000


@pytest.mark.parametrize("size", ["3", "9000"])
def test_textures_that_cannot_be_are_refused_before_the_run(capture, tmp_path, size):
    with pytest.raises(InputError, match="texture' is '" + size):
        pipelines.run(capture, tmp_path / "job", "mesh", texture=size)
    assert not (tmp_path / "job").exists()


def test_the_result_tells_all(job, result):
    stages = ["load", "poses", "field", "fit", "refine", "mesh", "texture", "evaluate", "turntable", "report"]
    assert list(result["seconds"]) == ["total", *stages]
    assert result["metrics"]["psnr"] > 19.5
    assert result["metrics"]["ssim"] > 0.9
    assert result["counts"]["views"] == VIEWS
    assert 500 < result["counts"]["faces"] <= SETTINGS["faces"]
    assert result["exports"].keys() == {"mesh", "mesh_ply", "turntable", "report"}
    assert all((job / path).exists() for path in result["exports"].values())
    measured = [entry["validation_psnr"] for entry in result["history"]]
    assert len(measured) == 24
    assert measured[-1] > measured[0] + 3
    assert result["warnings"] == []


def test_a_finished_job_is_measured_again(job, result):
    found = evaluate_job(job)
    assert found["measured_on"] == "held-out"
    assert found["metrics"] == {name: pytest.approx(result["metrics"][name], abs=1e-3) for name in ("psnr", "ssim")}
    assert found["mesh"]["watertight"]


def test_cancelled_then_resumed_equals_uninterrupted(capture, tmp_path):
    whole = pipelines.run(capture, tmp_path / "whole", "mesh", **QUICK)
    assert whole["status"] == "done", whole["error"]
    settings = QUICK
    for stage, step in (("fit", 7), ("fit", 20), ("fit", QUICK["steps"]), ("refine", 5), ("texture", 40)):
        events, asked = Events(), []

        def stop(event, events=events, asked=asked, stage=stage, step=step):
            if isinstance(event, Progress) and event.stage == stage and "loss" in event.metrics and event.step >= step:
                asked.append(time.monotonic())
                events.cancel()

        events.listen(stop)
        stopped = pipelines.run(capture, tmp_path / "parts", "mesh", events=events, resume=True, **settings)
        assert stopped["status"] == "cancelled"
        assert time.monotonic() - asked[-1] < 2
        settings = {}
    parts = pipelines.run(capture, tmp_path / "parts", "mesh", resume=True)
    assert parts["status"] == "done"
    kept = [f"stages/{stage}/{what}.safetensors" for stage in ("fit", "refine") for what in ("surface", "colours")]
    for file in (*kept, "exports/mesh.glb"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()
    assert parts["metrics"] == whole["metrics"]
    shown = [[{**entry, "seconds": 0} for entry in r["history"]] for r in (whole, parts)]
    assert shown[0] == shown[1]


def until(stage: str) -> Events:
    """Return events that stop a run as the stage begins."""
    events = Events()
    events.listen(lambda e: isinstance(e, StageStarted) and e.stage == stage and events.cancel())
    return events


@pytest.mark.parametrize(
    ("made", "code"),
    [
        ({"mask": 0.0}, "no-surface"),
        ({"mask": 0.0, "alpha": False}, "no-surface"),
        ({"mask": 1.0, "alpha": False}, "masks-too-large"),
        ({"views": 2}, "too-few-photos"),
    ],
)
def test_masks_that_say_nothing_and_too_few_photos(tmp_path, made, code):
    capture = write_capture(tmp_path / "capture", **made)
    result = pipelines.run(capture, tmp_path / "job", "mesh", **QUICK)
    assert result["status"] == "failed"
    assert result["error"]["code"] == code
    assert result["error"]["hint"]


def test_masks_of_another_size_are_the_same_masks(tmp_path):
    fields = []
    for scale in (1, 2):
        capture, job = write_capture(tmp_path / f"c{scale}", alpha=False, mask_scale=scale), tmp_path / f"j{scale}"
        assert pipelines.run(capture, job, "mesh", events=until("fit"), **QUICK)["error"]["code"] == "cancelled"
        fields.append(load_file(job / "stages/field/field.safetensors")["field"])
    assert (fields[0] < 0).any()
    torch.testing.assert_close(fields[0], fields[1])


def test_without_masks_depth_shows_where_the_thing_is(tmp_path, monkeypatch):
    """A short fit of splats finds the ball and the room around it."""
    monkeypatch.setattr(mesh_field, "SPLATS", {"steps": 300, "splats": 2000, "sh_degree": 0})
    capture = write_capture(tmp_path / "capture", alpha=False, masks=False)
    result = pipelines.run(capture, tmp_path / "job", "mesh", events=until("mesh"), **{**QUICK, "steps": 4})
    assert result["error"]["code"] == "cancelled", result["error"]
    kept = load_file(tmp_path / "job/stages/field/field.safetensors")
    box = box_of(kept)
    back = np.linalg.inv(normalising_transform(load(capture, Events(), tmp_path)))
    world = box.samples().numpy() @ back[:3, :3].T + back[:3, 3]
    truth, found = distance(torch.from_numpy(world).float()), kept["field"] < 0
    assert found[truth < -0.15].float().mean() > 0.9
    assert found[(truth > 0.15) & (truth < 0.4)].float().mean() < 0.3


def test_camera_and_picture_agree():
    """The capture's own truth: what is seen lies on the shape."""
    points, hit = seen(true_mesh(), 3)
    assert distance(points[hit]).abs().max() < 0.02
    assert camera(3).width == points.shape[2]
