"""The jobs of a batch: each checked, with all its settings resolved, before the first begins; and how far each is."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from app.follow import Follower
from app.manifest import KEYS, Entry, refuse_unknown
from recon import pipelines
from recon.config import based
from recon.errors import InputError, ReconError
from recon.job import Job, is_job
from recon.pipelines import Request
from recon.pipelines.stages import fingerprint, finished_record, stage_keys

State = Literal["waiting", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class Task:
    """One job in plain values, which may travel to another machine; ``settings`` are all of its pipeline's.

    Attributes:
        name: of its folder in the batch's.
        input, out: the capture and the job directory, absolute.
        pipeline, preset, device, settings: as :func:`recon.pipelines.prepare` takes them.
        module: importing it makes the pipeline known where it runs.
    """

    name: str
    input: Path
    out: Path
    pipeline: str
    preset: str
    device: str
    settings: Mapping[str, Any]
    module: str

    @property
    def logs(self) -> Path:
        """What its process prints goes to this path with ``.log`` (stderr) and ``.json`` (stdout)."""
        return self.out.parent / "logs" / self.name

    def know(self) -> None:
        """Make its pipeline known to this process."""
        if self.module != "__main__":
            importlib.import_module(self.module)

    def request(self) -> Request:
        """Return it as what :func:`recon.pipelines.prepare` returns, to go on with what is there."""
        return pipelines.prepare(
            self.input,
            self.out,
            self.pipeline,
            self.preset,
            resume=True,
            device=self.device,
            settings=self.settings,
        )

    def finished(self) -> dict[str, Any] | None:
        """Return the result if the job is done and would do nothing if it ran again, else None."""
        if not is_job(self.out):
            return None
        with suppress(ReconError, OSError, ValueError, LookupError, TypeError):  # the run itself will tell
            job = Job.open(self.out)
            result = job.result()
            if result is None or result.get("status") != "done" or job.pipeline != self.pipeline:
                return None
            pipeline = pipelines.get(self.pipeline)
            keys = stage_keys(pipeline, pipeline.config(**self.settings), fingerprint(self.input, exclude=self.out))
            if all(finished_record(job, stage, key) is not None for stage, key in keys.items()):
                return result
        return None


@dataclass
class Run:
    """A task and how far it is.

    Attributes:
        task: the job.
        follower: what it says, from now on.
        state: ``waiting`` until it says something.
        given: whether it was handed to the engine.
        before: whether an earlier batch had done it.
        began: seconds since the epoch; 0 before.
        result: result.json once it has ended, or as much of one as there is.
    """

    task: Task
    follower: Follower
    state: State = "waiting"
    given: bool = False
    before: bool = False
    began: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Task) -> Run:
        """Return a run that waits, and whose follower has forgotten what earlier runs said."""
        stages = [stage.name for stage in pipelines.get(task.pipeline).stages]
        run = cls(task, Follower.of(task.out / "events.jsonl", stages))
        run.follower.update()
        run.follower.forget()
        run.follower.latest = 0.0
        return run

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to come."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def busy(self) -> bool:
        """Whether the engine has it."""
        return self.given and not self.ended

    @property
    def seconds(self) -> float:
        """How long it took, all its runs together, or has been running."""
        if self.ended or not self.began:
            return float((self.result.get("seconds") or {}).get("total", 0.0))
        return time.time() - self.began

    @property
    def metrics(self) -> Mapping[str, float]:
        """What was measured so far."""
        return self.result.get("metrics") or self.follower.metrics

    def update(self) -> None:
        """Read what it said since the last time."""
        self.follower.update()
        if self.busy and self.state == "waiting" and self.follower.latest:
            self.state, self.began = "running", time.time()

    def end(self, result: Mapping[str, Any]) -> None:
        """Take down how it ended."""
        self.follower.update()
        status = result.get("status")
        self.state = status if status in ("done", "cancelled") else "failed"
        self.result = dict(result)


def check(
    entries: Sequence[Entry], out: Path, flags: Mapping[str, str | None], resume: bool, here: bool = True
) -> tuple[list[Task], list[str]]:
    """Return the entries as tasks, every setting resolved, and warnings.

    Args:
        entries: what was asked for.
        out: the batch's folder.
        flags: pipeline, preset and device in place of the entries'; None where they decide.
        resume: whether jobs that are there already may go on.
        here: whether they run on this machine; else its devices say nothing.

    Raises:
        InputError: anything is wrong with any of them; names the entry.
    """
    tasks: list[Task] = []
    warnings: dict[str, None] = {}
    used: set[str] = set()
    for entry in entries:
        try:
            task, said, taken = _check(entry, out / entry.name, flags, resume, here)
        except InputError as error:
            message = error.message if error.message.startswith(entry.where) else f"{entry.where}: {error.message}"
            raise InputError(message, error.hint, error.code) from None
        tasks.append(task)
        warnings |= dict.fromkeys(said)
        used |= taken
    _refuse_unused(entries, tasks, used)
    return tasks, list(warnings)


def _check(
    entry: Entry, out: Path, flags: Mapping[str, str | None], resume: bool, here: bool
) -> tuple[Task, tuple[str, ...], set[str]]:
    chosen = pipelines.select(entry.pipeline(flags.get("pipeline")))
    fields = chosen.config.model_fields
    refuse_unknown(entry.settings, [*KEYS, *fields], entry.where)
    general = {name: value for name, value in entry.defaults.items() if name in fields}
    device = flags.get("device") or entry.choices.get("device")
    request = pipelines.prepare(
        entry.input,
        out,
        chosen.name,
        flags.get("preset") or entry.choices.get("preset"),
        device=device if here or (device or "").split(":")[0] != "cuda" else "cpu",
        settings=based(chosen.config, {**general, **entry.settings}, entry.base),
    )
    if is_job(out):
        if not resume:
            raise InputError(
                f"{out} already holds a job.", "Add --resume to go on, or give --out another folder.", "job-exists"
            )
        if (own := Job.open(out).pipeline) != chosen.name:
            raise InputError(
                f"{out} is a job of pipeline {own}, not {chosen.name}.", "Give --out another folder.", "other-pipeline"
            )
    elif out.exists() and (not out.is_dir() or any(not path.name.startswith(".") for path in out.iterdir())):
        raise InputError(f"{out} is there already, and no job.", "Give --out another folder.", "not-a-job")
    task = Task(
        entry.name,
        entry.input,
        out,
        chosen.name,
        request.preset,
        request.device if here or device is None else device,
        dict(request.config),
        chosen.config.__module__,
    )
    return task, request.warnings, set(general)


def _refuse_unused(entries: Sequence[Entry], tasks: Sequence[Task], used: set[str]) -> None:
    """Refuse a default that no job has a use for: it is misspelt."""
    known = [*KEYS[2:], *(name for task in tasks for name in task.settings)]
    for entry in entries[:1]:  # all have the same
        unused = {name: value for name, value in entry.defaults.items() if name not in used}
        refuse_unknown(unused, known, f"{entry.where.split(', job ')[0]}, defaults")


def failure(error: ReconError) -> dict[str, Any]:
    """Return an error as much of a result.json as there is of it."""
    return {"status": "failed", "error": {"code": error.code, "message": error.message, "hint": error.hint}}
