"""Ten small captures one by one with ``recon run``, and all at once with ``recon batch``.

    python -m benchmarks.batch [--captures 10] [--workers 1 2] [--write]

The captures are the sample's photos (assets/still_life) seen small, and clouds drawn evenly from its true mesh, half
of each, each with a seed of its own. Seconds are of the wall clock, of processes begun to their end; one by one is
``recon run`` as often as there are captures, each as a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trimesh

from benchmarks.command import reconstruct
from benchmarks.tables import machine, print_table, write_section

SAMPLE = Path(__file__).resolve().parents[1] / "assets" / "still_life"
PHOTOS: dict[str, Any] = {
    "pipeline": "splats",
    "preset": "fast",
    **{"max-side": 200, "steps": 150, "mesh": False, "turntable": 0},
}
CLOUD: dict[str, Any] = {"pipeline": "points", "preset": "fast", "resolution": 32}
COLUMNS = ["way", "seconds", "of one by one", "done"]


def captures(folder: Path, count: int) -> list[dict[str, Any]]:
    """Return the jobs of a manifest, with the clouds made."""
    mesh = trimesh.load_mesh(SAMPLE / "mesh.ply", process=False)
    jobs = []
    for i in range(count):
        if i % 2 == 0:
            jobs.append({"input": str(SAMPLE), "name": f"photos-{i}", **PHOTOS, "seed": i})
            continue
        path = folder / f"cloud-{i}.ply"
        trimesh.PointCloud(trimesh.sample.sample_surface(mesh, 10_000, seed=i)[0]).export(path)
        jobs.append({"input": str(path), "name": f"cloud-{i}", **CLOUD, "seed": i})
    return jobs


def one_by_one(jobs: list[dict[str, Any]], out: Path) -> int:
    """Run each as people do who have no batch; return how many are done."""
    done = 0
    for job in jobs:
        flags = []
        for name, value in job.items():
            if name not in ("input", "name"):
                flags += [f"--no-{name}"] if value is False else [f"--{name}", str(value)]
        done += reconstruct(Path(job["input"]), out / job["name"], *flags)["status"] == "done"
    return done


def batch(jobs: list[dict[str, Any]], out: Path, workers: int) -> int:
    """Run all as a batch; return how many are done."""
    manifest = out.with_suffix(".yaml")
    entries = [{name.replace("-", "_"): value for name, value in job.items()} for job in jobs]
    manifest.write_text(json.dumps({"jobs": entries}))
    command = [sys.executable, "-m", "app.cli", "batch", str(manifest), "--out", str(out), "--json"]
    ended = subprocess.run([*command, "--workers", str(workers)], capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command[2:])}: exit code {ended.returncode}\n{ended.stderr[-2000:]}")
    return int(json.loads(ended.stdout)["totals"]["done"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", type=int, default=10, metavar="N")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--write", action="store_true", help="replace the table in benchmarks/README.md")
    arguments = parser.parse_args()
    when, rows = machine(), []
    with tempfile.TemporaryDirectory(prefix="recon-") as temporary:
        folder = Path(temporary)
        jobs = captures(folder, arguments.captures)
        ways = {"recon run, one by one": lambda out: one_by_one(jobs, out)}
        for workers in arguments.workers:
            ways[f"recon batch --workers {workers}"] = lambda out, n=workers: batch(jobs, out, n)
        first = 0.0
        for number, (way, run) in enumerate(ways.items()):
            began = time.perf_counter()
            done = run(folder / f"out{number}")
            seconds = time.perf_counter() - began
            first = first or seconds
            rows.append([way, f"{seconds:.1f}", f"{seconds / first:.2f}", f"{done}/{len(jobs)}"])
            print(json.dumps(dict(zip(COLUMNS, rows[-1], strict=True))), flush=True)
    print_table(COLUMNS, rows)
    if arguments.write:
        write_section("batch", when, COLUMNS, rows)


if __name__ == "__main__":
    main()
