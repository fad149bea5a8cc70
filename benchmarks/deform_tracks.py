"""Surfaces from point tracks of one camera: how far from the truth, beside the template as it was in the first frame.

    python -m benchmarks.deform_tracks [--write]

The two sequences of ``isometric_tracks``, ten frames each, far apart in time. The template is a sheet through the
points of the first frame; nothing else of the truth is seen. ``noise`` is added to the tracks. ``error`` is the mean
distance of points from the truth, over all frames; ``scaled`` the same after each frame was scaled about the camera to
fit best: how far away a surface is comes from the template's size alone. ``strain`` is the largest |λ − 1| of a
triangle between tracked points against the first frame, median and 95th percentile; in the rows ``truth`` it says how
far the truth itself is from keeping its metric.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from benchmarks.tables import machine, print_table, write_section
from recon.deform.observations import SurfacePoints
from recon.deform.shape import Sheet
from recon.deform.sheet import sheet_through
from recon.deform.track_fit import TrackFit
from recon.evaluate.strain import face_strain, stretches

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "isometric_tracks"
SEQUENCES = ("kinectPaper", "hulk")
NOISES = (0.0, 1.0)
COLUMNS = ["sequence", "noise px", "method", "error mm", "scaled mm", "reprojection px", "strain %", "seconds a frame"]
Array = NDArray[np.float64]


def fitted(template: Array, tracks: Array, visible: Array, K: Array) -> tuple[Array, float]:
    """Return (T, N, 3) points and the seconds a frame took."""
    grid = sheet_through(template)
    points = SurfacePoints(torch.from_numpy(grid.corners), torch.from_numpy(grid.weights))
    sheet = Sheet(torch.from_numpy(grid.vertices), torch.from_numpy(grid.faces), points)
    fit, before, found = TrackFit(sheet, K), sheet.template, []
    begun = time.perf_counter()
    for pixels, belief in zip(tracks, visible, strict=True):
        before = fit.frame(pixels, belief, before).vertices
        found.append(points.at(before).numpy())
    return np.stack(found), (time.perf_counter() - begun) / len(tracks)


def row(points: Array, truth: Array, tracks: Array, K: Array, seconds: float | None) -> list[Any]:
    """Return a method's figures."""
    scales = (points * truth).sum((1, 2)) / np.square(points).sum((1, 2))
    errors = [np.linalg.norm(by * points - truth, axis=2).mean() for by in (1, scales[:, None, None])]
    image = points @ K.T
    off = np.linalg.norm(image[..., :2] / image[..., 2:] - tracks, axis=2)
    faces = Delaunay(tracks[0]).simplices
    strain = 100 * np.concatenate([face_strain(stretches(frame, truth[0], faces)) for frame in points[1:]])
    median, p95 = np.percentile(strain, (50, 95))
    return [
        *(f"{error:.2f}" for error in errors),
        f"{np.median(off):.2f}",
        f"{median:.1f}, {p95:.1f}",
        "" if seconds is None else f"{seconds:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rows: list[list[Any]] = []
    for name in SEQUENCES:
        with np.load(DATA / f"{name}.npz") as file:
            tracks, truth, K, visible = (file[key].astype(np.float64) for key in ("tracks", "points", "K", "visible"))
        still = np.broadcast_to(truth[:1], truth.shape)
        rows.append([name, "", "truth", *row(truth, truth, tracks, K, None)])
        rows.append([name, "", "template, still", *row(still, truth, tracks, K, None)])
        for noise in NOISES:
            noisy = tracks + noise * np.random.default_rng(0).normal(size=tracks.shape)
            points, seconds = fitted(truth[0], noisy, visible, K)
            rows.append([name, noise, "metric and bending, by LM", *row(points, truth, tracks, K, seconds)])
    print_table(COLUMNS, rows)
    if arguments.write:
        write_section("deform_tracks", machine(), COLUMNS, rows)


if __name__ == "__main__":
    main()
