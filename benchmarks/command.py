"""The command that people use, run as they do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def reconstruct(source: Path, job: Path, *flags: str) -> dict[str, Any]:
    """Return the result of ``recon run`` in a process of its own; end with what it said if it fails."""
    command = [sys.executable, "-m", "app.cli", "run", str(source), "--out", str(job), "--json", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
