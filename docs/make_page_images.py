"""Make images/page_desk.jpg and images/page_phone.jpg: the page's four sides, at both sizes, with the sample.

    python docs/make_page_images.py

Needs the ``dev`` extra and Debian's chromium; takes some minutes, as the sample is really reconstructed.
"""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gradio_client import Client
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
IMAGES = Path(__file__).with_name("images")
PORT = 7897
SIZES: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "is_mobile": True},
}
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking"]
GAP = 16


def opened(browser: Browser, size: str, job: str = "") -> Page:
    """Return the page in a window of its own."""
    page = browser.new_context(**SIZES[size]).new_page()
    page.goto(f"http://127.0.0.1:{PORT}/{f'?job={job}' if job else ''}")
    page.get_by_role("tab", name="New").wait_for()
    page.wait_for_timeout(3000)
    return page


def shot(page: Page) -> Image.Image:
    """Return what is seen of the page, and close its window."""
    picture = Image.open(io.BytesIO(page.screenshot(timeout=120_000)))
    page.context.close()
    return picture


def sides(browser: Browser, client: Client) -> dict[str, list[Image.Image]]:
    """Return the four sides at each size."""
    found: dict[str, dict[str, Image.Image]] = {size: {} for size in SIZES}
    scan = client.predict("sample:octopus", "points", "fast", {}, "octopus", api_name="/begin")
    for _ in client.submit(scan, api_name="/watch"):
        pass
    job = client.predict("sample:still_life", "splats", "fast", {}, "still life", api_name="/begin")
    for state in client.submit(job, api_name="/watch"):
        fit = next(stage for stage in state["stages"] if stage["name"] == "fit")
        if not found["phone"] and fit["total"] and fit["step"] > 0.6 * fit["total"]:
            for size in SIZES:
                found[size]["live"] = shot(opened(browser, size, job))
    for size in SIZES:
        page = opened(browser, size)
        page.get_by_text("Sample: still life").click()
        page.locator(".eg-found").wait_for()
        page.wait_for_timeout(2000)
        found[size]["new"] = shot(page)
        page = opened(browser, size, job)
        page.locator("canvas").first.wait_for(timeout=60_000)
        if size == "phone":
            page.locator("canvas").first.scroll_into_view_if_needed()
        page.wait_for_timeout(15_000)
        found[size]["result"] = shot(page)
        page = opened(browser, size, job)
        page.get_by_role("tab", name="Jobs").click()
        page.locator(".eg-item").first.wait_for()
        page.wait_for_timeout(2000)
        found[size]["jobs"] = shot(page)
    return {size: [found[size][side] for side in ("new", "live", "result", "jobs")] for size in SIZES}


def sheet(pictures: list[Image.Image], columns: int, scale: float) -> Image.Image:
    """Return pictures of one size beside and below each other."""
    width, height = (round(length * scale) for length in pictures[0].size)
    rows = -(-len(pictures) // columns)
    result = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP), (128, 134, 142))
    for i, picture in enumerate(pictures):
        place = (GAP + i % columns * (width + GAP), GAP + i // columns * (height + GAP))
        result.paste(picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), place)
    return result


def main() -> None:
    """Serve, reconstruct, look, write."""
    chrome = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as engine:
        arguments = ["-m", "app.cli", "serve", "--port", str(PORT), "--jobs", folder]
        server = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            while True:
                try:
                    client = Client(f"http://127.0.0.1:{PORT}/", verbose=False)
                    break
                except Exception:  # it is not there yet
                    time.sleep(1)
            browser = engine.chromium.launch(executable_path=chrome, args=FLAGS)
            found = sides(browser, client)
            browser.close()
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
    sheet(found["desk"], 2, 0.75).save(IMAGES / "page_desk.jpg", quality=85)
    sheet(found["phone"], 4, 0.8).save(IMAGES / "page_phone.jpg", quality=85)


if __name__ == "__main__":
    main()
