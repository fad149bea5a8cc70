"""What a stage is given, and where it leaves what it finds out."""

from __future__ import annotations

import resource
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from recon.config import Config
from recon.events import Events, Preview
from recon.job import Job
from recon.job_files import atomic

if TYPE_CHECKING:
    from torch import Tensor

    from recon.job_checkpoint import Arrays

C = TypeVar("C", bound=Config, covariant=True)

PACE_SECONDS = 10.0
"""How far back the pace of a stage is taken from, to say when it ends."""

PREVIEWS_KEPT = 2
"""Pictures of a stage that stay; a fit of hours would leave thousands."""

PREVIEW_SECONDS = 5.0
"""Time between two pictures of a fit: each costs about as much as a step."""

CHECKPOINT_SECONDS = 20.0
"""Time between two checkpoints: with the step under way and the writing, less than 30 seconds of work are at stake."""


@dataclass
class Record:
    """What a stage found out; all of it survives a kill inside ``done.json`` or the checkpoint.

    Attributes:
        seconds: time spent, earlier runs included; work that a kill destroyed does not count.
        peak_memory_mb: of the process up to the stage's end.
        counts, metrics: what result.json shows; a later stage's entry replaces an earlier one's.
        history: ``{"seconds", "stage", <metric>…}``, seconds since the job began.
        exports: path by name, relative to the job.
        warnings: what it warned of.
    """

    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    exports: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """Return the record of which ``values`` came; other entries are ignored."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})


class Context(Generic[C]):
    """A stage's view of the job.

    Attributes:
        job, config, input, device, events: of the whole run.
        stage: name of the stage; ``key``: the hash its result is kept under.
        folder: where it writes what later stages read; as it was left when the stage was interrupted.
        memo: shared by the stages of this run, for what is dear to load twice (a capture); empty when it begins, so
            whatever is put there must be loadable from the stages' folders too.
        record: counts, metrics and the rest, to be filled in; ``records``: those of the stages before.
    """

    def __init__(
        self,
        job: Job,
        config: C,
        input: Path,
        device: str,
        events: Events,
        stage: str,
        key: str,
        memo: dict[str, Any],
        seconds_before: float,
        records: Mapping[str, Record] | None = None,
    ) -> None:
        self.job, self.config, self.input, self.device, self.events = job, config, input, device, events
        self.stage, self.key, self.memo = stage, key, memo
        self.folder = job.folder / "stages" / stage
        self.record = Record()
        self.records = records or {}
        self._before = seconds_before
        self._base = 0.0  # seconds of earlier runs
        self._pictures: deque[Path] = deque()
        self._begun = self._saved = self._previewed = time.monotonic()
        self._pace: deque[tuple[int, float]] = deque()  # (step, when) of the last PACE_SECONDS

    @contextmanager
    def within(self, config: Config) -> Iterator[Context[Any]]:
        """Give the same stage the settings of another pipeline, a stage of which runs as a part of it, in this block.

        Folder, record, clock and checkpoint are the stage's own; of what it remembers only the input as it was read.
        """
        inner: Context[Any] = self
        own = self.config, self.memo
        inner.config, inner.memo = config, {n: v for n, v in self.memo.items() if n in ("loaded", "posed")}
        try:
            yield inner
        finally:
            inner.config, inner.memo = own

    def output(self, stage: str) -> Path:
        """Return the folder of an earlier stage."""
        return self.job.folder / "stages" / stage

    @property
    def seconds(self) -> float:
        """Time spent in this stage, earlier runs included."""
        return self._base + time.monotonic() - self._begun

    def progress(self, step: int, total: int, eta: float | None = None, **metrics: float) -> None:
        """Say that ``step`` of ``total`` is done, and stop here when asked to.

        Without ``eta`` (seconds) it is the time that the remaining steps take at the pace of the last steps: those of a
        fit become slower as its photos and splats become more.

        Raises:
            Cancelled: somebody asked to stop.
        """
        now = time.monotonic()
        if self._pace and step < self._pace[-1][0]:
            self._pace.clear()
        self._pace.append((step, now))
        while len(self._pace) > 2 and now - self._pace[1][1] > PACE_SECONDS:
            self._pace.popleft()
        if eta is None and step > self._pace[0][0]:
            eta = (now - self._pace[0][1]) / (step - self._pace[0][0]) * (total - step)
        self.events.progress(self.stage, step, total, eta, **metrics)

    def remember(self, **metrics: float) -> None:
        """Add a point to the history of result.json, such as ``remember(psnr=31.2)``."""
        seconds = round(self._before + self.seconds, 3)
        self.record.history.append({"seconds": seconds, **metrics, "stage": self.stage})

    @contextmanager
    def export(self, name: str, path: str) -> Iterator[Path]:
        """Give a path to write to, which becomes ``path`` in the job and ``name`` among the result's exports.

        A file, or a folder that the block makes.
        """
        with atomic(self.job.folder / path) as part:
            yield part
        self.record.exports[name] = path

    def preview_due(self) -> bool:
        """Return whether the last preview is old enough for another one. Cheap: ask at every step."""
        return time.monotonic() - self._previewed >= PREVIEW_SECONDS

    @contextmanager
    def preview(self, path: str) -> Iterator[Path]:
        """Give a path to write a picture to, which becomes ``path`` in the job; listeners are told."""
        with atomic(self.job.folder / path) as part:
            yield part
        self._previewed = time.monotonic()
        self.events.emit(Preview(stage=self.stage, path=path))
        self._pictures.append(self.job.folder / path)
        while len(self._pictures) > PREVIEWS_KEPT:  # somebody may be looking at the one before the newest
            self._pictures.popleft().unlink(missing_ok=True)

    # --- checkpoints ---

    def checkpoint_due(self) -> bool:
        """Return whether the last checkpoint is old enough for another one. Cheap: ask at every step."""
        return time.monotonic() - self._saved >= CHECKPOINT_SECONDS

    def save_checkpoint(self, tensors: Arrays, state: Mapping[str, Any]) -> None:
        """Keep where the stage stands: tensors (or arrays) and JSON-ready state, with its time, history, counts so far.

        What is random in the rest of the stage belongs in it: a generator's ``get_state()`` is a tensor.
        """
        self.stop_clock()
        self.job.save_checkpoint(self.stage, tensors, {"record": self.record.to_json(), "state": dict(state)})
        self._saved = time.monotonic()

    def load_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the (tensors, state) to go on from, tensors on the CPU; None at the very beginning."""
        found = self.job.load_checkpoint(self.stage)
        if found is None:
            return None
        tensors, envelope = found
        warned = self.record.warnings
        self.record = Record.from_json(envelope["record"])
        self.record.warnings += [message for message in warned if message not in self.record.warnings]
        self._base = self.record.seconds
        self._begun = self._saved = time.monotonic()
        return tensors, envelope["state"]

    def stop_clock(self) -> None:
        """Enter time and memory used so far into the record."""
        self.record.seconds = round(self.seconds, 3)
        self.record.peak_memory_mb = max(self.record.peak_memory_mb, round(peak_memory_mb(), 1))


def peak_memory_mb() -> float:
    """Return the most memory this process has held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024**2 if sys.platform == "darwin" else peak / 1024
