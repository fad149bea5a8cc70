"""The addresses of jobs' files, ``job/<id>/<path>``: pictures to show, results to take away, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from app.job_state import title_of
from app.jobs import Jobs

if TYPE_CHECKING:
    from starlette.routing import Route

SHOWN = {".jpg": "image/jpeg", ".png": "image/png", ".mp4": "video/mp4", ".html": "text/html; charset=utf-8"}
"""What a browser shows; anything else it keeps as a file."""

REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; media-src data:"
)
"""A report has scripts of its own and needs nothing of the page's."""


def link(job: str, name: str) -> str:
    """Return the address of a job's file, relative to the page."""
    return f"job/{quote(job)}/{quote(name)}"


def route(jobs: Jobs) -> Route:
    """Return the route that serves them."""
    from starlette.requests import Request
    from starlette.responses import FileResponse, PlainTextResponse, Response
    from starlette.routing import Route

    def serve(request: Request) -> Response:
        job, name = request.path_params["job"], request.path_params["name"]
        path = jobs.file(job, name)
        if path is None:
            return PlainTextResponse("There is no such file.", 404)
        return FileResponse(path, **_how(job, path))

    return Route("/job/{job}/{name:path}", serve, methods=["GET", "HEAD"])


def _how(job: str, path: Path) -> dict[str, Any]:
    kind = SHOWN.get(path.suffix)
    headers = {"cache-control": "private, no-cache"}  # asks each time whether it has changed
    if path.suffix == ".html":
        headers["content-security-policy"] = REPORT_POLICY
    if kind is not None:
        return {"media_type": kind, "headers": headers}
    name = f"{title_of(job).replace(' ', '_')}-{path.name}"
    return {"media_type": "application/octet-stream", "filename": name, "headers": headers}
