"""``recon batch`` on this machine: one that fails or dies leaves the others alone, and --resume does what is left."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from batch_helpers import alive, has_checkpoint, owner, wait_for

from app.cli import main
from recon.job import Job


@pytest.fixture
def captures(tmp_path, numbers) -> Path:
    """Return a manifest of four toy jobs: quick, one without numbers, slow (3 s), quick."""
    (tmp_path / "nothing").mkdir()
    manifest = tmp_path / "batch.yaml"
    manifest.write_text(
        "defaults: {pipeline: toy, preset: fast}\n"
        "jobs:\n"
        "  - {input: numbers, name: one}\n"
        "  - {input: nothing}\n"
        "  - {input: numbers, name: slow, steps: 60, pause: 0.05}\n"
        "  - {input: numbers, name: two, seed: 5}\n"
    )
    return manifest


def summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


def states(out: Path) -> dict[str, str]:
    return {job["name"]: job["status"] for job in summary(out)["jobs"]}


def test_a_failed_and_a_killed_job_leave_the_others_alone(tmp_path, captures, capsys):
    out = tmp_path / "out"

    def kill() -> None:
        wait_for(lambda: has_checkpoint(out / "slow"))
        os.kill(owner(out / "slow"), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    code = main(["batch", str(captures), "--out", str(out), "--workers", "2", "--json"])
    killer.join()
    assert code == 3
    printed, said = capsys.readouterr()
    content = json.loads(printed)
    assert content == summary(out)
    assert states(out) == {"one": "done", "nothing": "failed", "slow": "failed", "two": "done"}
    assert content["status"] == "failed"
    assert {key: content["totals"][key] for key in ("jobs", "done", "failed")} == {"jobs": 4, "done": 2, "failed": 2}
    one, nothing, slow, _ = content["jobs"]
    assert one["exports"] == {"report": "one/exports/report.txt"}
    assert (out / one["exports"]["report"]).exists()
    assert one["counts"]["views"] == 1
    assert one["metrics"]["psnr"] == Job.open(out / "one").result()["metrics"]["psnr"]
    assert nothing["error"]["code"] == "no-numbers"
    assert "Put some numbers" in nothing["error"]["hint"]
    assert slow["error"]["code"] == "killed"
    assert "memory" in slow["error"]["message"]
    assert "begins" in (out / slow["log"]).read_text()

    assert "two: done in" in said
    assert "nothing: failed: " in said
    assert f"2 of 4 done, 2 failed; see {out / 'summary.html'}" in said
    page = (out / "summary.html").read_text()
    assert page.index("memory ran out") < page.index(">one<"), "the failed ones come first"
    assert 'http-equiv="refresh"' not in page
    assert "Put some numbers there." in page

    # --- and then --resume: what is done is passed over, the killed one goes on from its checkpoint ---
    (tmp_path / "nothing" / "b.txt").write_text("4 5")
    before = (out / "one/events.jsonl").read_bytes()
    assert main(["batch", str(captures), "--out", str(out)]) == 2, "without --resume nothing is touched"
    assert main(["batch", str(captures), "--out", str(out), "--resume"]) == 0
    assert states(out) == {"one": "done", "nothing": "done", "slow": "done", "two": "done"}
    assert (out / "one/events.jsonl").read_bytes() == before
    assert {job["name"]: job["before"] for job in summary(out)["jobs"]} == {
        "one": True,
        "nothing": False,
        "slow": False,
        "two": True,
    }
    steps = [event["step"] for event in Job.open(out / "slow").events() if event["event"] == "Progress"]
    assert steps.count(1) == 1, "it went on from its checkpoint"
    assert steps[-1] == 60


def test_bad_manifest_is_exit_2_and_touches_nothing(tmp_path, captures, capsys):
    captures.write_text(captures.read_text().replace("steps: 60", "stepz: 60"))
    assert main(["batch", str(captures), "--out", str(tmp_path / "out"), "--json"]) == 2
    printed, said = capsys.readouterr()
    assert json.loads(printed)["error"]["hint"] == "Did you mean 'steps'?"
    assert f"{captures}, job 3 (numbers): unknown key 'stepz'" in said
    assert not (tmp_path / "out").exists()


def test_kill_9_of_the_batch_then_resume(tmp_path, captures, start):
    out = tmp_path / "out"
    with start("batch", captures, "--out", out, toy=True) as process:
        wait_for(lambda: has_checkpoint(out / "slow"))
        assert main(["batch", str(captures), "--out", str(out), "--resume"]) == 2, "one batch at a time in a folder"
        worker = owner(out / "slow")
        process.kill()
        wait_for(lambda: not alive(worker), 5)
    assert summary(out)["status"] == "running"
    wait_for(lambda: not Job.open(out / "slow").running, 5)
    assert main(["batch", str(captures), "--out", str(out), "--resume"]) == 3, "one has no numbers still"
    assert states(out) == {"one": "done", "nothing": "failed", "slow": "done", "two": "done"}
    assert summary(out)["jobs"][0]["before"]
    finished = [e["stage"] for e in Job.open(out / "slow").events() if e["event"] == "StageFinished"]
    assert finished == ["read", "walk", "report"]


def test_ctrl_c_stops_the_jobs_and_writes_the_summary(tmp_path, captures, start):
    out = tmp_path / "out"
    with start("batch", captures, "--out", out, toy=True) as process:
        wait_for(lambda: has_checkpoint(out / "slow"))
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert process.returncode == 130
    assert "Stopping" in said
    assert "Traceback" not in said
    assert states(out) == {"one": "done", "nothing": "failed", "slow": "cancelled", "two": "cancelled"}
    assert summary(out)["status"] == "cancelled"
    assert Job.open(out / "slow").result()["status"] == "cancelled"
    assert not (out / "two").exists()


def test_the_second_signal_ends_all_at_once(tmp_path, captures, start):
    captures.write_text(captures.read_text().replace("pause: 0.05", "pause: 5"))
    out = tmp_path / "out"
    with start("batch", captures, "--out", out, toy=True) as process:
        wait_for(lambda: (out / "slow/stages/walk").is_dir())
        worker = owner(out / "slow")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=3)
        wait_for(lambda: not alive(worker), 3)
    assert process.returncode == 130


def test_cores_are_shared(monkeypatch):
    from app.engine_local import _cores_shared

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with _cores_shared(3):
        assert os.environ["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in os.environ
    with _cores_shared(1):
        assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with _cores_shared(2):
        assert os.environ["OMP_NUM_THREADS"] == "5", "what somebody has set stays"
