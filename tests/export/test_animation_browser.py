"""An animated GLB in a real browser: the Babylon.js viewer that Gradio's 3D view is made of plays it.

Needs Debian's chromium (or Chrome) beside the ``dev`` extra; skipped where neither is installed.
"""

from __future__ import annotations

import importlib.util
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from animation_scenes import rolling
from PIL import Image

from recon.export.animation import write_animation

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking")
ASSETS = Path(importlib.util.find_spec("gradio").origin).parent / "templates" / "frontend" / "assets"
PAGE = """<body style="margin: 0"><canvas style="width: 320px; height: 240px"></canvas><script type="module">
import {{ CreateViewerForCanvas }} from "/{library}";
const viewer = await CreateViewerForCanvas(document.querySelector("canvas"), {{
  engine: "WebGL", clearColor: [1, 1, 1, 1], useRightHandedSystem: true, animationAutoPlay: false,
  onInitialized: (details) => {{ window.scene = details.scene; }},
}});
await viewer.loadModel("/a.glb");
viewer.playAnimation();
await viewer.pauseAnimation();
window.viewer = viewer;
</script>"""
GO_TO = """(share) => {
  const mesh = scene.meshes.find((mesh) => mesh.morphTargetManager);
  viewer.animationProgress = share;
  return [Array.from(mesh.getPositionData(false, true)), Array.from(mesh.getIndices())];
}"""


@pytest.mark.skipif(CHROME is None, reason="no chromium here")
def test_a_viewer_plays_it(tmp_path):
    animation = rolling(count=11)
    write_animation(animation, tmp_path / "a.glb")
    library = next(file for file in ASSETS.glob("lib-*.js") if "as CreateViewerForCanvas" in file.read_text("utf-8"))
    pages = {"": PAGE.format(library=library.name).encode(), "a.glb": (tmp_path / "a.glb").read_bytes()}
    types = {".js": "text/javascript", ".css": "text/css", "": "text/html"}
    errors = []

    def answer(route):
        name = route.request.url.rsplit("/", 1)[-1]
        if name not in pages and not (ASSETS / name).is_file():
            return route.fulfill(status=404)
        body = pages[name] if name in pages else (ASSETS / name).read_bytes()
        return route.fulfill(body=body, content_type=types.get(Path(name).suffix, "application/octet-stream"))

    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROME, args=FLAGS)
        page = browser.new_page(viewport={"width": 320, "height": 240})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.route("**/*", answer)
        page.goto("http://viewer.test/")
        page.wait_for_function("window.viewer", timeout=60_000)
        before = seen(page)
        for share, expected in (
            (0.65, (animation.frames[6] + animation.frames[7]) / 2),
            (1.0, animation.frames[10]),
            (0.0, animation.frames[0]),
        ):
            places, indices = page.evaluate(GO_TO, share)
            corners = np.array(places).reshape(-1, 3)[np.array(indices).reshape(-1, 3)]
            # The viewer's frames are single precision, 60 a second.
            np.testing.assert_allclose(corners, expected[animation.mesh.faces], rtol=0, atol=1e-5)
            for _ in range(300):  # until it is drawn
                page.wait_for_timeout(100)
                now = seen(page)
                changed = (np.abs(now - before).max(axis=2) > 20).mean()
                if changed > 0.05:
                    break
            assert changed > 0.05, share
            assert (now.min(axis=2) < 200).mean() > 0.05, "nothing to be seen"
            before = now
        browser.close()
    assert errors == []


def seen(page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), int)
