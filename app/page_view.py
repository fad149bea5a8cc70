"""What the page says, as HTML: pieces that several of its sides use. Every word that comes from outside is escaped."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from app.console import duration
from recon.errors import ReconError

PERCENT = " %"
LABELS = {
    "psnr": ("PSNR", " dB"),
    "validation_psnr": ("PSNR, unseen", " dB"),
    "ssim": ("SSIM", ""),
    "reprojection_error": ("Reprojection error", " px"),
    "sh_degree": ("SH degree", ""),
    "strain_median": ("Strain, median", PERCENT),
    "strain_p95": ("Strain, 95 % below", PERCENT),
    "strain_max": ("Strain, greatest", PERCENT),
    "look": ("Look, off the first frame's", ""),
}
"""How a metric is written, and its unit."""

STATUS = {
    "queued": "Waiting",
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
    "Resume goes on from its last checkpoint.": "Press Resume to go on from its last checkpoint.",
    "See 'recon run --pipeline NAME --help' for every setting and its range.": (
        "Its range stands under its name in Advanced."
    ),
    "Run again with --resume and a faster --preset, smaller photos, or fewer of them.": (
        "Clone it with a faster preset, or start again with fewer or smaller photos."
    ),
    "Free some space, then run again with --resume; what was finished is kept.": (
        "Free some space, then press Resume; what was finished is kept."
    ),
}
"""What to press, where the command line says which flag to give."""


def notice(error: ReconError | None) -> str:
    """Return an error with its hint, or an empty string."""
    return "" if error is None else box("error", error.message, error.hint)


def box(style: str, message: str, hint: str) -> str:
    """Return a message in a frame; ``style`` is ``error`` or ``note``."""
    role = "alert" if style == "error" else "status"
    hint = HINTS.get(hint, hint)
    return f'<div class="eg-box eg-{style}" role="{role}"><b>{escape(message)}</b><p>{escape(hint)}</p></div>'


def badge(status: str) -> str:
    """Return a job's status as a coloured word."""
    return f'<span class="eg-badge eg-{status}">{STATUS[status]}</span>'


def card(name: str, value: Any) -> str:
    """Return a figure with its name, for a ``<dl class="eg-cards">``."""
    label, unit = LABELS.get(name, (title(name), ""))
    if unit == PERCENT:
        value = 100 * value
    return f"<div><dt>{escape(label)}</dt><dd>{escape(number(value))}{unit}</dd></div>"


def number(value: Any) -> str:
    """Return a number with four digits, a whole one with all of its."""
    if isinstance(value, float) and not (abs(value) >= 1000 or value.is_integer()):
        return f"{value:#.4g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def warnings(texts: tuple[str, ...]) -> str:
    """Return warnings as a list that can be folded away."""
    if not texts:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    count = f"{len(texts)} warning{'s' if len(texts) > 1 else ''}"
    return f'<details class="eg-warnings" open><summary>{count}</summary><ul>{items}</ul></details>'


def title(name: str) -> str:
    """Return a name of the code's in plain words."""
    return name.replace("_", " ").capitalize()


def size(path: Path) -> str:
    """Return a file's size in words."""
    return bytes_text(path.stat().st_size)


def bytes_text(count: float) -> str:
    """Return a number of bytes in words."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def about(seconds: float) -> str:
    """Return an estimated time in words: its first digits are all that is known."""
    return f"{max(1, round(seconds / 60))} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def took(seconds: float) -> str:
    """Return a time that was measured."""
    return duration(seconds)
