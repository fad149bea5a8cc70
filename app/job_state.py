"""What a job directory says about its job, at one instant. Nothing here is remembered: the state is on the disk."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.follow import Follower, StageState
from app.worker import LOG, crash, memory_mb, owner
from recon import pipelines
from recon.job import TICKET, Job
from recon.job_files import PART, read_json

Status = Literal["queued", "starting", "running", "stopping", "done", "failed", "cancelled", "interrupted"]
BUSY: tuple[Status, ...] = ("queued", "starting", "running", "stopping")
ENDED = ("done", "failed", "cancelled")

INPUT = "input"
"""Folder of a job that holds what was uploaded for it."""

LOG_BYTES = 6_000
"""How much of the log's end is shown."""


@dataclass(frozen=True)
class JobState:
    """A job at one instant.

    Attributes:
        id, title: its folder's name, and what people call it.
        folder: its directory.
        pipeline, preset, device: of its config.yaml.
        status: ``interrupted`` is one that was killed, or whose machine went down, while no server saw it.
        place: its place in the queue from 1, 0 when it does not wait.
        stages: in order.
        seconds: since the run began, or how long it took.
        metrics: the newest of each.
        curve: see :class:`~app.follow.Follower`.
        preview: the newest picture.
        memory_mb: what it has in use now, 0 when it does not run.
        log: the end of what it said.
        warnings, error: for people; the error with its hint.
        result: result.json once it has ended.
        exports: files to take away by their path in the job, those that are there.
    """

    id: str
    title: str
    folder: Path
    pipeline: str
    preset: str
    device: str
    status: Status
    place: int = 0
    stages: tuple[StageState, ...] = ()
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[tuple[float, Mapping[str, float]], ...] = ()
    preview: Path | None = None
    memory_mb: float = 0.0
    log: str = ""
    warnings: tuple[str, ...] = ()
    error: tuple[str, str] | None = None
    result: Mapping[str, Any] | None = None
    exports: Mapping[str, Path] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether it has not ended."""
        return self.status in BUSY

    @property
    def resumable(self) -> bool:
        """Whether it ended early and can go on."""
        return self.status in ("cancelled", "failed", "interrupted")


class JobView:
    """A job that is watched: what its events say is read as they grow.

    Args:
        folder: the job directory.

    Raises:
        InputError: it is no job, or one of an unknown pipeline.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        pipeline = pipelines.get(Job.open(folder).pipeline)
        self._follower = Follower.of(folder / "events.jsonl", [stage.name for stage in pipeline.stages])

    def look(self, *, place: int = 0, since: float | None = None, stopping: bool = False) -> JobState:
        """Return its state now.

        Args:
            place: its place in the queue.
            since: when a worker that has not ended yet was begun for it, None without one.
            stopping: whether it was asked to stop.
        """
        job, follower = Job.open(self.folder), self._follower
        follower.update()
        result = job.result()
        status = status_of(job, result, begun=since is not None)
        if status == "running" and follower.began < (since or 0.0):
            status = "starting"
        if status in ("queued", "starting"):
            follower.forget()
        if status in ("starting", "running") and stopping:
            status = "stopping"
        ended = status not in BUSY
        return JobState(
            id=self.folder.name,
            title=title_of(self.folder.name),
            folder=self.folder,
            pipeline=job.pipeline,
            preset=str(job.header["preset"]),
            device=str(job.header["device"]),
            status=status,
            place=place,
            stages=tuple(follower.stages),
            seconds=self._seconds(status, result),
            metrics=follower.metrics,
            curve=tuple(follower.curve),
            preview=inside(self.folder, follower.preview),
            memory_mb=0.0 if ended else memory_mb(owner(self.folder)),
            log=_tail(self.folder / LOG),
            warnings=tuple(map(self._short, follower.warnings)),
            error=self._error(status, result),
            result=result if ended else None,
            exports=exports_of(self.folder) if ended else {},
        )

    def _seconds(self, status: Status, result: Mapping[str, Any] | None) -> float:
        if status in ENDED and result is not None:
            return float(result["seconds"]["total"])
        if status in ("queued", "starting"):
            return 0.0
        now = self._follower.latest if status == "interrupted" else time.time()
        return self._follower.spent + now - self._follower.began

    def _error(self, status: Status, result: Mapping[str, Any] | None) -> tuple[str, str] | None:
        if status == "interrupted":
            error = crash(None)
            return error.message, error.hint
        told = (result or {}).get("error") if status in ENDED else None
        return (self._short(told["message"]), self._short(told["hint"])) if told else None

    def _short(self, text: str) -> str:
        """Leave out where the job lies: on the page it has a name."""
        return text.replace(f"{self.folder / INPUT}/", "").replace(f"{self.folder}/", "")


def status_of(job: Job, result: Mapping[str, Any] | None, begun: bool = False) -> Status:
    """Return what an open job's directory says; ``begun`` if a worker was started for it that has not ended yet."""
    if job.running:
        return "running"
    if (job.folder / TICKET).exists():
        return "starting" if begun else "queued"
    told = (result or {}).get("status")
    if told in ENDED:
        return told
    return "stopping" if begun else "interrupted"


def title_of(job: str) -> str:
    """Return a job's name without the time that makes it unique."""
    return re.sub(r"^\d{8}-\d{6}-", "", job).replace("_", " ")


def source_of(job: Job) -> Path:
    """Return what a job reconstructs: its own upload, wherever the job lies now, else what its config.yaml names."""
    with suppress(OSError):
        own = [path for path in (job.folder / INPUT).iterdir() if not path.name.startswith(".")]
        if len(own) == 1:
            return own[0]
    return job.input


def exports_of(folder: Path) -> dict[str, Path]:
    """Return the files to take away, by their path in the job: what was made for it, and what was exported later."""
    found = {}
    for path in [folder / "report.html", *sorted((folder / "exports").rglob("*"))]:
        name = str(path.relative_to(folder))
        if PART not in name and (file := inside(folder, name)):
            found[name] = file
    return found


def inside(folder: Path, name: str) -> Path | None:
    """Return the file ``name`` of a job; None if it is not there, or leads elsewhere."""
    with suppress(OSError, ValueError):  # too long a name, or one with a NUL
        path = (folder / name).resolve()
        if name and path.is_file() and path.is_relative_to(folder.resolve()):
            return path
    return None


@dataclass(frozen=True)
class Summary:
    """A job in one line of a list.

    Attributes:
        id, title, pipeline, preset, status, seconds: as in :class:`JobState`.
        created: seconds since the epoch.
        size: bytes on the disk.
        picture: its newest or best picture, by its path in the job; empty without one.
        metrics: of its result.
        error: message of its failure, empty without one.
    """

    id: str
    title: str
    pipeline: str
    preset: str
    status: Status
    created: float
    seconds: float
    size: int
    picture: str
    metrics: Mapping[str, float]
    error: str


def summarise(folder: Path) -> Summary:
    """Return a job's line, at the cost of looking at all its files.

    Raises:
        InputError: it is no job.
    """
    job = Job.open(folder)
    result = job.result()
    status = status_of(job, result)
    ended = result if status in ENDED and result is not None else {}
    ticket = read_json(folder / TICKET)
    begun = [time for event in job.events()[:1] if isinstance(time := event.get("time"), float)]
    queued = [float(ticket["queued"])] if isinstance(ticket, dict) and not begun else []
    created = [*begun, *queued, (folder / "config.yaml").stat().st_mtime][0]
    pictures = sorted((folder / "previews").glob("*.jpg"))  # numbers, then names: hero.jpg comes last
    return Summary(
        id=folder.name,
        title=title_of(folder.name),
        pipeline=job.pipeline,
        preset=str(job.header["preset"]),
        status=status,
        created=created,
        seconds=float(ended.get("seconds", {}).get("total", 0.0)),
        size=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()),
        picture=str(pictures[-1].relative_to(folder)) if pictures else "",
        metrics=ended.get("metrics") or {},
        error=((ended.get("error") or {}).get("message")) or "",
    )


def peek(folder: Path) -> Status:
    """Return a job's status alone, at the cost of a few small files.

    Raises:
        InputError: it is no job.
    """
    job = Job.open(folder)
    return status_of(job, job.result())


def _tail(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOG_BYTES))
        text = file.read().decode("utf-8", "replace")
        return text if size <= LOG_BYTES else text.partition("\n")[2]
    return ""
