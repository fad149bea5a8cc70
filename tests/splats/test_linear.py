"""Photos linearised at a model, and the fits by Levenberg–Marquardt that rest on it."""

from __future__ import annotations

import numpy as np
import torch
from splat_worlds import blobs, photos_of, ring

from recon.capture.capture import Points
from recon.solve.lm import LM, LMRule
from recon.splats import linear
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit
from recon.splats.initial import splats_at
from recon.splats.linear import NormalEquations, bounded, unpacked
from recon.splats.lm_fit import AllPhotos, LMFit
from recon.splats.model import Splats
from recon.splats.sampled_fit import DAMPING, SampledFit, clusters
from recon.splats.tiles import sampled_tiles


def start(kind: type[Fit] = LMFit, steps: int = 100) -> Fit:
    points = Points(np.random.default_rng(0).uniform(-0.3, 0.3, (60, 3)), np.full((60, 3), 0.5, np.float32))
    config = SplatsConfig(steps=steps, splats=100, sh_degree=1)
    return kind(splats_at(points, 1), photos_of(blobs(40), ring(6)), torch.zeros(3), config)


def problem() -> AllPhotos:
    fit = start()
    fit.step = 90  # full size, full degree
    return AllPhotos(fit)


def directions(count: int, splats: Splats) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = len(splats) * 10 + splats.sh.numel()
    return [torch.randn(size, generator=generator) for _ in range(count)]


def test_gradient_is_that_of_the_cost() -> None:
    """Along a direction, against the cost's own differences."""
    at = problem()
    splats = at.fit.splats
    near = at.linearise(splats)
    for direction in directions(3, splats):
        step = 1e-3 * near.gradient / near.gradient.norm() + 1e-4 * direction / direction.norm()
        change = (at.cost(at.moved(splats, step)) - at.cost(at.moved(splats, -step))) / 2
        assert abs(change - float(near.gradient @ step)) < 0.06 * abs(
            change
        )  # what crosses the cut at 1/255 has no gradient


def test_products_are_symmetric_and_the_preconditioner_fits() -> None:
    at = problem()
    near = at.linearise(at.fit.splats)
    a, b = (d / near.diagonal.clamp(min=1e-12).sqrt() * (near.diagonal > 1e-9) for d in directions(2, at.fit.splats))
    left, right = (float(x.double() @ near.product(y).double()) for x, y in ((a, b), (b, a)))
    assert abs(left - right) < 1e-3 * abs(float(a @ near.product(a)))
    assert float(a @ near.product(a)) > 0
    one = torch.zeros_like(a)
    index = int(near.diagonal[: len(at.fit.splats) * 10].argmax())
    one[index] = 1
    torch.testing.assert_close(near.product(one)[index], near.diagonal[index], rtol=1e-3, atol=0)


def test_views_beyond_the_memory_are_rasterized_again(monkeypatch) -> None:
    at = problem()
    direction = directions(1, at.fit.splats)[0]
    held = at.linearise(at.fit.splats).product(direction)
    monkeypatch.setattr(linear, "HELD_BYTES", 0)
    torch.testing.assert_close(at.linearise(at.fit.splats).product(direction), held)


def test_costs_fall_and_what_does_not_lessen_them_is_left() -> None:
    at = problem()
    before = {name: t.clone() for name, t in at.fit.splats.tensors().items()}
    solver, splats, costs = LM(LMRule(damping=0.1, iterations=8)), at.fit.splats, []
    for _ in range(6):
        splats, report = solver.step(at, splats)
        costs.append(report.after)
        assert report.after <= report.before
    assert costs[-1] < 0.6 * at.cost(at.fit.splats)
    assert all(torch.equal(before[name], t) for name, t in at.fit.splats.tensors().items()), "states are not written to"


def test_a_long_step_can_be_stopped() -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    fit = start()
    fit.step = 90
    fit.check = stop
    before = {name: t.clone() for name, t in fit.state().items()}
    try:
        next(fit.run())
    except Stopped:
        assert all(torch.equal(before[name], t) for name, t in fit.state().items())
        return
    raise AssertionError("was not stopped")


def test_steps_are_bounded() -> None:
    splats = blobs(5)
    far = bounded(splats, torch.full((5 * 10 + splats.sh.numel(),), 1e6))
    assert ((far.means - splats.means).abs() <= 1.001 * splats.log_scales.mean(1, keepdim=True).exp()).all()
    torch.testing.assert_close(far.log_scales - splats.log_scales, torch.ones(5, 3))
    torch.testing.assert_close(bounded(splats, torch.zeros(5 * 10 + splats.sh.numel())).means, splats.means)


def test_a_needle_is_not_turned_about_itself(monkeypatch) -> None:
    """The picture stays as it is, but for rounding; by its curvature the turn would be without bounds."""

    def turns() -> float:
        generator = torch.Generator().manual_seed(0)
        fit = start(SampledFit)
        fit.step = 90
        fit.splats.log_scales[:] = torch.tensor([-2.0, -9.0, -9.0001])
        fit.splats.quats[:] = torch.nn.functional.normalize(torch.randn(len(fit.splats), 4, generator=generator))
        near = NormalEquations(fit, fit.splats, [0, 3], lambda i: sampled_tiles(40, 48, generator))
        return float(unpacked(near.precondition(-near.gradient, DAMPING), fit.splats)[0][:, 6].abs().max())

    assert turns() < 1
    monkeypatch.setattr(linear, "LEAST", 0)
    assert turns() > 1e3


def test_a_sample_stands_for_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    total = sum(sampled_tiles(70, 45, generator) for _ in range(2000)) / 2000
    assert (total - 1).abs().max() < 0.2
    one = sampled_tiles(64, 64, generator)[::16, ::16, 0]
    assert (one.unfold(0, 2, 2).unfold(1, 2, 2).flatten(2).sum(2) == 4).all()
    fit = start()
    fit.step = 90
    views = range(len(fit.photos))
    whole = NormalEquations(fit, fit.splats, views)
    parts = [NormalEquations(fit, fit.splats, views, lambda i: sampled_tiles(40, 48, generator)) for _ in range(60)]
    mean = torch.stack([part.gradient for part in parts]).mean(0)
    assert (mean - whole.gradient).norm() < 0.3 * whole.gradient.norm()


def test_cameras_are_grouped_by_where_they_are() -> None:
    groups = clusters([photo.levels[0].pose.viewmat for photo in photos_of(blobs(3), ring(24))], 8, 0)
    assert sorted(i for group in groups for i in group) == list(range(24))
    assert 6 <= len(groups) <= 8
    for group in groups:
        gaps = np.diff(sorted(group))
        assert sorted(gaps)[: len(gaps) - 1] == [1] * (len(gaps) - 1) or len(group) < 2  # neighbours on the ring
    assert clusters([torch.eye(4)] * 3, 8, 0) == [[0], [1], [2]]
