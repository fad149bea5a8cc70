"""The documentation is true: its Python runs, its commands parse, its links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.cli import _parser
from app.drafts import Drafts
from app.inspector import Inspector
from app.jobs import Jobs
from app.page import Page
from app.serve import launched
from kernels.rasterize_splats import rasterize_splats
from recon import pipelines
from recon.export import read_mesh, read_splats
from recon.settings import load

ROOT = Path(__file__).parents[2]
PAGES = {page.relative_to(ROOT).as_posix(): page for page in (*ROOT.glob("*.md"), *ROOT.glob("*/*.md"))}
DOCS = {name: page for name, page in PAGES.items() if name == "README.md" or name.startswith("docs/")}
SIZE = 24
SERVED = "docs/web.md"
"""Its Python talks to the page."""


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of one language, as they stand."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine renders of a coloured ball, from cameras around it; the folder that pages call ``photos``."""
    folder = tmp_path_factory.mktemp("capture")
    generator = torch.Generator().manual_seed(0)
    means = torch.nn.functional.normalize(torch.randn(300, 3, generator=generator), dim=1) * 0.5
    colors = torch.rand(300, 3, generator=generator)
    frames = []
    for number, angle in enumerate(np.linspace(0, 2 * np.pi, 9, endpoint=False)):
        pose = np.eye(4)  # camera to world, OpenCV axes
        forward = np.array([np.cos(angle), np.sin(angle), 0.0])
        pose[:3, :3] = np.stack([np.cross([0, 0, -1.0], forward), [0, 0, -1.0], forward], axis=1)
        pose[:3, 3] = -2 * forward
        image = rasterize_splats(
            means,
            torch.tensor([[1.0, 0, 0, 0]]).repeat(300, 1),
            torch.full((300, 3), 0.08),
            torch.full((300,), 0.9),
            colors,
            torch.from_numpy(np.linalg.inv(pose)).float()[None],
            torch.tensor([[[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]]]),
            SIZE,
            SIZE,
        )[0][0]
        Image.fromarray((image.clamp(0, 1) * 255).byte().numpy()).save(folder / f"{number}.png")
        matrix = pose @ np.diag([1.0, -1, -1, 1])
        frames.append({"file_path": f"{number}.png", "transform_matrix": matrix.tolist()})
    content = {"fl_x": SIZE, "fl_y": SIZE, "w": SIZE, "h": SIZE, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def place(capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with ``photos``, where fits end soon and pipelines that a page adds are gone afterwards."""
    (tmp_path / "photos").symlink_to(capture)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("RECON_")]:
        monkeypatch.delenv(name)
    for name, value in {"STEPS": "20", "SPLATS": "2000", "TURNTABLE": "2", "MESH": "off"}.items():
        monkeypatch.setenv(f"RECON_{name}", value)
    monkeypatch.setattr(pipelines, "_PIPELINES", dict(pipelines._PIPELINES))


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", [name for name, page in DOCS.items() if blocks(page, "python") and name != SERVED])
def test_python(name: str) -> None:
    """The blocks of a page run one after the other, as a reader would try them."""
    names: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(DOCS[name], "python"), start=1):
        exec(compile(block, f"{name}, block {number}", "exec", dont_inherit=True), names)


@pytest.mark.usefixtures("place")
def test_python_for_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECON_MESH")
    shutil.make_archive("photos", "zip", "photos")
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    jobs, inspector = Jobs(tmp_path / "jobs", load({"min_free_gb": 0})), Inspector()
    page = Page(jobs, Drafts(jobs.own / "drafts", jobs.uploads, inspector), {})
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(jobs.uploads))
    try:
        with launched(page, load({"port": port})) as address:
            for block in blocks(DOCS[SERVED], "python"):
                code = block.replace("http://127.0.0.1:7860/", address)
                assert code != block
                exec(compile(code, SERVED, "exec", dont_inherit=True), {"__name__": "__main__"})
    finally:
        inspector.close()
        jobs.close()
    assert len(read_splats(Path("chair.ply"))) > 100
    assert 0 < len(read_mesh(Path("chair.glb")).faces) <= 2000


@pytest.mark.parametrize("name", [name for name, page in DOCS.items() if blocks(page, "sh")])
def test_commands(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in "".join(blocks(DOCS[name], "sh")).splitlines():
        words = shlex.split(line, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):
            del words[0]
        end = next((i for i, word in enumerate(words) if word in ("||", "&&", "|", ">")), len(words))
        if words[:1] == ["recon"]:
            arguments = words[1:end]
            _parser(arguments).parse_args(arguments)  # raises on what the command line does not know
        elif words[:1] == ["make"]:
            assert set(words[1:end]) <= targets


@pytest.mark.parametrize("name", PAGES)
def test_links(name: str) -> None:
    text = re.sub(r"^```.*?^```$", "", PAGES[name].read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    gone = [link for link in links if "://" not in link and not (PAGES[name].parent / link).exists()]
    assert not gone
