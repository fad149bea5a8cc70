"""A job directory: everything one reconstruction was told, said and made. Command line and web page are views of it.

::

    JOB/  config.yaml                what it was told; may be edited before a --resume
          events.jsonl               what it said
          stages/<name>/…            what each stage made, with done.json once it is whole
          checkpoint/<stage>/…       where an unfinished stage goes on from
          exports/  previews/  report.html  error.log
          queued.json                that it waits for its turn; gone once it has begun
          result.json                how it ended; absent while it runs

A job may be killed at any instant: every file is written beside itself and renamed, so the next run finds each
one whole or absent. No pickle is ever read.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from recon import job_checkpoint
from recon.config import Config, read_yaml, to_yaml
from recon.errors import InputError, ReconError
from recon.events import Event
from recon.job_events import EventLog, read_events
from recon.job_files import PART, explain, read_json, sweep, write_json, write_text

if TYPE_CHECKING:
    from torch import Tensor

    from recon.job_checkpoint import Arrays

VERSION = 1
"""Version of the directory's layout and of result.json; the layout is only ever added to."""

MARK = "egregium"
"""First key of config.yaml: by it a job directory is told from somebody's folder."""

HEADER = (MARK, "pipeline", "preset", "device", "input")
"""Keys of config.yaml that are not settings."""

LOCK = ".egregium.lock"
TICKET = "queued.json"
ATTEMPTS = 3


class Job:
    """One job directory. :meth:`create` gives one to write to, :meth:`open` one to look at.

    Attributes:
        folder: the directory, absolute.
        header: pipeline, preset, device and input of config.yaml.
        settings: the settings of config.yaml as they stand there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self._lock = -1
        self._log: EventLog | None = None

    # --- making and opening ---

    @classmethod
    def create(
        cls,
        folder: Path,
        config: Config,
        input: Path,
        *,
        pipeline: str,
        preset: str,
        device: str = "cpu",
        resume: bool = False,
    ) -> Job:
        """Begin a job, or with ``resume`` go on with one; no other process can write to it until :meth:`close`.

        Args:
            folder: a new or empty folder, or with ``resume`` a job's.
            config: the settings; on resume they replace the old ones.
            input: what is reconstructed; its absolute path is kept.
            pipeline, preset, device: kept in config.yaml.
            resume: without it an existing job is refused, unless it failed before any stage was done.

        Raises:
            InputError: the folder is somebody's, an existing job's, in use by another process, or not writable.
        """
        job = cls(Path(folder).absolute())
        job._refuse_strangers(resume)
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            job._acquire()
            job._refuse_strangers(resume)  # again: another process may have been quicker
            sweep(job.folder)
            write_config(job.folder, config, input, pipeline=pipeline, preset=preset, device=device)
            (job.folder / "result.json").unlink(missing_ok=True)  # it would tell of an earlier run
            (job.folder / "error.log").unlink(missing_ok=True)
            (job.folder / TICKET).unlink(missing_ok=True)
            job._log = EventLog(job.folder / "events.jsonl")
        except OSError as error:
            job.close()
            raise explain(error, job.folder) or _unusable(error, job.folder) from None
        except ReconError:
            job.close()
            raise
        job._read()
        return job

    @classmethod
    def open(cls, folder: Path) -> Job:
        """Open a job for reading, whether it runs or has ended.

        Raises:
            InputError: it is not a job.
        """
        job = cls(Path(folder).absolute())
        if not is_job(job.folder):
            raise InputError(
                f"{folder} is not a job.", "Give the folder that 'recon run --out' was given.", "not-a-job"
            )
        job._read()
        return job

    def close(self) -> None:
        """Let other processes write to the job again. Closing twice is fine."""
        if self._log is not None:
            self._log.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Job:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # --- what it is told and says ---

    @property
    def pipeline(self) -> str:
        """Name of the pipeline that made it."""
        return str(self.header["pipeline"])

    @property
    def input(self) -> Path:
        """What it reconstructs."""
        return Path(self.header["input"])

    @property
    def running(self) -> bool:
        """Whether a process is writing to it now."""
        if self._lock >= 0:
            return True
        try:
            descriptor = os.open(self.folder / LOCK, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def record(self, event: Event) -> None:
        """Append an event to events.jsonl; after :meth:`close` do nothing."""
        if self._log is not None:
            self._log.append(event)

    def events(self) -> list[dict[str, Any]]:
        """Return what was recorded, oldest first; a torn line is left out."""
        return read_events(self.folder / "events.jsonl")

    def result(self) -> dict[str, Any] | None:
        """Return result.json; None while it runs or after it was killed."""
        result = read_json(self.folder / "result.json")
        return result if isinstance(result, dict) else None

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Replace result.json."""
        write_json(self.folder / "result.json", result)

    # --- checkpoints ---

    def save_checkpoint(self, stage: str, tensors: Arrays, state: Mapping[str, Any]) -> None:
        """Keep where a stage stands; the checkpoint before stays until this one is whole.

        Args:
            stage: name of the stage.
            tensors: any shapes and types; on any device, read back on the CPU. NumPy's arrays are read back as tensors.
            state: JSON-ready values.

        Raises:
            OSError: the disk is full; earlier checkpoints are intact.
        """
        job_checkpoint.save(self.folder / "checkpoint" / stage, tensors, state)

    def load_checkpoint(self, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the newest whole checkpoint of a stage as (tensors, state); None if there is none."""
        return job_checkpoint.load(self.folder / "checkpoint" / stage)

    def clear_checkpoint(self, stage: str) -> None:
        """Delete the checkpoints of a stage."""
        job_checkpoint.clear(self.folder / "checkpoint" / stage)

    # --- the folder ---

    def _refuse_strangers(self, resume: bool) -> None:
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file.", "Give --out a folder.", "not-a-job")
        if is_job(folder):
            self._read()  # refuses a newer layout
            if not (resume or self._barren()):
                raise InputError(
                    f"{folder} already holds a job.",
                    "Add --resume to go on with it, or give --out another folder.",
                    "job-exists",
                )
            return
        try:
            begun = (LOCK, f"{PART}config.yaml")  # all that a job killed in its first instant leaves
            strange = folder.is_dir() and any(entry.name not in begun for entry in folder.iterdir())
        except OSError as error:
            raise explain(error, folder) or _unusable(error, folder) from None
        if strange:
            raise InputError(
                f"{folder} holds files that are not a job's; nothing was written.",
                "Give --out a new or empty folder.",
                "not-a-job",
            )

    def _barren(self) -> bool:
        """Return whether all that it holds is the tale of a run that failed before it had made anything."""
        failed = (self.result() or {}).get("status") == "failed"
        return failed and not any((self.folder / "stages").glob("*/done.json"))

    def _acquire(self) -> None:
        """Take the lock, which the operating system drops when the process ends, however it ends."""
        self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        for trial in range(ATTEMPTS):  # somebody may be looking whether it runs, which takes an instant
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if trial < ATTEMPTS - 1:
                    time.sleep(0.05)
                    continue
                owner = os.read(self._lock, 32).decode(errors="replace").strip()
                raise InputError(
                    f"{self.folder} is being written by another process{f' ({owner})' if owner else ''}.",
                    "Wait until it ends, or give --out another folder.",
                    "job-busy",
                ) from None
            except OSError:
                return  # a file system without locks: nobody can be kept out
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def _read(self) -> None:
        content = read_yaml(self.folder / "config.yaml")
        self.header = {key: content.pop(key, "") for key in HEADER}
        self.settings = content
        if not isinstance(self.header[MARK], int) or self.header[MARK] > VERSION:
            raise InputError(f"{self.folder} was made by a newer version of Egregium.", "Update Egregium.", "newer-job")


def write_config(folder: Path, config: Config, input: Path, *, pipeline: str, preset: str, device: str) -> None:
    """Write config.yaml, which makes a folder a job directory; arguments as of :meth:`Job.create`."""
    values = (VERSION, pipeline, preset, device, str(Path(input).absolute()))
    write_text(folder / "config.yaml", to_yaml(config, dict(zip(HEADER, values, strict=True))))


def is_job(folder: Path) -> bool:
    """Return whether a folder is a job directory."""
    try:
        with (folder / "config.yaml").open(encoding="utf-8") as file:
            return any(line.startswith(f"{MARK}:") for line in file)
    except (OSError, UnicodeDecodeError):
        return False


def _unusable(error: OSError, folder: Path) -> InputError:
    return InputError(f"Cannot use {folder} as a job: {error.strerror}.", "Give --out another folder.", "bad-out")
