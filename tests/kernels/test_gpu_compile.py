"""Every kernel compiles for GPUs of NVIDIA and AMD, within what they have, without one being there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu_operators import needs_triton

from kernels import gpu

pytestmark = needs_triton

ROOT = Path(__file__).parents[2]
TARGETS = ("sm_80", "sm_90", "gfx942")
SHARED_BYTES = 64 << 10
"""What a program may have on any of them."""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what is known of each kernel on each target."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    program = Path(__file__).with_name("gpu_compiled.py")
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_compiles(compiled):
    names = {one["kernel"] for one in compiled}
    assert {name.partition(".")[0] for name in names} >= {name.removesuffix("_backward") for name in gpu.OPERATORS}
    for name in names:
        assert {one["target"] for one in compiled if one["kernel"] == name} == set(TARGETS)


def test_they_fit(compiled):
    assert [one for one in compiled if one["shared"] > SHARED_BYTES] == []
    assert [one for one in compiled if one["spilled"]] == [], "registers do not suffice"
