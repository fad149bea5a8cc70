"""The side *Live*: how far a job is, how good it is so far, and what it says."""

from __future__ import annotations

from html import escape

from app.files import link
from app.follow import StageState
from app.job_state import JobState
from app.page_view import badge, box, card, took, warnings
from app.page_view import title as words

LIVE = ("psnr", "validation_psnr", "distance", "splats", "faces")
"""What is worth watching while it runs."""

MARKS = {"waiting": "", "running": "", "done": "✓", "cached": "✓", "ended": "×", "stopped": "–"}

WELCOME = """
<div class="eg-welcome">
<h3>Nothing to watch yet</h3>
<p>Open a job under <b>Jobs</b>, or drop photos, a video or a scan under <b>New</b>. Good captures: 20 to 100 photos all
around the thing, each overlapping the last by two thirds, sharp, in even light. The thing stays where it is; you walk
around it.</p>
</div>
"""

NAMES = {"psnr": "PSNR", "validation_psnr": "PSNR of photos it has not seen", "distance": "Distance to the points"}


def head(state: JobState) -> str:
    """Return a job's title, status and time."""
    told = f" · place {state.place}" if state.status == "queued" and state.place else ""
    return (
        f'<div class="eg-head"><h3>{escape(state.title)}</h3>{badge(state.status)}'
        f'<span class="eg-time">{escape(state.pipeline)} · {escape(state.preset)}{told}'
        f"{' · ' + took(state.seconds) if state.seconds else ''}</span></div>"
    )


def progress(state: JobState | None) -> str:
    """Return title, status, stages, what is worth watching, warnings and the error."""
    if state is None:
        return WELCOME
    parts = [head(state)]
    if state.status == "queued":
        others = "It is the next one." if state.place == 1 else f"{state.place - 1} jobs are before it."
        parts.append(box("note", "Waiting for its turn: one job runs at a time.", others))
    elif state.busy:
        parts.append(_now(state))
    parts.append(f'<ol class="eg-stages">{"".join(_stage(stage, state.status) for stage in state.stages)}</ol>')
    if state.error is not None:
        parts.append(box("note" if state.status == "cancelled" else "error", *state.error))
    if state.status == "done":
        parts.append(box("note", "It is done.", "Look at it under Result."))
    parts.append(warnings(state.warnings))
    return f'<div class="eg-job">{"".join(parts)}</div>'


def preview(state: JobState | None) -> str:
    """Return the newest picture of the reconstruction."""
    if state is None or state.preview is None:
        return ""
    name = str(state.preview.relative_to(state.folder.resolve()))
    text = "A photo, the reconstruction so far from the same camera, and where they differ"
    return (
        f'<figure class="eg-figure"><img class="eg-preview" alt="{text}" src="{escape(link(state.id, name))}">'
        f"<figcaption>Photo · reconstruction so far · difference</figcaption></figure>"
    )


def curve(state: JobState | None) -> str:
    """Return the metrics over time as a drawing; empty before there are two points."""
    if state is None or len(state.curve) < 2:
        return ""
    width, height, left, bottom = 600, 170, 44, 22
    names = [name for name in NAMES if any(name in values for _, values in state.curve)]
    if "distance" in names:
        names = ["distance"]
    shown = [values[name] for _, values in state.curve for name in names if name in values]
    last = max(state.curve[-1][0], 1e-9)
    low, high = min(shown), max(shown)
    high = high if high > low else low + 1

    def place(seconds: float, value: float) -> str:
        x = left + (width - left - 8) * max(0.0, seconds) / last
        return f"{x:.1f},{8 + (height - bottom - 8) * (high - value) / (high - low):.1f}"

    lines = "".join(
        f'<polyline class="eg-line eg-line-{i}" points="'
        f'{" ".join(place(t, values[name]) for t, values in state.curve if name in values)}"/>'
        for i, name in enumerate(names)
    )
    keys = "".join(f'<span class="eg-key eg-key-{i}">{NAMES[name]}</span>' for i, name in enumerate(names))
    label = "; ".join(f"{NAMES[n]}: {state.curve[-1][1][n]:.4g}" for n in names if n in state.curve[-1][1])
    return (
        f'<figure class="eg-figure eg-curve"><svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        f'<path class="eg-axis" d="M{left} 4V{height - bottom}H{width - 4}"/>'
        f'<text x="{left - 6}" y="14" text-anchor="end">{high:.4g}</text>'
        f'<text x="{left - 6}" y="{height - bottom}" text-anchor="end">{low:.4g}</text>'
        f'<text x="{width - 4}" y="{height - 4}" text-anchor="end">{took(last)}</text>{lines}</svg>'
        f"<figcaption>{keys}</figcaption></figure>"
    )


def log(state: JobState | None) -> str:
    """Return the end of what the job said, folded away."""
    if state is None or not state.log:
        return ""
    return f'<details class="eg-log"><summary>Log</summary><div><pre>{escape(state.log)}</pre></div></details>'


def _now(state: JobState) -> str:
    stage = next((stage for stage in state.stages if stage.state == "running"), None)
    known = stage is not None and stage.total > 0
    share = min(100.0, 100.0 * stage.step / stage.total) if stage is not None and known else 0.0
    if state.status == "stopping":
        text = "Stopping …"
    elif stage is None:
        text = "Starting …"
    else:
        text = f"{escape(words(stage.name))}{f' · {stage.step:,} of {stage.total:,}' if known else ' …'}"
    eta = f"{took(stage.eta)} left" if stage is not None and stage.eta is not None else ""
    value = f' aria-valuenow="{share:.0f}"' if known else ""
    cards = "".join(card(name, state.metrics[name]) for name in LIVE if name in state.metrics)
    if state.memory_mb:
        cards += card("memory", f"{state.memory_mb:,.0f} MB")
    return (
        f'<div class="eg-now"><span>{text}</span><span>{eta}</span></div>'
        f'<div class="eg-bar{"" if known else " eg-unknown"}" role="progressbar" aria-valuemin="0" aria-valuemax="100"'
        f'{value} aria-label="{escape(stage.name) if stage else "start"}"><i style="width:{share:.1f}%"></i></div>'
        + (f'<dl class="eg-cards">{cards}</dl>' if cards else "")
    )


def _stage(stage: StageState, status: str) -> str:
    style = "stopped" if stage.state == "ended" and status == "cancelled" else stage.state
    told = {"cached": "done before", "done": took(stage.seconds)}.get(stage.state, "")
    current = ' aria-current="step"' if stage.state == "running" else ""
    return (
        f'<li class="eg-{style}"{current}><i>{MARKS[style]}</i>'
        f"<span>{escape(words(stage.name))}</span><small>{told}</small></li>"
    )
