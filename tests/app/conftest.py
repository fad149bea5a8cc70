"""The command line with the tests' toy pipeline, in this process and as one of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.job_state import JobState
from app.jobs import Jobs
from recon.settings import load, settings

importlib.import_module("toy_pipeline")  # it registers itself

ROOT = Path(__file__).parents[2]
TOY = "import sys, toy_pipeline; from app.cli import main; sys.exit(main())"


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    folder = tmp_path / "numbers"
    folder.mkdir()
    (folder / "a.txt").write_text("1 2 3")
    return folder


@pytest.fixture
def start() -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts ``recon`` (with ``toy``: knowing the toy pipeline) as a process."""

    def start(*arguments: object, toy: bool = False, **options: Any) -> subprocess.Popen[str]:
        program = ["-c", TOY] if toy else ["-m", "app.cli"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RECON_")}
        environment.pop("PYTHONUNBUFFERED", None)  # with it a reader that leaves goes unnoticed
        paths = [str(ROOT / "tests/job"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        return subprocess.Popen([sys.executable, *program, *map(str, arguments)], env=environment, cwd=ROOT, **pipes)

    return start


@pytest.fixture
def recon(start):
    """Return a function that runs ``recon`` to its end: (exit code, stdout, stderr)."""

    def run(*arguments: object, **options: Any) -> tuple[int, str, str]:
        with start(*arguments, **options) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    return run


PROGRAM = "import sys; sys.path[:0] = {paths}; import toy_pipeline; from app.cli import main; sys.exit(main())"


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("RECON_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/nowhere")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def toy_command() -> tuple[str, ...]:
    """Return the command ``recon`` that knows the toy pipeline."""
    return sys.executable, "-c", PROGRAM.format(paths=[str(ROOT / "tests/job"), str(ROOT)])


@pytest.fixture
def jobs(tmp_path: Path, plain_environment: None, toy_command: tuple[str, ...]) -> Iterator[Jobs]:
    """Jobs of the toy pipeline."""
    made = Jobs(tmp_path / "jobs", load({"min_free_gb": 0}), toy_command)
    yield made
    made.close()


@pytest.fixture
def wait() -> Callable[..., JobState]:
    """Return a function that waits until a job has one of some states."""

    def until(jobs: Jobs, job: str, *statuses: str, seconds: float = 60) -> JobState:
        end = time.monotonic() + seconds
        while (state := jobs.state(job)).status not in statuses:
            assert time.monotonic() < end, state
            time.sleep(0.05)
        return state

    return until
