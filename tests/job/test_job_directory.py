"""The job directory: whose it is, who may write to it, and files that are whole or absent."""

from __future__ import annotations

import errno
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_pipeline import ToyConfig

from recon import job_checkpoint
from recon.errors import InputError
from recon.events import Failed, Progress, Warned
from recon.job import Job
from recon.job_events import EventLog, read_events
from recon.job_files import atomic, explain, sweep, write_json, write_text


def create(folder: Path, resume: bool = False) -> Job:
    return Job.create(folder, ToyConfig(), Path("photos"), pipeline="toy", preset="medium", resume=resume)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- whose folder ---


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["holiday.jpg", "config.yaml", ".hidden", "stages/x"])
def test_somebodys_folder_is_never_written_to(tmp_path, name, resume):
    write_text(tmp_path / name, "mine: 1\n")
    before = listing(tmp_path)
    with pytest.raises(InputError, match="nothing was written") as caught:
        create(tmp_path, resume)
    assert caught.value.exit_code == 2
    assert listing(tmp_path) == before


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        create(tmp_path / "out")
    with pytest.raises(InputError, match="Cannot use"):
        create(tmp_path / "out" / "below")


def test_existing_job_needs_resume(tmp_path):
    create(tmp_path / "job").close()
    with pytest.raises(InputError) as caught:
        create(tmp_path / "job")
    assert "--resume" in caught.value.hint
    create(tmp_path / "job", resume=True).close()


def test_what_a_job_killed_in_its_first_instant_leaves_is_no_obstacle(tmp_path):
    (tmp_path / ".egregium.lock").touch()
    (tmp_path / ".part-config.yaml").write_text("egreg")
    create(tmp_path).close()
    assert not (tmp_path / ".part-config.yaml").exists()


def test_open_reads_what_it_was_told(tmp_path):
    create(tmp_path / "job").close()
    job = Job.open(tmp_path / "job")
    assert (job.pipeline, job.input) == ("toy", Path("photos").absolute())
    assert ToyConfig(**job.settings) == ToyConfig()
    assert job.result() is None
    with pytest.raises(InputError, match="not a job"):
        Job.open(tmp_path)


def test_a_newer_job_is_left_alone(tmp_path):
    write_text(tmp_path / "config.yaml", "egregium: 2\npipeline: toy\n")
    with pytest.raises(InputError, match="newer"):
        Job.open(tmp_path)
    with pytest.raises(InputError, match="newer"):
        create(tmp_path, resume=True)
    assert (tmp_path / "config.yaml").read_text() == "egregium: 2\npipeline: toy\n"


# --- the lock ---


def test_two_writers_are_one_too_many(tmp_path):
    with create(tmp_path / "job") as job:
        assert Job.open(job.folder).running
        with pytest.raises(InputError) as caught:
            create(tmp_path / "job", resume=True)
        assert caught.value.code == "job-busy"
    assert not Job.open(tmp_path / "job").running
    create(tmp_path / "job", resume=True).close()


def test_the_lock_dies_with_its_process(tmp_path):
    script = (
        "import sys, pathlib; from recon.job import Job; from recon.config import Config\n"
        "out, here = pathlib.Path(sys.argv[1]), pathlib.Path('.')\n"
        "job = Job.create(out, Config(), here, pipeline='toy', preset='fast')\n"
        "print('locked', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "job")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match=str(process.pid)):
            create(tmp_path / "job", resume=True)
        process.send_signal(signal.SIGKILL)
    create(tmp_path / "job", resume=True).close()


# --- events ---


def test_torn_events_are_read_past_and_repaired(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.append(Warned(message="first é"))
    log.close()
    with path.open("ab") as file:
        file.write(b'{"event": "Warned", "message": "tor\xc3')
    assert [e["message"] for e in read_events(path)] == ["first é"]
    log = EventLog(path)
    log.append(Warned(message="second"))
    log.close()
    log.append(Warned(message="too late"))
    assert [e["message"] for e in read_events(path)] == ["first é", "second"]
    assert path.read_bytes().count(b"\n") == 2
    assert read_events(tmp_path / "none") == []


def test_a_burst_of_progress_is_thinned_but_its_end_is_kept(tmp_path):
    log = EventLog(tmp_path / "e")
    for step in range(1, 1001):
        log.append(Progress(stage="fit", step=step, total=1000, metrics={"psnr": float("nan")}))
    log.close()
    events = read_events(tmp_path / "e")
    assert [events[0]["step"], events[-1]["step"]] == [1, 1000]
    assert len(events) < 20
    assert events[0]["metrics"] == {"psnr": None}


# --- files ---


def test_atomic_keeps_the_old_file_when_the_new_one_fails(tmp_path):
    write_text(tmp_path / "a.tar.gz", "old")

    def fail() -> None:
        with atomic(tmp_path / "a.tar.gz") as part:
            assert part.name.endswith("a.tar.gz")
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert listing(tmp_path) == {"a.tar.gz": b"old"}


def test_atomic_folders(tmp_path):
    for number in (1, 2):
        with atomic(tmp_path / "model") as part:
            part.mkdir()
            (part / f"{number}.txt").write_text("x")
    assert set(listing(tmp_path)) == {"model/2.txt"}

    def fail() -> None:
        with atomic(tmp_path / "model") as part:
            part.mkdir()
            (part / "3.txt").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert set(listing(tmp_path)) == {"model/2.txt"}
    (tmp_path / ".part-model").mkdir()
    write_text(tmp_path / ".part-model/x", "rubbish")
    sweep(tmp_path)
    assert set(listing(tmp_path)) == {"model/2.txt"}


def test_sweep_takes_only_what_crashed_writers_left(tmp_path):
    write_text(tmp_path / "x/part-y", "keep")
    (tmp_path / "x/.part-y").write_text("rubbish")
    sweep(tmp_path)
    assert set(listing(tmp_path)) == {"x/part-y"}


def test_result_is_strict_json(tmp_path):
    write_json(tmp_path / "r.json", {"a": float("inf"), "b": [float("nan"), 1.5]})
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": None, "b": [None, 1.5]}


# --- checkpoints ---


def test_checkpoint_round_trip_of_awkward_tensors(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "base": base,
        "same": base,
        "row": base[1],
        "transposed": base.T,
        "empty": torch.zeros(0, 3),
        "graph": (base.clone().requires_grad_() * 2),
        "generator": torch.Generator().manual_seed(3).get_state(),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "flag": torch.tensor(True),
    }
    job_checkpoint.save(tmp_path, tensors, {"step": 3, "name": "é"})
    loaded, state = job_checkpoint.load(tmp_path)
    assert state == {"step": 3, "name": "é"}
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor.detach()), name
    loaded["base"] += 1  # what was read can be written to
    assert torch.equal(job_checkpoint.load(tmp_path)[0]["base"], base)


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "absent"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    for step in range(4):
        job_checkpoint.save(tmp_path, {"x": torch.full((100,), float(step))}, {"step": step})
    newest = sorted(tmp_path.iterdir())[-1]
    assert len(listing(tmp_path)) == job_checkpoint.KEPT
    content = newest.read_bytes()
    if damage == "absent":
        newest.unlink()
    else:
        newest.write_bytes({"cut": content[:-8], "empty": b"", "garbage": b"\x93" * 200}[damage])
    tensors, state = job_checkpoint.load(tmp_path)
    assert state == {"step": 2}
    assert torch.equal(tensors["x"], torch.full((100,), 2.0))
    job_checkpoint.save(tmp_path, {}, {"step": 9})
    assert job_checkpoint.load(tmp_path) == ({}, {"step": 9})


def test_no_checkpoint(tmp_path):
    assert job_checkpoint.load(tmp_path / "none") is None


def test_a_write_that_really_fails_leaves_all_as_it_was(tmp_path):
    """The limit on file sizes makes the kernel refuse the write, as a full disk does."""
    job_checkpoint.save(tmp_path / "c", {"x": torch.ones(10)}, {"step": 1})
    log = EventLog(tmp_path / "events.jsonl")
    log.append(Warned(message="good"))
    write_text(tmp_path / "result.json", "good")
    before = listing(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            job_checkpoint.save(tmp_path / "c", {"x": torch.ones(100_000)}, {"step": 2})
        with pytest.raises(OSError, match="too large"):
            write_text(tmp_path / "result.json", "x" * 10_000)
        with pytest.raises(OSError, match="No space"):
            log.append(Warned(message="x" * 10_000))
        log.append(Failed(code="x", message="x" * 10_000, hint=""))  # told already: no error over an error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert listing(tmp_path) == before
    log.append(Warned(message="again"))
    assert [e["message"] for e in read_events(tmp_path / "events.jsonl")] == ["good", "again"]


@pytest.mark.parametrize(
    ("where", "shown", "word"),
    [
        ("/jobs/job/exports/.part-mesh.glb", "/jobs/job/exports/mesh.glb", "write"),
        ("/jobs", "/jobs", "write"),
        ("photos/1.jpg", "photos/1.jpg", "read"),
    ],
)
def test_no_permission_says_what_for(where, shown, word):
    error = explain(PermissionError(errno.EACCES, "Permission denied", where), Path("/jobs/job"))
    assert (error.exit_code, error.message) == (2, f"No permission for {shown}.")
    assert word in error.hint
