"""A run that was stopped, cancelled or killed goes on and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from splat_capture import SETTINGS

from recon import job_checkpoint, pipelines
from recon.events import Events, Progress, StageStarted
from recon.pipelines import Context, splats_fit
from recon.splats.fit import Fit

HERE = Path(__file__).parent
SPLATS, MODEL = "exports/splats.ply", "stages/fit/model.safetensors"


def ran(events: Events) -> list[str]:
    """Return the list to which the stages that run, rather than being found done, will be added."""
    stages: list[str] = []
    events.listen(lambda e: isinstance(e, StageStarted) and not e.cached and stages.append(e.stage))
    return stages


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({}, []),
        ({"faces": 500}, ["mesh", "report"]),
        ({"turntable": 3}, ["turntable", "report"]),
        ({"mesh": False}, ["mesh", "report"]),
    ],
)
def test_only_what_a_change_concerns_is_redone(finished, copied, change, again):
    job, events = copied(), Events()
    stages, before = ran(events), {path: path.stat().st_mtime_ns for path in job.rglob("*.p*")}
    result = pipelines.run(finished.capture, job, events=events, resume=True, **change)
    assert (result["status"], stages) == ("done", again)
    assert result["metrics"] == finished.result["metrics"]
    assert (job / SPLATS).stat().st_mtime_ns == before[job / SPLATS]
    if "faces" in change:
        assert 100 < result["counts"]["faces"] <= 500
    if "mesh" in change:
        assert result["counts"]["faces"] == 0
        assert not {"mesh", "mesh_ply"} & result["exports"].keys()
        assert not list((job / "exports").glob("mesh*")), "what is no result any more is not left lying about"


def test_a_new_photo_redoes_everything(finished, copied, tmp_path):
    job, events = copied(), Events()
    (finished.capture / "note.txt").write_text("not a photo, yet who knows")
    try:
        events.listen(lambda e: isinstance(e, Progress) and e.stage == "fit" and events.cancel())
        stages = ran(events)
        pipelines.run(finished.capture, job, events=events, resume=True)
    finally:
        (finished.capture / "note.txt").unlink()
    assert stages == ["load", "poses", "fit"]


def test_cancelled_in_mid_fit_then_resumed_equals_uninterrupted(finished, tmp_path, monkeypatch):
    """Long before a checkpoint is due: on a step, and in the midst of measuring."""
    job, asked, reached = tmp_path / "job", [], []
    mean_psnr = splats_fit._mean_psnr

    def cancel(events: Events) -> None:
        asked.append(time.monotonic())
        events.cancel()

    def on_a_step(events: Events) -> None:
        events.listen(lambda e: isinstance(e, Progress) and "loss" in e.metrics and e.step >= 60 and cancel(events))

    def in_measuring(events: Events) -> None:
        def measure(context: Context, model: Fit, photos: list) -> float:
            if model.step >= 250:
                cancel(events)
            return mean_psnr(context, model, photos)

        monkeypatch.setattr(splats_fit, "_mean_psnr", measure)

    for prepare in (on_a_step, in_measuring):
        prepare(events := Events())
        settings = {} if job.exists() else SETTINGS
        result = pipelines.run(finished.capture, job, events=events, resume=True, **settings)
        assert time.monotonic() - asked[-1] < 2
        assert (result["status"], result["error"]["code"]) == ("cancelled", "cancelled")
        reached.append(job_checkpoint.load(job / "checkpoint/fit")[1]["state"]["step"])
    assert 60 <= reached[0] < reached[1]
    assert reached[1] == 264, "the first step from 250 on at which it is measured: every 33rd"
    monkeypatch.undo()
    begun = []
    (events := Events()).listen(lambda e: isinstance(e, Progress) and "loss" in e.metrics and begun.append(e.step))
    result = pipelines.run(finished.capture, job, events=events, resume=True)
    assert result["status"] == "done"
    assert begun[0] > 264
    for file in (SPLATS, MODEL):
        assert (job / file).read_bytes() == (finished.job / file).read_bytes()
    shown = [[{**entry, "seconds": 0} for entry in r["history"]] for r in (result, finished.result)]
    assert shown[0] == shown[1]
    assert result["metrics"] == finished.result["metrics"]
    assert result["counts"] == finished.result["counts"]


def test_stopped_as_a_stage_begins_then_resumed_equals_uninterrupted(finished, tmp_path):
    job, settings = tmp_path / "job", SETTINGS
    for stage in ("load", "fit", "mesh", "report"):
        stages = ran(events := Events())
        events.listen(lambda e, e_=events, s=stage: isinstance(e, StageStarted) and e.stage == s and e_.cancel())
        result = pipelines.run(finished.capture, job, events=events, resume=True, **settings)
        assert (result["status"], stages[-1]) == ("cancelled", stage)
        settings = {}
    result = pipelines.run(finished.capture, job, resume=True)
    assert (result["status"], result["counts"]) == ("done", finished.result["counts"])
    assert result["metrics"] == finished.result["metrics"]
    assert result["exports"] == finished.result["exports"]
    assert (job / SPLATS).read_bytes() == (finished.job / SPLATS).read_bytes()


def test_killed_in_mid_fit_then_resumed_equals_uninterrupted(finished, tmp_path):
    job, moment = tmp_path / "job", random.Random(time.time_ns())  # at random in earnest: any instant has to do
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    command = [
        sys.executable,
        HERE / "killed_fit.py",
        "run",
        finished.capture,
        "--out",
        job,
        "--resume",
        "--json",
        *flags,
    ]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}

    def checkpoints() -> set[str]:
        return {path.name for path in (job / "checkpoint/fit").glob("0*")}

    for _ in range(2):
        before = checkpoints()
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while checkpoints() <= before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moment.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
    assert not (job / "result.json").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"] == finished.result["metrics"]
    for file in (SPLATS, MODEL):
        assert (job / file).read_bytes() == (finished.job / file).read_bytes()
    assert not list(job.rglob(".part-*"))
