"""The page of a deforming surface: films that play, with and without photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from sheets import flat

from benchmarks.bent_sheets import K, cylinder, nodes
from recon.capture.capture import Camera, Photo, View
from recon.capture.tracks import Tracks
from recon.config import Config
from recon.deform.sheet import grid_faces
from recon.errors import Cancelled
from recon.evaluate.strain import strain_summary
from recon.events import Event, Events, Progress
from recon.job import Job
from recon.mesh import film
from recon.mesh.animation import Animation
from recon.mesh.mesh import Mesh
from recon.pipelines.context import Context
from recon.pipelines.deform_page import write_deform_page
from recon.pipelines.stages import Outcome, Pipeline, Stage, run_stages

CELLS = (4, 3)
REST = flat(nodes(CELLS)).astype(np.float32)
FACES = grid_faces(*CELLS).astype(np.int32)


@pytest.fixture(autouse=True)
def small_films(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "LONGEST_SIDE", 240)


def animation(count: int) -> Animation:
    ahead = np.array([0, 0, 400])
    bent = [cylinder(nodes(CELLS), 300 / (k + 1)) + ahead for k in range(count)]
    return Animation(Mesh(REST, FACES), np.array(bent, np.float32), 10.0)


def reported(folder: Path, count: int, events: Events, **more: Any) -> Outcome:
    moving = animation(count)
    figures = [strain_summary(frame, REST, FACES) for frame in moving.frames]

    def report(context: Context[Config]) -> None:
        write_deform_page(context, moving, REST, K, figures, **more)

    source = folder / "sheet.npz"
    source.write_bytes(b"")
    job = Job.create(folder / "job", Config(), source, pipeline="deform", preset="fast")
    try:
        pipeline = Pipeline("deform", "", Config, (Stage("report", report),))
        return run_stages(pipeline, job, Config(), source, "cpu", events)
    finally:
        job.close()


def sizes(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as file:
        return [(frame.width, frame.height) for frame in file.decode(video=0)]


@pytest.mark.parametrize("pictured", [True, False], ids=["photos", "tracks alone"])
def test_from_a_surface_to_its_page(pictured: bool, tmp_path: Path) -> None:
    small = Camera(np.eye(4), K, 640, 480).resized(96, 72)
    photo = Photo(np.zeros((72, 96, 3), np.float32))
    views = tuple(View(f"{i}.jpg", 96, 72, lambda: photo, small) for i in range(3)) if pictured else ()
    tracks = Tracks(np.full((3, 5, 2), 240.0), np.ones((3, 5), bool), K)
    heard: list[Event] = []
    events = Events()
    events.listen(heard.append)
    outcome = reported(tmp_path, 3, events, views=views, tracks=tracks)
    assert outcome.error is None
    job = tmp_path / "job"
    assert outcome.result["exports"] == {
        "overlay": "exports/overlay.mp4",
        "side": "exports/side.mp4",
        "report": "report.html",
    }
    films = [sizes(job / "exports" / name) for name in ("overlay.mp4", "side.mp4")]
    assert films[0] == films[1]
    assert len(films[0]) == 3
    assert max(films[0][0]) <= (192 if pictured else 240)
    page = (job / "report.html").read_text()
    assert page.count("<video ") == 2
    assert page.count("Frame 1, of median strain: 95%") == page.count("Frame 2, the most strained: 95%") == 2
    assert ("over what the camera saw; the dots" in page) == pictured
    assert Image.open(job / "previews" / "hero.jpg").size[0] > 50
    assert [(e.step, e.total) for e in heard if isinstance(e, Progress)] == [(k, 6) for k in range(1, 7)]


def test_one_frame_is_enough(tmp_path: Path) -> None:
    outcome = reported(tmp_path, 1, Events())
    assert outcome.error is None
    page = (tmp_path / "job" / "report.html").read_text()
    assert page.count("<video ") == 2
    assert page.count("Frame 0, the most strained") == 2


def test_it_stops_when_asked(tmp_path: Path) -> None:
    events = Events()
    events.listen(lambda event: events.cancel() if isinstance(event, Progress) else None)
    outcome = reported(tmp_path, 3, events)
    assert isinstance(outcome.error, Cancelled)
    assert not list((tmp_path / "job" / "exports").glob("*"))
