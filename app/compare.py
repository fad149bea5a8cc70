"""Photos that judge a model beside what was rendered from their cameras, for the page's compare slider."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recon.job_files import read_json


@dataclass(frozen=True)
class Pair:
    """A photo and its render, of the same size.

    Attributes:
        name: of the photo, as the capture has it.
        photo, render: pictures in the job directory.
        psnr: in dB; None where the two are equal.
    """

    name: str
    photo: Path
    render: Path
    psnr: float | None


def pairs(job_folder: Path) -> list[Pair]:
    """Return up to six pairs of a job, in the order of its photos; none before its ``evaluate`` stage is done.

    Args:
        job_folder: the job directory, of any pipeline and in any state.
    """
    folder = job_folder / "stages" / "evaluate"
    rows = read_json(folder / "views.json")
    found = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict) or not {"name", "photo", "render"} <= row.keys():
            continue
        # By their names alone: a views.json that somebody wrote must not lead out of the job.
        photo, render = (folder / Path(str(row[key])).name for key in ("photo", "render"))
        if photo.is_file() and render.is_file() and not photo.is_symlink() and not render.is_symlink():
            psnr = row.get("psnr")
            found.append(Pair(str(row["name"]), photo, render, psnr if isinstance(psnr, float) else None))
    return found
