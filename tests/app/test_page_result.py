"""What the side *Result* says of figures and files."""

from __future__ import annotations

from pathlib import Path

from app.job_state import JobState
from app.page_result import downloads, video
from app.page_view import card


def state(folder: Path, *names: str) -> JobState:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1234")
    return JobState(
        "job", "Job", folder, "deform", "fast", "cpu", "done", exports={name: folder / name for name in names}
    )


def test_a_sequence_is_folded_away(tmp_path: Path) -> None:
    frames = [f"exports/splats/frame_{i:04d}.spz" for i in range(3)]
    html = downloads(state(tmp_path, "report.html", "exports/surface.glb", *frames, "exports/colmap/cameras.txt"))
    first, rest = html.split("<details>")
    assert "surface.glb" in first
    assert "frame_0000.spz" not in first
    assert "splats: 3 files" in rest
    assert all(name in rest for name in frames)
    assert "cameras.txt" not in html


def test_films_play(tmp_path: Path) -> None:
    html = video(state(tmp_path, "exports/overlay.mp4", "exports/splats.mp4"))
    assert html.count("<video") == 2


def test_strain_is_told_in_per_cent() -> None:
    assert "<dt>Strain, median</dt><dd>0.5000 %</dd>" in card("strain_median", 0.005)
