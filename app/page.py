"""The web page: drop a capture, watch it become splats and a mesh, take them away.

The page holds no state of its own. Once a second every open tab asks :class:`app.jobs.Jobs` what there is to see and
redraws what changed, so a closed tab loses nothing and a new one shows the job that runs.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from app import page_view as view
from app.jobs import Jobs, JobState
from app.page_form import from_form, make_fields, preset_values, to_form
from app.uploads import ADVICE
from app.upright import upright
from recon.config import DEFAULT_PRESET
from recon.errors import InputError
from recon.pipelines import Pipeline
from recon.pipelines.failures import as_error

if TYPE_CHECKING:
    import gradio as gr

TITLE = '<div class="eg-title"><h1>Egregium</h1><p>3D reconstruction from photos and video, on this machine</p></div>'
TICK = 1.0
"""Seconds between two looks at the job."""

SHOWN = ("progress", "preview", "figures", "video", "mesh", "downloads", "start", "cancel", "resume")
"""What :meth:`Page.look` updates, in this order."""


class Page:
    """What the page does: one method for each thing that a person or the clock can ask of it.

    Args:
        jobs: where the work is done.
        pipeline: what is run.
        sample: a capture to try it with, None where there is none.
    """

    def __init__(self, jobs: Jobs, pipeline: Pipeline, sample: Path | None = None) -> None:
        self.jobs, self.pipeline, self.sample = jobs, pipeline, sample
        self._served: set[Path] = set()

    def begin(self, files: list[str] | None, source: str, preset: str, *values: Any) -> str:
        """Begin a job; return the notice to show."""

        def start() -> None:
            given = self.sample if source == "sample" and self.sample else list(map(self._uploaded, files or []))
            self.jobs.start(given, self.pipeline, preset, from_form(self.pipeline.config, values))

        return self._attempt(start)

    def cancel(self) -> str:
        """Ask the job to stop; return the notice to show."""
        return self._attempt(self.jobs.cancel)

    def resume(self) -> str:
        """Go on with the job; return the notice to show."""
        return self._attempt(self.jobs.resume)

    def choose_preset(self, preset: str) -> list[Any]:
        """Return the values of the settings' fields for a preset."""
        return to_form(self.pipeline.config, preset_values(self.pipeline.config, preset))

    def look(self, seen: dict[str, Any]) -> list[Any]:
        """Return what a tab has seen now, and an update for each of SHOWN that is not as it has ``seen`` it."""
        import gradio as gr

        wanted = self._wanted(self.jobs.current())
        fresh = {name: value for name, value in wanted.items() if seen.get(name) != value}
        return [{**seen, **fresh}, *(gr.update(**self._told(fresh[n])) if n in fresh else gr.skip() for n in SHOWN)]

    def _uploaded(self, name: str) -> Path:
        """Return an uploaded file; a path that a forged request names is refused here, should Gradio let it pass."""
        path = Path(name).resolve()
        if not path.is_relative_to(self.jobs.uploads.resolve()):
            raise InputError("That file was not uploaded.", ADVICE, "no-input")
        return path

    def _attempt(self, action: Callable[[], None]) -> str:
        try:
            action()
        except Exception as exception:
            return view.notice(as_error(exception, self.jobs.folder / ".page"))
        return view.notice(None)

    def _wanted(self, state: JobState | None) -> dict[str, dict[str, Any]]:
        """Return the properties of each of SHOWN; cheap, and equal as long as nothing changes."""
        busy = state is not None and state.busy
        exports = dict(state.exports) if state is not None and state.status == "done" else {}
        video, mesh = exports.get("turntable"), exports.get("mesh")
        if mesh is not None and "cameras" in exports:
            mesh = upright(mesh, exports["cameras"], mesh.parents[1] / "previews" / "mesh.glb")
        preview = state.preview if state is not None and state.status != "done" else None
        figures, links = view.figures(state), view.downloads(state, self._link) if exports else ""
        return {
            "progress": {"value": view.progress(state)},
            "preview": {"value": preview, "visible": preview is not None},
            "figures": {"value": figures, "visible": bool(figures)},
            "video": {"value": view.video(video, self._link), "visible": video is not None},
            "mesh": {"value": self._serve(mesh), "visible": True if mesh is not None else "hidden"},
            "downloads": {"value": links, "visible": bool(links)},
            "start": {"interactive": not busy},
            "cancel": {"visible": busy, "interactive": state is not None and state.status != "stopping"},
            "resume": {"visible": state is not None and state.resumable},
        }

    @staticmethod
    def _told(properties: dict[str, Any]) -> dict[str, Any]:
        """Return the properties as the browser gets them: a picture by its content, so that no file is opened up."""
        if isinstance(path := properties.get("value"), Path):
            with suppress(OSError):
                content = base64.b64encode(path.read_bytes()).decode()
                text = "A photo beside the reconstruction so far"
                picture = f'<img class="eg-preview" alt="{text}" src="data:image/jpeg;base64,{content}">'
                return {**properties, "value": picture}
        return properties

    def _serve(self, path: Path | None) -> str | None:
        """Let browsers have this very file of a job, and return its path as Gradio wants it."""
        if path is None:
            return None
        if path not in self._served:
            import gradio as gr

            self._served.add(path)
            gr.set_static_paths([path])  # nothing beside it, and no copy
        return str(path)

    def _link(self, path: Path) -> str:
        return f"gradio_api/file={quote(str(self._serve(path)))}"


def build(page: Page) -> gr.Blocks:
    """Return the page, ready to be launched."""
    import gradio as gr

    config = page.pipeline.config
    with gr.Blocks(title="Egregium", analytics_enabled=False, delete_cache=(3600, 86_400)) as blocks:
        gr.HTML(TITLE, padding=False)
        seen, timer = gr.State({}), gr.Timer(TICK)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                source = gr.Radio(
                    [("My own", "own"), (f"Sample: {_sample_text(page.sample)}", "sample")],
                    value="own",
                    label="Capture",
                    visible=page.sample is not None,
                )
                files = gr.File(file_count="multiple", label="Photos, a zip, or a video", height=180)
                picture = gr.HTML(_contact_sheet(page.sample), visible=False, padding=False)
                preset = gr.Radio(
                    list(config.presets), value=DEFAULT_PRESET, label="Preset", info=view.presets_text(config.presets)
                )
                with gr.Accordion("Advanced", open=False):
                    fields = make_fields(config, DEFAULT_PRESET)
                shown = {"start": gr.Button("Reconstruct", variant="primary", size="lg")}
                notice = gr.HTML(padding=False)
            with gr.Column(scale=3, min_width=320):
                shown["progress"] = gr.HTML(view.progress(None), padding=False)
                with gr.Row():
                    shown["cancel"] = gr.Button("Cancel", variant="stop", visible=False, scale=0, min_width=160)
                    shown["resume"] = gr.Button("Resume", variant="primary", visible=False, scale=0, min_width=160)
                shown["preview"] = gr.HTML(visible=False, padding=False)
                shown["figures"] = gr.HTML(visible=False, padding=False)
                shown["video"] = gr.HTML(visible=False, padding=False)  # gr.Video wants a copy of every job's file
                # Only hidden, not left out: a viewer that comes onto the page together with its model stays empty.
                shown["mesh"] = gr.Model3D(label="Mesh", visible="hidden", interactive=False, height=420)
                shown["downloads"] = gr.HTML(visible=False, padding=False)

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        looking: dict[str, Any] = {
            "fn": page.look,
            "inputs": seen,
            "outputs": [seen, *(shown[name] for name in SHOWN)],
            **quiet,
        }
        blocks.load(**looking)
        timer.tick(**looking, queue=False)
        source.change(
            lambda chosen: (gr.update(visible=chosen == "own"), gr.update(visible=chosen == "sample")),
            source,
            [files, picture],
            **quiet,
        )
        preset.change(page.choose_preset, preset, fields, **quiet)
        shown["start"].click(page.begin, [files, source, preset, *fields], notice, **quiet).then(**looking)
        shown["cancel"].click(page.cancel, None, notice, **quiet).then(**looking)
        shown["resume"].click(page.resume, None, notice, **quiet).then(**looking)
    return blocks


def _pictures(sample: Path | None) -> list[Path]:
    return sorted((sample / "images").glob("*.jpg")) if sample is not None else []


def _sample_text(sample: Path | None) -> str:
    return f"{sample.name.replace('_', ' ')}, {len(_pictures(sample))} photos" if sample is not None else ""


def _contact_sheet(sample: Path | None) -> str:
    """Return some of the sample's photos, small, as one picture."""
    from PIL import Image

    pictures = _pictures(sample)
    if not pictures:
        return ""
    chosen, side = pictures[:: max(1, len(pictures) // 8)][:8], 120
    sheet = Image.new("RGB", (4 * side, 2 * side))
    for i, path in enumerate(chosen):
        with Image.open(path) as photo:
            sheet.paste(photo.convert("RGB").resize((side, side)), (i % 4 * side, i // 4 * side))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=80)
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="eg-preview" alt="Some photos of the sample" src="data:image/jpeg;base64,{content}">'
