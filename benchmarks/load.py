"""The page under load: twenty visitors who upload and watch while a job runs, and the server's memory over fifty jobs.

    python -m benchmarks.load [--clients 20] [--seconds 60] [--jobs 50] [--write]

Each visitor does what a browser does: loads the page, uploads twelve photos and has them looked at, then asks once a
second what there is to see, as the page's clock does, and loads the newest picture. Meanwhile the sample is being
reconstructed by a worker on the same cores. After that, small jobs run one after another through the same server, and
its resident memory is read after each.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from app.worker import memory_mb
from benchmarks.tables import machine, print_table, write_section

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "assets" / "still_life"
PHOTOS = 12
MARK = "load"


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve the page from a process of its own until the block ends."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    arguments = ["-m", "app.cli", "serve", "--port", str(port), "--jobs", str(folder), "--min-free-gb", "0"]
    process = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "Egregium is at" in line:
                break
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


class Visitor:
    """A browser's requests, timed.

    Attributes:
        times: seconds of each request by its kind.
        errors: what went wrong.
    """

    def __init__(self, client: httpx.AsyncClient, number: int, look: dict[str, Any], inspect: int) -> None:
        self.client, self.number, self._look, self._inspect = client, number, look, inspect
        self._files = [("files", (f"IMG_{i}.jpg", photo(number, i), "image/jpeg")) for i in range(PHOTOS)]
        self.times: dict[str, list[float]] = {}
        self.errors: list[str] = []

    async def visit(self, job: str, seconds: float) -> None:
        """Load the page, upload, watch for so long."""
        end = time.monotonic() + seconds
        await self._timed("page", "GET", "/")
        uploaded = await self._timed("upload", "POST", "/gradio_api/upload", files=self._files)
        if uploaded is not None:
            await self._inspected(uploaded.json())
        while time.monotonic() < end:
            began = time.monotonic()
            content = {**self._look, "data": [{}, job, "live", "splats", ""], "session_hash": f"visitor{self.number}"}
            answer = await self._timed("look", "POST", "/gradio_api/run/predict", json=content)
            if answer is not None and "job/" in (text := answer.text) and "previews/" in text:
                name = text.split("previews/")[1].split(".jpg")[0]
                await self._timed("picture", "GET", f"/job/{job}/previews/{name}.jpg", may_be_gone=True)
            await asyncio.sleep(max(0.0, 1 - (time.monotonic() - began)))

    async def _inspected(self, paths: list[str]) -> None:
        """Have the photos looked at, as the page's queue does it: join, then listen until it is done."""
        session = f"inspect{self.number}"
        data = [[{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths]]
        began = time.monotonic()
        content = {"data": data, "fn_index": self._inspect, "session_hash": session}
        if await self._timed("join", "POST", "/gradio_api/queue/join", json=content) is None:
            return
        async with self.client.stream("GET", f"/gradio_api/queue/data?session_hash={session}", timeout=120) as stream:
            async for line in stream.aiter_lines():
                if "process_completed" in line:
                    if not json.loads(line.removeprefix("data:"))["success"]:
                        self.errors.append(f"inspect: {line[:200]}")
                    break
        self.times.setdefault("inspected", []).append(time.monotonic() - began)

    async def _timed(
        self, kind: str, method: str, path: str, may_be_gone: bool = False, **options: Any
    ) -> httpx.Response | None:
        began = time.monotonic()
        try:
            answer = await self.client.request(method, path, timeout=60, **options)
        except httpx.HTTPError as error:
            self.errors.append(f"{kind}: {error!r}")
            return None
        self.times.setdefault(kind, []).append(time.monotonic() - began)
        if answer.status_code != 200 and not (may_be_gone and answer.status_code == 404):
            self.errors.append(f"{kind}: {answer.status_code} {answer.text[:200]}")
            return None
        return answer


def photo(visitor: int, number: int) -> bytes:
    """Return a photo of 1200 × 900 noise, no two alike."""
    generator = np.random.default_rng((visitor, number))
    image = Image.fromarray(generator.integers(0, 255, (90, 120, 3), np.uint8)).resize((1200, 900))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def functions(address: str) -> dict[str, int]:
    """Return the number of each of the page's functions by its name."""
    config = httpx.get(f"{address}/config", timeout=30).json()
    return {str(entry["api_name"]): entry["id"] for entry in config["dependencies"]}


async def crowd(address: str, job: str, clients: int, seconds: float) -> list[Visitor]:
    """Return the visitors after their visit."""
    known = functions(address)
    limits = httpx.Limits(max_connections=4 * clients)
    async with httpx.AsyncClient(base_url=address, limits=limits) as client:
        visitors = [Visitor(client, i, {"fn_index": known["look"]}, known["inspect"]) for i in range(clients)]
        await asyncio.gather(*(visitor.visit(job, seconds) for visitor in visitors))
    return visitors


def fifty(address: str, count: int, process: int) -> list[float]:
    """Run small jobs one after another; return the server's memory in MiB after each."""
    from gradio_client import Client

    client = Client(address, verbose=False)
    settings = {"steps": 10, "points": 1000, "resolution": 16}
    memory = []
    for i in range(count):
        job = client.predict("sample:octopus", "points", "fast", settings, f"small {i}", api_name="/begin")
        *_, last = client.submit(job, api_name="/watch")
        if last["status"] != "done":
            raise RuntimeError(f"job {i} {last['status']}: {last['error']}")
        memory.append(memory_mb(process))
        print(json.dumps({"benchmark": MARK, "job": i + 1, "memory_mb": round(memory[-1])}), flush=True)
    return memory


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "jobs") as (address, process):
        from gradio_client import Client

        client = Client(address, verbose=False)
        job = client.predict("sample:still_life", "splats", "fast", {}, "watched", api_name="/begin")
        while client.predict(job, api_name="/state")["status"] != "running":
            time.sleep(0.5)
        time.sleep(5)
        visitors = asyncio.run(crowd(address, job, arguments.clients, arguments.seconds))
        state = client.predict(job, api_name="/state")
        print(f"the job is {state['status']} at the end of the visit", file=sys.stderr)
        client.predict(job, api_name="/cancel")
        errors = [error for visitor in visitors for error in visitor.errors]
        for kind in ("page", "upload", "inspected", "look", "picture"):
            times = sorted(value for visitor in visitors for value in visitor.times.get(kind, []))
            row = {
                "request": kind,
                "count": len(times),
                "median": round(statistics.median(times), 3),
                "p95": round(times[int(0.95 * (len(times) - 1))], 3),
                "longest": round(times[-1], 3),
            }
            print(json.dumps({"benchmark": MARK, **row}), flush=True)
            rows.append(row)
        for error in errors[:10]:
            print(error, file=sys.stderr)
        memory = fifty(address, arguments.jobs, process.pid)
    half = len(memory) // 2
    visited = f"{arguments.clients} visitors for {arguments.seconds:.0f} s, {len(errors)} errors."
    kept = f"{memory[min(4, half)]:.0f} after the 5th small job, {memory[half]:.0f} after the {half + 1}th, "
    told = f"\n\n{visited} Memory of the server, MiB: {kept}{memory[-1]:.0f} after the {len(memory)}th."
    columns, values = list(rows[0]), [list(row.values()) for row in rows]
    print_table(columns, values)
    print(told.strip())
    if arguments.write:
        write_section(MARK, machine(), columns, values, told)
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
