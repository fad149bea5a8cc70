"""Jobs behind the page: begun, followed, stopped, gone on with, in a line, through every kind of end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time

import pytest

from app.job_state import source_of
from app.jobs import Jobs
from app.worker import memory_mb
from recon import pipelines
from recon.errors import InputError, ReconstructionError
from recon.job import TICKET, Job
from recon.settings import load

SLOW = {"steps": 2000, "pause": 0.02}
QUICK = {"steps": 20, "pause": 0.0}


def begin(jobs, numbers, keep=False, **values):
    return jobs.begin(numbers, "toy", "medium", values, keep=keep)


def lock(jobs, job):
    return int((jobs.folder / job / ".egregium.lock").read_text())


def test_a_job_runs_in_a_process_and_is_followed(jobs, numbers, wait):
    job = begin(jobs, numbers, steps=60, pause=0.02)
    running = wait(jobs, job, "running")
    assert [stage.name for stage in running.stages] == ["read", "walk", "report"]
    assert lock(jobs, job) != os.getpid()
    assert running.memory_mb > 1
    state = wait(jobs, job, "done")
    assert [stage.state for stage in state.stages] == ["done"] * 3
    assert state.stages[1].step == state.stages[1].total == 60
    assert state.result["metrics"]["psnr"] == pytest.approx(state.metrics["psnr"])
    assert jobs.file(job, "picture") is None
    pictures = state.folder / "previews"
    pictures.mkdir()
    for name in ("000010.jpg", "000200.jpg"):
        (pictures / name).write_text(name)
    assert jobs.file(job, "picture") == (pictures / "000200.jpg").resolve()
    assert state.curve[-1][1]["psnr"] == pytest.approx(state.metrics["psnr"])
    assert state.warnings == ("one number looks odd",)
    assert state.exports["exports/report.txt"].read_text().startswith("mean ")
    assert "walk" in state.log
    assert (state.title, state.pipeline, state.busy, state.resumable) == ("numbers", "toy", False, False)
    assert state.memory_mb == 0


def test_jobs_wait_for_their_turn(jobs, numbers, wait):
    first = begin(jobs, numbers, **SLOW)
    wait(jobs, first, "running")
    second, third = begin(jobs, numbers, **QUICK), begin(jobs, numbers, **QUICK)
    assert [jobs.state(job).place for job in (first, second, third)] == [0, 1, 2]
    assert jobs.state(second).status == "queued"
    jobs.cancel(second)
    state = jobs.state(second)
    assert (state.status, state.resumable) == ("cancelled", True)
    assert jobs.state(third).place == 1
    jobs.cancel(first)
    wait(jobs, third, "done")
    jobs.resume(second)
    wait(jobs, second, "done")
    assert jobs.state(first).status == "cancelled"


def test_cancel_takes_effect_at_once_and_resume_goes_on(jobs, numbers, wait):
    job = begin(jobs, numbers, title="so far", **SLOW)
    while wait(jobs, job, "running").stages[1].step < 10:
        time.sleep(0.02)
    asked = time.monotonic()
    jobs.cancel(job)
    assert jobs.state(job).status in ("stopping", "cancelled")
    state = wait(jobs, job, "cancelled")
    assert time.monotonic() - asked < 2
    assert [stage.state for stage in state.stages] == ["done", "ended", "waiting"]
    reached = state.stages[1].step
    jobs.resume(job)
    assert jobs.state(job).status in ("queued", "starting")
    state = wait(jobs, job, "running")
    while not state.stages[1].step:
        state = wait(jobs, job, "running")
    times = [time for time, _ in state.curve]
    assert times == sorted(times), "the curve goes on"
    assert state.seconds >= times[-1]
    assert state.stages[0].state == "cached"
    assert state.stages[1].step >= reached - 10, "it goes on from its checkpoint"
    assert "title: so far" in (jobs.folder / job / "config.yaml").read_text()
    with pytest.raises(InputError, match="Only a job that ended early"):
        jobs.resume(job)


@pytest.mark.parametrize(("number", "words"), [(signal.SIGKILL, "memory ran out"), (signal.SIGSEGV, "SIGSEGV")])
def test_a_worker_that_dies_is_a_failed_job_with_a_hint_and_the_next_begins(jobs, numbers, wait, number, words):
    job, after = begin(jobs, numbers, **SLOW), begin(jobs, numbers, **QUICK)
    while not wait(jobs, job, "running").stages[1].step:  # between two stages there is none to end
        time.sleep(0.02)
    os.kill(lock(jobs, job), number)
    state = wait(jobs, job, "failed")
    assert words in state.error[0]
    assert state.error[1]
    assert state.resumable
    wait(jobs, after, "done")
    assert "ended" in [stage.state for stage in jobs.state(job).stages]


def test_a_worker_that_cannot_even_begin(numbers, tmp_path, plain_environment, wait):
    out = json.dumps({"status": "failed", "error": {"message": "No way.", "hint": "Turn back.", "code": "x"}})
    for program, words in ((f"print('''{out}''')", "No way."), ("raise SystemExit(7)", "exit code 7")):
        jobs = Jobs(tmp_path / words, load({"min_free_gb": 0}), (sys.executable, "-c", program))
        job = begin(jobs, numbers)
        assert words in wait(jobs, job, "failed").error[0]
        jobs.close()


def test_bad_input_is_told_with_its_hint(jobs, tmp_path, wait):
    (tmp_path / "empty").mkdir()
    state = wait(jobs, begin(jobs, tmp_path / "empty"), "failed")
    assert "holds no .txt files" in state.error[0]
    assert state.error[1] == "Put some numbers there."


def test_a_server_that_is_killed_loses_nothing(jobs, numbers, wait, toy_command):
    """The worker goes on, the line too, and never do two jobs have the device."""
    first, second = begin(jobs, numbers, steps=150, pause=0.02), begin(jobs, numbers, **QUICK)
    wait(jobs, first, "running")
    jobs._line._closed.set()  # as good as killed: it starts nothing any more
    other = Jobs(jobs.folder, load({"min_free_gb": 0}), toy_command)
    assert other.running() == first
    while (state := other.state(first)).status == "running":
        assert other.state(second).status == "queued"
        assert state.stages[1].step <= 150
        time.sleep(0.05)
    assert state.status == "done"
    wait(other, second, "done")
    ended, began = Job.open(other.folder / first).events()[-1], Job.open(other.folder / second).events()[0]
    assert ended["time"] <= began["time"]
    other.close()


def test_another_server_can_stop_what_an_earlier_one_began(jobs, numbers, wait, toy_command):
    job = begin(jobs, numbers, **SLOW)
    wait(jobs, job, "running")
    jobs._line._closed.set()
    other = Jobs(jobs.folder, load({"min_free_gb": 0}), toy_command)
    other.cancel(job)
    wait(other, job, "cancelled", seconds=5)
    other.close()


def test_a_server_that_ends_stops_its_job_and_the_next_one_goes_on(jobs, numbers, wait, toy_command):
    first, second = begin(jobs, numbers, steps=100, pause=0.02), begin(jobs, numbers, **QUICK)
    while wait(jobs, first, "running").stages[1].step < 10:
        time.sleep(0.02)
    assert jobs.close() == 1
    assert (jobs.folder / first / TICKET).exists()
    other = Jobs(jobs.folder, load({"min_free_gb": 0}), toy_command)
    assert (other.state(second).place, other.state(first).place) in ((2, 1), (1, 0))
    state = wait(other, first, "done")
    assert state.stages[0].state == "cached"
    wait(other, second, "done")
    assert other.close() == 0


def test_a_job_killed_while_no_server_ran_is_interrupted_and_resumable(jobs, numbers, wait, toy_command):
    job = begin(jobs, numbers, **SLOW)
    wait(jobs, job, "running")
    jobs._line._closed.set()
    time.sleep(0.3)
    os.kill(lock(jobs, job), signal.SIGKILL)
    other = Jobs(jobs.folder, load({"min_free_gb": 0}), toy_command)
    state = wait(other, job, "interrupted", seconds=5)
    assert "ended unexpectedly" in state.error[0]
    assert state.resumable
    other.close()


def test_a_clone_has_the_capture_and_other_settings_and_outlives_the_first(jobs, numbers, wait):
    first = begin(jobs, numbers, keep=True, steps=5)
    wait(jobs, first, "done")
    second = jobs.clone(first, "toy", "fast", {"steps": 5, "title": "again"})
    jobs.delete(first)
    state = wait(jobs, second, "done")
    assert state.exports["exports/report.txt"].read_text().startswith("again ")
    assert state.preset == "fast"
    assert [stage.state for stage in state.stages] == ["cached", "cached", "done"], "what agrees is not done again"
    own = source_of(Job.open(jobs.folder / second))
    assert own == jobs.folder / second / "input" / "numbers"
    assert (numbers / "a.txt").exists()
    with pytest.raises(InputError, match="no such job"):
        jobs.state(first)
    assert [job.id for job in jobs.listing()] == [second]


def test_a_clone_has_the_files_that_the_owner_named(jobs, tmp_path):
    for name in ("source.ply", "target.ply"):
        (tmp_path / name).write_bytes(b"")
    pipelines.run(tmp_path / "source.ply", jobs.folder / "first", "deform", target=tmp_path / "target.ply")
    clone = jobs.clone("first", "deform", "fast", {"rigid": False})
    assert Job.open(jobs.folder / clone).settings["target"] == str(tmp_path / "target.ply")
    with pytest.raises(InputError, match="'landmarks' names a file of the server's"):
        jobs.clone("first", "deform", "fast", {"landmarks": "/etc/passwd"})


def test_a_job_may_be_moved_with_all_the_jobs(jobs, numbers, wait, tmp_path, toy_command):
    job = begin(jobs, numbers, keep=True, **SLOW)
    wait(jobs, job, "running")
    jobs.cancel(job)
    wait(jobs, job, "cancelled")
    jobs.close()
    shutil.move(jobs.folder, tmp_path / "moved")
    other = Jobs(tmp_path / "moved", load({"min_free_gb": 0}), toy_command)
    other.resume(job)
    wait(other, job, "running")
    other.cancel(job)
    wait(other, job, "cancelled")
    other.close()


def test_what_runs_or_waits_cannot_be_deleted(jobs, numbers, wait):
    job = begin(jobs, numbers, **SLOW)
    for status in (("queued", "starting"), ("running",)):
        wait(jobs, job, *status)
        with pytest.raises(InputError, match="cannot be deleted"):
            jobs.delete(job)
    jobs.cancel(job)
    wait(jobs, job, "cancelled")
    jobs.delete(job)
    assert not (jobs.folder / job).exists()


def test_a_full_line_and_a_full_disk_take_no_more(numbers, tmp_path, plain_environment, toy_command, monkeypatch):
    jobs = Jobs(tmp_path / "jobs", load({"min_free_gb": 0, "max_queue": 1}), toy_command)
    begin(jobs, numbers, **SLOW)
    while jobs._line.place(jobs.listing()[0].id):
        time.sleep(0.05)
    begin(jobs, numbers, **SLOW)
    with pytest.raises(InputError, match="waiting already") as caught:
        begin(jobs, numbers, **SLOW)
    assert caught.value.code == "queue-full"
    jobs.close()
    full = Jobs(tmp_path / "full", load({"min_free_gb": 99_000}), toy_command)
    with pytest.raises(InputError, match="GB are free") as caught:
        begin(full, numbers)
    assert caught.value.code == "disk-full"
    assert [path.name for path in (tmp_path / "full").iterdir()] == [".page"], "nothing was begun"
    full.close()


def test_the_device_is_the_environments_where_nobody_names_one(jobs, numbers, monkeypatch):
    monkeypatch.setenv("RECON_DEVICE", "cuda:7")
    assert jobs.state(begin(jobs, numbers)).device == "cuda:7"
    assert jobs.state(jobs.begin(numbers, "toy", "fast", {}, device="cpu")).device == "cpu"


def test_wrong_settings_begin_nothing(jobs, numbers):
    with pytest.raises(InputError, match="steps"):
        begin(jobs, numbers, steps=0)
    with pytest.raises(InputError, match="Unknown pipeline"):
        jobs.begin(numbers, "../x", "fast", {})
    with pytest.raises(InputError, match="'target' names a file of the server's"):
        jobs.begin(numbers, "deform", "fast", {"target": str(numbers / "a.txt")})
    assert jobs.listing() == []


def test_a_job_that_a_shell_made_is_opened_whatever_its_name(jobs, numbers, wait, recon):
    name = "Äpfel & my <job> (2)"
    assert recon("run", numbers, "--out", jobs.folder / name, "--pipeline", "toy", "--steps", 5, toy=True)[0] == 0
    assert [job.id for job in jobs.listing()] == [name]
    assert jobs.state(name).status == "done"
    assert jobs.file(name, "exports/report.txt") is not None
    jobs.delete(name)
    assert jobs.listing() == []


NAMES = (
    *(
        "..",
        "../x",
        "../../etc",
        "/etc",
        "",
        ".",
        ".page",
        ".page/drafts",
        "a/b",
        "a\\b",
        "x" * 5000,
        "a\0b",
        "\n",
        "%2e%2e",
    ),
    *("..%2f..", "~root", "-rf", "con:", "job/../..", "\u2025", "．．", None, 3, [], {}),
)


@pytest.mark.parametrize("name", NAMES)
def test_only_jobs_are_opened(jobs, numbers, tmp_path, name):
    shutil.copytree(numbers, tmp_path / "x")
    (tmp_path / "x" / "config.yaml").write_text("egregium: 1\npipeline: toy\npreset: fast\ninput: /x\n")
    for action in (jobs.state, jobs.cancel, jobs.resume, jobs.delete):
        with pytest.raises(InputError, match="no such job"):
            action(name)
    with pytest.raises(InputError, match="no such job"):
        jobs.export(name, "mesh", ".glb")
    with pytest.raises(InputError, match="no such job"):
        jobs.clone(name, "toy", "fast", {})
    assert (tmp_path / "x").exists()


def test_only_what_a_job_made_is_given_out(jobs, numbers, wait):
    job = begin(jobs, numbers, keep=True, steps=5)
    wait(jobs, job, "done")
    folder = jobs.folder / job
    assert jobs.file(job, "exports/report.txt") == (folder / "exports/report.txt").resolve()
    (folder / "exports" / "out").symlink_to("/etc/passwd")
    (folder / "exports" / "up").symlink_to("../..")
    for name in (
        *("config.yaml", "events.jsonl", "log.txt", ".printed.json", "input/numbers/a.txt", ".egregium.lock", ""),
        *("../x", "exports/../config.yaml", "exports/../../x", "/etc/passwd", "exports//etc/passwd", "exports/out"),
        *(
            "exports/up/.page/index.sqlite",
            "exports",
            "exports/",
            "exports/x" * 3000,
            "exports/a\0b",
            "exports/..\\..\\x",
        ),
    ):
        assert jobs.file(job, name) is None, name


def test_an_export_is_made_once_and_its_errors_are_told(jobs, numbers, wait, tmp_path):
    job = begin(jobs, numbers, steps=5)
    wait(jobs, job, "done")
    with pytest.raises(InputError, match="cannot be written as"):
        jobs.export(job, "mesh", "/../../x.glb")
    for number in ("../../x", "/../../../tmp/x", "12", 0, -1, 1.5, float("nan"), 10**12, [3]):
        for name in ("faces", "texture"):
            with pytest.raises(InputError, match="is no number of"):
                jobs.export(job, "mesh", ".glb", **{name: number})
    with pytest.raises(ReconstructionError) as caught:
        jobs.export(job, "mesh", ".glb", faces=100)
    assert "has no exports" in caught.value.message
    assert str(tmp_path) not in caught.value.message
    assert "Traceback" not in caught.value.message


def test_memory_is_told(plain_environment):
    if sys.platform == "linux":
        assert 10 < memory_mb(os.getpid()) < 100_000
    assert memory_mb(None) == 0
