"""A fit by two processes is that of one: the command under ``torchrun``, beside itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from safetensors.torch import load_file
from splat_capture import write_capture

ROOT = Path(__file__).parents[2]
FLAGS = ["--steps=60", "--splats=150", "--sh-degree=1", "--max-side=64", "--turntable=0", "--no-mesh"]
CORRECTED = ["--refine-cameras", "--exposure"]


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_capture(tmp_path_factory.mktemp("splats") / "capture")


def command(program: list[str], capture: Path, job: Path, processes: int, *flags: str) -> CompletedProcess[str]:
    """Run ``recon run`` in so many processes."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    arguments = [*start, *program, "run", str(capture), "--out", str(job), "--json", *FLAGS, *flags]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, env=environment, cwd=job.parent, capture_output=True, text=True, timeout=300)


def run(capture: Path, job: Path, processes: int, *flags: str) -> dict[str, Any]:
    """Return the result of ``recon run`` in so many processes."""
    done = command(["-m", "app.cli"], capture, job, processes, *flags)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["status"] == "done"
    return result


@pytest.mark.parametrize(
    "flags",
    [["--views-per-step=3", *CORRECTED], ["--optimizer=lm"]],
    ids=["adam", "lm"],
)
def test_two_processes_fit_as_one_does(flags: list[str], capture: Path, tmp_path: Path) -> None:
    alone, together = (run(capture, tmp_path / f"job{n}", n, *flags) for n in (1, 2))
    assert alone["counts"] == together["counts"]
    assert together["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)
    one, other = (load_file(tmp_path / f"job{n}" / "stages" / "fit" / "model.safetensors") for n in (1, 2))
    for name, tensor in one.items():
        assert (tensor - other[name]).abs().max() <= 1e-4 * tensor.abs().max(), name


FAILING = """
import os, sys
import app.cli
from recon.splats.fit import Fit

look = Fit.look

def fail(fit, *arguments):
    if os.environ["RANK"] == "0" and fit.step == 5:
        raise MemoryError
    return look(fit, *arguments)

Fit.look = fail
sys.exit(app.cli.main())
"""


def test_a_step_that_fails_in_one_process_ends_all(capture: Path, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    done = command(["failing.py"], capture, tmp_path / "job", 2, "--views-per-step=2")
    assert done.returncode == 1
    assert "There is not enough memory" in done.stderr
    assert "Another of the processes that fit together has ended" in done.stderr
    assert json.loads((tmp_path / "job" / "result.json").read_text())["status"] == "failed"
