"""The report parses, is complete in itself, keeps to its size, and takes nothing from a capture for markup."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recon.errors import InputError
from recon.evaluate import report
from recon.evaluate.embedding import embed, shrink
from recon.evaluate.report import HeldOutView, ReportData, write_report

VOID = {"meta", "img", "input", "br", "link"}
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;\u202e\x00\udcff.jpg"


class Page(HTMLParser):
    """Tags with their attributes and all text, checking that what opens is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of <{tag}> twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def picture(seed: int, height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def some_views(n: int = 3) -> list[HeldOutView]:
    photos = [picture(i) for i in range(n)]
    return [HeldOutView(f"images/{i}.jpg", p, np.clip(p + 0.1 / (i + 1), 0, 1)) for i, p in enumerate(photos)]


def full(name: str = "images/0.jpg") -> ReportData:
    history: list[dict[str, Any]] = [
        {"seconds": 10 * i, "psnr": 20 + i, "splats": 100 * i, "stage": "coarse" if i < 5 else "fine"}
        for i in range(10)
    ]
    history[9]["validation_psnr"] = 27.5
    result = {
        "version": 1,
        "status": "done",
        "pipeline": "splats",
        "device": "cpu",
        "seconds": {"total": 125.0, "poses": 25.0, "fit": 100.0},
        "peak_memory_mb": 1536,
        "counts": {"views": 12, "registered": 11, "splats": 4321, "vertices": 0, "faces": 0},
        "metrics": {"psnr": 31.234, "ssim": 0.9456},
        "history": history,
        "exports": {"splats": "exports/splats.ply"},
        "warnings": [f"{name} is blurry."],
        "error": None,
    }
    rng = np.random.default_rng(0)
    return ReportData(
        title="Still life",
        result=result,
        source=f"photos/{name}",
        views=[*some_views(), HeldOutView(name, picture(9), picture(8))],
        hero=picture(7),
        opacities=rng.random(1000),
        scales=rng.random((1000, 3)),
        splat_bytes=4321 * 236,
        poses={
            "total": 12,
            "registered": 11,
            "rejected": {name: "too few matches"},
            "reprojection_error": 0.62,
            "points": 8376,
            "track_length": 4.21,
            "components": [11, 1],
            "cameras": [{}],
        },
        settings={"preset": "fast", "fit": {"seed": 0, "refine": True, "crop": None, "size": [4, 3]}},
        versions={"torch": "2.11"},
    )


def written(path: Path, data: ReportData) -> tuple[str, Page]:
    write_report(path, data)
    html = path.read_text(encoding="utf-8")
    return html, Page(html)


def test_report_tells_everything(tmp_path: Path) -> None:
    _, page = written(tmp_path / "new" / "report.html", full())
    for words in (
        "Still life",
        "31.23 dB",
        "0.946",
        "2 min 05 s",
        "4,321",
        "1.5 GB",
        "11 of 12",
        "One warning",
        "images/0.jpg is blurry.",
        "Quality over time",
        "validation 27.50",
        "training 29.00",
        "held out 31.23",
        "coarse",
        "fine",
        "Photos registered 11 of 12",
        "Mean reprojection error in pixels 0.62",
        "The photos fell into 2 parts (11, 1); the largest is used.",
        "Points 8,376",
        "too few matches",
        "1 min 40 s",
        "80%",
        "exports/splats.ply",
        "fit.seed 0",
        "fit.refine yes",
        "fit.crop –",
        "fit.size 4, 3",
        "torch 2.11",
    ):
        assert words in page.text, words
    assert len(page.all("img")) == 3 * 4 + 1
    assert len(page.all("svg")) == 5  # PSNR for wide pages and phones; opacity, size, count


def test_report_asks_nothing_of_the_network(tmp_path: Path) -> None:
    html, page = written(tmp_path / "report.html", full())
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "video", "audio", "source")
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href", "srcset", "poster", "action", "data", "background", "xlink:href"):
                assert value is not None
                assert value.startswith(("data:image/", "#", "./")), value
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert not re.search(r"""(https?:)?//""", re.sub(r"data:image/webp;base64,[\w+/=]+", "", html))


def test_policy_allows_the_pages_own_script_and_no_other(tmp_path: Path) -> None:
    html, page = written(tmp_path / "report.html", full())
    script = re.search(r"<script>(.*?)</script>", html, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    calm = written(tmp_path / "calm.html", full())[1]
    data = full(HOSTILE)
    data.result["exports"][HOSTILE] = HOSTILE
    data.result["exports"]["escape"] = "../../etc/passwd"
    data.result["exports"]["script"] = "javascript:alert(1)"
    data.result["history"][0]["stage"] = HOSTILE
    data.result["seconds"][HOSTILE] = 1.0
    data.result["device"] = data.result["pipeline"] = HOSTILE
    data = ReportData(**{**data.__dict__, "title": HOSTILE, "settings": {HOSTILE: HOSTILE}, "versions": {HOSTILE: 1}})
    html, page = written(tmp_path / "report.html", data)
    assert len(page.all("script")) == 1
    assert len(page.all("img")) == len(calm.all("img"))
    assert all(not key.startswith("on") for _, attributes in page.tags for key in attributes)
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\udcff", "\ufffd")
    assert shown in page.text
    assert f"Photo {shown}" in [i.get("alt") for i in page.all("img")]
    assert shown in [r.get("data-name") for r in page.all("tr")]
    links = [a["href"] for a in page.all("a")]
    assert "./javascript%3Aalert%281%29" in links
    assert "passwd" not in html
    assert "<title>" + "&quot;&#x27;&gt;&lt;script&gt;" in html


def test_views_come_worst_first_with_their_figures(tmp_path: Path) -> None:
    photo = np.full((8, 8, 3), 0.5, np.float32)
    views = [HeldOutView(f"{d}", photo, photo + np.float32(d)) for d in (0.01, 0.1, 0.0)]
    views.append(HeldOutView("given", photo, photo, psnr=30.0, ssim=0.5))
    _, page = written(tmp_path / "report.html", ReportData("t", {}, views=iter(views)))
    rows = [r for r in page.all("tr") if "data-name" in r]
    assert [r["data-name"] for r in rows] == ["0.1", "given", "0.01", "0.0"]
    assert [r["data-index"] for r in rows] == ["1", "3", "0", "2"]
    assert str(rows[0]["data-numbers"]).startswith("PSNR 20.00 dB, SSIM 0.9")
    assert rows[1]["data-numbers"] == "PSNR 30.00 dB, SSIM 0.500"
    assert rows[3]["data-numbers"] == "PSNR ∞ dB, SSIM 1.000"


@pytest.mark.parametrize("kind", ["held-out", "validation", "training"])
def test_what_the_photos_are_is_said_without_contradiction(kind: str, tmp_path: Path) -> None:
    history = [{"seconds": 1.0, "psnr": 20.0}, {"seconds": 2.0, "psnr": 25.0}]
    result = {"metrics": {"psnr": 24.0, "ssim": 0.9}, "history": history}
    _, page = written(tmp_path / "report.html", ReportData("t", result, views=some_views(), measured_on=kind))
    words = page.text.lower()
    assert f"3 {kind} views" in words
    assert ("has not seen" in words) == (kind == "held-out")
    assert ("held out" in words.replace("too few to hold any out", "")) == (kind == "held-out")
    assert ("held-out" in words) == (kind == "held-out")


def test_masked_views_are_measured_inside_the_mask(tmp_path: Path) -> None:
    photo = np.full((16, 16, 3), 0.5, np.float32)
    render, mask = photo.copy(), np.zeros((16, 16), np.float32)
    render[:8] += 0.1
    render[8:] += 0.5
    mask[:8] = 1
    _, page = written(tmp_path / "report.html", ReportData("t", {}, views=[HeldOutView("a", photo, render, mask)]))
    row = next(r for r in page.all("tr") if "data-name" in r)
    assert str(row["data-numbers"]).startswith("PSNR 20.00")


def test_pictures_come_back_as_they_were(tmp_path: Path) -> None:
    photo = np.zeros((60, 80, 3), np.float32)
    photo[:, 40:] = (0.8, 0.4, 0.2)
    _, page = written(tmp_path / "report.html", ReportData("t", {}, views=[HeldOutView("a", photo, photo)]))
    image = next(i for i in page.all("img") if i["class"] == "photo")
    pixels = Image.open(io.BytesIO(base64.b64decode(str(image["src"]).split(",")[1])))
    assert pixels.size == (80, 60) == (int(str(image["width"])), int(str(image["height"])))
    assert pixels.getpixel((60, 30)) == pytest.approx((204, 102, 51), abs=6)


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"status": "failed", "error": {"code": "no-photos", "message": "No <b>photos</b>.", "hint": "Add some."}},
        {"status": "cancelled", "error": None},
        {"history": "?", "seconds": [], "metrics": None, "counts": {"views": "x"}, "exports": 3, "warnings": {}},
        {"history": [None, 3, {"seconds": None}, {"seconds": 1, "psnr": float("nan")}], "peak_memory_mb": True},
        {"metrics": {"psnr": float("inf"), "ssim": None}, "history": [{"seconds": 2, "psnr": 20, "stage": None}]},
    ],
    ids=["empty", "failed", "cancelled", "wrong types", "nothing finite", "infinite"],
)
def test_missing_parts_are_left_out(result: dict[str, Any], tmp_path: Path) -> None:
    data = ReportData("Only this", result, opacities=np.zeros(0), scales=np.zeros((2, 3)))
    html, page = written(tmp_path / "report.html", data)
    assert "Only this" in page.text
    assert "nan" not in re.sub(r"<(script|style)>.*?</\1>", "", html, flags=re.S)
    if result.get("status") == "failed":
        assert "No <b>photos</b>. Add some." in page.text


def test_page_is_accessible(tmp_path: Path) -> None:
    _, page = written(tmp_path / "report.html", full())
    assert page.all("html")[0]["lang"] == "en"
    assert min(len(page.all(tag)) for tag in ("img", "svg", "button")) > 0
    assert all(i.get("alt") for i in page.all("img"))
    assert all(s.get("role") == "img" and s.get("aria-label") for s in page.all("svg"))
    assert all(b.get("type") == "button" for b in page.all("button"))
    ids = [str(a["id"]) for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    references = [str(a["href"])[1:] for a in page.all("a") if str(a["href"]).startswith("#")]
    references += [str(a["aria-labelledby"]) for _, a in page.tags if "aria-labelledby" in a]
    assert references
    assert set(references) <= set(ids)
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert np.diff(headings).max() <= 1


def test_pictures_keep_to_their_budget() -> None:
    pictures = [shrink(picture(i, 120, 160)) for i in range(12)]  # noise: as large as pictures get
    assert sum(len(e.uri) for e in embed(pictures, 10**9)) > 120_000
    embedded = embed(pictures, 60_000)
    assert 30_000 < sum(len(e.uri) for e in embedded) <= 60_000
    assert len({(e.width, e.height) for e in embedded}) == 1
    assert shrink(picture(0, 10, 2000)).size == (960, 5)
    assert embed([], 10) == []


def test_too_many_views_keep_the_pictures_of_the_worst_and_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MOST_PICTURED", 3)
    _, page = written(tmp_path / "report.html", ReportData("t", {}, views=some_views(9)))
    assert len([r for r in page.all("tr") if "data-name" in r]) == 9
    shown = [i["alt"] for i in page.all("img") if i["class"] == "photo"]
    assert shown == ["Photo images/0.jpg", "Photo images/4.jpg", "Photo images/8.jpg"]
    assert "The pictures of 3 of the 9 views" in page.text


def test_pictures_of_two_sizes_are_told_and_no_report_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shapes"):
        write_report(tmp_path / "report.html", ReportData("t", {}, views=[HeldOutView("a", picture(0), picture(1, 9))]))
    assert list(tmp_path.iterdir()) == []
