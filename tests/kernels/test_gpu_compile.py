"""Every kernel compiles for GPUs of NVIDIA and AMD, within what they have, without one being there."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu_operators import needs_triton

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


def launched() -> set[str]:
    """Return the kernels: what Triton compiles and no other of its functions calls."""
    every, called = set(), set()
    for path in (ROOT / "kernels" / "gpu").glob("*.py"):
        tree = ast.parse(path.read_text())
        functions = [one for one in tree.body if isinstance(one, ast.FunctionDef) and is_compiled(one)]
        imports = [one for one in tree.body if isinstance(one, ast.ImportFrom)]
        full = {
            name.name: f"{(one.module or '').rpartition('.')[2]}.{name.name}" for one in imports for name in one.names
        }
        full |= {one.name: f"{path.stem}.{one.name}" for one in functions}
        every |= {full[one.name] for one in functions}
        uses = (part for one in functions for part in ast.walk(one) if isinstance(part, ast.Name))
        called |= {full[part.id] for part in uses if part.id in full}
    return every - called


def is_compiled(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(one).startswith("triton.jit") for one in function.decorator_list)


def test_every_kernel_compiles(compiled):
    names = {one["kernel"] for one in compiled}
    assert names == launched()
    for name in names:
        assert {one["target"] for one in compiled if one["kernel"] == name} == set(TARGETS)


def test_they_fit(compiled):
    assert [one for one in compiled if one["shared"] > SHARED_BYTES] == []
    assert [one for one in compiled if one["spilled"]] == [], "registers do not suffice"
