"""The charts of an atlas, made by xatlas in a process of its own.

xatlas holds the interpreter for as long as it takes, minutes for 100,000 triangles; a process can be stopped.
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
        command = [sys.executable, "-m", __name__, str(given), str(made)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            try:
                while True:
                    events.check()
                    try:
                        said = process.communicate(timeout=_PAUSE)[1]
                        break
                    except subprocess.TimeoutExpired:
                        continue
            except BaseException:
                process.kill()
                raise
        if not made.exists():
            why = said.strip().splitlines()[-1] if said.strip() else f"exit code {process.returncode}"
            raise ReconstructionError(
                f"The surface could not be cut into charts: {why}.",
                "Ask for fewer --faces, or for colours at the vertices by --texture 0.",
                "no-atlas",
            )
        uvs: NDArray[np.float32] = np.load(made, allow_pickle=False)
    return uvs


def main(given: str, made: str) -> None:
    """Make the charts of a file's mesh."""
    import xatlas

    with np.load(given, allow_pickle=False) as arrays:
        vertices, faces, size, padding = (arrays[name] for name in ("vertices", "faces", "size", "padding"))
    packing = xatlas.PackOptions()
    packing.padding, packing.resolution, packing.bilinear = int(padding), int(size), True
    atlas = xatlas.Atlas()
    # Distances below a fixed epsilon count as none in there: a thing of a millimetre must look like one of a metre.
    low, extent = vertices.min(axis=0), max(float(np.ptp(vertices, axis=0).max()), 1e-30)
    atlas.add_mesh((vertices - low) / extent, faces.astype(np.uint32))
    atlas.generate(pack_options=packing)
    _, indices, uvs = atlas[0]
    # In texels of a grid that comes out a little larger or smaller than asked for, and not always square.
    uvs = uvs * np.array([atlas.width, atlas.height], np.float32) / max(atlas.width, atlas.height)
    np.save(made, uvs[indices].astype(np.float32))


if __name__ == "__main__":
    main(*sys.argv[1:])
