"""A job killed at any instant goes on from where it was, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from killed_runs import SETTINGS

from recon import pipelines


def test_kill_9_at_random_instants_then_resume(tmp_path):
    numbers = tmp_path / "numbers"
    numbers.mkdir()
    (numbers / "a.txt").write_text("1 2 3")
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}:{here.parents[1]}"}
    command = [sys.executable, str(here / "killed_runs.py"), str(numbers), str(tmp_path / "job"), "8", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    steps = [int(word) for word in done.stdout.split()]
    assert steps == sorted(steps), "no kill may cost more than the work since the last checkpoint"
    assert steps[-1] > 0

    whole = pipelines.run(numbers, tmp_path / "whole", "toy", **SETTINGS)
    killed = json.loads((tmp_path / "job/result.json").read_text())
    assert killed["status"] == "done"
    assert [h["psnr"] for h in killed["history"]] == [h["psnr"] for h in whole["history"]]
    for path in ("stages/walk/values.json", "exports/report.txt"):
        assert (tmp_path / "job" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
    assert not list((tmp_path / "job").rglob(".part-*"))
