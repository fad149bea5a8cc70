"""Where everything is on the page, and which method of :class:`app.page.Page` each thing calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from app import page_list, page_live
from app.api import add_api
from app.jobs import FORMATS
from app.page_form import make_fields
from app.page_new import pipeline_choices
from recon import pipelines
from recon.config import DEFAULT_PRESET

if TYPE_CHECKING:
    from app.page import Page

TITLE = (
    '<div class="eg-title"><h1>Egregium</h1>'
    "<p>3D reconstruction from photos, video and scans, on this machine</p></div>"
)
TICK = 1.0
"""Seconds between two looks at the job."""

ADDRESS = "(job) => { history.replaceState(null, '', job ? '?job=' + encodeURIComponent(job) : location.pathname); }"
"""Keeps the chosen job in the page's address, so that a reload and a bookmark find it again."""

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def lay_out(page: Page) -> gr.Blocks:
    """Return the page, ready to be launched."""
    from app.page import FOUND, OWN, SHOWN

    with gr.Blocks(title="Egregium", analytics_enabled=False, delete_cache=(3600, 86_400)) as blocks:
        add_api(page)  # first, so that the end points get their plain names
        _html(TITLE)
        seen, side, draft = gr.State({}), gr.State("new"), gr.State({})
        chosen = gr.Textbox(visible="hidden", label="Job")
        timer = gr.Timer(TICK)
        shown: dict[str, Any] = {}
        with gr.Tabs(selected="new") as shown["tabs"]:
            with gr.Tab("New", id="new") as new:
                form = _new(page, OWN)
            with gr.Tab("Live", id="live") as live:
                _live(shown)
            with gr.Tab("Result", id="result") as result:
                export = _result(shown)
            with gr.Tab("Jobs", id="jobs") as listed:
                words = gr.Textbox(label="Find", placeholder="words of a name, pipeline or state", max_lines=1)
                told = _html(elem_classes="eg-told")
                shown["cards"] = gr.HTML(js_on_load=page_list.SCRIPT, padding=False)

        looking: dict[str, Any] = {
            "fn": page.look,
            "inputs": [seen, chosen, side, shown["what"], words],
            "outputs": [seen, *(shown[name] for name in SHOWN)],
            "queue": False,
            **QUIET,
        }

        def arrive(request: gr.Request) -> list[Any]:
            return page.arrive(str(request.query_params.get("job", "")))

        blocks.load(arrive, None, [chosen, shown["tabs"], form["notice"]], **QUIET)
        chosen.change(None, chosen, None, js=ADDRESS, **QUIET)
        timer.tick(**looking)
        for tab, name in ((new, "new"), (live, "live"), (result, "result"), (listed, "jobs")):
            tab.select(lambda name=name: name, None, side, queue=False, **QUIET).then(**looking)
        words.change(**looking)

        found = [draft if name == "draft" else form[name] for name in FOUND]
        form["files"].change(page.take, form["files"], [*found, *form["groups"]], api_visibility="private")
        form["source"].input(
            lambda source: (gr.update(visible=source == OWN), ""),
            form["source"],
            [form["files"], form["notice"]],
            **QUIET,
        ).then(page.choose, [form["source"], form["files"]], [*found, *form["groups"]], api_visibility="private")
        form["preset"].input(page.choose_preset, form["preset"], form["fields"], **QUIET)
        form["pipeline"].input(
            page.choose_pipeline, [form["pipeline"], draft], [form["preset"], *form["groups"]], **QUIET
        )
        inputs = [draft, form["title"], form["pipeline"], form["preset"], *form["fields"]]
        moved = [chosen, shown["tabs"], form["notice"]]
        form["start"].click(page.begin, inputs, moved, **QUIET).then(**looking)

        acted = [chosen, shown["tabs"], told]
        for name in ("cancel", "resume"):
            shown[name].click(lambda job, name=name: page.act(name, job), chosen, acted, **QUIET).then(**looking)
        shown["to_result"].click(lambda: gr.update(selected="result"), None, shown["tabs"], **QUIET)
        export["write"].click(
            page.export,
            [chosen, shown["format"], export["faces"], export["texture"]],
            export["notice"],
            api_visibility="private",
        ).then(**looking)
        shown["what"].input(**looking)

        cloned = [*found, *form["groups"], *form["fields"], shown["tabs"]]

        def press(event: gr.EventData) -> list[Any]:
            action, job = str(event.do), str(event.job)
            if action == "clone":
                return [gr.skip(), gr.skip(), "", job]
            return [*page.act(action, job), ""]

        cloning = gr.State("")
        shown["cards"].click(press, None, [*acted, cloning], **QUIET).then(
            lambda job: page.clone(job) if job else [gr.skip() for _ in cloned], cloning, cloned, **QUIET
        ).then(**looking)
    return blocks


def _html(value: str = "", **options: Any) -> gr.HTML:
    """Return words on the page that nobody clicks: Gradio's own script for that trips over what comes and goes."""
    return gr.HTML(value, padding=False, js_on_load=None, **options)


def _new(page: Page, own: str) -> dict[str, Any]:
    form: dict[str, Any] = {}
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            samples = [(f"Sample: {name.replace('_', ' ')}", f"sample:{name}") for name in page.samples]
            form["source"] = gr.Radio([("My own", own), *samples], value=own, label="Capture", visible=bool(samples))
            form["files"] = gr.File(
                file_count="multiple", label="Photos, a zip, a video, a point cloud or a mesh", height=180
            )
            form["found"] = _html(visible=False)
            form["strip"] = _html(visible=False)
        with gr.Column(scale=2, min_width=320):
            form["pipeline"] = gr.Radio(pipeline_choices(page.names), label="Make", visible=False)
            presets = list(pipelines.get(page.names[0]).config.presets)
            form["preset"] = gr.Radio(
                presets,
                value=DEFAULT_PRESET,
                label="Preset",
                info="From a first look to the best result.",
                visible=False,
            )
            form["title"] = gr.Textbox(
                label="Name", max_lines=1, max_length=80, info="Whatever you call it; may be left out."
            )
            form["start"] = gr.Button("Reconstruct", variant="primary", size="lg", interactive=False)
            form["notice"] = _html()
            form["groups"], form["fields"] = [], []
            for name in page.names:
                with gr.Accordion(f"Advanced: settings of {name}", open=False, visible=False) as group:
                    form["fields"] += make_fields(pipelines.get(name).config, DEFAULT_PRESET)
                form["groups"].append(group)
    return form


def _live(shown: dict[str, Any]) -> None:
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=320):
            shown["progress"] = _html(page_live.progress(None))
            with gr.Row():
                shown["cancel"] = gr.Button("Cancel", variant="stop", visible=False, scale=0, min_width=160)
                shown["resume"] = gr.Button("Resume", variant="primary", visible=False, scale=0, min_width=160)
                shown["to_result"] = gr.Button(
                    "See the result", variant="primary", visible=False, scale=0, min_width=160
                )
            shown["curve"] = _html(visible=False)
        with gr.Column(scale=3, min_width=320):
            shown["preview"] = _html(visible=False)
            shown["log"] = _html(visible=False)


def _result(shown: dict[str, Any]) -> dict[str, Any]:
    export: dict[str, Any] = {}
    shown["summary"] = _html()
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320):
            shown["what"] = gr.Radio(
                [("Splats", "splats"), ("Mesh", "mesh")], value="mesh", show_label=False, container=False
            )
            shown["model"] = gr.Model3D(label="3D view", visible="hidden", interactive=False, height=460)
            shown["compare"] = _html(visible=False)
        with gr.Column(scale=2, min_width=320):
            shown["downloads"] = _html(visible=False)
            with gr.Group(visible=False) as shown["export"]:
                formats = [f"{kind} {suffix}" for kind, suffixes in FORMATS.items() for suffix in suffixes]
                shown["format"] = gr.Dropdown(formats, value="mesh .glb", label="Another format")
                with gr.Row():
                    export["faces"] = gr.Number(label="Faces at most", info="Of a mesh; 0: all.", precision=0)
                    export["texture"] = gr.Dropdown(
                        [("as it is", 0), 1024, 2048, 4096],
                        value=0,
                        label="Texture",
                        info="Pixels, for .glb, .obj, .zip.",
                    )
                export["write"] = gr.Button("Write it")
            export["notice"] = _html()
            shown["video"] = _html(visible=False)  # gr.Video wants a copy of every job's file
    return export
