from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from splat_capture import SIZE, write_capture

from app.compare import pairs
from recon import pipelines

QUICK = {"steps": 30, "splats": 200, "sh_degree": 0, "max_side": 64, "mesh": False, "turntable": 0}


def test_held_out_photos_stand_beside_their_renders(tmp_path: Path) -> None:
    result = pipelines.run(write_capture(tmp_path / "in"), tmp_path / "job", **QUICK)
    assert result["status"] == "done"
    found = pairs(tmp_path / "job")
    assert [pair.name for pair in found] == ["images/00.png", "images/08.png"]
    assert np.mean([pair.psnr for pair in found]) == pytest.approx(result["metrics"]["psnr"], abs=1e-3)
    for pair in found:
        photo, render = (np.asarray(Image.open(path).convert("RGB"), float) for path in (pair.photo, pair.render))
        assert photo.shape == render.shape == (SIZE[1], SIZE[0], 3)
        own = np.asarray(Image.open(tmp_path / "in" / pair.name).convert("RGB"), float)
        assert np.abs(photo - own).mean() < 6, "the photo, but for JPEG's losses"
        measured = 10 * np.log10(255**2 / np.square(render - photo).mean())
        assert measured == pytest.approx(pair.psnr, abs=1)
    assert pipelines.run(tmp_path / "in", tmp_path / "job", resume=True, **QUICK)["status"] == "done"
    assert pairs(tmp_path / "job") == found


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"name": "a"}]'])
def test_nothing_to_compare(tmp_path: Path, text: str) -> None:
    assert pairs(tmp_path) == []
    folder = tmp_path / "stages" / "evaluate"
    folder.mkdir(parents=True)
    (folder / "views.json").write_text(text)
    assert pairs(tmp_path) == []


def test_nothing_outside_the_stage_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "stages" / "evaluate"
    folder.mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"")
    (folder / "linked.png").symlink_to(tmp_path / "secret.png")
    (folder / "own.png").write_bytes(b"")
    rows = [{"name": "a", "psnr": None, "photo": "../../secret.png", "render": "own.png"}]
    rows += [{"name": "b", "psnr": None, "photo": "linked.png", "render": "own.png"}]
    rows += [{"name": "c", "psnr": None, "photo": "own.png", "render": "own.png"}]
    (folder / "views.json").write_text(json.dumps(rows))
    assert [(pair.name, pair.psnr) for pair in pairs(tmp_path)] == [("c", None)]
