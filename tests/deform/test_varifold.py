"""Transport draws the whole of a surface to the whole of another."""

from __future__ import annotations

import numpy as np
import pytest
from test_register import error, sheets, tube

from recon.deform import register as registration
from recon.deform.pairs import Quadric
from recon.deform.register import register
from recon.deform.surface import surface_of
from recon.deform.varifold import transport


def value(data: Quadric, v: np.ndarray) -> float:
    """The sum at (V, 3) v̂."""
    return float(np.einsum("vi,vij,vj->", v, data.H, v) - 2 * (data.g * v).sum() + data.rest)


def test_what_was_shifted_is_drawn_to_its_place() -> None:
    ours = surface_of(tube(0.0), "source")
    shift = np.array([0.3, -0.2, 0.1])
    theirs = ours.moved(1, -shift)
    same = np.broadcast_to(np.eye(3), (len(ours.points), 3, 3))
    data = transport(ours, theirs, ours.points, same, np.random.default_rng(0))
    assert value(data, ours.points) > 1
    assert value(data, ours.points + shift) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(np.linalg.solve(data.H, data.g[:, :, None])[:, :, 0], theirs.points, atol=1e-9)


def test_masses_are_areas() -> None:
    """Those of a finer mesh lie as those of a coarser one."""
    coarse, fine, _ = sheets(1e-6)
    even, other = surface_of(coarse, "source"), surface_of(fine, "target")
    assert even.masses.sum() == pytest.approx(1)
    assert even.masses @ even.points == pytest.approx(other.masses @ other.points, abs=1e-3)
    corner = np.argmin(even.points.sum(axis=1))
    assert even.masses[corner] < 0.4 * even.masses.max()


def test_begun_again_from_transport_it_ends_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "APART", 0.0)
    source, target = tube(0.0), tube(1.2)
    told: list[tuple[int, int]] = []
    found = register(source, target, rigid=False, progress=lambda done, most: told.append((done, most)))
    assert error(found.vertices, target) < 1.5
    assert told == sorted(told)
    assert {most for _, most in told} == {2 * registration.ITERATIONS, 4 * registration.ITERATIONS}
    assert all(done < most for done, most in told)
