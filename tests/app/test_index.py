"""The list of jobs: what it tells, that it is never stale, and that it can be made anew at any time."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time

import pytest

from app.index import Index


def make(folder, name, status="done", when=1.0, pipeline="splats"):
    job = folder / name
    (job / "previews").mkdir(parents=True)
    (job / "config.yaml").write_text(f"egregium: 1\npipeline: {pipeline}\npreset: fast\ndevice: cpu\ninput: /x\n")
    (job / "events.jsonl").write_text(json.dumps({"event": "StageStarted", "time": when, "stage": "load"}) + "\n")
    (job / "previews" / "000100.jpg").write_bytes(b"x" * 100)
    if status is not None:
        result = {"status": status, "seconds": {"total": 3}, "metrics": {"psnr": 31.5}, "error": None}
        (job / "result.json").write_text(json.dumps(result))
    return job


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("20260101-120000-chair", "lamp", "bunny")):
        make(tmp_path, name, when=float(i))
    (tmp_path / "somebody's").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "file").write_text("x")
    return tmp_path


def test_jobs_are_listed_newest_first_with_what_matters(folder):
    index = Index(folder, folder / ".hidden" / "i.sqlite")
    found = index.jobs()
    assert [job.id for job in found] == ["bunny", "lamp", "20260101-120000-chair"]
    chair = found[2]
    assert (chair.title, chair.status, chair.seconds, chair.metrics) == ("chair", "done", 3.0, {"psnr": 31.5})
    assert chair.picture == "previews/000100.jpg"
    assert chair.size == sum(p.stat().st_size for p in (folder / chair.id).rglob("*") if p.is_file())
    assert [job.id for job in index.jobs(limit=1)] == ["bunny"]
    assert [job.id for job in index.jobs("Splats CHA")] == ["20260101-120000-chair"]
    assert index.jobs("%") == []
    index.close()


def test_it_is_never_stale(folder):
    index = Index(folder, folder / ".hidden" / "i.sqlite")
    assert len(index.jobs()) == 3
    time.sleep(0.01)
    (folder / "lamp" / "result.json").unlink()
    assert {job.id: job.status for job in index.jobs()}["lamp"] == "interrupted"
    (folder / "lamp" / "queued.json").write_text('{"queued": 5}')
    assert {job.id: job.status for job in index.jobs()}["lamp"] == "queued"
    shutil.rmtree(folder / "bunny")
    make(folder, "new", "failed", when=9.0)
    assert [job.id for job in index.jobs()] == ["new", "lamp", "20260101-120000-chair"]
    index.close()


@pytest.mark.parametrize("harm", ["missing", "nonsense", "other", "under its feet"])
def test_it_is_made_anew_from_the_directories(folder, harm):
    path = folder / ".hidden" / "i.sqlite"
    index = Index(folder, path)
    before = index.jobs()
    if harm != "under its feet":
        index.close()
    if harm == "missing":
        path.unlink()
    elif harm == "other":
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE jobs (id, colour)")
    else:
        path.write_bytes(b"nonsense" * 1000)
    again = index if harm == "under its feet" else Index(folder, path)
    assert again.jobs() == before
    again.close()


def test_thousands_are_listed_at_once(tmp_path):
    for i in range(1000):
        make(tmp_path, f"job-{i}", when=float(i))
    (tmp_path / ".page").mkdir()
    index = Index(tmp_path, tmp_path / ".page" / "i.sqlite")
    index.jobs()
    began = time.perf_counter()
    assert len(index.jobs(limit=60)) == 60
    assert time.perf_counter() - began < 0.5
    index.close()
