"""A network that becomes the template, and then follows tracks of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from sheets import Array, posed, project, tracked_sheet
from torch import Tensor

from benchmarks.bent_sheets import SIZE, K, cylinder, nodes, pattern, picture
from recon.deform.metric_field import MetricField, MetricRule
from recon.deform.neural_surface import NeuralSurface
from recon.errors import Cancelled, InputError

CELLS = (6, 4)
SHEET = tracked_sheet(40, 0, CELLS)
UVS = nodes(CELLS) / SIZE + 0.5
FRAME = (640.0, 480.0)
RULE = MetricRule(time=0.0, metric=0.01, rate=1e-3, template_patience=20)
HASTY = replace(RULE, steps=20, template_patience=4)
ALL = np.ones(40)
LENGTH = float(np.linalg.norm(SIZE))


def bent(frame: int) -> Array:
    """Return the sheet's vertices in a frame: more and more bent, and moving away."""
    return posed(cylinder(nodes(CELLS), 400 / (frame + 1), 0.3), 0) + np.array([8.0, 0, -8]) * frame


def seen(truth: Array) -> Array:
    return project(SHEET.points.at(torch.from_numpy(truth)).numpy())


def error(vertices: Tensor, truth: Array) -> float:
    return float(np.linalg.norm(vertices.numpy() - truth, axis=1).mean())


def another(field: MetricField, rule: MetricRule = RULE) -> MetricField:
    """Return one that holds the same, and can be fitted without changing that."""
    new = MetricField(SHEET, UVS, K, FRAME, rule)
    new.load_state(field.state())
    return new


@pytest.fixture(scope="module")
def fitted() -> MetricField:
    field = MetricField(SHEET, UVS, K, FRAME, RULE)
    field.fit_template()
    return field


def test_jacobian_is_that_of_autograd() -> None:
    net = NeuralSurface(1).double()
    assert sum(parameter.numel() for parameter in net.parameters()) == 17_289
    uv = torch.rand(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points, jacobian = net.with_jacobian(uv)
    torch.testing.assert_close(points, net(uv))
    of_sums: Tensor = torch.autograd.functional.jacobian(lambda at: net(at).sum(0), uv)  # one point's is its alone
    torch.testing.assert_close(jacobian, of_sums.permute(1, 0, 2))


def test_the_template_is_learnt(fitted: MetricField) -> None:
    """To less than a hundredth of its size; where no track is seen it stays, whatever the tracks are."""
    found = another(fitted).frame(np.full((40, 2), np.nan), 0 * ALL, None)
    assert error(found.vertices, SHEET.template.numpy()) < 0.01 * LENGTH
    assert found.cost == 0


def test_metric_is_the_template_s(fitted: MetricField) -> None:
    """A flat sheet's: the squares of its sides, in units of half its diagonal."""
    expected = torch.diag(torch.from_numpy(SIZE / (LENGTH / 2)).float().square())
    torch.testing.assert_close(fitted.fit_template().mean(0), expected, rtol=0.1, atol=0.1)


def test_follows_a_sheet_that_bends(fitted: MetricField) -> None:
    field, before = another(fitted), SHEET.template
    for frame in range(2):
        found = field.frame(seen(bent(frame)), ALL, before)
        before = found.vertices
        assert error(before, bent(frame)) < 0.6 * error(SHEET.template, bent(frame))
        assert found.pixels.median() < 3


def test_tracks_that_are_not_seen_count_nothing(fitted: MetricField) -> None:
    belief = np.where(np.arange(40) < 5, 0.0, 1.0)
    pixels = seen(bent(0))
    wrong = pixels.copy()
    wrong[:5] = np.nan
    frames = (pixels, belief), (wrong, belief), (pixels, ALL)
    shapes = [another(fitted, HASTY).frame(*frame, None) for frame in frames]
    assert torch.equal(shapes[0].vertices, shapes[1].vertices)
    assert not torch.equal(shapes[0].vertices, shapes[2].vertices)


def test_a_mask_says_where_it_is(fitted: MetricField) -> None:
    """Without any track it moves along with its outline; an empty mask says nothing."""
    rule = replace(RULE, metric=1.0)
    truth = SHEET.template.numpy() + np.array([30.0, -15, 0])
    mask = picture(truth, CELLS, pattern())[1].astype(np.float32)
    start, drawn = (another(fitted, rule).frame(seen(truth), 0 * ALL, None, one).vertices for one in (0 * mask, mask))
    assert error(start, truth) > 30
    assert error(drawn, truth) < 0.2 * error(start, truth)


def test_the_frame_before_is_kept_near(fitted: MetricField) -> None:
    """The weight of time draws to ``before``; without one to what the network holds."""
    slow, pixels = MetricRule(rate=1e-3, time=1e3, steps=60), seen(bent(0))
    start = another(fitted).frame(pixels, 0 * ALL, None).vertices
    for before, expected in ((None, start), (start + 10, start + 10)):
        found = another(fitted, slow).frame(pixels, ALL, before)
        assert error(found.vertices, expected.numpy()) < 3


def test_same_seed_same_shape() -> None:
    runs = [MetricField(SHEET, UVS, K, FRAME, HASTY, seed).frame(seen(bent(0)), ALL, None) for seed in (0, 0, 1)]
    assert torch.equal(runs[0].vertices, runs[1].vertices)
    assert runs[0].cost == runs[1].cost
    assert not torch.equal(runs[0].vertices, runs[2].vertices)
    assert runs[0].steps == 20


def test_goes_on_from_a_checkpoint() -> None:
    """From whole steps of the template's fit, and from whole frames, as if nothing had been."""
    countdown: Iterator[int] = iter(range(3))

    def check() -> None:
        if next(countdown, None) is None:
            raise Cancelled

    whole = MetricField(SHEET, UVS, K, FRAME, HASTY)
    stopped = MetricField(SHEET, UVS, K, FRAME, HASTY, check=check)
    with pytest.raises(Cancelled):
        stopped.fit_template()
    assert "metric" not in stopped.state()
    resumed = MetricField(SHEET, UVS, K, FRAME, HASTY, seed=0)
    resumed.load_state(stopped.state())
    assert torch.equal(resumed.fit_template(), whole.fit_template())
    first = whole.frame(seen(bent(0)), ALL, None)
    stopped.load_state(whole.state())
    countdown = iter(range(3))
    with pytest.raises(Cancelled):
        stopped.frame(seen(bent(1)), ALL, first.vertices)
    resumed.load_state(stopped.state())
    shapes = [field.frame(seen(bent(1)), ALL, first.vertices) for field in (whole, resumed)]
    assert torch.equal(shapes[0].vertices, shapes[1].vertices)
    assert not torch.equal(shapes[0].vertices, first.vertices)


@pytest.mark.parametrize("uvs", [UVS[1:], UVS[:, :1], np.where(UVS > 0.9, np.nan, UVS)], ids=["few", "flat", "nan"])
def test_wrong_uvs_are_refused(uvs: Array) -> None:
    with pytest.raises(InputError, match="35 vertices"):
        MetricField(SHEET, uvs, K, FRAME)
