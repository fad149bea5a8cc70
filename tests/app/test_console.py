"""Plain lines and the words in them."""

from __future__ import annotations

import sys

import pytest

from app import console
from recon.events import Events, Progress, StageFinished, StageStarted, Warned


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.6, "1:00"), (80, "1:20"), (7400, "2:03:20")]
)
def test_duration(seconds, text):
    assert console.duration(seconds) == text


def test_numbers():
    assert console.numbers({"psnr": 31.2, "ssim": 0.95, "splats": 120000, "views": 1}) == (
        "psnr 31.20  ssim 0.9500  splats 120,000  views 1"
    )


def test_lines_at_intervals(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.display(events := Events()):
        events.emit(StageStarted(stage="poses", cached=True))
        events.emit(StageStarted(stage="fit"))
        for step in range(1, 31):
            now[0] += 1
            events.emit(Progress(stage="fit", step=step, total=30, eta=80, metrics={"psnr": 28.0}))
        events.emit(Warned(message="odd [1]"))
        events.emit(StageFinished(stage="fit", seconds=30, metrics={"psnr": 29.0}))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "poses: done before",
        "fit: begins",
        "fit: 10/30 (33 %), ETA 1:20, psnr 28.00",
        "fit: 20/30 (66 %), ETA 1:20, psnr 28.00",
        "fit: 30/30 (100 %), ETA 1:20, psnr 28.00",
        "warning: odd [1]",
        "fit: 0:30, psnr 29.00",
    ]


def test_a_closed_terminal_does_not_stop_the_run(monkeypatch):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stderr", Closed())
    with console.display(events := Events()):
        events.warn("nobody reads this")
        events.warn("nor this")


def test_bars_survive_any_order_of_events():
    bars = console.Bars()
    bars.show(Progress(stage="export", step=0, total=0))
    bars.show(StageFinished(stage="other", seconds=1.0))
    bars.show(StageStarted(stage="poses", cached=True))
    bars.show(Warned(message="odd [bold]"))
    assert [task.description for task in bars.progress.tasks] == ["export", "other", "poses"]
