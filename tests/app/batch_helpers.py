"""What the tests of batches share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from recon.job import LOCK


def wait_for(condition: Callable[[], object], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def owner(job: Path) -> int:
    return int((job / LOCK).read_text())


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def has_checkpoint(job: Path) -> bool:
    return any((job / "checkpoint/walk").glob("0*.safetensors"))
