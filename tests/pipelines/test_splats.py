"""Photos in, splats and everything else out: a small scene of known content, all the way."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import av
import numpy as np
import pycolmap
import pytest
import torch
import trimesh
from PIL import Image
from splat_capture import FOCAL, SETTINGS, SIZE, VIEWS, matrix, true_splats, write_capture

from recon import pipelines
from recon.capture.capture import Camera
from recon.capture.load import load
from recon.errors import InputError
from recon.evaluate.metrics import psnr
from recon.events import Events, Progress
from recon.export import read_splats
from recon.pipelines.evaluate import evaluate_job
from recon.splats.render import Pose, render

QUICK = {**SETTINGS, "mesh": False, "turntable": 0}


def against_the_truth(splats: Path, views: range = range(VIEWS)) -> float:
    """Return the mean PSNR over whole pictures of exported splats and of the true ones, both in the input's world."""
    found, values = read_splats(splats), []
    K = np.array([[FOCAL, 0, SIZE[0] / 2], [0, FOCAL, SIZE[1] / 2], [0, 0, 1]])
    for i in views:
        camera = Camera(np.linalg.inv(matrix(i) @ np.diag([1.0, -1, -1, 1])), K, *SIZE)
        with torch.no_grad():
            images = [render(splats, Pose.of(camera))[0].clamp(0, 1) for splats in (found, true_splats())]
        values.append(psnr(*images))
    return float(np.mean(values))


# --- what a run leaves ---


def test_the_fit_reaches_its_psnr(finished):
    assert finished.result["metrics"]["psnr"] > 31  # reaches 34
    assert finished.result["metrics"]["ssim"] > 0.96
    assert finished.result["metrics"]["validation_psnr"] > 29
    assert against_the_truth(finished.job / "exports/splats.ply") > 31


def test_result_tells_all(finished):
    result = finished.result
    assert result == json.loads((finished.job / "result.json").read_text())
    stages = ["load", "poses", "fit", "export", "evaluate", "mesh", "turntable", "report"]
    assert list(result["seconds"]) == ["total", *stages]
    counts = result["counts"]
    assert (counts["views"], counts["registered"], counts["splats"]) == (VIEWS, VIEWS, SETTINGS["splats"])
    assert 1000 < counts["faces"] <= SETTINGS["faces"]
    assert counts["vertices"] > 500
    assert result["warnings"] == []
    assert result["exports"].keys() == {"splats", "cameras", "colmap", "mesh", "mesh_ply", "turntable", "report"}
    assert all((finished.job / path).exists() for path in result["exports"].values())
    measured = [entry["psnr"] for entry in result["history"]]
    assert len(measured) >= 10
    assert measured[-1] > measured[0] + 5
    assert [entry["seconds"] for entry in result["history"]] == sorted(e["seconds"] for e in result["history"])


def test_progress_belongs_to_a_stage_and_never_passes_its_end(finished):
    progress = [event for event in finished.events if isinstance(event, Progress)]
    assert {event.stage for event in progress} <= finished.result["seconds"].keys()
    assert all(0 <= event.step <= event.total for event in progress)
    last = [event for event in progress if event.stage == "fit"][-1]
    assert (last.step, last.total) == (SETTINGS["steps"], SETTINGS["steps"])
    assert last.metrics.keys() >= {"psnr", "validation_psnr", "splats", "loss"}


def test_splats_and_mesh_open_in_the_inputs_units(finished):
    assert len(read_splats(finished.job / "exports/splats.ply")) == finished.result["counts"]["splats"]
    scene = trimesh.load_scene(finished.job / "exports/mesh.glb")
    (mesh,) = scene.geometry.values()
    assert len(mesh.faces) == finished.result["counts"]["faces"]
    assert mesh.is_watertight
    radius = np.linalg.norm(mesh.vertices, axis=1)  # splats of width 0.12 about a sphere of radius 0.7
    assert 0.58 < radius.min() < radius.max() < 1.0
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * np.median(radius) ** 3, rel=0.1)
    colours = trimesh.load(finished.job / "exports/mesh.ply").visual.vertex_colors[:, :3]
    assert np.ptp(colours, axis=0).min() > 100, "as colourful as the scene"


def test_cameras_come_back(finished, tmp_path):
    before = load(finished.capture, Events(), tmp_path).views
    shutil.copytree(finished.capture / "images", tmp_path / "again/images")
    shutil.copy(finished.job / "exports/transforms.json", tmp_path / "again")
    after = load(tmp_path / "again", Events(), tmp_path).views
    assert [view.name for view in after] == [view.name for view in before]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one.camera.viewmat, other.camera.viewmat, atol=1e-9)
        np.testing.assert_allclose(one.camera.K, other.camera.K)
    model = pycolmap.Reconstruction(str(finished.job / "exports/colmap/sparse/0"))
    assert model.num_points3D() == 200
    centres = {image.name: image.projection_center() for image in model.images.values()}
    for view in before:
        np.testing.assert_allclose(centres[view.name], view.camera.position, atol=1e-9)


def test_the_report_is_complete_in_itself(finished):
    page = (finished.job / "report.html").read_text()
    assert len(page) < 6_000_000
    for address in re.findall(r'\b(?:src|href)="([^"]*)', page):
        assert address.startswith(("data:", "#", "./exports/")), address  # in the page, or a file that it offers
    assert re.findall(r'\bsrc="(?!data:)', page) == []
    assert "url(http" not in page
    for held_out in ("images/00.png", "images/08.png"):
        assert held_out in page
    assert page.count("data:image/webp") >= 7  # two photos, renders and error maps, and the hero
    assert f"{finished.result['metrics']['psnr']:.2f}" in page


def test_the_turntable_and_the_previews_decode(finished):
    with av.open(str(finished.job / "exports/turntable.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == SETTINGS["turntable"]
    assert frames[0].shape == (SIZE[1], SIZE[0], 3)
    assert max(np.abs(frames[0].astype(int) - frame).mean() for frame in frames) > 5, "it turns"
    assert Image.open(finished.job / "previews/hero.jpg").size == SIZE


# --- kinds of captures ---


def test_what_masks_hide_is_never_learned(tmp_path):
    result = pipelines.run(write_capture(tmp_path / "in", masks=True), tmp_path / "job", **{**SETTINGS, "turntable": 0})
    assert result["status"] == "done"
    assert result["metrics"]["psnr"] > 27  # reaches 30
    assert result["metrics"]["ssim"] > 0.93
    # Each photo's right third is magenta; other views show what is there. Were it learned, this would be about 12 dB.
    assert against_the_truth(tmp_path / "job/exports/splats.ply") > 24
    mesh = trimesh.load(tmp_path / "job/exports/mesh.ply")
    assert np.linalg.norm(mesh.vertices, axis=1).max() < 1.1


def test_cut_out_photos_are_fitted_on_white(tmp_path):
    result = pipelines.run(write_capture(tmp_path / "in", alpha=True), tmp_path / "job", **QUICK)
    assert result["metrics"]["psnr"] > 31  # reaches 34
    assert np.asarray(Image.open(tmp_path / "job/previews/hero.jpg"))[0, 0].min() > 245
    assert against_the_truth(tmp_path / "job/exports/splats.ply") > 30, "and no white splat behind them"


def test_photos_of_mixed_sizes(tmp_path):
    result = pipelines.run(write_capture(tmp_path / "in", mixed=True), tmp_path / "job", **{**QUICK, "max_side": 96})
    assert result["metrics"]["psnr"] > 30
    assert len(pycolmap.Reconstruction(str(tmp_path / "job/exports/colmap/sparse/0")).cameras) == 2
    sizes = {Image.open(path).size for path in (tmp_path / "job/stages/evaluate").glob("*.png")}
    assert sizes <= {(64, 48), (96, 72)}


# --- what a fit may correct ---

ALL_AT_ONCE = {**QUICK, "steps": 100, "views_per_step": 11, "hold_out": True}


def final_loss(capture: Path, job: Path, **settings: object) -> float:
    """Return the mean loss over all training photos at a fit's end."""
    events, losses = Events(), []
    events.listen(lambda e: isinstance(e, Progress) and "loss" in e.metrics and losses.append(e.metrics["loss"]))
    result = pipelines.run(capture, job, events=events, **{**ALL_AT_ONCE, **settings})
    assert result["status"] == "done", result["error"]
    return losses[-1]


@pytest.mark.parametrize("optimizer", ["adam", "block-lm"])
def test_corrected_cameras_fit_better_and_are_exported(optimizer, tmp_path):
    def shake(i: int, pose: np.ndarray) -> np.ndarray:
        shaken = pose.copy()
        shaken[:3, 3] += 0.04 * np.random.default_rng(i).normal(size=3)  # two pixels or so
        return shaken

    capture = write_capture(tmp_path / "in", pose=shake)
    fixed = final_loss(capture, tmp_path / "fixed", optimizer=optimizer)
    refined = final_loss(capture, tmp_path / "refined", optimizer=optimizer, refine_cameras=True)
    assert refined < 0.8 * fixed

    def astray(job: Path) -> float:
        frames = json.loads((job / "exports/transforms.json").read_text())["frames"]
        return float(
            np.mean([np.linalg.norm(np.array(f["transform_matrix"]) - matrix(i)) for i, f in enumerate(frames)])
        )

    assert astray(tmp_path / "refined") < astray(tmp_path / "fixed")


def test_corrected_exposures_fit_better(tmp_path):
    def dim(i: int, rgb: np.ndarray) -> np.ndarray:
        return rgb * (0.7 + 0.3 * (i % 3) / 2)

    capture = write_capture(tmp_path / "in", picture=dim)
    fixed = final_loss(capture, tmp_path / "fixed")
    assert final_loss(capture, tmp_path / "corrected", exposure=True) < 0.8 * fixed


# --- measuring again ---


def test_a_job_is_measured_again(finished, tmp_path):
    trimesh.creation.icosphere(subdivisions=4, radius=0.8).export(tmp_path / "truth.ply")
    found = evaluate_job(finished.job, tmp_path / "truth.ply")
    for name in ("psnr", "ssim"):
        assert found["metrics"][name] == pytest.approx(finished.result["metrics"][name], abs=1e-3)
    assert [view["name"] for view in found["views"]] == ["images/00.png", "images/08.png"]
    assert found["measured_on"] == "held-out"
    assert found["metrics"]["chamfer"] < 0.1
    assert found["metrics"]["accuracy"] == pytest.approx(found["metrics"]["completeness"], rel=0.5)
    assert found["mesh"]["faces"] == finished.result["counts"]["faces"]


def test_a_mesh_is_measured_by_itself(tmp_path):
    trimesh.creation.box((2, 2, 2)).export(tmp_path / "truth.ply")
    trimesh.creation.box((2, 2, 2.2)).export(tmp_path / "mesh.ply")
    found = evaluate_job(tmp_path / "mesh.ply")
    assert found["metrics"] == {}
    assert (found["mesh"]["watertight"], found["mesh"]["manifold"], found["mesh"]["faces"]) == (True, True, 12)
    assert found["mesh"]["volume"] == pytest.approx(8.8)
    assert found["mesh"]["smallest_angle"] == pytest.approx(np.degrees(np.arctan(1 / 1.1)), abs=1e-3)
    assert found["mesh"]["self_intersecting"] == 0
    compared = evaluate_job(tmp_path / "mesh.ply", tmp_path / "truth.ply")
    assert 0 < compared["metrics"]["accuracy"] < 0.1
    assert compared["mesh"] == found["mesh"]


def test_what_cannot_be_measured_says_why(finished, copied, tmp_path):
    job = copied()
    (job / "exports/mesh.ply").unlink()
    (job / "exports/mesh.glb").unlink()
    trimesh.creation.box().export(tmp_path / "box.ply")
    with pytest.raises(InputError, match="no mesh to compare"):
        evaluate_job(job, tmp_path / "box.ply")
    config = (job / "config.yaml").read_text()
    (job / "config.yaml").write_text(config.replace("steps: 400", "steps: 401"))
    with pytest.raises(InputError, match="changed since"):
        evaluate_job(job)
    (job / "config.yaml").write_text(config)
    (job / "stages/fit/model.safetensors").unlink()
    with pytest.raises(InputError, match="no finished stage 'fit'"):
        evaluate_job(job)
    (job / "config.yaml").write_text(config.replace(str(finished.capture), str(tmp_path / "gone")))
    with pytest.raises(InputError, match="gone, is not there any more"):
        evaluate_job(job)
    with pytest.raises(InputError, match="not a job"):
        evaluate_job(tmp_path)
