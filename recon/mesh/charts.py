"""The charts of an atlas, made by xatlas in a process of its own.

xatlas holds the interpreter for as long as it takes, and some meshes crash it: a process can be stopped, and only
itself be lost. Its time grows with the square of the triangles, 4 s for 20,000 and minutes for 100,000, so the surface
is cut into pieces first, which it packs together; a crash is tried again with smaller ones.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.errors import ReconstructionError
from recon.events import Events

PIECES = (5000, 1000)
"""Triangles of a piece, at most."""
_PAUSE = 0.1  # seconds between looks at the process


def charts(
    vertices: NDArray[np.float32], faces: NDArray[np.int32], size: int, padding: int, events: Events
) -> NDArray[np.float32]:
    """Return (F, 3, 2) texture coordinates in [0, 1] of each face's corners.

    Args:
        vertices: (V, 3), ``faces``: (F, 3).
        size: of the texture, texels along a side.
        padding: texels between charts.
        events: asked ten times a second whether to stop.

    Raises:
        ReconstructionError: xatlas failed (code ``"no-atlas"``).
        Cancelled: somebody asked to stop.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "mesh.npz", Path(folder) / "uvs.npy"
        np.savez(given, vertices=vertices, faces=faces, size=size, padding=padding)
        why = ""
        for piece in PIECES:
            why = _watched([sys.executable, "-m", __name__, str(given), str(made), str(piece)], events)
            if made.exists():
                uvs: NDArray[np.float32] = np.load(made)
                return uvs
    raise ReconstructionError(
        f"The surface could not be cut into charts: {why}.",
        "Ask for fewer --faces, or for colours at the vertices by --texture 0.",
        "no-atlas",
    )


def _watched(command: list[str], events: Events) -> str:
    """Run a command, and kill it when somebody asks to stop; return its last words."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            while True:
                events.check()
                try:
                    said = process.communicate(timeout=_PAUSE)[1].strip()
                    return said.splitlines()[-1] if said else f"exit code {process.returncode}"
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            process.kill()
            raise


def pieces(places: NDArray[np.float32], most: int) -> list[NDArray[np.int64]]:
    """Return (P, 3) places in parts of at most so many, halved again and again across their longest side."""
    parts, found = [np.arange(len(places))], []
    while parts:
        part = parts.pop()
        if len(part) <= most:
            found.append(part)
            continue
        along = places[part, np.ptp(places[part], axis=0).argmax()]
        order = part[np.argsort(along, kind="stable")]
        parts += [order[: len(order) // 2], order[len(order) // 2 :]]
    return found


def main(given: str, made: str, piece: str) -> None:
    """Make the charts of a file's mesh."""
    import xatlas

    with np.load(given) as arrays:
        vertices, faces, size, padding = (arrays[name] for name in ("vertices", "faces", "size", "padding"))
    packing = xatlas.PackOptions()
    packing.padding, packing.resolution, packing.bilinear = int(padding), int(size), True
    atlas = xatlas.Atlas()
    # Distances below a fixed epsilon count as none in there: a thing of a millimetre must look like one of a metre.
    low, extent = vertices.min(axis=0), max(float(np.ptp(vertices, axis=0).max()), 1e-30)
    vertices = (vertices - low) / extent
    parts = pieces(vertices[faces].mean(axis=1), int(piece))
    for part in parts:
        used, corners = np.unique(faces[part], return_inverse=True)
        atlas.add_mesh(vertices[used], corners.reshape(-1, 3).astype(np.uint32))
    atlas.generate(pack_options=packing)
    result = np.empty((len(faces), 3, 2), np.float32)
    for i, part in enumerate(parts):
        _, indices, uvs = atlas[i]
        result[part] = uvs[indices]
    # In texels of a grid that comes out a little larger or smaller than asked for, and not always square.
    np.save(made, result * np.array([atlas.width, atlas.height], np.float32) / max(atlas.width, atlas.height))


if __name__ == "__main__":
    main(*sys.argv[1:])
