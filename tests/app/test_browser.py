"""The page in a real browser: the whole way from photos to a file, and what people do meanwhile.

Needs Debian's chromium (or Chrome) beside the ``dev`` extra; skipped where neither is installed.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "assets" / "still_life"
CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SMALL = {"RECON_STEPS": "700", "RECON_MAX_SIDE": "160", "RECON_SPLATS": "6000", "RECON_TURNTABLE": "8"}
"""Settings that make a reconstruction of the sample a matter of half a minute; the form shows them."""

SERVER = """
import socket, sys
connect = socket.socket.connect
def watched(self, address):
    if self.family != socket.AF_UNIX and str(address[0]) not in ("127.0.0.1", "::1", "localhost"):
        print("OUTSIDE", address, file=sys.stderr, flush=True)
    return connect(self, address)
socket.socket.connect = watched
from app.cli import main
sys.exit(main())
"""
"""The command, telling of every connection that leaves this machine."""

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROME is None, reason="no chromium here")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Address and jobs folder of a page that is served by a process of its own."""
    folder = tmp_path_factory.mktemp("served")
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECON_")}
    environment |= {**SMALL, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    arguments = ["serve", "--port", str(port), "--jobs", str(folder / "jobs"), "--min-free-gb", "0"]
    with (folder / "err").open("w+") as err:
        process = subprocess.Popen([sys.executable, "-c", SERVER, *arguments], stderr=err, env=environment, cwd=folder)
        try:
            end = time.monotonic() + 120
            while "Egregium is at" not in (folder / "err").read_text():
                assert process.poll() is None, (folder / "err").read_text()
                assert time.monotonic() < end
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/", folder / "jobs"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
        told = (folder / "err").read_text()
        assert "OUTSIDE" not in told
        assert "Traceback" not in told


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as engine:
        made = engine.chromium.launch(executable_path=CHROME, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def visit(browser, served):
    """A function that opens the page in a window of its own; no window may ask outside or meet an error."""
    address, _ = served
    windows, asked, errors = [], [], []

    def visit(query: str = "", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        windows.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address + query)
        page.get_by_role("tab", name="New").wait_for()
        return page

    yield visit
    for context in windows:
        context.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert errors == []


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """The sample as a zip, as somebody would send it: named as a phone names things."""
    path = tmp_path_factory.mktemp("capture") / "My still life (2).zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(SAMPLE.rglob("*")):
            if file.suffix in (".jpg", ".json"):
                archive.write(file, f"still/{file.relative_to(SAMPLE)}")
    return path


def side(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def drop(page, *files):
    page.locator("input[type=file]").first.set_input_files([str(file) for file in files])


def wait_until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def picture(page):
    shown = page.locator(".eg-figure img.eg-preview")
    return shown.get_attribute("src") if shown.count() else None


def test_from_photos_to_a_file(visit, capture, tmp_path):
    page = visit()
    drop(page, capture)
    page.locator(".eg-found").wait_for()
    assert "48 photos with camera poses" in page.locator(".eg-found").inner_text()
    assert page.locator(".eg-thumb img").count() == 48
    page.get_by_label("fast").check()
    page.get_by_label("Name").fill("Fruit & glass")
    page.get_by_text("Advanced: settings of splats").click()
    page.get_by_label("Steps", exact=True).fill("1000")
    page.get_by_role("button", name="Reconstruct").click()

    page.get_by_text("Running", exact=True).wait_for()
    assert "?job=" in page.url
    page.locator(".eg-bar[aria-valuenow]").wait_for()
    page.locator(".eg-curve polyline").first.wait_for()
    wait_until(lambda: picture(page))
    first = picture(page)

    page.reload()  # mid-job
    page.get_by_text("Running", exact=True).wait_for()
    other = visit("?job=" + page.url.partition("?job=")[2])  # a second tab
    wait_until(lambda: picture(page) not in (None, first))
    wait_until(lambda: picture(other) not in (None, first))
    wait_until(lambda: page.evaluate("document.querySelector('.eg-figure img').naturalWidth") > 100)

    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled", exact=True).wait_for()
    other.get_by_text("Cancelled", exact=True).wait_for()
    other.get_by_role("button", name="Resume").click()
    page.get_by_text("done before").first.wait_for()

    page.get_by_role("heading", name="Take away").wait_for(timeout=180_000)  # the page goes to the result by itself
    assert page.get_by_role("tab", name="Result").get_attribute("aria-selected") == "true"
    assert page.locator(".eg-cards").get_by_text("PSNR", exact=True).is_visible()
    slider = page.locator(".eg-compare input").first
    slider.evaluate("e => { e.value = 10; e.dispatchEvent(new Event('input')); }")
    assert "10%" in page.locator(".eg-compare").first.get_attribute("style")
    loaded = "[...document.querySelectorAll('.eg-pair[open] img')].every(e => e.naturalWidth > 100)"
    wait_until(lambda: page.evaluate(loaded))

    link = page.locator("a.eg-file", has_text="mesh.glb")
    with page.expect_download() as download:
        link.click()
    download.value.save_as(tmp_path / "mesh.glb")
    mesh = trimesh.load(tmp_path / "mesh.glb", force="mesh")
    assert len(mesh.faces) > 1000
    assert download.value.suggested_filename == "Fruit_glass-mesh.glb"

    page.get_by_label("Faces at most").fill("500")
    page.get_by_role("button", name="Write it").click()
    link = page.locator("a.eg-file", has_text="mesh-500-faces.glb")
    with page.expect_download() as download:
        link.click()
    download.value.save_as(tmp_path / "small.glb")
    assert 100 < len(trimesh.load(tmp_path / "small.glb", force="mesh").faces) <= 500

    with page.context.expect_page() as opened:
        page.locator("a.eg-report").click()
    assert "Fruit" in opened.value.locator("h1").inner_text()
    opened.value.close()  # a page behind another one does not draw
    for name in ("Mesh", "Splats"):
        page.get_by_label(name, exact=True).check()
        wait_until(lambda: _painted(page), 90)


def _painted(page) -> bool:
    """Whether the 3D view shows more than its background."""
    try:
        page.locator("canvas").first.scroll_into_view_if_needed(timeout=1_000)
        box = page.locator("canvas").first.bounding_box(timeout=1_000)
        shot = page.screenshot(clip=box)
    except playwright.Error:  # it is not there yet, or another one takes its place
        return False
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("L"), np.float32)
    inner = pixels[pixels.shape[0] // 4 : -pixels.shape[0] // 4, pixels.shape[1] // 4 : -pixels.shape[1] // 4]
    return float(inner.std()) > 3


def test_jobs_are_cloned_and_deleted(visit, served):
    page = visit()
    side(page, "Jobs")
    page.locator(".eg-item").first.wait_for()
    page.get_by_role("button", name=re.compile("^Clone Fruit")).first.click()
    page.get_by_text("with its settings").wait_for()
    assert page.get_by_label("fast").is_checked()
    page.get_by_label("Name").fill("Twin")
    page.get_by_role("button", name="Reconstruct").click()
    page.get_by_role("heading", name="Take away").wait_for()  # soon: nothing was changed, and nothing is done again
    wait_until(lambda: _painted(page))  # Gradio's 3D view, left while its library loads, asks a canvas that is gone
    side(page, "Jobs")
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
    page.get_by_role("button", name="Delete Twin").click()
    wait_until(lambda: page.get_by_role("button", name="Delete Twin").count() == 0)
    assert asked == ["Delete Twin with all its files?"]
    assert not any("Twin" in path.name for path in served[1].iterdir())
    page.get_by_label("Find").fill("nothing of that name")
    page.get_by_text("No job has these words").wait_for()


def test_bad_files_are_told_and_the_page_goes_on(visit, tmp_path):
    page = visit()
    (tmp_path / "holiday.jpg").write_text("<script>alert(1)</script> no photo")
    drop(page, tmp_path / "holiday.jpg")
    box = page.locator(".eg-error")
    box.wait_for()
    assert "holiday.jpg" in box.inner_text()
    assert "Traceback" not in page.content()
    assert page.get_by_role("button", name="Reconstruct").is_disabled()
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04 torn")
    page.reload()
    page.get_by_role("tab", name="New").wait_for()
    drop(page, tmp_path / "torn.zip")
    page.locator(".eg-error").wait_for()
    assert "torn.zip" in page.locator(".eg-error").inner_text()
    page.get_by_text("Sample: octopus").click()
    page.locator(".eg-found").wait_for()
    assert "points" in page.locator(".eg-found").inner_text()
    assert page.locator(".eg-error").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(visit, scheme):
    page = visit(viewport={"width": 390, "height": 844}, color_scheme=scheme, is_mobile=True, has_touch=True)
    for name in ("New", "Live", "Result", "Jobs"):
        side(page, name)
        page.wait_for_timeout(1500)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{name} has to be scrolled sideways"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background)[:3]))
    assert (brightness > 600) == (scheme == "light")


def test_everything_is_reached_by_keyboard(visit):
    page = visit()

    def tab_to(script, presses=80):
        for _ in range(presses):
            page.keyboard.press("Tab")
            if page.evaluate(f"(e => {script})(document.activeElement)"):
                return
        raise AssertionError(f"not reached: {script}")

    page.get_by_text("Sample: still life").wait_for()
    tab_to("e.value === 'sample:still_life'")
    page.keyboard.press("Space")
    page.locator(".eg-found").wait_for()
    tab_to("e.innerText === 'Reconstruct'")
    page.keyboard.press("Enter")
    page.get_by_text("Running", exact=True).wait_for()
    tab_to("e.innerText === 'Cancel'")
    page.keyboard.press("Enter")
    page.get_by_text("Cancelled", exact=True).wait_for()
