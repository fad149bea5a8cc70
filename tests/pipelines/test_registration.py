"""The ``deform`` pipeline from a source and targets to the registered surfaces, the report and result.json."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from app.manifest import Entry
from app.page_new import found_text
from recon import pipelines
from recon.capture.inspect import inspect
from recon.errors import InputError
from recon.events import Event, Events, Progress
from recon.export import export, read_mesh
from recon.pipelines.estimate import estimate_seconds
from recon.pipelines.evaluate import evaluate_job


def body(bend: float) -> trimesh.Trimesh:
    """An ellipsoid 200 long, thick at one end, far from the origin, bent upwards."""
    mesh = trimesh.creation.icosphere(subdivisions=2)
    x, y, z = mesh.vertices.T
    y, z = y * (0.5 + 0.2 * x), z * (0.3 + 0.1 * x)
    mesh.vertices = 100 * np.stack([x, y + bend * x**2, z], axis=1) + (500, 0, 0)
    return mesh


def write(path: Path, mesh: trimesh.Trimesh) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh.export(path)
    return path


def write_cloud(path: Path, mesh: trimesh.Trimesh) -> Path:
    np.savetxt(path, mesh.vertices)
    return path


def run(source: Path, job: Path, **settings: Any) -> dict[str, Any]:
    result = pipelines.run(source, job, "deform", **{"rigid": False, **settings})
    assert result["status"] == "done", result["error"]
    return result


def apart(found: np.ndarray, bend: float) -> float:
    """Root mean square distance of vertices from where the ellipsoid's own are."""
    return float(np.sqrt(((found - body(bend).vertices) ** 2).sum(axis=1).mean()))


def test_one_scan_onto_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    coloured = body(0)
    coloured.visual.vertex_colors = np.where(coloured.vertices[:, :1] > 500, (255, 0, 0, 255), (0, 0, 255, 255))
    source, target = write(Path("source.ply"), coloured), write(Path("scans/target.obj"), body(0.3))
    result = run(source, Path("job"), target=target)
    assert set(result["exports"]) == {"mesh", "mesh_ply", "registration", "report"}
    assert result["counts"]["vertices"] == len(coloured.vertices)
    assert result["counts"]["targets"] == 1
    metrics = result["metrics"]
    assert 0 < metrics["median_distance"] <= metrics["rms_distance"] < 2, "of 200"
    assert 0 < metrics["median_distance_back"] <= metrics["rms_distance_back"] < 2
    assert metrics["matched"] > 0.9
    assert metrics["folds"] == 0
    assert 0 < metrics["strain_median"] < metrics["strain_p95"] < metrics["strain_max"]
    for name in ("mesh", "mesh_ply"):
        mesh = read_mesh(Path("job") / result["exports"][name])
        np.testing.assert_array_equal(mesh.faces, coloured.faces)
        assert apart(mesh.vertices, 0.3) < 8 < 12 < apart(coloured.vertices, 0.3)
        assert mesh.colours is not None
        np.testing.assert_allclose(mesh.colours[:, 0], coloured.vertices[:, 0] > 500, atol=0.01)
    with np.load("job/exports/registration.npz") as file:
        shapes = {name: file[name].shape for name in file}
        np.testing.assert_array_equal(file["rotation"][0], np.eye(3))
    count = len(coloured.vertices)
    assert shapes == {
        **{"vertices": (1, count, 3), "nearest": (1, count), "weight": (1, count)},
        **{"rotation": (1, 3, 3), "translation": (1, 3)},
    }
    assert Path("job/report.html").is_file()
    assert Path("job/previews/surface.jpg").is_file()

    assert evaluate_job(Path("job"))["mesh"]["faces"] == len(coloured.faces)
    export(Path("job"), Path("taken.stl"))
    assert len(read_mesh(Path("taken.stl")).faces) == len(coloured.faces)
    monkeypatch.chdir("/")  # the job knows where its target is
    again = run(tmp_path / source, tmp_path / "job", resume=True)
    assert again["seconds"] == result["seconds"], "nothing is done again"


def test_a_changed_target_is_fitted_anew(tmp_path: Path) -> None:
    source, target = write(tmp_path / "source.ply", body(0)), write(tmp_path / "target.ply", body(0.2))
    run(source, tmp_path / "job", target=target)
    write(target, body(-0.2))
    result = run(source, tmp_path / "job", resume=True)
    assert result["metrics"]["rms_distance"] < 1
    assert apart(read_mesh(tmp_path / "job" / "exports" / "registered.ply").vertices, -0.2) < 5


def test_targets_in_time_and_gone_on_with(tmp_path: Path) -> None:
    for number in (2, 10):
        write(tmp_path / "in" / "target" / f"t{number}.ply", body(0.02 * number))
    source = write(tmp_path / "in" / "source.obj", body(0))
    whole = run(source, tmp_path / "whole", target=source.parent / "target", sequence="ply", rate=10)
    assert whole["counts"]["targets"] == 2
    assert len(list((tmp_path / "whole" / whole["exports"]["sequence"]).glob("frame_*.ply"))) == 2
    with np.load(tmp_path / "whole" / whole["exports"]["surface_npz"]) as file:
        frames, times = file["vertices"], file["times"]
    np.testing.assert_allclose(times, (0, 0.1))
    assert apart(frames[0], 0.04) < 2, "in the order of the numbers, and not turned"
    assert apart(frames[1], 0.2) < 6 < apart(frames[0], 0.2)
    (shown,) = trimesh.load(tmp_path / "whole" / whole["exports"]["surface"]).geometry.values()
    np.testing.assert_allclose(shown.vertices, frames[0], atol=1e-3)

    events = Events()

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "fit" and 2 * event.step > event.total + 2:
            events.cancel()

    events.listen(stop)
    settings = {"target": source.parent / "target", "rigid": False, "rate": 10}
    cancelled = pipelines.run(source, tmp_path / "job", "deform", events=events, **settings)
    assert cancelled["status"] == "cancelled"
    begun: list[int] = []
    events = Events()
    events.listen(lambda e: begun.append(e.step) if isinstance(e, Progress) and e.stage == "fit" else None)
    resumed = run(source, tmp_path / "job", resume=True, events=events)
    assert begun[0] > 60, "the first is not done again"
    assert resumed["metrics"] == whole["metrics"]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_of_both_is_a_capture(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "pair"
    write(path / "source.obj", body(0))
    write(path / "target.glb", body(0.1))
    if zipped:
        path = Path(shutil.make_archive(str(path), "zip", tmp_path, "pair"))
    else:
        assert Entry("pair", path, "").pipeline(None) == "deform"
    found = inspect(path, Events(), tmp_path / "work")
    assert (found.kind, found.faces, found.targets, found.pipelines) == ("registration", 320, 1, ("deform",))
    assert "one surface onto another" in found.text()
    assert "a mesh of 320 faces, to be laid onto a target" in found_text({**found.to_json(), "title": "pair"})
    assert estimate_seconds(found)["deform"]["medium"] > 0
    result = run(path, tmp_path / "job")
    assert result["metrics"]["rms_distance"] < 1


def test_clouds(tmp_path: Path) -> None:
    source = write_cloud(tmp_path / "source.xyz", body(0))
    (tmp_path / "target").mkdir()
    for number in range(2):
        write_cloud(tmp_path / "target" / f"{number}.xyz", body(0.1 + 0.1 * number))
    one = run(source, tmp_path / "one", target=tmp_path / "target" / "0.xyz")
    assert set(one["exports"]) == {"points", "registration", "report"}
    found = trimesh.load(tmp_path / "one" / one["exports"]["points"]).vertices
    assert apart(found, 0.1) < 10
    assert "strain_median" not in one["metrics"]
    several = run(source, tmp_path / "several", target=tmp_path / "target")
    clouds = sorted((tmp_path / "several" / several["exports"]["sequence"]).iterdir())
    assert [cloud.name for cloud in clouds] == ["frame_0000.ply", "frame_0001.ply"]
    np.testing.assert_array_equal(trimesh.load(clouds[0]).vertices, found)


def test_a_source_that_lies_elsewhere(tmp_path: Path) -> None:
    turned = body(0.1)
    turned.apply_transform(trimesh.transformations.rotation_matrix(2, (1, 2, 3)))
    source, target = write(tmp_path / "source.ply", body(0)), write(tmp_path / "target.ply", turned)
    result = run(source, tmp_path / "job", target=target, rigid=True)
    assert result["metrics"]["rms_distance"] < 1
    with np.load(tmp_path / "job" / "exports" / "registration.npz") as file:
        rotation, translation = file["rotation"][0], file["translation"][0]
    assert np.linalg.det(rotation) == pytest.approx(1)
    moved = body(0).vertices @ rotation.T + translation
    assert np.linalg.norm(moved.mean(axis=0) - turned.vertices.mean(axis=0)) < 20


def test_landmarks_hold_and_units_that_differ_are_warned_of(tmp_path: Path) -> None:
    source, target = write(tmp_path / "source.ply", body(0)), write(tmp_path / "target.ply", body(0.1))
    (tmp_path / "pairs.csv").write_text("3, 5\n70 ,  71\n")
    run(source, tmp_path / "job", target=target, landmarks=tmp_path / "pairs.csv")
    with np.load(tmp_path / "job" / "exports" / "registration.npz") as file:
        away = file["vertices"][0][[3, 70]] - body(0.1).vertices[[5, 71]]
    assert np.linalg.norm(away, axis=1).max() < 2
    assert np.linalg.norm(body(0).vertices[[3, 70]] - body(0.1).vertices[[5, 71]], axis=1).min() > 10
    metres = body(0.1)
    metres.apply_scale(1e-3)
    warned = run(source, tmp_path / "other", target=write(tmp_path / "metres.ply", metres), stiffness=2)["warnings"]
    assert any("The target is 0.001 times as large as the source" in warning for warning in warned), warned
    assert any("make no difference to a registration: 'stiffness'." in warning for warning in warned), warned


def flat() -> trimesh.Trimesh:
    return trimesh.Trimesh(np.zeros((3, 3)) + np.arange(3)[:, None], [[0, 1, 2]], process=False)


@pytest.mark.parametrize(
    ("source", "settings", "code", "words"),
    [
        ("a.ply", {}, "no-target", "a.ply is one surface, and there is nothing to deform it by"),
        ("a.ply", {"target": "notes.md"}, "no-target", "notes.md is no mesh or cloud"),
        ("a.ply", {"target": "void"}, "no-target", "void holds no mesh or cloud"),
        ("a.ply", {"target": "empty.xyz"}, "no-points", "empty.xyz holds no point"),
        ("a.ply", {"target": "flat.ply"}, "bad-mesh", "flat.ply has no area"),
        ("a.ply", {"target": "torn.ply"}, "broken-file", "torn.ply"),
        ("flat.ply", {"target": "a.ply"}, "bad-mesh", "flat.ply has no area"),
        ("void", {"target": "a.ply"}, "no-source", "void holds no mesh or cloud"),
        ("notes.md", {"target": "a.ply"}, "no-source", "notes.md is no mesh or cloud"),
        ("film", {"target": "a.ply"}, "unused-target", "film is a film or tracks, to which no target belongs"),
        ("film", {"landmarks": "pairs.txt"}, "unused-landmarks", "no mesh or cloud with a target"),
        ("two", {"target": "a.ply"}, "many-sources", "two holds 2 surfaces that may be the source: 1.ply, 2.ply"),
        ("both", {}, "many-targets", "both holds 2 targets: target.ply, target"),
        ("a.ply", {"target": "a.ply", "landmarks": "notes.md"}, "bad-landmarks", "notes.md holds no landmarks"),
        ("a.ply", {"target": "a.ply", "landmarks": "empty.xyz"}, "bad-landmarks", "empty.xyz has no landmarks"),
        ("a.ply", {"target": "a.ply", "landmarks": "three.txt"}, "bad-landmarks", "has 3 numbers a line, not 2"),
        ("a.ply", {"target": "a.ply", "landmarks": "pairs.txt"}, "bad-landmarks", "beyond the 162 of the source"),
    ],
)
def test_what_cannot_be_registered_is_refused(
    tmp_path: Path, source: str, settings: dict[str, str], code: str, words: str
) -> None:
    write(tmp_path / "a.ply", body(0))
    write(tmp_path / "flat.ply", flat())
    (tmp_path / "torn.ply").write_bytes((tmp_path / "a.ply").read_bytes()[:-100])
    (tmp_path / "notes.md").write_text("notes")
    (tmp_path / "empty.xyz").write_text("")
    (tmp_path / "three.txt").write_text("1 2 3\n")
    (tmp_path / "pairs.txt").write_text("0 0\n162 1\n")
    (tmp_path / "void").mkdir()
    (tmp_path / "film").mkdir()
    (tmp_path / "film" / "tracks.npz").write_bytes(b"")
    for name in ("two/1.ply", "two/2.ply", "both/source.ply", "both/target.ply", "both/target/1.ply"):
        write(tmp_path / name, body(0))
    given = {name: tmp_path / value for name, value in settings.items()}
    result = pipelines.run(tmp_path / source, tmp_path / "job", "deform", **given)
    assert result["status"] == "failed"
    assert result["error"]["code"] == code
    assert words in result["error"]["message"]
    assert result["error"]["hint"]


def test_a_target_that_is_not_there_is_refused_before_a_job_is_begun(tmp_path: Path) -> None:
    source = write(tmp_path / "scans" / "source.ply", body(0))
    with pytest.raises(InputError, match=r"Setting 'target': .*nothing\.ply does not exist"):
        pipelines.run(source, tmp_path / "job", "deform", target=tmp_path / "nothing.ply")
    with pytest.raises(InputError, match="would lie inside its input"):
        pipelines.run(source, tmp_path / "scans" / "job", "deform", target=source.parent)
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]
