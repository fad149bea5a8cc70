"""The table, the lines and the page of a batch."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from app.batch_jobs import Run, Task
from app.batch_table import Table, chosen, metric, remaining, totals, verdict
from app.engine_local import outcome
from app.follow import StageState
from app.summary import Summary


@pytest.fixture
def runs(tmp_path) -> list[Run]:
    """Seven runs: done, done before, failed, running, and three that wait."""
    tasks = [
        Task(f"job{i}", Path("x"), tmp_path / f"job{i}", "toy", "fast", "cpu", {}, "toy_pipeline") for i in range(7)
    ]
    runs = [Run.of(task) for task in tasks]
    runs[0].end({"status": "done", "seconds": {"total": 80.0}, "metrics": {"size": 3, "psnr": 31.2}})
    runs[1].before = True
    runs[1].end({"status": "done", "seconds": {"total": 500.0}, "metrics": {}})
    runs[2].end({"status": "failed", "error": {"code": "x", "message": "<b>no</b> [red]way", "hint": "Try & see."}})
    runs[3].given, runs[3].state = True, "running"
    runs[3].follower.stages[1] = StageState("walk", "running", 30, 120, 9.6)
    return runs


def test_words(runs):
    assert totals(runs) == "2 of 7 done, 1 failed, 1 running"
    assert metric(runs[0]) == "psnr 31.20"
    assert [verdict(run) for run in runs[:3]] == [
        "done in 1:20, psnr 31.20",
        "done before",
        "failed: <b>no</b> [red]way",
    ]
    assert remaining(runs) == 4 * 80.0, "of those that this batch did"


def test_what_does_not_fit_is_what_matters_least(runs):
    assert [run.task.name for run in chosen(runs, 3)] == ["job2", "job3", "job4"]
    assert [run.task.name for run in chosen(runs, 6)] == ["job1", "job2", "job3", "job4", "job5", "job6"]
    assert chosen(runs, 10) == runs


def test_the_table(runs):
    table = Table()
    text = io.StringIO()
    console = Console(file=text, width=120, height=40)
    table.live.console = console
    console.print(table._table(runs))
    lines = text.getvalue()
    assert "walk" in lines
    assert "30/120 (25 %)" in lines
    assert "9.6 s" in lines
    assert "done before" in lines
    assert "2 of 7 done, 1 failed, 1 running" in lines
    table.ended(runs[2])
    assert "[red]way" in text.getvalue(), "what comes from files is no markup"


def test_the_page_trusts_nobody_and_stands_alone(runs, tmp_path):
    previews = tmp_path / "job0" / "previews"
    previews.mkdir(parents=True)
    Image.new("RGB", (640, 480), "red").save(previews / "hero.jpg")
    (tmp_path / "job0" / "report.html").write_text("x")
    summary = Summary(tmp_path)
    summary.update(runs)
    page = (tmp_path / "summary.html").read_text()
    assert "&lt;b&gt;no&lt;/b&gt;" in page
    assert "<b>no</b>" not in page
    assert "Try &amp; see." in page
    assert page.index("job2") < page.index("job3") < page.index("job4") < page.index("job0")
    assert 'src="data:image/webp;base64,' in page
    assert 'href="job0/report.html"' in page
    assert 'http-equiv="refresh"' in page, "it goes on"
    assert "http://" not in page
    assert "https://" not in page
    assert summary.written["status"] == "running"
    assert summary.written["jobs"][0]["preview"] == "job0/previews/hero.jpg"
    runs[4].end({"status": "done"})
    summary.update(runs)
    assert summary.written["totals"]["done"] == 2, "not every instant"
    summary.update(runs, last=True)
    assert summary.written["totals"]["done"] == 3
    assert summary.written["status"] == "cancelled"


@pytest.mark.parametrize(
    ("code", "status", "word"),
    [(-9, "killed", "memory"), (-11, "crashed", "SIGSEGV"), (-15, "cancelled", "SIGTERM"), (255, "no-result", "255")],
)
def test_how_a_process_ended(tmp_path, code, status, word):
    task = Task("a", Path("x"), tmp_path / "a", "toy", "fast", "cpu", {}, "toy_pipeline")
    result = outcome(code, task)
    assert result["error"]["code"] == status
    assert word in result["error"]["message"]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/a.json").write_text('{"version": 1, "status": "done"}')
    assert outcome(code, task) == {"version": 1, "status": "done"}, "what it printed last counts"
