"""A hundred times ``kill -9``: worker, server and batch die at random instants, and nothing is lost.

    python -m benchmarks.crash [--kills 100] [--seed 0] [--write]

Two jobs are run once without harm: splats of the sample and a mesh of a cloud, both small. Then the same two run again
behind the page, where now the worker and now the server is killed, and in a batch, where the batch is killed; whatever
died is begun or resumed again, until all kills are spent and all jobs are done. In the end every job must be there, no
file half-written, every JSON file whole, and every result equal to the undisturbed one's: the same figures, the same
bytes of splats and mesh.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.worker import PRINTED, owner
from benchmarks.tables import machine, print_table, write_section
from recon.job import Job, is_job
from recon.job_files import PART, read_json

ROOT = Path(__file__).parents[1]
MARK = "crash"
JOBS: dict[str, tuple[Path, str, dict[str, Any]]] = {
    "splats": (
        ROOT / "assets" / "still_life",
        "splats",
        {"steps": 200, "max_side": 120, "splats": 4000, "turntable": 4, "faces": 3000},
    ),
    "points": (ROOT / "assets" / "scan" / "octopus.ply", "points", {"steps": 60, "points": 6000, "resolution": 24}),
}
FILES = ("exports/splats.ply", "exports/mesh.ply", "exports/mesh.glb", "exports/transforms.json")
RECON = (sys.executable, "-m", "app.cli")


def flags(settings: dict[str, Any]) -> list[str]:
    """Return settings as flags."""
    return [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]


def outcome(job: Path) -> dict[str, Any]:
    """Return what must be equal: figures, counts, and the bytes of what came out."""
    result = read_json(job / "result.json") or {}
    sums = {name: hashlib.sha256((job / name).read_bytes()).hexdigest()[:16] for name in FILES if (job / name).exists()}
    return {"status": result.get("status"), "metrics": result.get("metrics"), "counts": result.get("counts"), **sums}


def undisturbed(folder: Path) -> dict[str, dict[str, Any]]:
    """Run every job once and return its outcome and, under ``seconds``, how long it took."""
    found = {}
    for name, (source, pipeline, settings) in JOBS.items():
        out, began = folder / name, time.monotonic()
        command = [*RECON, "run", str(source), "--out", str(out), "--pipeline", pipeline, "--preset", "fast"]
        subprocess.run([*command, *flags(settings)], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        found[name] = outcome(out)
        print(json.dumps({"benchmark": MARK, "job": name, "seconds": round(time.monotonic() - began, 1)}), flush=True)
    return found


class Served:
    """The page's server, which is begun again whenever it was killed."""

    def __init__(self, jobs: Path) -> None:
        self.jobs = jobs
        self.begin()

    def begin(self) -> None:
        """Start it and wait until it answers."""
        from gradio_client import Client

        self.process = subprocess.Popen(
            [*RECON, "serve", "--port", "7899", "--jobs", str(self.jobs), "--min-free-gb", "0"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "Egregium is at" in line:
                break
        self.client = Client("http://127.0.0.1:7899", verbose=False)

    def ask(self, name: str, *values: Any) -> Any:
        """Call an end point."""
        return self.client.predict(*values, api_name=f"/{name}")


def harm_server(folder: Path, kills: int, dice: random.Random, told: Counter[str]) -> dict[str, list[Path]]:
    """Run the jobs behind the page again and again, killing worker or server; return the job directories by name."""
    made: dict[str, list[Path]] = {name: [] for name in JOBS}
    served = Served(folder)

    def unfinished() -> list[str]:
        return [path.name for paths in made.values() for path in paths if outcome(path)["status"] != "done"]

    while kills > 0 or unfinished():
        if kills > 0 and not unfinished():
            for name, (source, pipeline, settings) in JOBS.items():
                kind = "still_life" if source.is_dir() else "octopus"
                job = served.ask("begin", f"sample:{kind}", pipeline, "fast", settings, name)
                made[name].append(folder / job)
        for job in unfinished():
            if served.ask("state", job)["resumable"]:
                served.ask("resume", job)
        if kills <= 0:
            time.sleep(0.5)
            continue
        time.sleep(dice.uniform(0.0, 6.0))
        if dice.random() < 0.35:
            os.killpg(served.process.pid, signal.SIGKILL)
            served.process.wait()
            told["server"] += 1
            kills -= 1
            served.begin()
        else:
            running = [path for paths in made.values() for path in paths if Job.open(path).running]
            for worker in filter(None, map(owner, running[:1])):
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
                    told["worker"] += 1
                    kills -= 1
    os.killpg(served.process.pid, signal.SIGINT)
    served.process.wait(60)
    return made


def harm_batch(folder: Path, kills: int, dice: random.Random, told: Counter[str]) -> dict[str, list[Path]]:
    """Run the jobs as batches, killing these; return the job directories by name."""
    made: dict[str, list[Path]] = {name: [] for name in JOBS}
    number = 0
    while kills > 0:
        out = folder / f"batch-{number}"
        number += 1
        jobs = [
            {"name": name, "input": str(source), "pipeline": pipeline, "preset": "fast", **settings}
            for name, (source, pipeline, settings) in JOBS.items()
        ]
        manifest = folder / f"manifest-{number}.yaml"
        manifest.write_text(json.dumps({"jobs": jobs}))  # JSON is YAML
        code = None
        while code != 0:
            process = subprocess.Popen(
                [*RECON, "batch", str(manifest), "--out", str(out), "--resume"], cwd=ROOT, stderr=subprocess.DEVNULL
            )
            if kills > 0:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(dice.uniform(2.0, 12.0))
                if process.poll() is None:
                    process.kill()
                    told["batch"] += 1
                    kills -= 1
            code = process.wait()
        for name in JOBS:
            made[name].append(out / name)
    return made


def rubbish(folder: Path) -> list[str]:
    """Return files that are half-written, and JSON that does not parse."""
    found = [str(path) for path in folder.rglob(f"{PART}*")]
    for path in (*folder.rglob("*.json"), *folder.rglob("events.jsonl")):
        if path.name == PRINTED:  # a worker's last words, which a kill cuts off
            continue
        text = path.read_text()
        try:
            for part in text.splitlines() if path.suffix == ".jsonl" else [text]:
                json.loads(part)
        except ValueError as error:
            found.append(f"{path}: {error}")
    return found


def main() -> None:
    """Run it; the exit code is 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    arguments = parser.parse_args()
    dice, told = random.Random(arguments.seed), Counter[str]()
    folder = Path(tempfile.mkdtemp(prefix="crash-"))
    try:
        wanted = undisturbed(folder)
        (folder / "served").mkdir()
        (folder / "batches").mkdir()
        parts = [harm_server(folder / "served", arguments.kills - arguments.kills // 3, dice, told)]
        parts.append(harm_batch(folder / "batches", arguments.kills // 3, dice, told))
        rows, bad = [], 0
        for name in JOBS:
            jobs = [path for part in parts for path in part[name]]
            lost = sum(not is_job(path) for path in jobs)
            other = sum(outcome(path) != wanted[name] for path in jobs if is_job(path))
            bad += lost + other
            rows.append([name, len(jobs), lost, other])
        halves = rubbish(folder / "served") + rubbish(folder / "batches")
        for path in halves[:10]:
            print("half-written:", path, file=sys.stderr)
        more = f"\n\nKilled: {', '.join(f'{who} {count} times' for who, count in sorted(told.items()))}. "
        more += f"Half-written files at the end: {len(halves)}."
        columns = ["job", "run to their end", "lost", "with another result"]
        print_table(columns, rows)
        print(more.strip())
        if arguments.write:
            write_section(MARK, machine(), columns, rows, more)
        sys.exit(1 if bad or halves else 0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
