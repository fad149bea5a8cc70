"""The command line with the tests' toy pipeline, in this process and as one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
