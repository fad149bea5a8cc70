"""Estimates: in the right order, and near what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recon.capture.inspect import Inspection
from recon.pipelines.estimate import estimate_seconds, in_words

CHAIR = Inspection(
    path="chair",
    kind="transforms",
    photos=125,
    held_out=25,
    sizes=((400, 400, 125),),
    posed=True,
    inward=True,
    masks="alpha",
    masked=125,
    points=0,
    focal=(556.0, 556.0),
    without_focal=0,
    blurry=(),
    pipelines=("splats",),
    problems=(),
    warnings=(),
)


def test_near_what_was_measured():
    assert estimate_seconds(CHAIR, cores=1)["fast"] == pytest.approx(70, rel=0.4)


def test_more_to_do_takes_longer_and_more_cores_less():
    base = estimate_seconds(CHAIR, cores=2)
    assert base["fast"] < base["medium"] < base["high"]
    for change in ({"masks": "none"}, {"sizes": ((1600, 1200, 125),)}, {"posed": False}):
        assert all(estimate_seconds(replace(CHAIR, **change), cores=2)[p] > base[p] for p in base)
    assert all(estimate_seconds(CHAIR, cores=8)[p] < base[p] for p in base)
    unposed = replace(CHAIR, posed=False)
    assert estimate_seconds(replace(unposed, kind="video"))["fast"] <= estimate_seconds(unposed)["fast"]


def test_larger_photos_than_the_preset_fits_cost_their_reading_alone():
    small, large = (replace(CHAIR, sizes=((side, side, 125),)) for side in (1200, 4000))
    extra = estimate_seconds(large, cores=1)["high"] - estimate_seconds(small, cores=1)["high"]
    assert 0 < extra < 0.1 * 125 * 16


def test_in_words():
    assert in_words({"fast": 20, "medium": 500, "high": 5400}) == "fast 1 min, medium 8 min, high 1.5 h"
