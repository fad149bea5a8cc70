"""A capture, and a job that is done with it, made once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from splat_capture import SETTINGS, write_capture

from recon import pipelines
from recon.events import Event, Events


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small pictures gain nothing from threads that wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RECON_")]:
        monkeypatch.delenv(name)


@dataclass
class Finished:
    """A job that is done: its input, its folder, its result and all events."""

    capture: Path
    job: Path
    result: dict[str, Any]
    events: list[Event]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return a finished job; it is only to be looked at."""
    root = tmp_path_factory.mktemp("splats")
    capture = write_capture(root / "capture")
    events, heard = Events(), []
    events.listen(heard.append)
    result = pipelines.run(capture, root / "job", events=events, **SETTINGS)
    assert result["status"] == "done", result["error"]
    return Finished(capture, root / "job", result, heard)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Callable[[], Path]:
    """Return a function that gives a copy of the finished job, to be changed."""

    def copy() -> Path:
        shutil.copytree(finished.job, tmp_path / "copy")
        return tmp_path / "copy"

    return copy
