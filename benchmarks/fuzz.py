"""Damaged files of every format that is read: each must be read or refused with a clear error, and nothing else.

    python -m benchmarks.fuzz [--count 20000] [--seed 0] [--jobs 2] [--only NUMBER] [--keep FOLDER] [--write]

Every input is a small valid file with one to five changes: bits, numbers, words, pieces cut out, doubled and moved; in
packed files also before packing. It is read in a process of its own that may take 1 GB more than it had, and 5 s. A
finding is any other exception than ReconError, a crash, a hang, or memory beyond the limit, even where a reader made an
error for people of it. Findings are printed as JSON lines and their inputs kept; the same seed and number make the same
input again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz_seeds import Seed, mutate, seeds
from benchmarks.memory import peak_bytes
from benchmarks.tables import machine, print_table, write_section
from recon.capture import cloud_mesh
from recon.capture.content import content_suffix
from recon.capture.load import load
from recon.errors import ReconError
from recon.events import Events
from recon.export import read_mesh, read_splats

SECONDS = 5.0
MEMORY = 1_000_000_000
COLUMNS = ["format", "files", "read", "refused", "slowest s", "memory MB", "findings"]
_PLAIN = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}  # so that threads reserve no address space


def make(number: int, seed: int, all_seeds: list[Seed]) -> tuple[Seed, bytes]:
    """Return the seed of a case and its changed file."""
    chosen = all_seeds[number % len(all_seeds)]
    generator = np.random.default_rng([seed, number])
    data = chosen.files[chosen.target]
    if chosen.inside is not None and generator.random() < 0.6:
        return chosen, chosen.inside(data, generator)
    return chosen, mutate(data, generator)


def lay_out(chosen: Seed, data: bytes, folder: Path) -> None:
    """Write the input of a case into ``folder``, which is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in {**chosen.files, chosen.target: data}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read(chosen: Seed, folder: Path, work: Path) -> None:
    """Read the input as people's files are read, photos with their pixels."""
    path = folder / chosen.open if chosen.open else folder
    content_suffix(folder / chosen.target)
    if chosen.reader == "splats":
        read_splats(path)
    elif chosen.reader == "mesh":
        read_mesh(path)
    else:
        for view in load(path, Events(), work).views:
            view.load()


def attempt(chosen: Seed, folder: Path, work: Path) -> dict[str, Any]:
    """Return what came of reading: ``outcome`` is read, refused, or a finding's kind with ``why``."""
    try:
        read(chosen, folder, work)
        return {"outcome": "read"}
    except ReconError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                return {"outcome": "memory", "why": _where(cause)}
            cause = cause.__cause__ or cause.__context__
        return {"outcome": "refused", "why": error.code}
    except MemoryError as error:
        return {"outcome": "memory", "why": _where(error)}
    except BaseException as error:  # an exit, too
        return {"outcome": "exception", "why": _where(error)}


def _where(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(last))
    return f"{type(error).__name__}: {str(error)[:200]} ({places})"


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _worker(channel: Connection, seed: int, scratch: Path) -> None:
    """Answer the numbers that come with what came of them."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries mutter
    cloud_mesh.SAMPLES = 1000
    all_seeds, folder, work = seeds(scratch / "seeds"), scratch / "input", scratch / "work"
    for chosen in all_seeds:  # what is loaded and reserved only once
        lay_out(chosen, chosen.files[chosen.target], folder)
        outcome = attempt(chosen, folder, work)
        assert outcome["outcome"] == "read", (chosen.format, outcome)
        shutil.rmtree(work, ignore_errors=True)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    channel.send(None)
    while True:
        number = channel.recv()
        if number is None:
            return
        started = time.monotonic()
        try:
            chosen, data = make(number, seed, all_seeds)
            lay_out(chosen, data, folder)
            _forget_peak()
            before, started = peak_bytes(), time.monotonic()
            result = attempt(chosen, folder, work)
            result |= {"seconds": time.monotonic() - started, "memory": max(0, peak_bytes() - before)}
        except BaseException as error:  # neither the reader's nor a file's fault, but to be looked into
            chosen = all_seeds[number % len(all_seeds)]
            taken = time.monotonic() - started
            result = {"outcome": "fuzzer", "why": _where(error), "seconds": taken, "memory": 0}
        shutil.rmtree(work, ignore_errors=True)
        channel.send({"number": number, "format": chosen.format, **result})


class Worker:
    """A process that reads, and the case that it is at."""

    def __init__(self, seed: int, scratch: Path) -> None:
        context = multiprocessing.get_context("fork")
        self.channel, other = context.Pipe()
        self.process = context.Process(target=_worker, args=(other, seed, scratch), daemon=True)
        self.process.start()
        other.close()
        if not self.channel.poll(120):
            raise SystemExit("the valid files cannot be read in two minutes")
        self.channel.recv()
        self.number, self.since = -1, 0.0

    def give(self, number: int) -> None:
        self.number, self.since = number, time.monotonic()
        self.channel.send(number)

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def run(numbers: list[int], seed: int, jobs: int, scratch: Path) -> list[dict[str, Any]]:
    """Return the outcomes of the cases, in any order; findings are printed as they come."""
    all_seeds = seeds(scratch / "seeds")
    fresh = iter(range(1_000_000))
    waiting = numbers[::-1]
    workers: list[Worker] = []
    results: list[dict[str, Any]] = []

    def note(result: dict[str, Any]) -> None:
        if result["outcome"] not in ("read", "refused") or result["seconds"] > SECONDS:
            result["outcome"] = "hang" if result["seconds"] > SECONDS else result["outcome"]
            print(json.dumps(result), flush=True)
        results.append(result)

    try:
        while waiting or any(worker.number >= 0 for worker in workers):
            while len(workers) < min(jobs, len(waiting)):
                workers.append(Worker(seed, scratch / str(next(fresh))))
            for worker in workers:
                if worker.number < 0 and waiting:
                    worker.give(waiting.pop())
            ready = wait([worker.channel for worker in workers], timeout=0.2)
            for worker in list(workers):
                late = worker.number >= 0 and time.monotonic() - worker.since > SECONDS + 1
                try:
                    if worker.channel in ready:
                        note(worker.channel.recv())
                        worker.number = -1
                        continue
                except EOFError:
                    late = True
                if late:
                    worker.process.join(0.1)
                    died = worker.process.exitcode
                    chosen = all_seeds[worker.number % len(all_seeds)]
                    what = {"outcome": "hang"} if died is None else {"outcome": "crash", "why": f"exit code {died}"}
                    taken = {"seconds": time.monotonic() - worker.since, "memory": 0}
                    note({"number": worker.number, "format": chosen.format, **what, **taken})
                    worker.end()
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.end()
    return results


def rows(results: list[dict[str, Any]]) -> list[list[object]]:
    """Return the table: a line a format, and all."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in sorted(results, key=lambda result: result["format"].lower()):
        groups[result["format"]].append(result)
    groups["all"] = results
    lines: list[list[object]] = []
    for name, group in groups.items():
        counts = [sum(result["outcome"] == kind for result in group) for kind in ("read", "refused")]
        slowest = max(result["seconds"] for result in group)
        memory = max(result["memory"] for result in group) / 1e6
        lines.append([name, len(group), *counts, f"{slowest:.2f}", f"{memory:.0f}", len(group) - sum(counts)])
    return lines


def main() -> None:
    """Run the cases; exit code 1 if there are findings."""
    if any(os.environ.get(name) != value for name, value in _PLAIN.items()):
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.fuzz", *sys.argv[1:]], {**os.environ, **_PLAIN})
    parser = argparse.ArgumentParser(description="Damaged files of every format that is read.")
    parser.add_argument("--count", type=int, default=20_000, help="how many files")
    parser.add_argument("--seed", type=int, default=0, help="of the changes")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--only", type=int, help="the number of one finding, to see it once more")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="where inputs of findings go")
    parser.add_argument("--write", action="store_true", help="replace the section of benchmarks/README.md")
    asked = parser.parse_args()
    when, started = machine(), time.monotonic()
    numbers = list(range(asked.count)) if asked.only is None else [asked.only]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        results = run(numbers, asked.seed, asked.jobs, Path(scratch))
        findings = [result for result in results if result["outcome"] not in ("read", "refused")]
        all_seeds = seeds(Path(scratch) / "seeds")
        for finding in findings:
            chosen, data = make(finding["number"], asked.seed, all_seeds)
            lay_out(chosen, data, asked.keep / f"{asked.seed}-{finding['number']}-{finding['outcome']}")
    table = rows(results)
    print_table(COLUMNS, table)
    if asked.write:
        took = f"\n\nSeed {asked.seed}, {asked.jobs} processes, {(time.monotonic() - started) / 60:.0f} minutes."
        write_section("fuzz", when, COLUMNS, table, took)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
