"""``summary.json`` and ``summary.html`` of a batch: how each job ended, kept up to date while it runs.

``summary.json`` (version 1; keys are only ever added)::

    {"version": 1, "status": "running|done|failed|cancelled", "began": 0, "updated": 0,
     "totals": {"jobs": 0, "done": 0, "failed": 0, "cancelled": 0, "running": 0, "waiting": 0, "seconds": 0},
     "jobs": [{"name": "", "job": "<name>", "input": "", "pipeline": "", "preset": "", "device": "",
               "status": "waiting|running|done|failed|cancelled", "before": false, "seconds": 0,
               "metrics": {}, "key_metric": "", "counts": {}, "exports": {"mesh": "<name>/exports/mesh.glb"},
               "report": null, "preview": null, "log": "logs/<name>.log",
               "error": null | {"code": "", "message": "", "hint": ""}}]}

Paths are relative to the summary; times are seconds since the epoch; ``before`` are jobs that an earlier batch did.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

import recon.evaluate
from app.batch_jobs import Run
from app.batch_table import metric
from app.console import duration, numbers
from recon.evaluate.markup import isolated, text
from recon.job_files import finite, write_json, write_text

INTERVAL = 5.0
"""Least seconds between two writings."""

THUMBNAIL = (224, 168)
MOST_PICTURED = 2000
"""Jobs that get a picture, of about 4 kB each."""

ORDER = ("failed", "running", "cancelled", "waiting", "done")
STATES = ("done", "failed", "cancelled", "running", "waiting")


class Summary:
    """Writes both files into ``folder``.

    Attributes:
        written: what summary.json says.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began = time.time()
        self.written: dict[str, Any] = {}
        self._at = 0.0
        self._states: Sequence[tuple[str, bool]] = ()
        self._thumbnails: dict[Path, str] = {}

    def update(self, runs: Sequence[Run], last: bool = False) -> None:
        """Write them where a state has changed and the last time is some seconds past, or it is the last time."""
        states = [(run.state, run.before) for run in runs]
        due = states != self._states and time.monotonic() - self._at >= INTERVAL
        if not (due or last):
            return
        content = self._content(runs)
        if last and content["status"] == "running":
            content["status"] = "cancelled"
        self.written, self._states, self._at = content, states, time.monotonic()
        try:
            write_json(self._folder / "summary.json", content)
            write_text(self._folder / "summary.html", self._page(content))
        except OSError:
            if last:  # till then there is hope, and no reason to end the jobs
                raise

    def _content(self, runs: Sequence[Run]) -> dict[str, Any]:
        counts = {state: sum(run.state == state for run in runs) for state in STATES}
        status = "running" if counts["running"] or counts["waiting"] else "done"
        status = next((state for state in ("cancelled", "failed") if counts[state] and status == "done"), status)
        seconds = round(sum(run.seconds for run in runs), 3)
        content = {
            "version": 1,
            "status": status,
            "began": self._began,
            "updated": time.time(),
            "totals": {"jobs": len(runs), **counts, "seconds": seconds},
            "jobs": [_job(run, self._folder) for run in runs],
        }
        return dict(finite(content))

    def _page(self, content: Mapping[str, Any]) -> str:
        totals, running = content["totals"], content["status"] == "running"
        jobs = sorted(content["jobs"], key=lambda job: ORDER.index(job["status"]))
        tiles = [(state, str(totals[state])) for state in STATES if totals[state] or state == "done"]
        tiles.append(("since it began", duration(content["updated"] - content["began"])))
        rows = "\n".join(self._row(job, pictured=number < MOST_PICTURED) for number, job in enumerate(jobs))
        style = Path(recon.evaluate.__file__).with_name("report.css").read_text(encoding="utf-8")
        more = Path(__file__).with_name("batch.css").read_text(encoding="utf-8")
        when = datetime.fromtimestamp(content["updated"], UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")
        page = Path(__file__).with_name("batch.html.in").read_text(encoding="utf-8")
        return Template(page).substitute(
            refresh='<meta http-equiv="refresh" content="10">' if running else "",
            title=text(f"{self._folder.name}: {totals['done']} of {totals['jobs']} done"),
            heading=isolated(self._folder.name),
            lead=text(_lead(content)),
            style=Template(style).substitute(gradient="#000, #fff") + more,
            tiles="".join(
                f'<div class="tile"><dt>{text(name)}</dt><dd class="value">{text(value)}</dd></div>'
                for name, value in tiles
            ),
            rows=rows,
            footer=f"Made by Egregium on {when}. The same is in summary.json, for programs.",
        )

    def _row(self, job: Mapping[str, Any], pictured: bool) -> str:
        picture = self._thumbnail(self._folder / job["preview"]) if job["preview"] and pictured else ""
        name = isolated(job["name"])
        target = job["report"] or (job["log"] if job["status"] == "failed" else "")
        link = f'<a href="{text(_url(target))}">{name}</a>' if target else f"<b>{name}</b>"
        error = job["error"] if job["status"] == "failed" else None
        why = f'<span class="why">{text(error["message"])}</span>' if error else ""
        hint = f'<span class="hint">{text(error["hint"])}</span>' if error and error["hint"] else ""
        counts = {key: job["counts"][key] for key in ("splats", "faces") if job["counts"].get(key)}
        how = text(f"{job['pipeline']}, {job['preset']}")
        state = "done before" if job["before"] else job["status"]
        took = duration(job["seconds"]) if job["seconds"] else ""
        cells = [
            f'<td class="picture">{picture}</td>',
            f'<td class="name">{link}<span class="sub">{how}</span>{why}{hint}</td>',
            f'<td class="state">{text(state)}</td>',
            f'<td class="figure">{text(job["key_metric"])}</td>',
            f'<td class="figure">{text(numbers(counts))}</td>',
            f'<td class="figure">{text(took)}</td>',
        ]
        return f'<tr class="{job["status"]}{"" if picture else " plain"}">{"".join(cells)}</tr>'

    def _thumbnail(self, path: Path) -> str:
        """Return the picture as an image of the page, made once; empty where it cannot be read."""
        if path not in self._thumbnails:
            from PIL import Image

            with suppress(OSError, ValueError):
                buffer = io.BytesIO()
                with Image.open(path) as picture:
                    small = picture.convert("RGB")
                small.thumbnail(THUMBNAIL)
                small.save(buffer, "WEBP", quality=70)
                data = base64.b64encode(buffer.getvalue()).decode("ascii")
                size = f'width="{small.width}" height="{small.height}"'
                self._thumbnails[path] = f'<img src="data:image/webp;base64,{data}" {size} alt="">'
        return self._thumbnails.get(path, "")


def _job(run: Run, folder: Path) -> dict[str, Any]:
    task, result = run.task, run.result
    job = task.out.name

    def there(path: str) -> str | None:
        return f"{job}/{path}" if path and (task.out / path).exists() else None

    previews = [run.follower.preview, *(f"previews/{name}.jpg" for name in ("hero", "mesh"))]
    log = task.logs.with_name(f"{task.name}.log")
    return {
        "name": task.name,
        "job": job,
        "input": str(task.input),
        "pipeline": task.pipeline,
        "preset": task.preset,
        "device": task.device,
        "status": run.state,
        "before": run.before,
        "seconds": round(run.seconds, 3),
        "metrics": dict(run.metrics),
        "key_metric": metric(run),
        "counts": dict(result.get("counts") or {}),
        "exports": {name: f"{job}/{path}" for name, path in (result.get("exports") or {}).items()},
        "report": there("report.html"),
        "preview": next((path for preview in reversed(previews) if (path := there(preview))), None),
        "log": str(log.relative_to(folder)) if log.exists() else None,
        "error": result.get("error") if run.state == "failed" else None,
    }


def _lead(content: Mapping[str, Any]) -> str:
    totals = content["totals"]
    if content["status"] == "running":
        return f"{totals['done']} of {totals['jobs']} captures are reconstructed; the others follow."
    if totals["failed"]:
        failed = f"{totals['failed']} of {totals['jobs']} captures failed, for the reasons below"
        return f"{failed}; the same command with --resume tries these again."
    if totals["done"] == totals["jobs"]:
        return f"All {totals['jobs']} captures are reconstructed."
    return "It was stopped; the same command with --resume goes on."


def _url(path: str) -> str:
    from urllib.parse import quote

    return quote(path)
