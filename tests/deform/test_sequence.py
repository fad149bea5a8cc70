"""Sheets that bend in a film, followed through it without tracks, with tracks, and with both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sheets import Array, project

from benchmarks.bent_sheets import SIZE, K, write_video
from recon.capture.capture import Photo
from recon.capture.deform_folder import DeformCapture, load_deform
from recon.capture.tracks import Tracks
from recon.deform import metric_field
from recon.deform.config import DeformConfig
from recon.deform.metric_field import MetricRule
from recon.deform.sequence import Sequence
from recon.errors import InputError
from recon.events import Events

CELLS, FRAMES = (16, 12), 5
LENGTH = float(np.linalg.norm(SIZE))


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> tuple[DeformCapture, Array]:
    folder = tmp_path_factory.mktemp("film")
    truth = write_video(folder / "film", "cylinder", FRAMES, CELLS)
    return load_deform(folder / "film", Events(), folder / "work"), truth


def followed(capture: DeformCapture, config: DeformConfig) -> tuple[Array, list[dict[str, float]]]:
    assert capture.template is not None
    vertices = capture.template.vertices.astype(np.float64)
    sequence = Sequence(capture, vertices, capture.template.faces.astype(np.int64), config, pytest.fail)
    found, figures, before = [], [], None
    for number in range(len(sequence)):
        result = sequence.frame(number, before)
        before = result.vertices
        found.append(before.numpy())
        figures.append(result.figures)
    return np.stack(found), figures


def errors(found: Array, truth: Array) -> Array:
    """Return (T,) mean distances as shares of the sheet's size."""
    return np.asarray(np.linalg.norm(found - truth, axis=2).mean(1) / LENGTH)


def tracked(capture: DeformCapture, truth: Array) -> DeformCapture:
    xy = np.stack([project(frame[::3]) for frame in truth])
    return replace(capture, K=K, tracks=Tracks(xy, np.ones(xy.shape[:2], bool)))


def test_a_film_is_followed(film: tuple[DeformCapture, Array]) -> None:
    """The light changes as the sheet bends, and nothing but the film is known."""
    capture, truth = film
    found, figures = followed(capture, DeformConfig())
    assert errors(found, truth).max() < 0.002
    assert errors(np.broadcast_to(truth[:1], truth.shape), truth)[-1] > 0.05, "it moves by much more"
    assert all(0 < one["look"] < 1 and one["seen"] > 0.95 for one in figures[1:])


def test_tracks_are_followed_and_the_film_makes_them_better(film: tuple[DeformCapture, Array]) -> None:
    capture, truth = replace(film[0], views=film[0].views[::2]), film[1][::2]
    noisy = tracked(capture, truth)
    assert noisy.tracks is not None
    noise = np.random.default_rng(0).normal(0, 1.0, noisy.tracks.xy.shape)
    noisy = replace(noisy, tracks=replace(noisy.tracks, xy=noisy.tracks.xy + noise))
    alone, figures = followed(replace(noisy, views=()), DeformConfig())
    assert errors(alone, truth)[1:].max() < 0.03
    assert all(0.1 < one["pixels"] < 2 for one in figures[1:])
    both, _ = followed(noisy, DeformConfig())
    assert errors(both, truth)[1:].max() < 0.5 * errors(alone, truth)[1:].max()
    unrefined, _ = followed(noisy, DeformConfig(refine=False))
    np.testing.assert_array_equal(unrefined, alone)


def test_a_track_that_begins_beside_the_template_is_not_used(film: tuple[DeformCapture, Array]) -> None:
    capture = tracked(*film)
    assert capture.tracks is not None
    assert capture.template is not None
    template = capture.template.vertices.astype(np.float64), capture.template.faces.astype(np.int64)
    said: list[str] = []
    xy = capture.tracks.xy.copy()
    xy[:, : xy.shape[1] * 2 // 3] = 3.0
    some = replace(capture, views=(), tracks=replace(capture.tracks, xy=xy))
    Sequence(some, *template, DeformConfig(), said.append)
    assert "tracks begin on the template" in said[0]
    none = replace(some, tracks=replace(capture.tracks, xy=np.full_like(xy, 3.0)))
    with pytest.raises(InputError, match="0 of") as caught:
        Sequence(none, *template, DeformConfig(), said.append)
    assert caught.value.code == "tracks-elsewhere"


def test_a_film_without_masks_is_followed_too(film: tuple[DeformCapture, Array]) -> None:
    capture, truth = film

    def bare(load: Callable[[], Photo]) -> Callable[[], Photo]:
        return lambda: replace(load(), mask=None)

    views = tuple(replace(view, load=bare(view.load)) for view in capture.views)
    found, _ = followed(replace(capture, views=views), DeformConfig())
    assert errors(found, truth).max() < 0.003


def test_a_network_follows_the_film_by_tracks_of_its_own(
    film: tuple[DeformCapture, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = MetricRule(rate=1e-3, steps=60, patience=60, template_patience=40, time=0.0, metric=0.01)
    monkeypatch.setattr(metric_field, "MetricRule", lambda: quick)
    capture, _ = film
    short = replace(capture, views=capture.views[::2])
    _, figures = followed(short, DeformConfig(method="metric_field", side=320))
    assert figures[-1]["pixels"] < 8, "it has moved by 16"


def test_the_same_twice(film: tuple[DeformCapture, Array]) -> None:
    capture, _ = film
    short = replace(capture, views=capture.views[:2])
    one, other = (followed(short, DeformConfig())[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)
