"""What the web page says about a job, as HTML. Every word that comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from app.console import duration
from app.follow import StageState
from app.jobs import JobState
from recon.errors import ReconError

LABELS = {
    "psnr": ("PSNR", " dB"),
    "validation_psnr": ("PSNR, unseen", " dB"),
    "ssim": ("SSIM", ""),
    "reprojection_error": ("Reprojection error", " px"),
    "sh_degree": ("SH degree", ""),
}
"""How a metric is written, and its unit."""

LIVE = ("psnr", "validation_psnr", "splats")
"""What is worth watching while it runs."""

INTERNAL = ("loss", "validation_psnr")
"""What only matters while it runs."""

MARKS = {"waiting": "", "running": "", "done": "✓", "cached": "✓", "ended": "×"}
STATUS = {
    "starting": "Starting",
    "running": "Running",
    "stopping": "Stopping",
    "done": "Done",
    "failed": "Failed",
    "cancelled": "Cancelled",
    "interrupted": "Interrupted",
}

HINTS = {
    "Run again with --resume to go on.": "Press Resume to go on.",
    "See 'recon run --pipeline NAME --help' for every setting and its range.": (
        "Its range stands under its name in Advanced."
    ),
    "Run again with --resume and a faster --preset, smaller photos, or fewer of them.": (
        "Start again with a faster preset, smaller photos, or fewer of them."
    ),
    "Free some space, then run again with --resume; what was finished is kept.": (
        "Free some space, then press Resume; what was finished is kept."
    ),
}
"""What to press, where the command line says which flag to give."""

WELCOME = """
<div class="eg-welcome">
<h3>Nothing reconstructed yet</h3>
<p>Good captures: 20 to 100 photos all around the thing, each overlapping the last by two thirds, sharp, in even light.
The thing stays where it is; you walk around it. A slow video works too.</p>
</div>
"""


def notice(error: ReconError | None) -> str:
    """Return an error with its hint, or an empty string."""
    return "" if error is None else _box("error", error.message, error.hint)


def progress(state: JobState | None) -> str:
    """Return title, status, stages, what is worth watching, warnings and the error."""
    if state is None:
        return WELCOME
    parts = [
        f'<div class="eg-head"><h3>{escape(state.title)}</h3>'
        f'<span class="eg-badge eg-{state.status}">{STATUS[state.status]}</span>'
        f'<span class="eg-time">{duration(state.seconds) if state.seconds else ""}</span></div>'
    ]
    if state.busy:
        parts.append(_now(state))
    if state.status != "done":
        parts.append(f'<ol class="eg-stages">{"".join(map(_stage, state.stages))}</ol>')
    if state.error is not None and state.status == "cancelled":
        parts.append(_box("note", *state.error))
    elif state.error is not None:
        parts.append(_box("error", *state.error))
    if state.warnings:
        items = "".join(f"<li>{escape(text)}</li>" for text in state.warnings)
        count = f"{len(state.warnings)} warning{'s' if len(state.warnings) > 1 else ''}"
        parts.append(f'<details class="eg-warnings" open><summary>{count}</summary><ul>{items}</ul></details>')
    return f'<div class="eg-job">{"".join(parts)}</div>'


def figures(state: JobState | None) -> str:
    """Return the figures of a result as cards; empty before there is one."""
    if state is None or state.status != "done" or state.result is None:
        return ""
    result = state.result
    cards = [_card(name, value) for name, value in result["metrics"].items() if name not in INTERNAL]
    cards += [_card(name, value) for name, value in result["counts"].items() if value]
    cards.append(_card("time", duration(result["seconds"]["total"])))
    cards.append(_card("memory", f"{result['peak_memory_mb']:,.0f} MB"))
    return f'<dl class="eg-cards">{"".join(cards)}</dl>'


def downloads(state: JobState | None, link: Callable[[Path], str]) -> str:
    """Return the links to a result's files; ``link`` gives a file's address."""
    if state is None or not state.exports:
        return ""
    items = []
    for name, path in state.exports.items():
        if name == "report":
            continue
        items.append(
            f'<a class="eg-file" href="{escape(link(path))}" download="{escape(f"{state.title}-{path.name}")}">'
            f"<b>{escape(path.name)}</b><span>{_size(path)}</span></a>"
        )
    if state.converting:
        items.append('<span class="eg-file eg-soon">more formats are being written …</span>')
    report = ""
    if made := state.exports.get("report"):
        report = (
            f'<a class="eg-file eg-report" href="{escape(link(made))}" target="_blank" rel="noopener">'
            f"<b>Open the report</b><span>{_size(made)}</span></a>"
        )
    return f'<h4>Take away</h4><div class="eg-files">{report}{"".join(items)}</div>'


def video(path: Path | None, link: Callable[[Path], str]) -> str:
    """Return a film that plays in a loop; ``link`` gives a file's address."""
    if path is None:
        return ""
    source = escape(link(path))
    return f'<video class="eg-preview" aria-label="Turntable" src="{source}" autoplay loop muted controls></video>'


def _now(state: JobState) -> str:
    stage = next((stage for stage in state.stages if stage.state == "running"), None)
    known = stage is not None and stage.total > 0
    share = min(100.0, 100.0 * stage.step / stage.total) if stage is not None and known else 0.0
    if state.status == "stopping":
        text = "Stopping …"
    elif stage is None:
        text = "Starting …"
    else:
        text = f"{escape(_title(stage.name))}{f' · {stage.step:,} of {stage.total:,}' if known else ' …'}"
    eta = f"{duration(stage.eta)} left" if stage is not None and stage.eta is not None else ""
    value = f' aria-valuenow="{share:.0f}"' if known else ""
    cards = "".join(_card(name, state.metrics[name]) for name in LIVE if name in state.metrics)
    return (
        f'<div class="eg-now"><span>{text}</span><span>{eta}</span></div>'
        f'<div class="eg-bar{"" if known else " eg-unknown"}" role="progressbar" aria-valuemin="0" aria-valuemax="100"'
        f'{value} aria-label="{escape(stage.name) if stage else "start"}"><i style="width:{share:.1f}%"></i></div>'
        + (f'<dl class="eg-cards">{cards}</dl>' if cards else "")
    )


def _stage(stage: StageState) -> str:
    told = {"cached": "done before", "done": duration(stage.seconds)}.get(stage.state, "")
    current = ' aria-current="step"' if stage.state == "running" else ""
    return (
        f'<li class="eg-{stage.state}"{current}><i>{MARKS[stage.state]}</i>'
        f"<span>{escape(_title(stage.name))}</span><small>{told}</small></li>"
    )


def _card(name: str, value: Any) -> str:
    label, unit = LABELS.get(name, (_title(name), ""))
    if isinstance(value, float) and not (abs(value) >= 1000 or value.is_integer()):
        value = f"{value:#.4g}"
    elif isinstance(value, int | float):
        value = f"{value:,.0f}"
    return f"<div><dt>{escape(label)}</dt><dd>{escape(str(value))}{unit}</dd></div>"


def _box(style: str, message: str, hint: str) -> str:
    role = "alert" if style == "error" else "status"
    hint = HINTS.get(hint, hint)
    return f'<div class="eg-box eg-{style}" role="{role}"><b>{escape(message)}</b><p>{escape(hint)}</p></div>'


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _size(path: Path) -> str:
    size = float(path.stat().st_size)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def presets_text(config_presets: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what tells the presets apart, in a line."""
    return ", ".join(config_presets) + ": from a first look to the best result; Advanced shows what each sets."
