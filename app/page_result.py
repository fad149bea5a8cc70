"""The side *Result*: what came out, how good it is, and the files to take away."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from app.compare import Pair
from app.files import link
from app.job_state import JobState
from app.page_live import head
from app.page_view import box, card, size, took, warnings

INTERNAL = ("loss", "validation_psnr")
"""What only matters while it runs."""

FILMS = {
    "exports/turntable.mp4": "Turntable",
    "exports/overlay.mp4": "The surface over its frames",
    "exports/side.mp4": "The surface from the side",
    "exports/splats.mp4": "Its splats, from a camera that swings around it",
}
REPORT = "report.html"


def summary(state: JobState | None, facts: Sequence[tuple[str, str]]) -> str:
    """Return title, figures, facts about the mesh, and warnings."""
    if state is None:
        text = "No job is chosen. Open one under <b>Jobs</b>, or begin one under <b>New</b>."
        return f'<div class="eg-welcome"><p>{text}</p></div>'
    if state.status != "done" or state.result is None:
        told = (
            ("It is not done yet.", "Watch it under Live.")
            if state.busy
            else ("It has no result.", "Resume it under Live.")
        )
        return f'<div class="eg-job">{head(state)}{box("note", *told)}</div>'
    result = state.result
    known = dict(facts)
    hidden = {*INTERNAL, *known, *(("watertight", "components") if known else ())}
    cards = [card(name, value) for name, value in result["metrics"].items() if name not in hidden]
    cards += [card(name, value) for name, value in result["counts"].items() if value and name not in known]
    cards += [card(name, value) for name, value in facts]
    cards.append(card("time", took(result["seconds"]["total"])))
    cards.append(card("memory", f"{result['peak_memory_mb']:,.0f} MB"))
    return (
        f'<div class="eg-job">{head(state)}<dl class="eg-cards">{"".join(cards)}</dl>{warnings(state.warnings)}</div>'
    )


def compare(state: JobState | None, pairs: Sequence[Pair]) -> str:
    """Return the photos that judge the model beside their renders, under a slider."""
    if state is None or not pairs:
        return ""
    parts = []
    for i, pair in enumerate(pairs):
        photo, render = (
            escape(link(state.id, str(path.relative_to(state.folder)))) for path in (pair.photo, pair.render)
        )
        told = f"{escape(pair.name)}{f' · {pair.psnr:.2f} dB' if pair.psnr is not None else ''}"
        parts.append(
            f'<details class="eg-pair" name="pair"{" open" if i == 0 else ""}><summary>{told}</summary>'
            f'<div class="eg-compare" style="--at:50%"><img loading="lazy" alt="Reconstruction of {escape(pair.name)}" '
            f'src="{render}"><img loading="lazy" alt="Photo {escape(pair.name)}" '
            f'class="eg-photo" src="{photo}"><i></i><b>Photo</b><b>Reconstruction</b>'
            '<input type="range" min="0" max="100" value="50" step="0.5" aria-label="How much of the photo is shown" '
            "oninput=\"this.parentNode.style.setProperty('--at', this.value + '%')\"></div></details>"
        )
    return f"<h4>Photo and reconstruction</h4>{''.join(parts)}"


def video(state: JobState | None) -> str:
    """Return the films, which play in a loop."""
    if state is None:
        return ""
    return "".join(
        f'<h4>{told}</h4><video class="eg-preview" aria-label="{told}" src="{escape(link(state.id, film))}" '
        "autoplay loop muted playsinline controls></video>"
        for film, told in FILMS.items()
        if film in state.exports
    )


def downloads(state: JobState | None) -> str:
    """Return the links to a result's files."""
    if state is None or not state.exports:
        return ""
    report, items, folders = "", list[str](), dict[str, list[str]]()
    for name, path in state.exports.items():
        address = escape(link(state.id, name))
        if name == REPORT:
            report = (
                f'<a class="eg-file eg-report" href="{address}" target="_blank" rel="noopener">'
                f"<b>Open the report</b><span>{size(path)}</span></a>"
            )
        elif "colmap" not in name:
            parts = name.split("/")
            folder = items if len(parts) == 2 else folders.setdefault(parts[1], [])
            folder.append(
                f'<a class="eg-file" href="{address}" download><b>{escape(path.name)}</b><span>{size(path)}</span></a>'
            )
    sequences = "".join(
        f"<details><summary>{escape(name)}: {len(links)} files</summary>"
        f'<div class="eg-files">{"".join(links)}</div></details>'
        for name, links in folders.items()
    )
    return f'<h4>Take away</h4><div class="eg-files">{report}{"".join(items)}</div>{sequences}'
