"""The jobs folder behind the web page: what people do with jobs, and what there is to see of them.

::

    JOBS/  <id>/   a job directory each, as 'recon run --out' makes it; what was uploaded for it lies in input/
           .page/  index.sqlite, the devices' locks, uploads, and what is being put together or thrown away

Nothing here depends on a tab being open, nor on this process: the state is on the disk, and a worker is a process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.index import Index
from app.job_state import INPUT, JobState, JobView, Summary, inside, source_of
from app.line import Line, settle, write_ticket
from app.uploads import clean_name
from app.worker import RECON, interrupt_owner
from recon import pipelines
from recon.config import ENVIRONMENT, path_names, resolve
from recon.errors import Cancelled, InputError, ReconstructionError
from recon.job import Job, is_job, write_config
from recon.settings import Settings, as_environment, settings

EXPORT_SECONDS = 600
MOST = 100_000_000
"""Faces, or pixels along a texture's side, beyond which nobody means it."""

PICTURE = "picture"
"""Stands for a job's newest or best picture, whichever that is when somebody asks."""

WATCHED = 16
"""Jobs whose events are kept in mind; others are read again when somebody looks at them."""

FORMATS = {
    "splats": (".ply", ".splat", ".spz"),
    "mesh": (".zip", ".obj", ".stl", ".ply", ".3mf", ".glb"),
}
"""What can be exported of what; a .zip is an OBJ with its texture."""


class Jobs:
    """The jobs of one folder. Safe to use from several threads.

    Args:
        folder: where they are; made if need be.
        limits: of the queue and the disk.
        command: how ``recon`` is called.

    Raises:
        InputError: the folder cannot be used.
    """

    def __init__(self, folder: Path, limits: Settings | None = None, command: Sequence[str] = RECON) -> None:
        self.folder = folder.absolute()
        self.own = self.folder / ".page"
        self._limits = limits or settings()
        self._command = tuple(command)
        self._lock = threading.RLock()
        self._views: dict[str, JobView] = {}
        self._stopping: set[str] = set()
        try:
            self.uploads.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{folder} cannot be used for jobs: {error.strerror}.", "Give --jobs another folder.", "bad-jobs"
            ) from None
        for rubbish in (*self.own.glob("new-*"), *self.own.glob("gone-*")):  # of a server that was killed
            shutil.rmtree(rubbish, ignore_errors=True)
        self._index = Index(self.folder, self.own / "index.sqlite")
        self._line = Line(self.folder, self.own, self._command, self.environment())

    @property
    def uploads(self) -> Path:
        """Where a server puts what browsers send, until a job is begun with it."""
        return self.own / "uploads"

    # --- what people do ---

    def begin(
        self,
        source: Path,
        pipeline: str,
        preset: str,
        values: Mapping[str, Any],
        *,
        title: str = "",
        device: str | None = None,
        keep: bool = False,
        made: Path | None = None,
        files: Mapping[str, Any] | None = None,
    ) -> str:
        """Put a job into the line.

        Args:
            source: a capture.
            pipeline, preset: what is run.
            values: fields of the pipeline's config, in place of the preset's; a visitor's, so none may be a path.
            title: what to call it; the capture's name where empty.
            device: ``cpu`` or ``cuda``; where None, RECON_DEVICE, else ``cpu``.
            keep: the job shall have its own copy of the capture (by links where the disk allows).
            made: a job of the same capture and pipeline, whose finished stages hold for this one where settings agree.
            files: fields that are paths, which only the server's owner may name.

        Returns:
            Its id.

        Raises:
            InputError: wrong settings, a full line, a full disk; nothing was begun.
        """
        chosen = pipelines.get(pipeline).config
        for name in path_names(chosen):
            if values.get(name) is not None:
                what = f"Setting '{name}' names a file of the server's, which only its owner may."
                raise InputError(what, "Put all that belongs together into one zip, or use 'recon run'.", "bad-setting")
        config = resolve(chosen, preset=preset, environment=os.environ, flags={**values, **(files or {})})
        device = device or os.environ.get(f"{ENVIRONMENT}DEVICE") or "cpu"
        self._refuse_more()
        name = clean_name(title) if title.strip() else source.stem
        kept = f"{name}{source.suffix if source.is_file() else ''}"  # so that the report has this title, too
        part = self.own / f"new-{uuid.uuid4().hex}"
        try:
            part.mkdir()
            if keep:
                copy_by_links(source, part / INPUT / kept)
            if made is not None:
                for folder in ("stages", "exports"):  # no links: a stage may change its files in place
                    if (made / folder).is_dir():
                        shutil.copytree(made / folder, part / folder)
            with self._lock:
                job = self._new_id(name)
                final = self.folder / job
                where = final / INPUT / kept if keep else source
                write_config(part, config, where, pipeline=pipeline, preset=preset, device=device)
                write_ticket(part)
                part.rename(final)
                self._line.join(job)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return job

    def clone(self, job: str, pipeline: str, preset: str, values: Mapping[str, Any], *, title: str = "") -> str:
        """Put another job of the same capture into the line and return its id; arguments and errors as in begin."""
        opened = self._open(job)
        source = source_of(opened)
        own = source.is_relative_to(opened.folder)
        device = str(opened.header["device"])
        made = opened.folder if pipeline == opened.pipeline and not opened.running else None
        title, files = title or source.stem, {}
        if pipeline == opened.pipeline:
            files = {name: opened.settings.get(name) for name in path_names(pipelines.get(pipeline).config)}
        return self.begin(
            source, pipeline, preset, values, title=title, device=device, keep=own, made=made, files=files
        )

    def cancel(self, job: str) -> None:
        """Ask a job to stop; it does so within two seconds and can be resumed. One that has ended stays as it is.

        Raises:
            InputError: there is no such job.
        """
        folder = self._open(job).folder
        with self._lock:
            if self._line.leave(job):
                settle(folder, Cancelled())
            elif worker := self._line.worker(job):
                worker.stop()
            elif Job.open(folder).running:
                self._stopping.add(job)
                interrupt_owner(folder)

    def resume(self, job: str) -> None:
        """Let a job that ended early go on, with its own settings, when its turn comes.

        Raises:
            InputError: there is no such job, it has not ended early, or a full line or disk.
        """
        self._settled(job)
        with self._lock:
            if not self.state(job).resumable:
                raise InputError("Only a job that ended early can go on.", "Clone it to run it again.", "not-resumable")
            self._refuse_more()
            self._stopping.discard(job)
            write_ticket(self.folder / job)
            self._line.join(job)

    def delete(self, job: str) -> None:
        """Delete a job with all its files.

        Raises:
            InputError: there is no such job, or it has not ended.
        """
        folder = self._settled(job).folder
        with self._lock:
            if self.state(job).busy:
                raise InputError("A job that runs or waits cannot be deleted.", "Cancel it first.", "busy")
            gone = self.own / f"gone-{uuid.uuid4().hex}"
            folder.rename(gone)
            self._views.pop(job, None)
        shutil.rmtree(gone, ignore_errors=True)

    def export(self, job: str, kind: str, suffix: str, faces: int | None = None, texture: int | None = None) -> str:
        """Write a finished job's splats or mesh in another format and return the file's path in the job.

        Args:
            job: the job.
            kind, suffix: of FORMATS.
            faces: simplify the mesh to at most so many.
            texture: give it a texture of so many pixels squared.

        Raises:
            InputError: there is no such job, format or number.
            ReconstructionError: the result has no such thing, or it could not be written.
        """
        folder = self._open(job).folder
        if suffix not in FORMATS.get(kind, ()):
            raise InputError(f"{kind} cannot be written as {suffix}.", f"Formats: {FORMATS}", "bad-format")
        for what, number in (("faces", faces), ("pixels of a texture", texture)):
            if number is not None and not (isinstance(number, int) and 0 < number <= MOST):
                raise InputError(f"{number!r} is no number of {what}.", f"Give one from 1 to {MOST}.", "bad-number")
        parts = [kind, f"{faces}-faces" if faces else "", f"{texture}-pixels" if texture else ""]
        name = f"exports/{'-'.join(part for part in parts if part)}{suffix}"
        if not (folder / name).exists():
            arguments = [*self._command, "export", str(folder), "--to", str(folder / name)]
            arguments += ["--faces", str(faces)] if faces else []
            arguments += ["--texture", str(texture)] if texture else []
            self._call(arguments)
        return name

    def close(self, seconds: float = 8.0) -> int:
        """Stop the jobs that this server began, before the server goes, and let them go on first with the next one.

        Returns:
            How many there were.
        """
        stopped = self._line.close(seconds)
        self._index.close()
        return stopped

    # --- what people see ---

    def state(self, job: str) -> JobState:
        """Return what a job does now.

        Raises:
            InputError: there is no such job.
        """
        folder = self._open(job).folder
        with self._lock:
            view = self._views.pop(job, None) or JobView(folder)
            self._views[job] = view  # the newest last
            while len(self._views) > WATCHED:
                del self._views[next(iter(self._views))]
            worker = self._line.worker(job)
            stopping = job in self._stopping or (worker is not None and worker.asked_to_stop)
            return view.look(place=self._line.place(job), since=worker.began if worker else None, stopping=stopping)

    def listing(self, words: str = "", limit: int = -1) -> list[Summary]:
        """Return the jobs, newest first; arguments as of :meth:`app.index.Index.jobs`."""
        return self._index.jobs(words, limit)

    def running(self) -> str:
        """Return the newest job that runs; empty where none does."""
        return next((job.id for job in self._index.jobs() if job.status == "running"), "")

    def file(self, job: str, name: str) -> Path | None:
        """Return a job's file that may be shown or taken away; None if there is no such job or file."""
        if name == PICTURE and self._exists(job):
            pictures = sorted((self.folder / job / "previews").glob("*.jpg"))  # numbers, then names: hero.jpg is last
            name = f"previews/{pictures[-1].name}" if pictures else ""
        parts = name.split("/")
        if parts[0] not in ("exports", "previews", "stages", "report.html") or ".." in parts or not self._exists(job):
            return None
        return inside(self.folder / job, name)

    # --- the folder ---

    def _exists(self, job: str) -> bool:
        plain = bool(job) and job == Path(job).name and job.isprintable() and not job.startswith(".")
        return plain and is_job(self.folder / job)

    def _open(self, job: str) -> Job:
        if not isinstance(job, str) or not self._exists(job):
            raise InputError(
                "There is no such job.", "It was deleted, perhaps; the list shows those there are.", "no-job"
            )
        return Job.open(self.folder / job)

    def _settled(self, job: str) -> Job:
        """Open a job; where it has ended, its process has, too."""
        if not self.state(job).busy:
            self._line.forget(job)
        return self._open(job)

    def _new_id(self, name: str) -> str:
        base = f"{time.strftime('%Y%m%d-%H%M%S')}-{clean_name(name)}"
        number, job = 1, base
        while (self.folder / job).exists():
            number += 1
            job = f"{base}-{number}"
        return job

    def _refuse_more(self) -> None:
        if len(self._line) >= (most := self._limits.max_queue):
            raise InputError(
                f"{most} jobs are waiting already.", "Try again when one has begun (RECON_MAX_QUEUE).", "queue-full"
            )
        free = shutil.disk_usage(self.folder).free / 1e9
        if free < self._limits.min_free_gb:
            raise InputError(
                f"Only {free:.1f} GB are free on the jobs' disk.", "Delete jobs that are not needed.", "disk-full"
            )

    def environment(self) -> dict[str, str]:
        """Return the workers' variables: pipelines' settings are in the jobs already."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT)}
        return {**plain, **as_environment(self._limits)}

    def _call(self, arguments: list[str]) -> None:
        try:
            done = subprocess.run(
                arguments,
                cwd=Path(__file__).parents[1],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=EXPORT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ReconstructionError("That took too long.", "Ask for fewer faces.", "timeout") from None
        if done.returncode:
            told = dict(
                line.split(": ", 1) for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: "))
            )
            message = told.get("error", "It could not be written.").replace(f"{self.folder}/", "")
            raise ReconstructionError(message, told.get("hint", ""), "export-failed")


def copy_by_links(source: Path, target: Path) -> None:
    """Copy a file or a folder; the files are linked where the disk allows, so that nothing is copied twice.

    Raises:
        InputError: the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if source.is_dir():
            shutil.copytree(source, target, copy_function=_link)
        else:
            _link(str(source), str(target))
    except (OSError, shutil.Error):
        raise InputError("The disk is full.", "Free some space.", "disk-full") from None


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)  # with its time of change, by which stages know large files again
