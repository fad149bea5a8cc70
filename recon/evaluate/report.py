"""``report.html``: what was reconstructed, how well, and at what cost, in one file that asks nothing of the network.

The page's skeleton, style and script lie beside this file (``report.html.in``, ``report.css``, ``report.js``); its
parts are made in :mod:`recon.evaluate.sections`, :mod:`recon.evaluate.gallery` and :mod:`recon.evaluate.deformation`.
Everything that comes from a capture is escaped, and the page's content security policy forbids any request, and any
script but its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template

import numpy as np
import torch
from torch import Tensor

from recon.capture.capture import Array
from recon.evaluate import deformation, gallery, sections
from recon.evaluate.embedding import Embedded, embed, shrink
from recon.evaluate.gallery import ViewRow
from recon.evaluate.markup import Section, isolated, text
from recon.evaluate.metrics import psnr, ssim
from recon.evaluate.previews import COLOR_MAP, ERROR_RANGE, colorize, error_magnitude
from recon.evaluate.report_data import Deformation, HeldOutView, ReportData
from recon.job_files import write_text

__all__ = ["Deformation", "HeldOutView", "ReportData", "write_report"]

PICTURE_BUDGET = 5_500_000
"""Bytes of all pictures and films together, as base64 text; the rest of a page is a small part of its 6 MB."""

MOST_PICTURED = 40
"""Views beyond this are listed with their figures only: a picture each would leave none of them large enough."""


def write_report(path: Path, data: ReportData) -> None:
    """Write one self-contained HTML page of about 6 MB at most, whole or not at all.

    Raises:
        InputError: a view's render, photo and mask are not of one size (``"shape-mismatch"``).
    """
    rows, hero = _embed_pictures(data, PICTURE_BUDGET - (deformation.BUDGET if data.deformation else 0))
    top = sections.status(data.result) + sections.first_screen(data, rows, hero) + sections.warnings(data.result)
    parts = [
        sections.quality(data.result, data.measured_on),
        gallery.views(rows, ERROR_RANGE, data.measured_on),
        *(deformation.sections(data.deformation) if data.deformation else ()),
        sections.splats(data),
        sections.facts("figures", "Measured", data.figures),
        sections.time_and_memory(data.result),
        sections.poses(data.poses),
        sections.files(data.result),
        sections.facts("settings", "Settings", data.settings),
        sections.facts("versions", "Versions", data.versions),
    ]
    write_text(path, _page(data, top, [part for part in parts if part.body]))


def _page(data: ReportData, top: str, parts: Sequence[Section]) -> str:
    """Return the page around its parts."""
    folder = Path(__file__).parent
    script = (folder / "report.js").read_text(encoding="utf-8").strip()
    gradient = ", ".join("#" + (COLOR_MAP[i] * 255).round().astype(np.uint8).tobytes().hex() for i in range(0, 256, 15))
    links = "".join(f'<li><a href="#{part.key}">{part.title}</a></li>' for part in parts)
    pipeline = data.result.get("pipeline")
    made = datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC").lstrip("0")
    return Template((folder / "report.html.in").read_text(encoding="utf-8")).substitute(
        title=text(data.title),
        kicker="Egregium" + (f" · {text(pipeline)}" if pipeline else ""),
        source=f'<p class="source">{isolated(data.source)}</p>' if data.source else "",
        navigation=f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(parts) > 2 else "",
        top=top,
        sections="\n".join(part.html() for part in parts),
        style=Template((folder / "report.css").read_text(encoding="utf-8")).substitute(gradient=gradient),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        media=" media-src data:;" if data.deformation else "",
        footer=f"Made by Egregium on {made}. This page is complete in itself and asks nothing of the network.",
    )


def _embed_pictures(data: ReportData, budget: int) -> tuple[list[ViewRow], Embedded | None]:
    """Measure all views, worst first, and encode their pictures and the hero within the budget."""
    measured = []
    for index, view in enumerate(data.views):
        error = error_magnitude(view.render, view.photo)  # at full size: shrunk first, fine errors would hide
        row = _measure(view, index)
        error = error if view.mask is None else error * view.mask
        measured.append((row, [shrink(view.photo), shrink(view.render), shrink(colorize(error))]))
    measured.sort(key=lambda m: -np.inf if np.isnan(m[0].psnr) else m[0].psnr)
    # With too many views, pictures of evenly spaced ranks: the worst and the best are among them.
    chosen = np.unique(np.linspace(0, len(measured) - 1, min(len(measured), MOST_PICTURED)).round().astype(int))
    pictures = [picture for i in chosen for picture in measured[i][1]]
    if data.hero is not None:
        pictures.append(shrink(data.hero))
    embedded = embed(pictures, budget)
    for k, i in enumerate(chosen):
        measured[i][0].pictures = (embedded[3 * k], embedded[3 * k + 1], embedded[3 * k + 2])
    return [row for row, _ in measured], embedded[-1] if data.hero is not None else None


def _measure(view: HeldOutView, index: int) -> ViewRow:
    """Return the view's figures, computed where they are not given."""
    photo, render = _tensor(view.photo), _tensor(view.render)
    mask = None if view.mask is None else _tensor(view.mask)
    return ViewRow(
        name=view.name,
        index=index,
        psnr=psnr(render, photo, mask) if view.psnr is None else view.psnr,
        ssim=ssim(render, photo, mask) if view.ssim is None else view.ssim,
    )


def _tensor(image: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
