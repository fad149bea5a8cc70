"""The tables of benchmarks/README.md: one section a script, replaced as a whole each time it is measured again."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kernels import _cpu

README = Path(__file__).with_name("README.md")


def machine() -> str:
    """Return what the figures were measured on, when, and what load it had: figures of a loaded machine are bounds."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    what = f"{model}, {os.cpu_count()} cores, {_cpu.isa()}, load {os.getloadavg()[0]:.1f}"
    return f"{datetime.date.today().isoformat()}, {what}"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table for people."""
    print(table(columns, rows), flush=True)


def write_section(name: str, when: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], more: str = "") -> None:
    """Replace the section ``name`` of benchmarks/README.md, between its two marks, added at the end if new."""
    text = README.read_text() if README.exists() else "# Benchmarks\n"
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    section = f"{begin}\n{when}\n\n{table(columns, rows)}{more}\n{end}"
    if begin in text and end in text:
        before, rest = text.split(begin, 1)
        text = before + section + rest.split(end, 1)[1]
    else:
        text = f"{text.rstrip()}\n\n## {name}\n\n{section}\n"
    README.write_text(text)
