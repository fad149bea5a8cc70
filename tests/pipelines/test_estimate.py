"""Estimates: in the right order, and near what was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from recon.capture.inspection import Inspection
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


SPLATS_AND_MESH = ("splats", "mesh")


def seconds(found: Inspection = CHAIR, pipeline: str = "splats", cores: int | None = 2, **changes: object) -> dict:
    found = replace(found, pipelines=("splats", "mesh", "points"), **changes)
    return estimate_seconds(found, cores=cores)[pipeline]


def test_near_what_was_measured():
    assert seconds(cores=1)["fast"] == pytest.approx(119, rel=0.25)  # processor time on one busy core
    assert seconds(cores=2)["fast"] == pytest.approx(99, rel=0.4)  # the benchmarks' clock on two


def test_a_mesh_near_what_was_measured():
    """Processor time on one core: each stage of a short run, scaled by its steps."""
    chair = 5.7 + 7.66 * 350 / 80 + 9.15 * 130 / 40 + 13.1 + 1.5 + 60 * 0.038 + 1.0
    assert seconds(pipeline="mesh", cores=1)["fast"] == pytest.approx(chair, rel=0.25)
    table = {"photos": 48, "held_out": 6, "sizes": ((480, 480, 48),), "masks": "none", "masked": 0}
    still = 65.8 + 21.9 * 350 / 80 + 17.1 * 130 / 40 + 9.5 + 0.5 + 60 * 0.049 + 0.8
    assert seconds(pipeline="mesh", cores=1, **table)["fast"] == pytest.approx(still, rel=0.25)


@pytest.mark.parametrize("pipeline", SPLATS_AND_MESH)
def test_more_to_do_takes_longer_and_more_cores_less(pipeline):
    base = seconds(pipeline=pipeline)
    assert base["fast"] < base["medium"] < base["high"]
    for change in ({"masks": "none", "masked": 0}, {"sizes": ((1600, 1200, 125),)}, {"posed": False}):
        changed = seconds(pipeline=pipeline, **change)
        assert all(changed[p] > base[p] for p in base)
    faster = seconds(pipeline=pipeline, cores=8)
    assert all(faster[p] < base[p] for p in base)
    unposed = {"pipeline": pipeline, "posed": False}
    assert seconds(kind="video", **unposed)["fast"] <= seconds(**unposed)["fast"]


@pytest.mark.parametrize("pipeline", SPLATS_AND_MESH)
def test_larger_photos_than_the_preset_fits_cost_their_reading_alone(pipeline):
    small, large = (seconds(pipeline=pipeline, cores=1, sizes=((n, n, 125),))["high"] for n in (1200, 4000))
    assert 0 < large - small < 0.1 * 125 * 16 * 1.1


def test_every_pipeline_that_can_run_is_estimated():
    assert estimate_seconds(CHAIR).keys() == {"splats"}
    sensor = replace(CHAIR, kind="rgbd", points=2_000_000, pipelines=("splats", "mesh", "points"))
    assert list(estimate_seconds(sensor)) == ["splats", "mesh", "points"]
    nothing = {"photos": 0, "held_out": 0, "sizes": (), "posed": False, "masks": "none", "masked": 0}
    cloud = replace(CHAIR, kind="cloud", points=34_000, extent=(1.0, 1.0, 1.0), pipelines=("points",), **nothing)
    found = estimate_seconds(cloud, cores=2)
    assert found.keys() == {"points"}
    assert found["points"]["fast"] == pytest.approx(17, rel=0.6)  # the sample scan
    assert found["points"]["fast"] < found["points"]["medium"] < found["points"]["high"]


def test_a_surface_that_deforms_takes_longer_the_more_frames_it_has():
    def found(frames: int, **more: Any) -> dict[str, float]:
        tracked = Inspection("cloth", "deform", ("deform",), points=1500, faces=2000, frames=frames)
        return estimate_seconds(replace(tracked, **more), cores=2)["deform"]

    assert found(100)["fast"] > 4 * found(10)["fast"] > 0
    assert found(10, photos=10)["fast"] > found(10)["fast"]


def test_in_words():
    assert in_words({"fast": 20, "medium": 500, "high": 5400}) == "fast 1 min, medium 8 min, high 1.5 h"
