"""Surfaces from point tracks of one camera: how far from the truth, beside the published method and the still template.

    python -m benchmarks.deform_tracks [--write]

The two sequences of ``isometric_tracks``, ten frames each, far apart in time. The template is a sheet through the
points of the first frame; nothing else of the truth is seen. ``noise`` is added to the tracks. ``error`` is the mean
distance of points from the truth, over all frames; ``scaled`` the same after each frame was scaled about the camera to
fit best: how far away a surface is comes from the template's size alone. ``strain`` is the largest |λ − 1| of a
triangle between tracked points against the first frame, median and 95th percentile; in the rows ``truth`` it says how
far the truth itself is from keeping its metric.

``network`` is the method of Barbany et al. 2024 (:mod:`recon.deform.metric_field`): with the settings of its code, and
with others, which follow the tracks of kinectPaper better. Frames are cropped to their tracks, as that code does by
masks. ``seconds a frame`` leave out those of fitting it to the template, which are given apart. Seconds are of
processor time, on one thread.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from benchmarks.tables import machine, print_table, write_section
from recon.deform.metric_field import MetricField, MetricRule
from recon.deform.observations import SurfacePoints
from recon.deform.shape import Sheet
from recon.deform.sheet import sheet_through
from recon.deform.track_fit import TrackFit
from recon.evaluate.strain import face_strain, stretches

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "isometric_tracks"
SEQUENCES = ("kinectPaper", "hulk")
NOISES = (0.0, 1.0)
RULES = {
    "network, as published": MetricRule(),
    "network, other settings": MetricRule(time=0.0, metric=0.01, rate=1e-3, steps=1000),
}
COLUMNS = [
    "sequence",
    "noise px",
    "method",
    "error mm",
    "scaled mm",
    "reprojection px",
    "strain %",
    "seconds a frame",
    "seconds for the template",
]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sequence:
    """T frames of N points.

    Attributes:
        tracks: (T, N, 2) pixels.
        visible: (T, N) 0 or 1.
        truth: (T, N, 3).
        K: (3, 3).
    """

    tracks: Array
    visible: Array
    truth: Array
    K: Array


def read(name: str) -> Sequence:
    with np.load(DATA / f"{name}.npz") as file:
        return Sequence(*(file[key].astype(np.float64) for key in ("tracks", "visible", "points", "K")))


def noisy(tracks: Array, noise: float) -> Array:
    """Return tracks with normal ``noise``, in pixels."""
    return tracks + noise * np.random.default_rng(0).normal(size=tracks.shape)


def sheet_of(points: Array) -> tuple[Sheet, Array]:
    """Return the sheet through (N, 3) points, with them on it, and its (u, v)."""
    grid = sheet_through(points)
    on = SurfacePoints(torch.from_numpy(grid.corners), torch.from_numpy(grid.weights))
    return Sheet(torch.from_numpy(grid.vertices), torch.from_numpy(grid.faces), on), grid.uvs


def fitted(fit: TrackFit | MetricField, sheet: Sheet, tracks: Array, visible: Array) -> tuple[Array, float]:
    """Return (T, N, 3) points and the seconds a frame took."""
    before, found = sheet.template, []
    begun = time.process_time()
    for pixels, belief in zip(tracks, visible, strict=True):
        before = fit.frame(pixels, belief, before).vertices
        found.append(sheet.points.at(before).numpy())
    return np.stack(found), (time.process_time() - begun) / len(tracks)


def row(points: Array, sequence: Sequence, *seconds: float) -> list[Any]:
    """Return a method's figures."""
    truth = sequence.truth
    scales = (points * truth).sum((1, 2)) / np.square(points).sum((1, 2))
    errors = [np.linalg.norm(by * points - truth, axis=2).mean() for by in (1, scales[:, None, None])]
    image = points @ sequence.K.T
    off = np.linalg.norm(image[..., :2] / image[..., 2:] - sequence.tracks, axis=2)
    faces = Delaunay(sequence.tracks[0]).simplices
    strain = 100 * np.concatenate([face_strain(stretches(frame, truth[0], faces)) for frame in points[1:]])
    median, p95 = np.percentile(strain, (50, 95))
    times = [f"{took:.2f}" for took in seconds]
    return [
        *(f"{error:.2f}" for error in errors),
        f"{np.median(off):.2f}",
        f"{median:.1f}, {p95:.1f}",
        *times,
        *[""] * (2 - len(times)),
    ]


def rows_of(name: str) -> list[list[Any]]:
    """Return the rows of a sequence."""
    sequence = read(name)
    tracks, visible, truth, K = sequence.tracks, sequence.visible, sequence.truth, sequence.K
    rows = [
        [name, "", "truth", *row(truth, sequence)],
        [name, "", "template, still", *row(np.broadcast_to(truth[:1], truth.shape), sequence)],
    ]
    sheet, uvs = sheet_of(truth[0])
    width, height = np.ptp(tracks, axis=(0, 1)).tolist()
    template = MetricField(sheet, uvs, K, (width, height))
    begun = time.process_time()
    template.fit_template()
    of_template = time.process_time() - begun
    for noise in NOISES:
        seen = noisy(tracks, noise)
        points, seconds = fitted(TrackFit(sheet, K), sheet, seen, visible)
        rows.append([name, noise, "metric and bending, by LM", *row(points, sequence, seconds)])
        for method, rule in RULES.items():
            network = MetricField(sheet, uvs, K, (width, height), rule)
            network.load_state(template.state())
            points, seconds = fitted(network, sheet, seen, visible)
            rows.append([name, noise, method, *row(points, sequence, seconds, of_template)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [line for name in SEQUENCES for line in rows_of(name)]
    print_table(COLUMNS, rows)
    if arguments.write:
        write_section("deform_tracks", machine(), COLUMNS, rows)


if __name__ == "__main__":
    main()
