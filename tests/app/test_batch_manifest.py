"""What a manifest or a folder asks for, and every mistake in it, named before anything begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from app.batch_jobs import check
from app.manifest import read
from recon import pipelines
from recon.errors import InputError


def photos(folder: Path) -> None:
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "a.jpg")


def tasks_of(source: Path, out: Path, resume: bool = False, **flags: str):
    entries, _ = read(source, out)
    return check(entries, out, flags, resume)[0]


@pytest.fixture
def manifest(tmp_path, numbers):
    """Return a function that writes a manifest beside the folder ``numbers``."""

    def write(text: str) -> Path:
        path = tmp_path / "batch.yaml"
        path.write_text(text)
        return path

    return write


def test_a_folder_of_captures(tmp_path):
    folder = tmp_path / "captures"
    photos(folder / "chair" / "images")
    photos(folder / "b" / "made" / "images")  # a folder of jobs is no capture
    pipelines_job = folder / "b" / "made" / "config.yaml"
    pipelines_job.write_text("egregium: 1\npipeline: splats\n")
    photos(folder / ".hidden")
    (folder / "empty").mkdir()
    for name in ("table.zip", "walk.mp4", "scan10.ply", "scan9.ply.gz", "chair.zip", "notes.txt", "photo.jpg"):
        (folder / name).write_bytes(b"x")
    entries, warnings = read(folder, folder / "out")
    names = {entry.name: entry.pipeline(None) for entry in entries}
    assert names == {
        "chair": None,
        "chair.zip": None,
        "scan9": "points",
        "scan10": "points",
        "table": None,
        "walk": None,
    } or names == {
        "chair.zip": None,
        "scan9": "points",
        "scan10": "points",
        "table": None,
        "walk": None,
    }
    assert warnings == ["Skipped, as there is nothing to reconstruct in them: empty, notes.txt, photo.jpg."]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda folder: (folder / "transforms.json").write_text("{}"), "one-capture"),
        (lambda folder: (folder / "a.jpg").write_bytes(b"x"), "no-captures"),
        (lambda folder: folder.rmdir(), "no-input"),
    ],
)
def test_a_folder_that_is_none(tmp_path, make, code):
    folder = tmp_path / "captures"
    folder.mkdir()
    make(folder)
    with pytest.raises(InputError) as caught:
        read(folder, tmp_path / "out")
    assert caught.value.code == code


def test_defaults_globs_and_flags(tmp_path, manifest):
    for name in ("a/cloud.ply", "b/cloud.ply", "c.ply"):
        (tmp_path / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scans" / name).write_bytes(b"x")
    path = manifest(
        "defaults: {pipeline: toy, preset: fast, seed: 7, turntable: 0}\n"
        "jobs:\n"
        "  - {input: 'scans/**/*.ply', pipeline: points}\n"
        "  - {input: numbers, name: mine, seed: 8, title: none}\n"
        "  - {input: numbers, name: other, pipeline: splats, preset: high}\n"
    )
    tasks = {task.name: task for task in tasks_of(path, tmp_path / "out")}
    assert list(tasks) == ["scans-a-cloud", "scans-b-cloud", "c", "mine", "other"]
    assert tasks["mine"].settings["seed"] == 8, "a job's own value wins"
    assert tasks["mine"].settings["steps"] == 10, "of the preset"
    assert tasks["mine"].settings["title"] is None
    assert tasks["mine"].input == tmp_path / "numbers"
    assert tasks["mine"].out == tmp_path / "out" / "mine"
    assert (tasks["c"].pipeline, tasks["other"].preset) == ("points", "high")
    assert tasks["other"].settings["turntable"] == 0, "a default counts where the pipeline has that setting"
    assert {task.preset for task in tasks_of(path, tmp_path / "out", preset="high")} == {"high"}, "a flag wins"


def test_paths_among_the_settings_are_relative_to_the_manifest(tmp_path, manifest, monkeypatch):
    (tmp_path / "scans" / "pair").mkdir(parents=True)
    for name in ("a.ply", "b.ply", "body.ply", "pair/source.obj", "pair/target.obj"):
        (tmp_path / "scans" / name).write_bytes(b"x")
    path = manifest(
        "defaults: {target: scans/body.ply}\n"
        "jobs:\n"
        "  - {input: 'scans/[ab].ply', pipeline: deform}\n"
        "  - {input: scans/pair, target: none}\n"
        "  - {input: scans/body.ply}\n"
    )
    monkeypatch.chdir("/")
    tasks = {task.name: (task.pipeline, task.settings.get("target")) for task in tasks_of(path, tmp_path / "out")}
    body = tmp_path / "scans" / "body.ply"
    assert tasks == {"a": ("deform", body), "b": ("deform", body), "pair": ("deform", None), "body": ("points", None)}
    with pytest.raises(InputError, match=r"job 1 \(numbers\): Setting 'target': .*gone.ply does not exist"):
        tasks_of(manifest("jobs: [{input: numbers, pipeline: deform, target: gone.ply}]"), tmp_path / "out")


def test_the_environment_yields_to_the_manifest(tmp_path, manifest, monkeypatch):
    monkeypatch.setenv("RECON_STEPS", "33")
    monkeypatch.setenv("RECON_SEED", "3")
    (task,) = tasks_of(manifest("jobs: [{input: numbers, pipeline: toy, steps: 5}]"), tmp_path / "out")
    assert (task.settings["steps"], task.settings["seed"]) == (5, 3)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("jobs: [{input: numbers, pipelin: toy}]", "job 1 (numbers): unknown key 'pipelin'", "'pipeline'"),
        ("jobs: [{input: numbers, pipeline: toy, step: 5}]", "job 1 (numbers): unknown key 'step'", "'steps'"),
        ("jobs: [{input: numbers, pipeline: toi}]", "job 1 (numbers): Unknown pipeline 'toi'", "'toy'"),
        ("jobs: [{input: numbers, pipeline: toy, preset: fats}]", "job 1 (numbers): Unknown preset 'fats'", "fast"),
        ("jobs: [{input: numbers, pipeline: toy, steps: 0}]", "job 1 (numbers): Setting 'steps' is 0", ""),
        ("jobs: [{input: numbers, pipeline: 5}]", "job 1 (numbers): 'pipeline' is 5", ""),
        ("jobs: [{input: numbers, device: cpux}]", "job 1 (numbers): Unknown device 'cpux'", "cpu"),
        ("jobs: [{input: numbers}, {input: chair}]", "job 2 (chair): there is no", "relative to the manifest"),
        ("jobs: [{input: '*.ply'}]", "job 1 (*.ply): nothing matches", "relative to the manifest"),
        ("jobs: [{input: numbers}, {input: numbers}]", "job 2 (numbers): a job named 'numbers'", "'name'"),
        ("jobs: [{input: numbers, name: ../up}]", "job 1 (numbers): the name '../up'", ""),
        ("jobs: [{input: numbers, name: logs}]", "job 1 (numbers): a job cannot be named 'logs'", "'name'"),
        ("jobs: [{name: chair}]", "job 1 has no 'input'", "docs/batch.md"),
        ("jobs: []", "asks for no job", "docs/batch.md"),
        ("job: [{input: numbers}]", "unknown key 'job'", "'jobs'"),
        ("- numbers", "is not a list of settings", "jobs:"),
        ("jobs: [", "is not valid YAML", "jobs:"),
        ("{defaults: {stepz: 5, pipeline: toy}, jobs: [{input: numbers}]}", "defaults: unknown key 'stepz'", "'steps'"),
        ("{defaults: {input: numbers}, jobs: [{input: numbers}]}", "defaults: 'input'", "jobs"),
    ],
)
def test_mistakes_are_named(tmp_path, manifest, text, message, hint):
    path = manifest(text)
    with pytest.raises(InputError) as caught:
        tasks_of(path, tmp_path / "out")
    assert caught.value.message.startswith(str(path))
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_what_lies_in_the_way(tmp_path, numbers, manifest):
    path, out = manifest("jobs: [{input: numbers, pipeline: toy, preset: fast}]"), tmp_path / "out"
    (out / "numbers").mkdir(parents=True)
    (out / "numbers" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="no job"):
        tasks_of(path, out)
    (out / "numbers" / "letter.txt").unlink()
    pipelines.run(numbers, out / "numbers", "toy", "fast")
    with pytest.raises(InputError, match="already holds a job"):
        tasks_of(path, out)
    (task,) = tasks_of(path, out, resume=True)
    assert task.finished() is not None
    (task,) = tasks_of(manifest("jobs: [{input: numbers, pipeline: toy, preset: fast, seed: 5}]"), out, resume=True)
    assert task.finished() is None, "another setting asks for another result"
    (numbers / "a.txt").write_text("7 8 9")
    (task,) = tasks_of(path, out, resume=True)
    assert task.finished() is None, "another input asks for another result"
    with pytest.raises(InputError, match="of pipeline toy"):
        tasks_of(path, out, resume=True, pipeline="splats")
