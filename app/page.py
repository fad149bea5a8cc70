"""The web page: drop a capture, watch it become splats and a mesh, take them away, find it again.

The page holds no state of its own but what a tab has chosen and seen. Once a second every open tab asks
:class:`app.jobs.Jobs` what there is to see and redraws what changed, so a closed tab loses nothing, a reloaded one
shows the job in its address, and a new one the job that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import page_list, page_live, page_new, page_result
from app.compare import pairs
from app.drafts import Drafts
from app.job_state import JobState
from app.jobs import FORMATS, Jobs
from app.mesh_facts import mesh_facts
from app.page_form import from_form, preset_values, shown_names, to_form
from app.page_view import notice
from app.viewer import mesh_for_view, splats_for_view
from recon import pipelines
from recon.config import DEFAULT_PRESET
from recon.errors import InputError, ReconError
from recon.job import Job
from recon.pipelines.failures import as_error

if TYPE_CHECKING:
    import gradio as gr

LISTED = 60
"""Most jobs on the page at once."""

OWN = "own"

LIVE = ("progress", "curve", "preview", "log", "cancel", "resume", "to_result")
RESULT = ("summary", "what", "model", "compare", "video", "downloads", "export", "format")
SHOWN = (*LIVE, *RESULT, "cards", "tabs")
"""What :meth:`Page.look` updates, in this order."""

FOUND = ("draft", "found", "strip", "title", "pipeline", "preset", "start", "notice")
"""What :meth:`Page.take` and its like update, in this order, and after them the pipelines' groups."""


class Page:
    """What the page does: one method for each thing that a person or the clock can ask of it.

    Args:
        jobs: where the work is done.
        drafts: what was sent and not begun yet.
        samples: captures to try, by name.
        names: the pipelines that are offered.
    """

    def __init__(
        self, jobs: Jobs, drafts: Drafts, samples: Mapping[str, Path], names: Sequence[str] = pipelines.names()
    ) -> None:
        self.jobs, self.drafts, self.samples, self.names = jobs, drafts, dict(samples), tuple(names)
        self._served: set[Path] = set()

    # --- New ---

    def take(self, files: Sequence[str] | None) -> list[Any]:
        """Look at what was dropped."""
        if not files:
            return self._found(None)
        return self._attempt_found(lambda: self._draft(self.drafts.add(files)))

    def choose(self, source: str, files: Sequence[str] | None) -> list[Any]:
        """Choose between one's own files, a sample, and the capture of a job."""
        kind, _, name = source.partition(":")
        if kind == "sample" and name in self.samples:
            return self._attempt_found(lambda: {**self._draft(self.drafts.look(self.samples[name])), "sample": name})
        return self.take(files)

    def begin(self, draft: Mapping[str, Any], title: str, pipeline: str, preset: str, *values: Any) -> list[Any]:
        """Begin a job; return its id, the side to show, and the notice."""

        def start() -> str:
            settings = from_form(pipelines.get(pipeline).config, self._own_values(pipeline, values))
            if job := draft.get("job"):
                return self.jobs.clone(job, pipeline, preset, settings, title=title)
            if name := draft.get("sample"):
                return self.jobs.begin(self.samples[name], pipeline, preset, settings, title=title)
            source = self.drafts.source(str(draft.get("id")))
            return self.jobs.begin(source, pipeline, preset, settings, title=title, keep=True)

        return self._moved(start, "live")

    def choose_preset(self, preset: str) -> list[Any]:
        """Return the values of all settings' fields for a preset."""
        values = []
        for name in self.names:
            config = pipelines.get(name).config
            values += to_form(config, preset_values(config, preset))
        return values

    def choose_pipeline(self, pipeline: str, draft: Mapping[str, Any]) -> list[Any]:
        """Return the presets with their times, and which settings are shown."""
        import gradio as gr

        return [gr.update(choices=self._presets(pipeline, draft)), *self._groups(pipeline)]

    # --- Live and Jobs ---

    def act(self, action: str, job: str) -> list[Any]:
        """Do what a button says; return the job to show, the side to show, and the notice."""
        match action:
            case "open":
                side = "live" if self._status(job) != "done" else "result"
                return self._moved(lambda: self.jobs.state(job).id, side)
            case "resume":
                return self._moved(lambda: self.jobs.resume(job), "live", job)
            case "cancel":
                return self._moved(lambda: self.jobs.cancel(job), None, job)
            case "delete":
                return self._moved(lambda: self.jobs.delete(job), None)
        return self._moved(lambda: None, None, job)

    def clone(self, job: str) -> list[Any]:
        """Fill in the form with a job's capture and settings; return what FOUND, groups, fields and the tabs show."""
        import gradio as gr

        try:
            state = self.jobs.state(job)
            found = Job.open(state.folder)
            preset, draft = str(found.header["preset"]), {"job": job, "name": state.title}
            presets = self._presets(state.pipeline, draft)
        except ReconError as error:
            skipped = len(self.names) + len(self.choose_preset(DEFAULT_PRESET)) + 1
            return [*(gr.skip() for _ in FOUND[:-1]), notice(error), *(gr.skip() for _ in range(skipped))]
        fields = []
        for name in self.names:
            config = pipelines.get(name).config
            values = {**preset_values(config, preset)}
            if name == state.pipeline:
                values |= {key: value for key, value in found.settings.items() if key in config.model_fields}
                values |= {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
            fields += to_form(config, values)
        names = [name for name in self.names if (name == "points") == (state.pipeline == "points")]
        return [
            draft,
            gr.update(value=page_new.cloned_text(state.title), visible=True),
            gr.update(value="", visible=False),
            gr.update(value=state.title),
            gr.update(choices=page_new.pipeline_choices(names), value=state.pipeline, visible=True),
            gr.update(choices=presets, value=preset, visible=True),
            gr.update(interactive=True),
            "",
            *self._groups(state.pipeline),
            *fields,
            gr.update(selected="new"),
        ]

    # --- Result ---

    def export(self, job: str, what: str, faces: float | None, texture: float | None) -> str:
        """Write a result in another format; return the notice."""
        kind, _, suffix = what.partition(" ")

        def write() -> str:
            mesh = kind == "mesh"
            return self.jobs.export(
                job, kind, suffix, int(faces) if faces and mesh else None, int(texture) if texture and mesh else None
            )

        return str(self._moved(write, None)[-1])

    # --- the clock ---

    def arrive(self, job: str) -> list[Any]:
        """Return the job that a new tab shows, the side, and the notice."""
        import gradio as gr

        if job:
            try:
                done = self.jobs.state(job).status == "done"
            except ReconError as error:
                return ["", gr.skip(), notice(error)]
            return [job, gr.update(selected="result" if done else "live"), ""]
        job = self.jobs.running()
        return [job, gr.update(selected="live") if job else gr.skip(), ""]

    def look(self, seen: dict[str, Any], job: str, side: str, what: str, words: str) -> list[Any]:
        """Return what a tab has seen now, and an update for each of SHOWN that is not as it has ``seen`` it.

        Args:
            seen: what the last look returned.
            job: the one that the tab has chosen.
            side: which of the page's sides it looks at.
            what: ``splats`` or ``mesh``, for the 3D view.
            words: to look for in the list.
        """
        import gradio as gr

        state = self._state(job)
        wanted = self._live(state)
        if side == "result":
            wanted |= self._result(state, what)
            before = seen.get("model", {})
            if before.get("visible") is not True or before.get("value") not in (None, wanted["model"]["value"]):
                # A viewer that comes with its model stays empty, and one of splats trips over a mesh.
                wanted["model"] = {"value": None, "visible": wanted["model"]["visible"]}
        elif seen.get("model", {}).get("value"):
            wanted["model"] = {**seen["model"], "value": None}  # it would go on drawing where nobody sees it
        if side == "jobs":
            found = self.jobs.listing(words or "", LISTED + 1)
            wanted["cards"] = {"value": page_list.cards(found[:LISTED], len(found) > LISTED, words or "")}
        status = state.status if state is not None else ""
        was = seen.get("status")
        if side == "live" and was and was[0] == job and status == "done" and was[1] not in ("done", ""):
            wanted["tabs"] = {"selected": "result"}
        fresh = {name: value for name, value in wanted.items() if seen.get(name) != value}
        seen = {**seen, **fresh, "status": (job, status)}
        seen.pop("tabs", None)
        return [seen, *(gr.update(**fresh[name]) if name in fresh else gr.skip() for name in SHOWN)]

    def _live(self, state: JobState | None) -> dict[str, dict[str, Any]]:
        """Return the properties of each of LIVE; cheap, and equal as long as nothing changes."""
        parts = {"curve": page_live.curve(state), "preview": page_live.preview(state), "log": page_live.log(state)}
        return {
            "progress": {"value": page_live.progress(state)},
            **{name: {"value": text, "visible": bool(text)} for name, text in parts.items()},
            "cancel": {
                "visible": state is not None and state.busy,
                "interactive": state is not None and state.status != "stopping",
            },
            "resume": {"visible": state is not None and state.resumable},
            "to_result": {"visible": state is not None and state.status == "done"},
        }

    def _result(self, state: JobState | None, what: str) -> dict[str, dict[str, Any]]:
        done = state if state is not None and state.status == "done" else None
        model, facts = (self._model(done, what), self._facts(done)) if done is not None else (None, ())
        formats = self._formats(done) if done is not None else []
        parts = {
            "summary": page_result.summary(state, facts),
            "compare": page_result.compare(done, pairs(done.folder) if done is not None else ()),
            "video": page_result.video(done),
            "downloads": page_result.downloads(done),
        }
        return {
            **{name: {"value": text, "visible": bool(text)} for name, text in parts.items()},
            "what": {"visible": done is not None and {"splats", "mesh"} <= set(self._made(done))},
            "model": {"value": self._serve(model), "visible": True if model is not None else "hidden"},
            "export": {"visible": bool(formats)},
            "format": {"choices": formats, "value": formats[-1] if formats else None},
        }

    def _model(self, state: JobState, what: str) -> Path | None:
        """Return the file for the 3D view: what was asked for, else what there is."""
        made = self._made(state)
        for kind in sorted({"splats", "mesh"} & set(made), key=lambda kind: kind != what):
            with suppress(ReconError):
                return (splats_for_view if kind == "splats" else mesh_for_view)(state.folder, made)
        return made.get("surface")  # which stands upright as it is, and moves

    def _facts(self, state: JobState) -> Sequence[tuple[str, str]]:
        made = self._made(state)
        with suppress(ReconError):
            return mesh_facts(state.folder, made).rows() if "mesh" in made else ()
        return ()

    @staticmethod
    def _made(state: JobState) -> dict[str, Path]:
        """Return a result's files by their names in result.json, those that are there."""
        named = (state.result or {}).get("exports", {})
        return {name: state.exports[path] for name, path in named.items() if path in state.exports}

    @staticmethod
    def _formats(state: JobState) -> list[str]:
        made = (state.result or {}).get("exports", {})
        return [f"{kind} {suffix}" for kind, suffixes in FORMATS.items() if kind in made for suffix in suffixes]

    def _serve(self, path: Path | None) -> str | None:
        """Let the 3D view have this very file of a job, and return its path as Gradio wants it."""
        if path is None:
            return None
        if path not in self._served:
            import gradio as gr

            self._served.add(path)
            gr.set_static_paths([path])  # nothing beside it, and no copy
        return str(path)

    # --- helpers ---

    def _state(self, job: str) -> JobState | None:
        with suppress(ReconError, OSError):  # it may be deleted at this very instant
            return self.jobs.state(job) if job else None
        return None

    def _status(self, job: str) -> str:
        state = self._state(job)
        return state.status if state is not None else ""

    def _own_values(self, pipeline: str, values: Sequence[Any]) -> Sequence[Any]:
        start = 0
        for name in self.names:
            count = len(shown_names(pipelines.get(name).config))
            if name == pipeline:
                return values[start : start + count]
            start += count
        raise InputError("Choose what to make of it.", "Drop photos, a video or a scan first.", "no-pipeline")

    def _draft(self, draft: Any) -> dict[str, Any]:
        return {"id": draft.id, "name": draft.source.stem, "found": draft.found}

    def _attempt_found(self, look: Callable[[], dict[str, Any]]) -> list[Any]:
        try:
            return self._found(look())
        except Exception as exception:
            return self._found(None, as_error(exception, self.jobs.own))

    def _found(self, draft: dict[str, Any] | None, error: ReconError | None = None) -> list[Any]:
        import gradio as gr

        if draft is None:
            hidden = gr.update(visible=False)
            start, told = gr.update(interactive=False), notice(error)
            return [{}, hidden, hidden, gr.skip(), hidden, hidden, start, told, *self._groups("")]
        found = draft.pop("found")
        draft["seconds"] = found["estimated_seconds"]
        names = [name for name in found["pipelines"] if name in self.names]
        first = names[0] if names else ""
        strip = page_new.thumbnails(found.get("thumbnails", ()))
        return [
            draft,
            gr.update(value=page_new.found_text(found), visible=True),
            gr.update(value=strip, visible=bool(strip)),
            gr.update(value="", placeholder=draft["name"]),
            gr.update(choices=page_new.pipeline_choices(names), value=first, visible=bool(names)),
            gr.update(choices=self._presets(first, draft), visible=bool(names)),
            gr.update(interactive=bool(names)),
            "",
            *self._groups(first),
        ]

    def _presets(self, pipeline: str, draft: Mapping[str, Any]) -> list[tuple[str, str]]:
        presets = list(pipelines.get(pipeline or self.names[0]).config.presets)
        return page_new.preset_choices(presets, draft.get("seconds", {}).get(pipeline, {}))

    def _groups(self, pipeline: str) -> list[Any]:
        import gradio as gr

        return [gr.update(visible=name == pipeline) for name in self.names]

    def _moved(self, action: Callable[[], str | None], side: str | None, job: str = "") -> list[Any]:
        """Do something; return the job to show (the one made, else ``job``), the side to show, and the notice."""
        import gradio as gr

        try:
            made = action()
        except Exception as exception:
            return [gr.skip(), gr.skip(), notice(as_error(exception, self.jobs.own))]
        return [made or job, gr.update(selected=side) if side else gr.skip(), ""]


def build(page: Page) -> gr.Blocks:
    """Return the page, ready to be launched."""
    from app.page_layout import lay_out

    return lay_out(page)
