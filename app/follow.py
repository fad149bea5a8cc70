"""How far a job is, read from its ``events.jsonl`` as it grows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

CURVES = ("psnr", "validation_psnr", "distance")
"""Metrics that are worth a curve."""

POINTS = 400
"""Most points of a curve."""


@dataclass
class StageState:
    """A stage: ``step`` of ``total`` (0 while not known), ``eta`` and ``seconds`` in seconds.

    ``cached`` is one that an earlier run did, ``ended`` one that was stopped or failed.
    """

    name: str
    state: Literal["waiting", "running", "done", "cached", "ended"] = "waiting"
    step: int = 0
    total: int = 0
    eta: float | None = None
    seconds: float = 0.0


@dataclass
class Follower:
    """What the events said so far; :meth:`update` reads on from where it stopped.

    Attributes:
        path: the ``events.jsonl``, which need not be there yet.
        stages: in the pipeline's order.
        metrics: the newest value of each.
        preview: newest picture, relative to the job; empty when there is none.
        curve: (seconds of work, metric by name) of :data:`CURVES`, thinned out as it grows.
        warnings: each once.
        spent: seconds that earlier runs worked.
        began: when the run that is going on, or was the last, began; seconds since the epoch, 0 before.
        latest: time of the newest event.
    """

    path: Path
    stages: list[StageState]
    metrics: dict[str, float] = field(default_factory=dict)
    preview: str = ""
    curve: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    spent: float = 0.0
    began: float = 0.0
    latest: float = 0.0
    _offset: int = 0

    @classmethod
    def of(cls, path: Path, stages: Sequence[str]) -> Follower:
        """Follow ``path``, whose pipeline has these stages."""
        return cls(path, [StageState(name) for name in stages])

    def update(self) -> None:
        """Read what is new; a line that is not whole yet is left for the next time."""
        with suppress(OSError), self.path.open("rb") as file:
            file.seek(self._offset)
            whole = file.read().rpartition(b"\n")[0]
            for line in whole.splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    self._take(json.loads(line))
            self._offset += len(whole) + 1 if whole else 0

    def forget(self) -> None:
        """Forget how far an earlier run came: another one begins, which will say so itself."""
        self.stages = [StageState(stage.name) for stage in self.stages]
        self.metrics = {}

    @property
    def current(self) -> StageState | None:
        """The stage that runs."""
        return next((stage for stage in self.stages if stage.state == "running"), None)

    def _take(self, event: dict[str, Any]) -> None:
        before, self.latest = self.latest, float(event["time"])
        match event["event"]:
            case "StageStarted":
                self._start(str(event["stage"]), bool(event["cached"]), before)
            case "Progress":
                if stage := self._stage(str(event["stage"])):
                    stage.step, stage.total, stage.eta = int(event["step"]), int(event["total"]), event["eta"]
                metrics = {name: value for name, value in event["metrics"].items() if value is not None}
                self.metrics |= metrics
                self._draw({name: float(metrics[name]) for name in CURVES if name in metrics})
            case "StageFinished":
                if stage := self._stage(str(event["stage"])):
                    stage.state, stage.seconds, stage.eta = "done", float(event["seconds"]), None
            case "Failed":  # cancelled, too
                if stage := self.current:
                    stage.state = "ended"
            case "Preview":
                self.preview = str(event["path"])
            case "Warned":
                if event["message"] not in self.warnings:
                    self.warnings.append(str(event["message"]))

    def _start(self, name: str, cached: bool, before: float) -> None:
        names = [stage.name for stage in self.stages]
        if name not in names:
            return
        place = names.index(name)
        if place == 0:
            self.spent += max(0.0, before - self.began) if self.began else 0.0
            self.began = self.latest
        # A resumed run announces its stages once more: whatever comes after this one is to be done again.
        self.stages[place:] = [StageState(other) for other in names[place:]]
        self.stages[place].state = "cached" if cached else "running"

    def _draw(self, values: dict[str, float]) -> None:
        if not values or (self.curve and self.curve[-1][1] == values):  # told at every step, measured now and then
            return
        self.curve.append((self.spent + self.latest - self.began, values))
        if len(self.curve) > POINTS:
            self.curve = [*self.curve[:-1:2], self.curve[-1]]

    def _stage(self, name: str) -> StageState | None:
        """Return the stage of that name; a part of a stage that speaks under its own name is the one that runs."""
        return next((stage for stage in self.stages if stage.name == name), self.current)
