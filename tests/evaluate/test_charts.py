"""Ticks, durations and the geometry of the small charts."""

from __future__ import annotations

import re

import numpy as np
import pytest

from recon.evaluate.charts import FRAMES, Band, Series, compact, duration, histogram, line_chart, number, ticks


def chart(series: list[Series], width: int = 400, height: int = 200, **options: object) -> str:
    return line_chart(
        series, description="d", unit="dB", format_y=lambda y: f"{y:.1f}", width=width, height=height, **options
    )


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.0, "0.0 s"), (4.21, "4.2 s"), (9.96, "10 s"), (59.6, "1 min"), (125, "2 min 05 s"), (4320, "1 h 12 min")],
)
def test_durations_are_told_as_people_say_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_numbers_are_short() -> None:
    assert [number(x) for x in (0.02134, 31.24, 48210, float("inf"), float("nan"))] == [
        "0.0213",
        "31.2",
        "48,210",
        "∞",
        "–",
    ]
    assert [compact(x) for x in (950, 12000, 1_500_000)] == ["950", "12k", "1.5M"]


def test_ticks_are_round_and_inside() -> None:
    assert ticks(17.2, 32.1, 5) == [20, 25, 30]
    assert ticks(0, 276, 3, (1, 60, 120, 300)) == [0, 120, 240]
    assert ticks(0, 1000, 3, (1, 60)) == [0, 360, 720]  # beyond the steps, multiples of the largest
    assert len(ticks(5, 5, 5)) <= 2


def test_line_reaches_from_corner_to_corner() -> None:
    svg = chart([Series("a", [(0, 10), (50, 20), (100, 10)], "main")])
    path = re.search(r'class="line main" d="M([^"]+)"', svg)
    assert path is not None
    points = np.array([[float(v) for v in p.split()] for p in path[1].split("L")])
    assert points[0, 0] == 46
    assert points[1, 0] == pytest.approx((points[0, 0] + points[2, 0]) / 2, abs=0.1)
    assert points[0, 1] == points[2, 1] > points[1, 1]  # up is better
    assert (points >= 0).all()
    assert (points <= [400, 200]).all()


def test_labels_at_the_ends_do_not_overlap() -> None:
    svg = chart([Series(n, [(0, 1), (10, y)], "main") for n, y in (("a", 30.0), ("b", 30.1), ("c", 29.9))])
    heights = sorted(float(y) for y in re.findall(r'class="label main" x="[\d.]+" y="([\d.]+)"', svg))
    assert len(heights) == 3
    assert np.diff(heights).min() >= 12


def test_long_histories_are_thinned_and_their_ends_kept() -> None:
    svg = chart([Series("a", [(i, i % 7) for i in range(5000)], "main")])
    assert len(svg) < 12_000
    assert ">a 1.0<" in svg  # 4999 % 7


def test_stages_are_named_where_there_is_room() -> None:
    svg = chart([Series("a", [(0, 1), (100, 2)], "main")], bands=[Band("coarse", 0, 60), Band("a long name", 60, 70)])
    assert ">coarse<" in svg
    assert "a long name" not in svg


def test_nothing_to_draw_is_an_empty_string() -> None:
    assert chart([Series("a", [], "main")]) == ""


def test_a_single_point_and_a_flat_line_are_drawn() -> None:
    for points in ([(0.0, 5.0)], [(3.0, 5.0)], [(0.0, 5.0), (9.0, 5.0)]):
        assert "nan" not in chart([Series("a", points, "main")])


def test_bars_are_as_tall_as_their_counts() -> None:
    svg = histogram(np.array([0, 5, 10, 1]), description="d", axis=[(0, "0"), (1, "<1>")])
    heights = [float(h) for h in re.findall(r'class="bar"[^>]* height="([\d.]+)"', svg)]
    assert len(heights) == 3
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.1)
    assert "&lt;1&gt;" in svg


def test_x_may_be_frames() -> None:
    svg = chart([Series("a", [(k, 1) for k in range(31)], "peak")], axis=FRAMES)
    assert re.findall(r'text-anchor="middle">([^<]+)<', svg) == ["0", "10", "20", "30"]
    assert "<title>a: 1.0 dB in frame 7</title>" in svg
