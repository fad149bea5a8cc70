"""Seconds, held-out PSNR and SSIM, splats and memory of each preset on real captures, by the command people use.

    python -m benchmarks.splats_quality [--captures nerf_chair …] [--presets fast …] [--log FILE] [--write]

Each run is ``recon run`` in a process of its own, from the photos to the report. Prints a JSON line a run and the
table; ``--log`` keeps the lines in a file, and what it holds already is not run again, since all of it takes an hour.
``--write`` puts the table of all runs, with the date and the machine, into benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.command import reconstruct
from benchmarks.tables import machine, print_table, write_section

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CAPTURES = {
    "nerf_chair": [],
    "snowmiku_plush": ["--max-side", "495"],  # half size, as the figures of others are
    "banana": [],
}
PRESETS = ["fast", "medium", "high"]
COLUMNS = ["capture", "preset", "seconds", "fit s", "PSNR", "SSIM", "splats", "faces", "registered", "memory MB"]


def row(capture: str, preset: str, result: dict[str, Any]) -> list[Any]:
    counts, metrics, seconds = result["counts"], result["metrics"], result["seconds"]
    return [
        capture,
        preset,
        round(seconds["total"]),
        round(seconds["fit"]),
        f"{metrics['psnr']:.2f}",
        f"{metrics['ssim']:.4f}",
        counts["splats"],
        counts["faces"],
        f"{counts['registered']}/{counts['views']}",
        round(result["peak_memory_mb"]),
    ]


def curve(result: dict[str, Any]) -> str:
    """Return validation PSNR over seconds, on one line."""
    points = [(p["seconds"], p["validation_psnr"]) for p in result["history"] if "validation_psnr" in p]
    return ", ".join(f"{s:.0f} s {v:.1f}" for s, v in points) or "no validation photos"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captures", nargs="+", choices=CAPTURES, default=list(CAPTURES))
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    log: Path | None = arguments.log
    lines = log.read_text().splitlines() if log is not None and log.exists() else []
    results = {(line["capture"], line["preset"]): line for line in map(json.loads, lines)}
    with tempfile.TemporaryDirectory() as folder:
        for capture, preset in itertools.product(arguments.captures, arguments.presets):
            if (capture, preset) not in results:
                job = Path(folder) / f"{capture}_{preset}"
                found = reconstruct(DATA / capture, job, "--preset", preset, *CAPTURES[capture])
                result = {"capture": capture, "preset": preset, **found, "on": machine()}
                print(json.dumps(result), flush=True)
                if log is not None:
                    with log.open("a") as file:
                        file.write(json.dumps(result) + "\n")
                results[capture, preset] = result
    order = [key for key in itertools.product(CAPTURES, PRESETS) if key in results]
    rows = [row(*key, results[key]) for key in order]
    curves = [f"- {capture}, {preset}: {curve(results[capture, preset])}" for capture, preset in order]
    print_table(COLUMNS, rows)
    print("\n".join(curves))
    if arguments.write:
        text = "\n\nValidation PSNR (dB) of photos kept out of the fit, over seconds:\n\n" + "\n".join(curves)
        when = "; ".join(sorted({results[key]["on"] for key in order}))
        write_section("splats_quality", when, COLUMNS, rows, text)


if __name__ == "__main__":
    main()
