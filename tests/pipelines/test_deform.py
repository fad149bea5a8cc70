"""The ``deform`` pipeline from a folder to the animation, the report and result.json."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from sheets import posed

from app.page_new import found_text
from benchmarks.bent_sheets import K, cylinder, nodes, write_video
from recon import pipelines
from recon.capture.inspect import inspect
from recon.deform import metric_field
from recon.deform.anchoring import anchored
from recon.deform.metric_field import MetricRule
from recon.errors import InputError
from recon.events import Event, Events, Progress
from recon.pipelines.estimate import estimate_seconds

FRAMES = 3


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("film") / "folded"
    return folder, write_video(folder, "folded", FRAMES, (12, 9))


def run(folder: Path, job: Path, **settings: Any) -> dict[str, Any]:
    return pipelines.run(folder, job, "deform", "fast", **settings)


def test_from_a_film_to_an_animation(film: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder, truth = film
    result = run(folder, tmp_path / "job", sequence="obj", isometric=True)
    assert result["status"] == "done", result["error"]
    assert "'isometric'. They are for a registration" in result["warnings"][-1]
    assert result["counts"]["views"] == FRAMES
    assert result["counts"]["faces"] == 2 * 12 * 9
    assert 0 < result["metrics"]["strain_median"] <= result["metrics"]["strain_p95"] < 0.01
    assert result["metrics"]["folds"] == 0
    with np.load(tmp_path / "job" / result["exports"]["surface_npz"]) as file:
        found = file["vertices"]
    assert np.linalg.norm(found - truth, axis=2).mean() < 0.5, "of 250"
    scene = trimesh.load(tmp_path / "job" / result["exports"]["surface"])
    (mesh,) = scene.geometry.values()
    np.testing.assert_allclose(mesh.bounds, trimesh.PointCloud(found[0] * [1, -1, -1]).bounds, atol=1e-3)
    assert mesh.visual.material.baseColorTexture is not None, "the first photo"
    assert len(list((tmp_path / "job" / result["exports"]["sequence"]).glob("frame_*.obj"))) == FRAMES
    assert set(result["exports"]) == {"surface", "surface_npz", "sequence", "overlay", "side", "report"}
    assert "strain" in (tmp_path / "job" / "report.html").read_text().lower()


@pytest.mark.parametrize("method", ["lm", "metric_field"])
def test_cancelled_and_gone_on_with_is_the_same(
    method: str, film: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric_field, "MetricRule", lambda: MetricRule(rate=1e-2, steps=20, template_patience=5))
    folder, _ = film
    settings: dict[str, Any] = {"method": method}
    for step in (0, 2) if method == "metric_field" else (2,):  # at step 0 the network is still fitted to the template
        events, told = Events(), list[Event]()

        def stop(event: Event, events: Events = events, told: list[Event] = told, step: int = step) -> None:
            if isinstance(event, Progress) and event.stage == "fit" and event.step == step:
                told.append(event)
                if len(told) > 10 or step:
                    events.cancel()

        events.listen(stop)
        assert run(folder, tmp_path / "job", events=events, resume=True, **settings)["status"] == "cancelled"
        settings = {}
    resumed = run(folder, tmp_path / "job", resume=True)
    whole = run(folder, tmp_path / "whole", method=method)
    assert resumed["status"] == "done"
    with (
        np.load(tmp_path / "job" / "exports" / "surface.npz") as one,
        np.load(tmp_path / "whole" / "exports" / "surface.npz") as other,
    ):
        np.testing.assert_array_equal(one["vertices"], other["vertices"])
    assert resumed["metrics"] == whole["metrics"]


def test_a_zip_of_tracks_and_a_template(film: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    folder, truth = film
    (tmp_path / "tracked").mkdir()
    shutil.copy(folder / "template.obj", tmp_path / "tracked")
    image = truth[:, ::2] @ K.T
    np.savez(tmp_path / "tracked" / "tracks.npz", tracks=image[..., :2] / image[..., 2:], K=K)
    archive = Path(shutil.make_archive(str(tmp_path / "tracked"), "zip", tmp_path, "tracked"))
    found = inspect(archive, Events(), tmp_path / "work")
    assert (found.kind, found.photos, found.frames, found.pipelines) == ("deform", 0, len(truth), ("deform",))
    alone = inspect(tmp_path / "tracked" / "tracks.npz", Events(), tmp_path / "work")
    assert (alone.kind, alone.frames, alone.points, alone.faces) == ("deform", len(truth), truth[:, ::2].shape[1], 0)
    assert "surface that deforms" in found.text()
    assert f"{len(truth)} frames of tracks alone" in found_text({**found.to_json(), "title": "tracked"})
    assert 0 < estimate_seconds(found)["deform"]["fast"] <= estimate_seconds(found)["deform"]["high"]
    result = run(archive, tmp_path / "job")
    assert result["status"] == "done", result["error"]
    assert result["metrics"]["pixels"] < 0.5
    with np.load(tmp_path / "job" / "exports" / "surface.npz") as file:
        assert np.linalg.norm(file["vertices"] - truth, axis=2).mean() < 1.5, "of 250"


def test_tracks_alone_tell_the_template(tmp_path: Path) -> None:
    """All but its size, which a setting gives."""
    flat, radii = nodes((8, 6)), (400.0, 90, -120, 70, 150)
    truth = np.stack([posed(cylinder(flat, radius, seed), seed) for seed, radius in enumerate(radii)])
    image = truth @ K.T
    np.savez(tmp_path / "tracks.npz", tracks=image[..., :2] / image[..., 2:], K=K)
    result = run(tmp_path / "tracks.npz", tmp_path / "job", size=200.0)
    assert result["status"] == "done", result["error"]
    assert any("no template" in warning for warning in result["warnings"])
    with np.load(tmp_path / "job" / "exports" / "surface.npz") as file:
        found, faces = file["vertices"].astype(np.float64), file["faces"]
    points, inside = anchored(image[0, :, :2] / image[0, :, 2:], found[0], faces, K)
    assert inside.mean() > 0.9
    where = np.stack([points.at(torch.from_numpy(frame)).numpy() for frame in found])[:, inside]
    scale = (where * truth[:, inside]).sum() / np.square(where).sum()
    assert scale == pytest.approx(1, rel=0.1)
    assert np.linalg.norm(scale * where - truth[:, inside], axis=2).mean() < 4, "of 250"


def test_what_is_no_such_capture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    result = run(tmp_path / "photos", tmp_path / "job")
    assert result["status"] == "failed"
    assert result["error"]["code"] == "no-camera"
    with pytest.raises(InputError, match="does not exist"):
        run(tmp_path / "nothing", tmp_path / "other")
