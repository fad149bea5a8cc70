"""Seconds, held-out PSNR and SSIM of the re-rendered mesh, faces and memory of each preset, by the command people use.

    python -m benchmarks.mesh_quality [--captures nerf_chair …] [--presets fast …] [--write]

Each run is ``recon run --pipeline mesh`` in a process of its own, from the photos to the report. Prints a JSON line a
run and the table; ``--write`` puts the table, with the date and the machine, into benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.command import reconstruct
from benchmarks.tables import machine, print_table, write_section
from recon.export import read_mesh

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CAPTURES = {
    "nerf_chair": [],
    "snowmiku_plush": ["--max-side", "495"],  # half size, as the figures of others are
}
COLUMNS = ["capture", "preset", "seconds", "fit s", "PSNR", "SSIM", "faces", "watertight", "texture", "memory MB"]


def row(capture: str, preset: str, result: dict[str, Any], job: Path) -> list[Any]:
    metrics, seconds = result["metrics"], result["seconds"]
    mesh = read_mesh(job / result["exports"]["mesh"])
    statistics = mesh.statistics()
    return [
        capture,
        preset,
        round(seconds["total"]),
        round(seconds["fit"]),
        f"{metrics['psnr']:.2f}",
        f"{metrics['ssim']:.4f}",
        statistics.faces,
        "yes" if statistics.watertight else "no",
        "none" if mesh.texture is None else f"{mesh.texture.shape[1]} × {mesh.texture.shape[0]}",
        round(result["peak_memory_mb"]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captures", nargs="+", choices=CAPTURES, default=list(CAPTURES))
    parser.add_argument("--presets", nargs="+", default=["fast", "medium", "high"])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for capture in arguments.captures:
            for preset in arguments.presets:
                job = Path(folder) / f"{capture}_{preset}"
                flags = ["--pipeline", "mesh", "--preset", preset, *CAPTURES[capture]]
                result = reconstruct(DATA / capture, job, *flags)
                print(json.dumps({"capture": capture, "preset": preset, **result}), flush=True)
                rows.append(row(capture, preset, result, job))
    print_table(COLUMNS, rows)
    if arguments.write:
        write_section("mesh_quality", machine(), COLUMNS, rows)


if __name__ == "__main__":
    main()
