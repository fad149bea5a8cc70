"""Compiles every kernel for GPUs that need not be there, and prints one line of JSON for each and each target.

A program of its own: kernels that were loaded for Triton's interpreter cannot be compiled. The operators' own functions
are called with tensors on the CPU, and what they would launch is compiled, with their types and numbers, instead.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from gpu_operators import as_on_gpu
from gpu_scenes import SCENES
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource, CompiledKernel
from triton.runtime.jit import JITFunction

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TYPES = {torch.float32: "fp32", torch.float64: "fp64", torch.int32: "i32", torch.int64: "i64", torch.uint8: "u8"}
OPTIONS = ("num_warps", "num_stages")


def kind(value: Any) -> str:
    """Return what Triton calls the type of a kernel's argument."""
    if isinstance(value, torch.Tensor):
        return "*i1" if value.dtype == torch.bool else "*" + TYPES[value.dtype]
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, int):
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    return "fp32"


def spilled(kernel: CompiledKernel, target: str) -> int:
    """Return the bytes of registers that a thread spills to memory."""
    if target.startswith("gfx"):
        return 4 * sum(map(int, re.findall(r"\.[sv]gpr_spill_count: *(\d+)", kernel.asm["amdgcn"])))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(kernel.asm["ptx"])
        architecture = re.findall(r"^\.target (\w+)", kernel.asm["ptx"], re.MULTILINE)[0]
        command = [get_ptxas(TARGETS[target].arch).path, "-v", f"-arch={architecture}"]
        told = subprocess.run(
            [*command, source, "-o", source.with_suffix(".o")], capture_output=True, text=True, check=True
        ).stderr
    return sum(map(int, re.findall(r"(\d+) bytes spill (?:stores|loads)", told)))


def compiling(told: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """Return what stands in for the launch of a kernel."""
    known, seen = set(), set()

    def run(function: JITFunction[Any], *arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
        options = {name: named.pop(name) for name in OPTIONS if name in named}
        values = dict(zip(function.arg_names, arguments, strict=False)) | named
        signature, constants = {}, {}
        for parameter in function.params:
            value = values[parameter.name]
            one = type(value) is int and value == 1 and not parameter.do_not_specialize
            if parameter.is_constexpr or one:  # of which Triton makes a constant, too
                signature[parameter.name], constants[parameter.name] = "constexpr", value
            else:
                signature[parameter.name] = kind(value)
        key = (function, str(signature), str(constants), str(options))
        if key in known:
            return
        known.add(key)
        name = f"{function.fn.__module__.rpartition('.')[2]}.{function.fn.__name__}"
        everywhere = function not in seen  # its other variants on one target: that they compile, and fit there
        seen.add(function)
        for target in TARGETS if everywhere else ["sm_90"]:
            what = TARGETS[target]
            made = triton.compile(ASTSource(function, signature, constants), target=what, options=options)
            told(
                {
                    "kernel": name,
                    "target": target,
                    "constants": constants,
                    "shared": made.metadata.shared,
                    "spilled": spilled(made, target),
                }
            )

    return run


def main() -> None:
    """Go through all scenes."""
    JITFunction.run = compiling(lambda found: print(json.dumps(found), flush=True))
    torch.empty, torch.Tensor.new_empty = torch.zeros, torch.Tensor.new_zeros  # what no kernel has written to is read
    with as_on_gpu(interpreted=False):
        for scene, deterministic in itertools.product(SCENES, (False, True)):
            torch.use_deterministic_algorithms(deterministic)
            scene()


if __name__ == "__main__":
    sys.exit(main())
