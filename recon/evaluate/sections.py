"""The parts of a report as HTML, all but the held-out views. Each is empty where there is nothing to show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from recon.evaluate.charts import Band, Series, compact, duration, histogram, line_chart, number, wide_and_narrow
from recon.evaluate.embedding import Embedded
from recon.evaluate.gallery import ViewRow
from recon.evaluate.markup import Section, finite, isolated, mapping, memory_size, metric, sequence, text
from recon.evaluate.report_data import Deformation, ReportData

# --- the first screen ---


def status(result: Mapping[str, Any]) -> str:
    """Return the notice of a reconstruction that failed or was cancelled."""
    state = result.get("status", "done")
    if state == "done":
        return ""
    error = mapping(result.get("error"))
    title = "Cancelled" if state == "cancelled" else "The reconstruction failed"
    parts = "".join(f"<p>{text(error[key])}</p>" for key in ("message", "hint") if error.get(key))
    return f'<div class="notice bad" role="alert"><h2>{title}</h2>{parts}</div>'


def warnings(result: Mapping[str, Any]) -> str:
    """Return the list of warnings."""
    messages = [text(m) for m in sequence(result.get("warnings"))]
    if not messages:
        return ""
    title = "One warning" if len(messages) == 1 else f"{len(messages)} warnings"
    items = "".join(f"<li>{m}</li>" for m in messages)
    return f'<div class="notice"><h2>{title}</h2><ul>{items}</ul></div>'


def first_screen(data: ReportData, rows: Sequence[ViewRow], hero: Embedded | None) -> str:
    """Return the hero picture beside the tiles of what matters most."""
    moving = _deformation_tiles(data.deformation) if data.deformation else ()
    tiles = "".join([*_metric_tiles(data, rows), *moving, *_count_tiles(data)])
    picture = ""
    if hero is not None:
        size = f'width="{hero.width}" height="{hero.height}"'
        picture = f'<figure class="hero"><img src="{hero.uri}" {size} alt="A render of {text(data.title)}"></figure>'
    if not tiles:
        return f'<div class="first">{picture}</div>' if picture else ""
    kind = "first with-hero" if picture else "first"
    return f'<div class="{kind}">{picture}<dl class="tiles">{tiles}</dl></div>'


def _metric_tiles(data: ReportData, rows: Sequence[ViewRow]) -> Iterable[str]:
    kind = data.measured_on
    count = f"one {kind} view" if len(rows) == 1 else f"{len(rows)} {kind} views" if rows else f"{kind} views"
    for key, label, unit in (("psnr", "PSNR", "dB"), ("ssim", "SSIM", "")):
        values = [v for v in (getattr(row, key) for row in rows) if not math.isnan(v)]
        value = finite(mapping(data.result.get("metrics")).get(key))
        if value is None and values:
            value = sum(values) / len(values)
        if value is not None:
            notes = [count] if key == "psnr" else []
            if len(values) > 1:
                notes.append(f"worst {metric(key, min(values))}")
            yield _tile(label, metric(key, value), unit, ", ".join(notes))


def _deformation_tiles(deformation: Deformation) -> Iterable[str]:
    median, most, pixels, folds = (
        [value for _, value in deformation.points(key)] for key in ("strain_median", "strain_p95", "pixels", "folds")
    )
    if median and most:
        note = f"median; 95% of the faces below {100 * max(most):.2g}% in the worst frame"
        yield _tile("Strain", f"{100 * float(np.median(median)):.2g}", "%", note)
    if pixels:
        yield _tile("Reprojection", f"{np.mean(pixels):.2f}", "px", f"worst frame {max(pixels):.2f}")
    folded = sum(count > 0 for count in folds)
    note = f"{folded or 'none'} folded over" if folds else ""
    yield _tile("Frames", f"{len(deformation.frames):,}", "", note)


def _count_tiles(data: ReportData) -> Iterable[str]:
    counts = mapping(data.result.get("counts"))
    if (seconds := finite(mapping(data.result.get("seconds")).get("total"))) is not None:
        device = data.result.get("device")
        yield _tile("Time", duration(seconds), "", f"on {text(device)}" if device else "")
    if splats := finite(counts.get("splats")):
        size = f"{memory_size(data.splat_bytes)} of parameters" if data.splat_bytes else ""
        yield _tile("Splats", f"{splats:,.0f}", "", size)
    for key, label in (("vertices", "Vertices"), ("faces", "Faces")):
        if count := finite(counts.get(key)):
            yield _tile(label, f"{count:,.0f}", "", "of the mesh")
    if memory := finite(data.result.get("peak_memory_mb")):
        yield _tile("Memory", memory_size(memory * 2**20), "", "at its peak")
    if data.deformation is None and (total := finite(counts.get("views"))):
        registered = finite(counts.get("registered"))
        how = "registered" if data.poses is not None else "with camera poses"
        if registered is None:
            yield _tile("Photos", f"{total:,.0f}", "", "")
        else:
            yield _tile("Photos", f"{registered:,.0f}", f"of {total:,.0f}", how)


def _tile(label: str, value: str, unit: str, note: str) -> str:
    unit = f' <span class="unit">{unit}</span>' if unit else ""
    note = f'<dd class="note">{note}</dd>' if note else ""
    return f'<div class="tile"><dt>{label}</dt><dd class="value">{value}{unit}</dd>{note}</div>'


# --- over time ---


def quality(result: Mapping[str, Any], measured_on: str = "held-out") -> Section:
    """Return the chart of PSNR over time."""
    lead = "PSNR in decibels, higher is better."
    if measured_on == "held-out":
        lead += " Held-out photos are seen by nothing but the final evaluation."
    history = _history(result)
    training, validation = _points(history, "psnr"), _points(history, "validation_psnr")
    series = [
        Series("training", training, "side" if validation else "main"),
        Series("validation", validation, "main"),
    ]
    series = [s for s in series if s.points]
    final = finite(mapping(result.get("metrics")).get("psnr"))
    if series and final is not None and measured_on == "held-out":
        series.append(Series("held out", [(series[0].points[-1][0], final)], "goal"))
    told = ", ".join(f"{s.label} ends at {s.points[-1][1]:.2f} dB" for s in series)
    body = wide_and_narrow(
        series,
        description=f"PSNR over time: {told}.",
        unit="dB",
        format_y=lambda y: f"{y:.2f}",
        bands=_bands(history),
    )
    return Section("quality", "Quality over time", lead, f'<div class="card">{body}</div>' if series else "")


def time_and_memory(result: Mapping[str, Any]) -> Section:
    """Return the bars of seconds by stage."""
    seconds = {k: s for k, v in mapping(result.get("seconds")).items() if (s := finite(v)) is not None}
    total = seconds.pop("total", 0.0) or sum(seconds.values())
    longest = max(seconds.values(), default=0.0)
    rows = "".join(
        f'<tr><th scope="row">{text(k)}</th><td><span class="share" style="width:{_percent(v, longest)}%"></span></td>'
        f'<td class="figure">{duration(v)}</td><td class="figure">{_percent(v, total)}%</td></tr>'
        for k, v in seconds.items()
    )
    memory = finite(result.get("peak_memory_mb"))
    lead = f"{duration(total)} in all" + (f", {memory_size(memory * 2**20)} of memory at the peak." if memory else ".")
    table = f'<table class="bars"><caption class="hidden">Seconds by stage</caption><tbody>{rows}</tbody></table>'
    return Section("time", "Time and memory", lead, table if rows else "")


def _percent(part: float, whole: float) -> int:
    return round(100 * part / whole) if whole > 0 else 0


def _history(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    entries = [h for h in map(mapping, sequence(result.get("history"))) if finite(h.get("seconds")) is not None]
    return sorted(entries, key=lambda h: h["seconds"])


def _points(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(float(h["seconds"]), value) for h in history if (value := finite(h.get(key))) is not None]


def _bands(history: Sequence[Mapping[str, Any]]) -> list[Band]:
    """Return the stages as stretches of time, each from its first entry to the next one's; none if there is but one."""
    bands: list[Band] = []
    for entry in history:
        label, seconds = str(entry.get("stage", "")), float(entry["seconds"])
        if bands:
            bands[-1] = Band(bands[-1].label, bands[-1].start, seconds)
        if not bands or bands[-1].label != label:
            bands.append(Band(label, seconds, seconds))
    return bands if len(bands) > 1 else []


# --- the splats ---


def splats(data: ReportData) -> Section:
    """Return the histograms of opacity and size, and the count over time."""
    cards = []
    if data.opacities is not None and (values := data.opacities[np.isfinite(data.opacities)]).size:
        note = f"median {np.median(values):.2f}; {(values < 0.05).mean():.0%} are below 0.05"
        axis = [(0.0, "0"), (0.5, "0.5"), (1.0, "1")]
        cards.append(_histogram_card("Opacity", values, 0, 1, axis, note))
    if data.scales is not None and (sizes := _log_sizes(data.scales)).size:
        low, high = np.percentile(sizes, (0.2, 99.8))
        low, high = (low, high) if high - low > 0.1 else (low - 0.5, high + 0.5)
        note = f"median {10 ** np.median(sizes):.3g} in the capture's units (geometric mean of the three axes)"
        axis = [(p, f"{10 ** (low + p * (high - low)):.2g}") for p in (0.0, 0.5, 1.0)]
        cards.append(_histogram_card("Size", sizes.clip(low, high), low, high, axis, note))
    if len(points := _points(_history(data.result), "splats")) > 1:
        note = f"from {points[0][1]:,.0f} to {points[-1][1]:,.0f}"
        chart = line_chart(
            [Series("splats", points, "main")],
            description=f"Splats over time, {note}.",
            unit="",
            format_y=compact,
            width=340,
            height=170,
            from_zero=True,
            named=False,
        )
        cards.append(_card("Count over time", chart, note))
    return Section("splats", "Splats", "", f'<div class="cards">{"".join(cards)}</div>' if cards else "")


def _log_sizes(scales: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return log₁₀ of the geometric mean over the axes of (N, 3) scales, without what is not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = np.log10(np.asarray(scales, np.float64)).mean(-1)
    return sizes[np.isfinite(sizes)]


def _histogram_card(
    title: str, values: NDArray[np.floating], low: float, high: float, axis: Sequence[tuple[float, str]], note: str
) -> str:
    counts, _ = np.histogram(values, bins=40, range=(low, high))
    return _card(title, histogram(counts, description=f"Histogram of {title.lower()}: {note}.", axis=axis), note)


def _card(title: str, chart: str, note: str) -> str:
    return f'<div class="card"><h3>{title}</h3>{chart}<p class="note">{note}</p></div>'


# --- facts ---


def poses(report: Mapping[str, Any] | None) -> Section:
    """Return how the cameras were found and which photos were left out, and why."""
    report = report or {}
    registered, total = finite(report.get("registered")), finite(report.get("total"))
    if registered is None or total is None:
        return Section("poses", "Camera poses", "", "")
    lead = "Computed from the photos by structure from motion."
    components = [f"{c:.0f}" for c in map(finite, sequence(report.get("components"))) if c is not None]
    if len(components) > 1:
        lead += f" The photos fell into {len(components)} parts ({', '.join(components)}); the largest is used."
    labels = {
        "reprojection_error": "Mean reprojection error in pixels",
        "points": "Points",
        "track_length": "Photos that see a point, mean",
        "features": "Features of a photo, median",
        "pairs_tried": "Pairs of photos compared",
        "pairs_matched": "Pairs of photos that match",
    }
    values = {label: number(v) for key, label in labels.items() if (v := finite(report.get(key))) is not None}
    body = _facts({"Photos registered": f"{registered:.0f} of {total:.0f}"} | values)
    if rejected := mapping(report.get("rejected")):
        rows = "".join(f'<tr><th scope="row">{isolated(n)}</th><td>{text(w)}</td></tr>' for n, w in rejected.items())
        head = '<thead><tr><th scope="col">Photo left out</th><th scope="col">Why</th></tr></thead>'
        body += f'<table class="after">{head}<tbody>{rows}</tbody></table>'
    return Section("poses", "Camera poses", lead, body)


def files(result: Mapping[str, Any]) -> Section:
    """Return links to the exports, relative to the job directory that the report lies in."""
    rows = ""
    for name, value in mapping(result.get("exports")).items():
        path = PurePosixPath(str(value))
        if not path.is_absolute() and ".." not in path.parts:
            address = text("./" + quote(str(path), errors="replace"))
            rows += f'<div><dt>{text(name)}</dt><dd><a href="{address}">{isolated(path)}</a></dd></div>'
    lead = "These lie beside this page, in the job's folder."
    return Section("files", "Files", lead, f'<dl class="facts">{rows}</dl>' if rows else "")


def facts(key: str, title: str, values: Mapping[str, Any]) -> Section:
    """Return names with their values, nested ones by dotted names."""
    return Section(key, title, "", _facts(values))


def _facts(values: Mapping[str, Any]) -> str:
    rows = "".join(f"<div><dt>{text(k)}</dt><dd>{text(_shown(v))}</dd></div>" for k, v in _flatten(values))
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    """Return a setting's value as a person would say it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return str(value)
