"""Make images/deform.jpg: a sheet that folds in a film, and what the ``deform`` pipeline makes of it, from the side.

    .venv/bin/python -m docs.make_deform_image

The film is drawn by :mod:`benchmarks.bent_sheets`; each column is a frame of it with the surface over it, as
``overlay.mp4`` shows it, above that of ``side.mp4``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.bent_sheets import write_video
from recon import pipelines

OUT = Path(__file__).with_name("images") / "deform.jpg"
FRAMES, SHOWN = 12, (0, 4, 8, 11)
WIDTH, GAP = 380, 6


def pictures(film: Path) -> list[Image.Image]:
    """Return the frames shown of a film, ``WIDTH`` wide."""
    with av.open(str(film)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    found = [frames[round(number * len(frames) / FRAMES)] for number in SHOWN]
    return [one.resize((WIDTH, round(one.height * WIDTH / one.width)), Image.Resampling.LANCZOS) for one in found]


def joined(rows: list[list[Image.Image]]) -> Image.Image:
    """Return pictures in rows."""
    heights = [row[0].height for row in rows]
    whole = Image.new("RGB", ((WIDTH + GAP) * len(rows[0]) - GAP, sum(heights) + GAP * (len(rows) - 1)), "white")
    for row, top in zip(rows, np.cumsum([0, *heights[:-1]]) + GAP * np.arange(len(rows)), strict=True):
        for column, picture in enumerate(row):
            whole.paste(picture, (column * (WIDTH + GAP), int(top)))
    return whole


def main() -> None:
    """Film, reconstruct, draw."""
    with tempfile.TemporaryDirectory() as folder:
        film, job = Path(folder) / "film", Path(folder) / "job"
        write_video(film, "folded", FRAMES)
        result = pipelines.run(film, job, "deform")
        if result["status"] != "done":
            raise SystemExit(result["error"]["message"])
        rows = [pictures(job / result["exports"][name]) for name in ("overlay", "side")]
    joined(rows).save(OUT, quality=85, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
