"""Stages: resume equals uninterrupted, only what lies downstream is redone, every end becomes a result."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from pathlib import Path

import pytest
import torch
from toy_pipeline import TOY, ToyConfig

from recon import pipelines
from recon.config import Config, setting
from recon.errors import InputError
from recon.events import Events, Failed, Preview, Progress, StageFinished, StageStarted
from recon.job import Job
from recon.pipelines import Pipeline, Stage, prepare
from recon.pipelines.stages import fingerprint

KEYS = ["version", "status", "pipeline", "device", "seconds", "peak_memory_mb"]
KEYS += ["counts", "metrics", "history", "exports", "warnings", "error"]


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    folder = tmp_path / "numbers"
    folder.mkdir()
    (folder / "a.txt").write_text("1 2 3")
    return folder


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Return the stages that ran since the last call."""
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(pipelines, "_PIPELINES", dict(pipelines._PIPELINES))  # what a test registers goes with it
    for name in [name for name in os.environ if name.startswith("RECON_")]:
        monkeypatch.delenv(name)

    def read() -> list[str]:
        path = tmp_path / "log"
        stages = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return stages

    return read


def run(numbers, out, events=None, resume=False, **more):
    return pipelines.run(numbers, out, "toy", events=events, resume=resume, **more)


def values(out: Path) -> list[float]:
    return json.loads((out / "stages/walk/values.json").read_text())


def test_result_has_the_keys_of_version_1(numbers, tmp_path, ran):
    events, heard = Events(), []
    events.listen(heard.append)
    result = run(numbers, tmp_path / "job", events, loud=True)
    assert list(result) == KEYS
    assert result == json.loads((tmp_path / "job/result.json").read_text())
    assert (result["version"], result["status"], result["error"]) == (1, "done", None)
    assert result["counts"] == {"views": 1, "registered": 0, "splats": 0, "vertices": 0, "faces": 0}
    assert result["exports"] == {"report": "exports/report.txt"}
    assert result["warnings"] == ["one number looks odd", "very loud"]
    assert list(result["seconds"]) == ["total", "read", "walk", "report"]
    assert result["seconds"]["total"] == pytest.approx(sum(list(result["seconds"].values())[1:]), abs=0.01)
    assert result["peak_memory_mb"] > 10
    assert len(result["history"]) == 8
    assert set(result["history"][0]) == {"seconds", "psnr", "stage"}
    assert (tmp_path / "job/exports/report.txt").read_text().startswith("mean 1.9")
    assert [e.stage for e in heard if isinstance(e, StageStarted)] == ["read", "walk", "report"]
    assert [e.stage for e in heard if isinstance(e, StageFinished)] == ["read", "walk", "report"]
    assert max(e.eta or 0 for e in heard if isinstance(e, Progress)) > 0
    assert not list((tmp_path / "job/checkpoint").iterdir())
    recorded = Job.open(tmp_path / "job").events()
    assert recorded[0]["event"] == "StageStarted"
    assert ran() == ["read", "walk", "report"]


def test_resume_equals_uninterrupted(numbers, tmp_path, ran):
    whole = run(numbers, tmp_path / "whole")
    events = Events()
    events.listen(lambda e: isinstance(e, Progress) and e.step == 23 and events.cancel())
    broken = run(numbers, tmp_path / "job", events)
    assert broken["status"] == "cancelled"
    assert broken["error"]["code"] == "cancelled"
    assert not (tmp_path / "job/stages/walk/done.json").exists()
    events, steps = Events(), []
    events.listen(lambda e: isinstance(e, Progress) and steps.append(e.step))
    mended = run(numbers, tmp_path / "job", events, resume=True)
    assert mended["status"] == "done"
    assert steps[0] == 21  # the last checkpoint was after step 20
    assert values(tmp_path / "job") == values(tmp_path / "whole")
    assert [h["psnr"] for h in mended["history"]] == [h["psnr"] for h in whole["history"]]
    seconds = [h["seconds"] for h in mended["history"]]
    assert seconds == sorted(seconds)
    assert mended["warnings"] == whole["warnings"]
    assert mended["metrics"] == whole["metrics"]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({}, []),
        ({"digits": 5}, ["report"]),
        ({"steps": 41}, ["walk", "report"]),
        ({"seed": 0}, []),
        ({"preset": "fast"}, ["walk", "report"]),
        ({"preset": "medium"}, []),
    ],
)
def test_a_changed_setting_redoes_only_what_is_downstream(numbers, tmp_path, ran, change, again):
    first = run(numbers, tmp_path / "job", loud=True)
    ran()
    events, cached = Events(), []
    events.listen(lambda e: isinstance(e, StageStarted) and e.cached and cached.append(e.stage))
    second = run(numbers, tmp_path / "job", events, resume=True, **change)
    assert ran() == again
    assert cached == [s.name for s in TOY.stages if s.name not in again]
    assert second["status"] == "done"
    assert second["seconds"]["read"] == first["seconds"]["read"]
    if not again:
        assert {**second, "peak_memory_mb": 0} == {**first, "peak_memory_mb": 0}


def test_a_changed_input_redoes_all_and_a_moved_one_nothing(numbers, tmp_path, ran):
    run(numbers, tmp_path / "job")
    moved = numbers.rename(tmp_path / "moved")
    ran()
    run(moved, tmp_path / "job", resume=True)
    assert ran() == []
    (moved / "b.txt").write_text("9")
    assert run(moved, tmp_path / "job", resume=True)["counts"]["views"] == 2
    assert ran() == ["read", "walk", "report"]


@pytest.mark.parametrize("path", ["exports/report.txt", "stages/walk/values.json"])
def test_what_was_deleted_or_cut_short_is_made_again(numbers, tmp_path, ran, path):
    run(numbers, tmp_path / "job")
    before = (tmp_path / "job" / path).read_bytes()
    (tmp_path / "job" / path).write_bytes(before[:3])
    assert run(numbers, tmp_path / "job", resume=True)["status"] == "done"
    assert (tmp_path / "job" / path).read_bytes() == before


def test_a_resumed_job_keeps_its_settings_and_its_file_may_be_edited(numbers, tmp_path, ran, monkeypatch):
    out = tmp_path / "job"
    run(numbers, out, preset="fast", digits=1, title="first")
    assert prepare(numbers, out, resume=True).config.digits == 1
    assert prepare(numbers, out, resume=True).preset == "fast"
    assert prepare(numbers, out, preset="fast", resume=True).config.digits == 1
    assert prepare(numbers, out, preset="high", resume=True).config == ToyConfig(steps=80)
    text = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(text.replace("title: first", "title: edited"))
    monkeypatch.setenv("RECON_DIGITS", "2")
    ran()
    run(numbers, out, resume=True)
    assert ran() == ["report"]
    assert (out / "exports/report.txt").read_text().startswith("edited ")
    again = prepare(numbers, tmp_path / "other", file=out / "config.yaml")  # a job's settings for another job
    assert (again.pipeline.name, again.preset, again.config.digits) == ("toy", "fast", 2)


# --- ends ---


def test_cancel_takes_effect_within_two_seconds(numbers, tmp_path, ran):
    events = Events()
    results = []
    thread = threading.Thread(target=lambda: results.append(run(numbers, tmp_path / "job", events, pause=0.05)))
    thread.start()
    while not (tmp_path / "job/checkpoint/walk").exists():
        time.sleep(0.05)
    events.cancel()
    asked = time.monotonic()
    thread.join()
    assert time.monotonic() - asked < 2
    assert results[0]["status"] == "cancelled"
    assert Job.open(tmp_path / "job").result() == results[0]
    assert results[0]["seconds"]["walk"] > 0


def test_cancelled_before_it_began(numbers, tmp_path, ran):
    events = Events()
    events.cancel()
    assert run(numbers, tmp_path / "job", events)["status"] == "cancelled"
    assert ran() == []


@pytest.mark.parametrize(
    ("trouble", "status", "code", "word"),
    [
        ("memory", "failed", "no-memory", "--resume"),
        ("defect", "failed", "internal", "error.log"),
        ("keys", "cancelled", "cancelled", "--resume"),
        ("disk", "failed", "disk-full", "--resume"),
    ],
)
def test_every_end_becomes_a_result(numbers, tmp_path, ran, monkeypatch, capfd, trouble, status, code, word):
    monkeypatch.setenv("TOY_TROUBLE", trouble)
    events, heard = Events(), []
    events.listen(heard.append)
    result = run(numbers, tmp_path / "job", events)
    assert (result["status"], result["error"]["code"]) == (status, code)
    assert word in result["error"]["hint"]
    assert result["history"], "what was found out before stays"
    assert isinstance(heard[-1], Failed)
    assert capfd.readouterr() == ("", "")
    log = tmp_path / "job/error.log"
    assert log.exists() == (trouble == "defect")
    if log.exists():
        assert "ZeroDivisionError" in log.read_text()
    monkeypatch.delenv("TOY_TROUBLE")
    assert run(numbers, tmp_path / "job", resume=True)["status"] == "done"
    assert ran() == ["read", "walk", "walk", "report"]
    assert not log.exists()


def test_bad_input_found_by_a_stage(tmp_path, ran):
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / "empty", tmp_path / "job")
    assert result["error"]["code"] == "no-numbers"
    assert list(result) == KEYS


def test_a_write_that_really_fails_then_resume(numbers, tmp_path, ran):
    """The limit on file sizes makes the kernel refuse the write, as a full disk does."""
    whole = run(numbers, tmp_path / "whole", size=10_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        result = run(numbers, tmp_path / "job", size=10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result["error"]["code"] == "disk-full"
    assert Job.open(tmp_path / "job").result() == result
    assert not list((tmp_path / "job").rglob(".part-*"))
    ran()
    assert run(numbers, tmp_path / "job", resume=True)["metrics"] == whole["metrics"]
    assert ran() == ["walk", "report"]


def test_a_full_disk_at_the_very_end_is_told_all_the_same(numbers, tmp_path, ran, monkeypatch):
    def full(self, result):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Job, "write_result", full)
    result = run(numbers, tmp_path / "job")
    assert (result["status"], result["error"]["code"]) == ("failed", "disk-full")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"input": "nowhere"}, "no-input"),
        ({"out": "numbers/job"}, "out-inside-input"),
        ({"out": "numbers"}, "not-a-job"),
        ({"pipeline": "tyo"}, "unknown-pipeline"),
        ({"device": "tpu"}, "unknown-device"),
        ({"device": "cuda:99"}, "no-device"),
        ({"stesp": 3}, "unknown-setting"),
    ],
)
def test_wrong_usage_begins_no_job(numbers, tmp_path, ran, monkeypatch, change, code):
    monkeypatch.chdir(tmp_path)
    arguments = {"input": "numbers", "out": "job", "pipeline": "toy", **change}
    with pytest.raises(InputError) as caught:
        pipelines.run(**arguments)
    assert caught.value.code == code
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.txt", "numbers"]


def test_another_pipelines_job_is_refused(numbers, tmp_path, ran):
    run(numbers, tmp_path / "job")
    pipelines.register(Pipeline("toy2", "", ToyConfig, TOY.stages))
    with pytest.raises(InputError, match="pipeline toy, not toy2"):
        pipelines.run(numbers, tmp_path / "job", "toy2", resume=True)


def test_environment_that_sets_nothing_is_warned_of(numbers, tmp_path, ran, monkeypatch):
    monkeypatch.setenv("RECON_DIGIT", "3")
    assert any("RECON_DIGITS" in warning for warning in run(numbers, tmp_path / "job")["warnings"])


# --- parts ---


def test_preview_is_told_and_a_failed_export_is_not_listed(numbers, tmp_path, ran):
    class Bare(Config):
        depth: int = setting(1, "Depth.", ge=0, le=9)

    def draw(context):
        with context.preview("previews/a.png") as path:
            path.write_bytes(b"png")
        with context.export("cameras", "exports/colmap") as path:
            path.mkdir()
            (path / "cameras.txt").write_text("1")
        if context.config.depth:
            return
        with context.export("mesh", "exports/m.glb") as path:
            path.write_bytes(b"half")
            raise InputError("no mesh")

    pipelines.register(Pipeline("draw", "", Bare, (Stage("draw", draw, ("depth",)),)))
    events, heard = Events(), []
    events.listen(heard.append)
    result = pipelines.run(numbers, tmp_path / "job", "draw", events=events, depth=0)
    assert (result["status"], result["exports"]) == ("failed", {"cameras": "exports/colmap"})
    assert [path.name for path in (tmp_path / "job/exports").iterdir()] == ["colmap"]
    assert [e.path for e in heard if isinstance(e, Preview)] == ["previews/a.png"]
    for expected in ([False], [True]):
        cached: list[bool] = []
        (events := Events()).listen(lambda e, c=cached: isinstance(e, StageStarted) and c.append(e.cached))
        assert pipelines.run(numbers, tmp_path / "job", "draw", events=events, resume=True, depth=1)["error"] is None
        assert cached == expected


def test_checkpoints_are_due_by_time(numbers, tmp_path, ran, monkeypatch):
    from recon.pipelines import context as module

    due = []

    def wait(context):
        due.append(context.checkpoint_due())
        monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0.0)
        due.append(context.checkpoint_due())

    class Bare(Config):
        pass

    pipelines.register(Pipeline("wait", "", Bare, (Stage("wait", wait),)))
    pipelines.run(numbers, tmp_path / "job", "wait")
    assert due == [False, True]


def test_fingerprint_sees_what_changed(tmp_path):
    folder = tmp_path / "in"
    (folder / "images").mkdir(parents=True)
    (folder / "images/a.jpg").write_bytes(b"a" * 100)
    (folder / "transforms.json").write_text("{}")
    (folder / "images/loop").symlink_to(folder)
    seen = fingerprint(folder / "transforms.json", tmp_path)
    assert fingerprint(folder, tmp_path / "job") == seen
    (folder / ".DS_Store").write_text("x")
    (folder / "job").mkdir()
    (folder / "job/preview.png").write_text("x")
    assert fingerprint(folder, folder / "job") == seen
    (folder / "images/a.jpg").write_bytes(b"b" * 100)
    assert fingerprint(folder, folder / "job") != seen
    big = tmp_path / "big.mp4"
    big.write_bytes(bytes(2 << 20))
    seen = fingerprint(big, tmp_path)
    os.utime(big, (1, 1))
    assert fingerprint(big, tmp_path) != seen


def test_a_pipeline_that_could_skip_wrongly_is_refused():
    stage = TOY.stages[0]
    for stages, word in [
        ((stage, stage), "taken"),
        ((Stage("total", stage.run),), "taken"),
        ((Stage("a", stage.run, inputs=("b",)), Stage("b", stage.run)), "unknown"),
        ((Stage("a", stage.run, settings=("stepz",)),), "unknown"),
        ((stage,), "depends on"),
    ]:
        with pytest.raises(ValueError, match=word):
            Pipeline("bad", "", ToyConfig, stages)


def test_the_eta_follows_the_pace_of_the_last_steps(tmp_path, monkeypatch):
    now, heard = [0.0], []
    monkeypatch.setattr("recon.pipelines.context.time.monotonic", lambda: now[0])
    events = Events()
    events.listen(heard.append)
    job = Job(tmp_path)
    context = pipelines.Context(job, ToyConfig(), tmp_path, "cpu", events, "walk", "key", {}, 0.0)
    for step in range(200):
        now[0] += 0.1 if step < 100 else 1.0
        context.progress(step, 400)
    assert heard[50].eta == pytest.approx(0.1 * 350)
    assert heard[-1].eta == pytest.approx(201, rel=0.02)
    context.progress(0, 10)  # another loop of the same stage
    assert heard[-1].eta is None


def test_the_device_of_a_job_is_the_one_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("recon.pipelines.devices.find_spec", lambda name: name)
    (tmp_path / "in").mkdir()
    for name in ("cuda", "cuda:1"):
        assert prepare(tmp_path / "in", tmp_path / "job", "splats", "fast", device=name).device == name
    with pytest.raises(InputError, match="no device 'cuda:2'"):
        prepare(tmp_path / "in", tmp_path / "job", "splats", "fast", device="cuda:2")
