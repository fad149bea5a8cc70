"""Small charts as inline SVG text. Colours come from the page's style sheet through classes and follow its theme."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

FONT = 12
"""Pixels; the viewBox is drawn at about its own size, so this is what one reads."""

_MOST_POINTS = 300
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


@dataclass(frozen=True)
class Series:
    """A line: finite (x, y) in order of x.

    ``style`` is its class: ``main``, ``side``, ``peak``, or ``goal`` for a level line.
    """

    label: str
    points: Sequence[tuple[float, float]]
    style: str


@dataclass(frozen=True)
class Axis:
    """What x is: how a tick is written, how far ticks may be apart, and how a point's place is told."""

    tick: Callable[[float], str]
    steps: Sequence[float]
    told: Callable[[float], str]


@dataclass(frozen=True)
class Band:
    """A named stretch of the x axis."""

    label: str
    start: float
    end: float


def number(value: float) -> str:
    """Return ``value`` with three significant digits, or thousands separated: 0.0213, 31.2, 48,210."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def compact(value: float) -> str:
    """Return a count for an axis: 950, 12k, 1.5M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Return seconds as people say them: 4.2 s, 2 min 05 s, 1 h 12 min."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes % 60 else f"{minutes // 60} h"


SECONDS = Axis(lambda x: duration(x) if x else "0", _TIME_STEPS, lambda x: f"after {duration(x)}")
FRAMES = Axis(lambda x: f"{x:.0f}", (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000), lambda x: f"in frame {x:.0f}")


def ticks(low: float, high: float, count: int, steps: Sequence[float] | None = None) -> list[float]:
    """Return about ``count`` round values that cover [low, high] from inside, ``steps`` apart if given."""
    span = max(high - low, 1e-12)
    if steps is None:
        power = 10.0 ** math.floor(math.log10(span / count))
        steps = [power * f for f in (1, 2, 5, 10)]
    step = next((s for s in steps if span / s <= count), steps[-1] * math.ceil(span / steps[-1] / count))
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def line_chart(
    series: Sequence[Series],
    *,
    description: str,
    unit: str,
    format_y: Callable[[float], str],
    width: int,
    height: int,
    bands: Sequence[Band] = (),
    from_zero: bool = False,
    named: bool = True,
    axis: Axis = SECONDS,
) -> str:
    """Return an SVG of ``series`` over x, their last values at their ends, after their names if ``named``.

    Returns an empty string where there is no point.
    """
    series = [s for s in series if s.points]
    if not series:
        return ""
    xs = [x for s in series for x, _ in s.points] + [b.end for b in bands]
    ys = [y for s in series for _, y in s.points]
    low, high = (0.0 if from_zero else min(ys)), max(ys)
    margin = 0.06 * (high - low) or 0.5
    low, high = (low if from_zero else low - margin), high + margin
    end = max(*xs, 1e-9)
    start = 0.0 if min(xs) < 0.3 * end else min(xs)  # what came before the first point may be long and tells nothing
    values = [format_y(s.points[-1][1]) for s in series]
    labels = [f"{s.label} {value}" if named else value for s, value in zip(series, values, strict=True)]
    left, top, bottom = 46, 28 if bands else 12, 30
    right = 14 + max(_text_width(label) for label in labels)
    plot_width, plot_height = width - left - right, height - top - bottom

    def at_x(x: float) -> float:
        return left + plot_width * (max(x, start) - start) / max(end - start, 1e-9)

    def at_y(y: float) -> float:
        return top + plot_height * (high - y) / (high - low)

    out = [_bands(bands, at_x, top, plot_height)]
    for y in ticks(low, high, 5):
        out.append(f'<path class="grid" d="M{left} {at_y(y):.1f}h{plot_width}"/>')
        out.append(f'<text class="axis" x="{left - 8}" y="{at_y(y) + 4:.1f}" text-anchor="end">{compact(y)}</text>')
    for x in ticks(start, end, max(3, int(plot_width / 110)), axis.steps):
        label = axis.tick(x)
        out.append(f'<text class="axis" x="{at_x(x):.1f}" y="{height - 10}" text-anchor="middle">{label}</text>')
    for s in series:
        if s.style == "goal":
            out.append(f'<path class="line goal" d="M{left} {at_y(s.points[-1][1]):.1f}h{plot_width:.1f}"/>')
        else:
            out.append(_line(s, at_x, at_y, lambda x, y: f"{format_y(y)} {unit} {axis.told(x)}"))
    out += _end_labels(series, labels, [at_y(s.points[-1][1]) for s in series], left + plot_width + 8, top)
    return _svg(width, height, description, out)


def wide_and_narrow(series: Sequence[Series], **options: Any) -> str:
    """Return HTML with the keys and the :func:`line_chart` of ``series`` for a page's whole width.

    Text in a drawing shrinks with it: one is drawn for a wide page and one for a phone, and the style shows either.
    """
    keys = "".join(f'<span class="key {s.style}">{s.label}</span>' for s in series)
    body = f'<p class="keys narrow">{keys}</p>'
    for kind, width, height in (("wide", 1000, 300), ("narrow", 350, 240)):
        chart = line_chart(series, width=width, height=height, named=kind == "wide", **options)
        body += f'<div class="{kind}">{chart}</div>'
    return body


def histogram(
    counts: NDArray[np.integer],
    *,
    description: str,
    axis: Sequence[tuple[float, str]],
    width: int = 340,
    height: int = 170,
) -> str:
    """Return an SVG of bars; ``axis`` holds labels at positions from 0 (left edge) to 1 (right edge)."""
    left, top, bottom = 8, 8, 26
    plot_width, plot_height = width - 2 * left, height - top - bottom
    base = top + plot_height
    step = plot_width / len(counts)
    out = []
    for i, count in enumerate(counts.tolist()):
        tall = plot_height * count / max(int(counts.max()), 1)
        if count:
            tall = max(tall, 1.0)  # a bin with anything in it is seen
            out.append(
                f'<rect class="bar" x="{left + i * step + 0.5:.1f}" y="{base - tall:.1f}" '
                f'width="{max(step - 1, 0.5):.1f}" height="{tall:.1f}"/>'
            )
    out.append(f'<path class="rule" d="M{left} {base + 0.5}h{plot_width}"/>')
    for position, label in axis:
        anchor = "start" if position < 0.02 else "end" if position > 0.98 else "middle"
        out.append(
            f'<text class="axis" x="{left + position * plot_width:.1f}" y="{height - 8}" text-anchor="{anchor}">'
            f"{escape(label)}</text>"
        )
    return _svg(width, height, description, out)


def _svg(width: int, height: int, description: str, parts: Sequence[str]) -> str:
    label = escape(description, quote=True)
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg>'
    )


def _text_width(text: str) -> float:
    """Estimate: the style sheet's font is set about this wide at ``FONT``."""
    return 0.6 * FONT * len(text)


def _bands(bands: Sequence[Band], at_x: Callable[[float], float], top: float, height: float) -> str:
    out = []
    for i, band in enumerate(bands):
        x, width = at_x(band.start), at_x(band.end) - at_x(band.start)
        if i % 2:
            out.append(f'<rect class="band" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{height}"/>')
        if i:
            out.append(f'<path class="edge" d="M{x:.1f} {top - 20}v{height + 20}"/>')
        if _text_width(band.label) + 8 < width:
            out.append(f'<text class="axis" x="{x + 6:.1f}" y="{top - 9}">{escape(band.label)}</text>')
    return "".join(out)


def _line(
    series: Series,
    at_x: Callable[[float], float],
    at_y: Callable[[float], float],
    told: Callable[[float, float], str],
) -> str:
    points = series.points
    if len(points) > _MOST_POINTS:
        points = [points[i] for i in np.linspace(0, len(points) - 1, _MOST_POINTS).round().astype(int)]
    path = "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in points)
    out = f'<path class="line {series.style}" d="M{path}"/>'
    if len(points) <= 40:
        for x, y in points:
            title = escape(f"{series.label}: {told(x, y)}")
            spot = f'cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3"'
            out += f'<circle class="dot {series.style}" {spot}><title>{title}</title></circle>'
    return out


def _end_labels(
    series: Sequence[Series], labels: Sequence[str], heights: Sequence[float], x: float, top: float
) -> list[str]:
    """Return the labels at the lines' ends, pushed apart where they would overlap."""
    out, last = [], top - FONT
    for i in sorted(range(len(series)), key=lambda i: heights[i]):
        last = max(heights[i] + 4, last + FONT + 3)
        out.append(f'<text class="label {series[i].style}" x="{x:.1f}" y="{last:.1f}">{escape(labels[i])}</text>')
    return out
