"""Surfaces from a video and a template, without tracks, by the command people use: how far they are from the truth.

    python -m benchmarks.deform_video [--write]

cloth_r1 is real, 50 frames; ``Chamfer`` is the sum of the two mean squared distances from the vertices to the nearest
points that a depth camera saw and back, in units of 10⁻⁴ m², mean and worst of the frames. The films of sheets are
drawn by :mod:`benchmarks.bent_sheets`; ``error`` is the mean distance of the vertices from where they are, in percent
of the sheet's diagonal, mean and worst of the frames. Nothing of the truth is seen by the command, and nothing is
aligned to it. The rows ``template, still`` are of the first frame's surface, left as it is; ``network`` is the method
of Barbany et al. 2024 (``--method metric_field``), which follows tracks of its own and masks.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from benchmarks.bent_sheets import BENDING, SIZE, write_video
from benchmarks.command import reconstruct
from benchmarks.tables import machine, print_table, write_section

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "cloth_r1"
NETWORK = ("--method", "metric_field")
METHODS: dict[str, tuple[str, ...]] = {
    **{preset: ("--preset", preset) for preset in ("fast", "medium", "high")},
    "network": NETWORK,
}
FILM = 12
COLUMNS = ["capture", "method", "Chamfer", "error %", "strain % median, p95", "folds", "seconds", "a frame"]
Array = NDArray[np.float64]


def chamfer(one: Array, other: Array) -> float:
    """Return the sum of the mean squared distances from (N, 3) to (M, 3) and back."""
    return sum(float(np.square(cKDTree(a).query(b)[0]).mean()) for a, b in ((one, other), (other, one)))


def both(values: list[float], digits: int) -> str:
    """Return the mean and the greatest."""
    return f"{np.mean(values):.{digits}f}, {max(values):.{digits}f}"


def figures(result: dict[str, Any], frames: int) -> list[Any]:
    """Return what the command says of its result."""
    metrics, seconds = result["metrics"], result["seconds"]
    strain = f"{100 * metrics['strain_median']:.2f}, {100 * metrics['strain_p95']:.2f}"
    return [strain, round(metrics["folds"]), round(seconds["total"]), f"{seconds['fit'] / frames:.2f}"]


def cloth(folder: Path) -> list[list[Any]]:
    """Return the rows of the real cloth."""
    truth = [np.load(file).astype(np.float64) for file in sorted((DATA / "ground_truth").glob("*.npy"))]
    rows: list[list[Any]] = []
    for method, flags in METHODS.items():
        job = folder / method
        result = reconstruct(DATA, job, "--pipeline", "deform", *flags)
        found = np.load(job / result["exports"]["surface_npz"])["vertices"].astype(np.float64)
        if not rows:
            still = [1e4 * chamfer(found[0], cloud) for cloud in truth]
            rows.append(["cloth_r1", "template, still", both(still, 2), "", "0.00, 0.00", 0, "", ""])
        off = [1e4 * chamfer(one, cloud) for one, cloud in zip(found, truth, strict=True)]
        rows.append(["cloth_r1", method, both(off, 2), "", *figures(result, len(truth))])
    return rows


def film(folder: Path, name: str) -> list[list[Any]]:
    """Return the rows of a sheet."""
    truth = write_video(folder / name, name, FILM)
    shapes: dict[str, tuple[Array, list[Any]]] = {"template, still": (truth[:1], ["0.00, 0.00", 0, "", ""])}
    for method, flags in {"medium": (), "network": NETWORK}.items():
        job = folder / f"{name}_{method}"
        result = reconstruct(folder / name, job, "--pipeline", "deform", *flags)
        found = np.load(job / result["exports"]["surface_npz"])["vertices"].astype(np.float64)
        shapes[method] = found, figures(result, FILM)
    rows = []
    for method, (vertices, told) in shapes.items():
        off = 100 * np.linalg.norm(vertices - truth, axis=2).mean(1) / np.linalg.norm(SIZE)
        rows.append([name, method, "", both(off.tolist(), 3), *told])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = cloth(Path(folder))
        for name in BENDING:
            rows += film(Path(folder), name)
    print_table(COLUMNS, rows)
    if arguments.write:
        write_section("deform_video", machine(), COLUMNS, rows)


if __name__ == "__main__":
    main()
