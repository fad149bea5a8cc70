"""A report on a surface that deforms: films, charts, maps and a table, and nothing of it in other reports."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from lxml import html

from recon.evaluate.deformation import FILM_BUDGET
from recon.evaluate.embedding import embed_film
from recon.evaluate.report import write_report
from recon.evaluate.report_data import Deformation, ReportData
from recon.evaluate.video import write_video


def film(path: Path, count: int = 3, side: int = 320) -> Path:
    """Write noise, which no encoder makes small."""
    generator = np.random.default_rng(0)
    write_video(path, (generator.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)), fps=12)
    return path


def frames(count: int = 30) -> list[dict[str, float]]:
    return [
        {
            "strain_median": 0.001 * i,
            "strain_p95": 0.002 * i,
            "strain_max": 0.004 * i,
            "folds": float(i == 7),
            "pixels": 0.5,
            "seconds": 2.0,
        }
        for i in range(count)
    ]


def written(path: Path, deformation: Deformation | None, result: dict[str, Any] | None = None) -> Any:
    write_report(path, ReportData("Cloth", result or {}, deformation=deformation))
    return html.parse(str(path)).getroot()


def words(element: Any) -> str:
    return " ".join(" ".join(element.itertext()).split())


def policy(page: Any) -> str:
    return str(page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")[0])


def test_everything_is_told(tmp_path: Path) -> None:
    picture = np.full((20, 30, 3), 0.5, np.float32)
    clip = film(tmp_path / "a.mp4", 2, 64)
    moving = Deformation(frames(), [("Over the photos.", clip), ("From the side.", clip)], [("Frame 29.", picture)])
    page = written(tmp_path / "report.html", moving)
    videos = page.xpath("//section[@id='films']//figure/video")
    assert [v.get("aria-label") for v in videos] == ["Over the photos.", "From the side."]
    assert all((v.get("width"), v.get("height"), "controls" in v.attrib) == ("64", "64", True) for v in videos)
    assert base64.b64decode(videos[0].get("src").removeprefix("data:video/mp4;base64,")) == clip.read_bytes()
    assert "media-src data:;" in policy(page)
    charts = page.xpath("//section[@id='strain']//*[local-name()='svg']/@aria-label")
    assert len(charts) == 2, "for a wide page and for a narrow one"
    assert "largest at most 11.6, 95% of the faces at most 5.8, median at most 2.9" in charts[0]
    assert page.xpath("//section[@id='strain']//img/@alt") == ["Frame 29."]
    assert "no strain ≥ 5%" in words(page.get_element_by_id("strain"))
    assert len(page.xpath("//section[@id='reprojection']//*[local-name()='svg']")) == 2
    rows = [words(row) for row in page.xpath("//section[@id='frames']//tbody/tr")]
    assert len(rows) == 30
    assert [cell.text for cell in page.xpath("//section[@id='frames']//tbody/tr")[7]] == [
        "7",
        "0.70",
        "1.40",
        "2.80",
        "1",
        "0.50",
        "2.0 s",
    ]
    tiles = words(page.xpath("//dl[@class='tiles']")[0])
    for told in (
        "Strain 1.4 %",
        "of the faces below 5.8% in the worst frame",
        "Reprojection 0.50 px",
        "Frames 30",
        "1 folded over",
    ):
        assert told in tiles, told


def test_other_reports_have_none_of_it(tmp_path: Path) -> None:
    page = written(tmp_path / "report.html", None, {"metrics": {"psnr": 30.0}})
    assert "media" not in policy(page)
    assert not {"films", "strain", "reprojection", "frames"} & set(page.xpath("//@id"))
    assert not page.xpath("//video")


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    few = [{"strain_median": 0.01, "pixels": float("nan")}, {"strain_median": float("inf")}, {}]
    page = written(tmp_path / "report.html", Deformation(few))
    assert set(page.xpath("//section/@id")) == {"strain", "frames"}
    assert [words(h) for h in page.xpath("//section[@id='frames']//thead//th")] == ["Frame", "Strain in %: median"]
    assert [cell.text for cell in page.xpath("//section[@id='frames']//td")] == ["1.00", "–", "–"]
    assert "nan" not in words(page)
    page = written(tmp_path / "report.html", Deformation(()))
    assert page.xpath("//section") == []


def test_captions_stay_text(tmp_path: Path) -> None:
    hostile = "\"'><script>alert(1)</script>"
    moving = Deformation((), [(hostile, film(tmp_path / "a.mp4", 1, 64))], [(hostile, np.zeros((4, 4, 3), np.float32))])
    page = written(tmp_path / "report.html", moving)
    assert len(page.xpath("//script")) == 1
    assert [words(c) for c in page.xpath("//figcaption")] == [hostile, hostile]
    assert page.xpath("//video/@aria-label") == page.xpath("//section//img/@alt") == [hostile]


def test_a_film_is_made_smaller_until_it_fits(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    whole = embed_film(path, 10**9)
    assert whole is not None
    assert (whole.width, whole.height) == (320, 320)
    budget = int(0.7 * len(whole.uri))
    smaller = embed_film(path, budget)
    assert smaller is not None
    assert len(smaller.uri) <= budget
    assert 240 <= smaller.width < 320
    with av.open(io.BytesIO(base64.b64decode(smaller.uri.split(",")[1]))) as file:
        assert float(file.streams.video[0].average_rate or 0) == 12
        sizes = [(frame.width, frame.height) for frame in file.decode(video=0)]
    assert sizes == [(smaller.width, smaller.height)] * 3
    assert embed_film(path, 5000) is None, "too small to show anything"


def test_a_film_too_long_for_the_page_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FILM_BUDGET < 6_000_000
    monkeypatch.setattr("recon.evaluate.deformation.FILM_BUDGET", 5000)
    page = written(tmp_path / "report.html", Deformation((), [("Over <b>.", film(tmp_path / "over.mp4"))]))
    assert not page.xpath("//video")
    assert "Over <b>. It is too long to be kept in this page, and lies beside it: over.mp4." in words(page)
