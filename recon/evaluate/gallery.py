"""The held-out views of a report: a viewer with a compare slider, and the table it takes its pictures from.

Without scripts, and on paper, the table alone is there. Each picture is in the page once: the viewer borrows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

from recon.evaluate.embedding import Embedded
from recon.evaluate.markup import Section, isolated, metric, text

_VIEWER = Template("""<div class="viewer card script-only" role="group" aria-label="Compare a photo with its render">
<div class="viewer-bar"><h3 aria-live="polite"></h3><span class="numbers"></span><div class="controls">
<fieldset><legend class="hidden">Compare the photo with</legend>
<label><input type="radio" name="against" value="render" checked>Render</label>
<label><input type="radio" name="against" value="error">Error</label></fieldset>
<span><button type="button" class="previous" aria-label="Previous view">←</button>
<button type="button" class="next" aria-label="Next view">→</button></span></div></div>
<div class="stage"><span class="tag">Photo</span><span class="tag right">Render</span><span class="handle"></span>
<input type="range" class="hidden" min="0" max="100" step="0.5" value="50"
 aria-label="How much of the photo is shown, in percent">
</div></div>
<div class="list-bar"><label class="script-only">Order: <select id="order"><option value="psnr 1">worst first</option>
<option value="psnr -1">best first</option><option value="index 1">as captured</option></select></label>
<span class="legend" role="img" aria-label="Error maps: black is no error, bright yellow an error of $limit or more">
no error <i></i> ≥ $limit</span></div>
""")

_SEEN = {
    "held-out": "Photos that the fit has not seen",
    "validation": "Photos that only chose the best of the models, since there are too few to hold any out",
    "training": "Photos that the fit has seen, since there are too few to hold any out",
}
_ALT = {"photo": "Photo {}", "render": "Render of {}", "error": "Error map of {}"}


@dataclass
class ViewRow:
    """A held-out view's figures, its place in the capture's order, and its photo, render and error map if embedded."""

    name: str
    index: int
    psnr: float
    ssim: float
    pictures: tuple[Embedded, Embedded, Embedded] | None = None


def views(rows: Sequence[ViewRow], error_limit: float, measured_on: str = "held-out") -> Section:
    """Return the viewer and the table of ``rows``, in their order; ``error_limit`` is the error maps' brightest."""
    heading = f"{measured_on.capitalize()} views"
    pictured = sum(r.pictures is not None for r in rows)
    some = (
        "" if pictured == len(rows) else f" The pictures of {pictured} of the {len(rows)} views are kept in this page."
    )
    lead = f"{_SEEN[measured_on]}, beside what the model shows from their cameras.{some}"
    if not rows:
        return Section("views", heading, lead, "")
    head = "".join(f'<th scope="col">{h}</th>' for h in ("View", "Photo", "Render", "Error"))
    head += "".join(f'<th scope="col" class="figure">{h}</th>' for h in ("PSNR", "SSIM"))
    body = "\n".join(map(_row, rows))
    table = (
        f'<table class="views"><caption class="hidden">{heading}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )
    return Section("views", heading, lead, _VIEWER.substitute(limit=f"{error_limit:.0%}") + table)


def _row(row: ViewRow) -> str:
    rank = 1e9 if row.psnr == math.inf else -1e9 if math.isnan(row.psnr) else row.psnr
    psnr, ssim = metric("psnr", row.psnr), metric("ssim", row.ssim)
    name, cells = isolated(row.name), '<td class="picture" colspan="3"></td>'
    if row.pictures is not None:
        name = f'<button type="button" title="Show in the viewer">{name}</button>'
        cells = "".join(_picture(p, kind, row.name) for p, kind in zip(row.pictures, _ALT, strict=True))
    numbers = f"PSNR {psnr} dB, SSIM {ssim}"
    return (
        f'<tr data-name="{text(row.name)}" data-numbers="{numbers}" data-psnr="{rank:.6f}" data-index="{row.index}">'
        f'<td class="name">{name}</td>{cells}'
        f'<td class="figure" data-label="PSNR">{psnr}</td><td class="figure" data-label="SSIM">{ssim}</td></tr>'
    )


def _picture(picture: Embedded, kind: str, name: str) -> str:
    size = f'width="{picture.width}" height="{picture.height}"'
    alt = _ALT[kind].format(text(name))
    return f'<td class="picture"><img class="{kind}" src="{picture.uri}" {size} alt="{alt}"></td>'
