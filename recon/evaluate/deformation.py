"""The parts of a report on a surface that deforms: its films, its strain and reprojection, and the table of its frames.

Films are in the page itself, as large as its budget allows.
"""

from __future__ import annotations

from collections.abc import Callable

from recon.evaluate.charts import FRAMES, Series, duration, number, wide_and_narrow
from recon.evaluate.embedding import Embedded, embed, embed_film, shrink
from recon.evaluate.markup import Section, finite, text
from recon.evaluate.report_data import Deformation
from recon.evaluate.strain import STRAIN_RANGE

FILM_BUDGET = 4_000_000
"""Bytes of all films together, as base64 text."""

MAP_BUDGET = 400_000
"""Bytes of all maps of strain together, as base64 text."""

BUDGET = FILM_BUDGET + MAP_BUDGET


def _hundredths(value: float) -> str:
    return f"{value:.2f}"


def _percent(share: float) -> str:
    return _hundredths(100 * share)


_COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "strain_median": ("Strain in %: median", _percent),
    "strain_p95": ("95% of the faces", _percent),
    "strain_max": ("largest", _percent),
    "folds": ("Folds", number),
    "pixels": ("Reprojection in px", _hundredths),
    "seconds": ("Time", duration),
}


def sections(data: Deformation) -> list[Section]:
    """Return the sections of films, strain, reprojection and frames; those with nothing to show are empty."""
    return [_films(data), _strain(data), _reprojection(data), _frames(data)]


def _films(data: Deformation) -> Section:
    figures = ""
    for caption, file in data.films:
        film = embed_film(file, FILM_BUDGET // len(data.films))
        if film is None:
            body, caption = "", f"{caption} It is too long to be kept in this page, and lies beside it: {file.name}."
        else:
            size = f'width="{film.width}" height="{film.height}"'
            body = (
                f'<video src="{film.uri}" {size} controls loop muted playsinline aria-label="{text(caption)}"></video>'
            )
        figures += _figure(body, caption)
    return Section("films", "Films", "", f'<div class="films">{figures}</div>' if figures else "")


def _strain(data: Deformation) -> Section:
    lead = (
        "By how much lengths on the surface differ from the template's, in the direction where they differ most: "
        "0 where it was only bent."
    )
    body = _chart(
        "Strain in % over the frames",
        [
            Series("largest", _scaled(data, "strain_max"), "peak"),
            Series("95% of the faces", _scaled(data, "strain_p95"), "main"),
            Series("median", _scaled(data, "strain_median"), "side"),
        ],
        "%",
    )
    maps = embed([shrink(image) for _, image in data.strain_maps], MAP_BUDGET)
    figures = "".join(
        _figure(_image(picture, caption), caption) for picture, (caption, _) in zip(maps, data.strain_maps, strict=True)
    )
    if figures:
        limit = f"{STRAIN_RANGE:.0%}"
        told = f"Maps of strain: black is none, bright yellow {limit} or more"
        legend = f'<span class="legend" role="img" aria-label="{told}">no strain <i></i> ≥ {limit}</span>'
        body += f'<div class="films">{figures}</div>{legend}'
    return Section("strain", "Strain", lead, body)


def _reprojection(data: Deformation) -> Section:
    lead = "How far points of the surface are from where they were tracked in the picture: the mean of a frame."
    series = [Series("mean", data.points("pixels"), "main")]
    return Section("reprojection", "Reprojection", lead, _chart("Pixels over the frames", series, "px"))


def _frames(data: Deformation) -> Section:
    keys = [key for key in _COLUMNS if data.points(key)]
    if not keys:
        return Section("frames", "Frames", "", "")
    head = "".join(f'<th scope="col" class="figure">{_COLUMNS[key][0]}</th>' for key in keys)
    rows = ""
    for i, frame in enumerate(data.frames):
        cells = ""
        for key in keys:
            value = finite(frame.get(key))
            cells += f'<td class="figure">{"–" if value is None else _COLUMNS[key][1](value)}</td>'
        rows += f'<tr><th scope="row">{i}</th>{cells}</tr>\n'
    lead = "Counted from 0. Folds are edges across which the surface is folded over, and the template is not."
    table = (
        f'<table><caption class="hidden">Figures of the frames</caption><thead><tr><th scope="col">Frame</th>{head}'
        f"</tr></thead><tbody>{rows}</tbody></table>"
    )
    return Section("frames", "Frames", lead, f'<div class="scroll" tabindex="0">{table}</div>')


def _scaled(data: Deformation, key: str) -> list[tuple[float, float]]:
    return [(frame, 100 * share) for frame, share in data.points(key)]


def _chart(title: str, series: list[Series], unit: str) -> str:
    """Return a card with a chart over the frames, nothing where no frame has a figure."""
    series = [s for s in series if s.points]
    if not series:
        return ""
    told = ", ".join(f"{s.label} at most {number(max(y for _, y in s.points))}" for s in series)
    chart = wide_and_narrow(
        series, description=f"{title}: {told}.", unit=unit, format_y=number, from_zero=True, axis=FRAMES
    )
    return f'<div class="card"><h3>{title}</h3>{chart}</div>'


def _figure(body: str, caption: str) -> str:
    return f"<figure>{body}<figcaption>{text(caption)}</figcaption></figure>"


def _image(picture: Embedded, caption: str) -> str:
    return f'<img src="{picture.uri}" width="{picture.width}" height="{picture.height}" alt="{text(caption)}">'
