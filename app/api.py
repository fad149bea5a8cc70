"""The page's actions for programs, through ``gradio_client``: named end points that take and give plain JSON.

Every end point that fails raises an error whose text is the message and the hint that a person would read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import wraps
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.files import link
from app.job_state import JobState
from app.page_view import HINTS
from recon.pipelines.failures import as_error

if TYPE_CHECKING:
    from app.page import Page

LOOK = 0.5
"""Seconds between two states of a job that is watched."""


def add_api(page: Page) -> None:
    """Add the end points where a Gradio page is being built."""
    jobs, drafts = page.jobs, page.drafts

    def told(job: str) -> dict[str, Any]:
        return state_json(jobs.state(job))

    def inspect(files: list[dict[str, Any]]) -> dict[str, Any]:
        """Look at uploaded files. Gives what was found, and under "draft" what to give to `begin`."""
        draft = drafts.add([str(file["path"]) for file in files])
        return {**draft.found, "draft": draft.id}

    def begin(
        draft: str,
        pipeline: str = "splats",
        preset: str = "medium",
        settings: dict[str, Any] | None = None,
        name: str = "",
    ) -> str:
        """Put a job into the line. Gives its id. A sample's draft is "sample:" and its name."""
        kind, _, sample = draft.partition(":")
        if kind == "sample" and sample in page.samples:
            return jobs.begin(page.samples[sample], pipeline, preset, settings or {}, title=name)
        return jobs.begin(drafts.source(draft), pipeline, preset, settings or {}, title=name, keep=True)

    def listed(words: str = "") -> list[dict[str, Any]]:
        """Give all jobs, newest first; `words` of their name, pipeline or state."""
        return [asdict(job) for job in jobs.listing(words)]

    def state(job: str) -> dict[str, Any]:
        """Give what a job does now. Files are addresses relative to the page's."""
        return told(job)

    def watch(job: str) -> Iterator[dict[str, Any]]:
        """Give a job's state again and again until it ends. Whoever stops listening does not stop the job."""
        while True:
            now = told(job)
            yield now
            if not now["busy"]:
                return
            time.sleep(LOOK)

    def cancel(job: str) -> dict[str, Any]:
        """Ask a job to stop, which takes two seconds. Gives its state."""
        jobs.cancel(job)
        return told(job)

    def resume(job: str) -> dict[str, Any]:
        """Let a job that ended early go on. Gives its state."""
        jobs.resume(job)
        return told(job)

    def clone(
        job: str,
        pipeline: str = "splats",
        preset: str = "medium",
        settings: dict[str, Any] | None = None,
        name: str = "",
    ) -> str:
        """Put another job of the same capture into the line. Gives its id."""
        return jobs.clone(job, pipeline, preset, settings or {}, title=name)

    def delete(job: str) -> bool:
        """Delete a job with all its files."""
        jobs.delete(job)
        return True

    def export(job: str, kind: str, suffix: str, faces: int | None = None, texture: int | None = None) -> str:
        """Write a result in another format, such as "mesh" as ".glb". Gives the file's address."""
        return link(job, jobs.export(job, kind, suffix, faces, texture))

    actions: dict[str, Callable[..., Any]] = {
        **{"inspect": inspect, "begin": begin, "jobs": listed, "state": state, "cancel": cancel, "resume": resume},
        **{"clone": clone, "delete": delete, "export": export},
    }
    for name, action in actions.items():
        gr.api(_explained(action, page), api_name=name, api_description=action.__doc__)
    gr.api(watch, api_name="watch", api_description=watch.__doc__, concurrency_limit=None)


def state_json(state: JobState) -> dict[str, Any]:
    """Return a job's state as JSON-ready values; files as addresses relative to the page's."""
    values = asdict(state)
    del values["folder"]
    values["preview"] = (
        link(state.id, str(state.preview.relative_to(state.folder.resolve()))) if state.preview else None
    )
    values["exports"] = {name: link(state.id, name) for name in state.exports}
    if state.error is not None:
        values["error"] = [state.error[0], HINTS.get(state.error[1], state.error[1])]
    values["busy"], values["resumable"] = state.busy, state.resumable
    return values


def _explained(action: Callable[..., Any], page: Page) -> Callable[..., Any]:
    @wraps(action)
    def act(*given: Any, **named: Any) -> Any:
        try:
            return action(*given, **named)
        except Exception as exception:
            error = as_error(exception, page.jobs.own)
            hint = HINTS.get(error.hint, error.hint)
            raise gr.Error(f"{error.message} {hint}".strip(), print_exception=False) from None

    return act
