"""Splats beside a template are carried by the surface: where its points go, in files and in a film."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from app.page_new import found_text
from benchmarks.bent_sheets import FINE, SIZE, K, moving, nodes, pattern, write_video
from recon import pipelines
from recon.capture.deform_folder import load_deform
from recon.capture.inspect import inspect
from recon.errors import InputError
from recon.events import Events
from recon.export import read_splats, write_splats
from recon.mesh.mesh import Mesh
from recon.pipelines.deform_splats import CarriedSplats, swinging
from recon.splats.model import SH_C0, Splats

FRAMES = 3
OPENGL = np.array([1, -1, -1], np.float32)


def splats_on_sheet() -> Splats:
    """Return round splats on the first frame's sheet, in its pattern's colours, and some far behind it."""
    means = moving("folded", FINE, FRAMES)[0].astype(np.float32)
    behind = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32) * 20 + [0, 0, 900]
    uv, image = nodes(FINE) / SIZE + 0.5, pattern()
    x, y = (np.minimum(uv * image.shape[0], image.shape[0] - 1).astype(int)).T
    colours = np.concatenate([image[y, x], np.zeros((50, 3), np.float32)])
    places = torch.from_numpy(np.concatenate([means, behind]).astype(np.float32))
    count = len(places)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1)
    sh = torch.from_numpy((colours - 0.5) / SH_C0).float()[:, None]
    return Splats(places, torch.full((count, 3), 1.2).log(), quats, torch.full((count,), 3.0), sh)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film whose template and splats are in another program's axes."""
    folder = tmp_path_factory.mktemp("film") / "folded"
    write_video(folder, "folded", FRAMES, (12, 9))
    lines = (folder / "template.obj").read_text().splitlines()
    turned = [OPENGL * np.array(line.split()[1:], float) for line in lines if line.startswith("v ")]
    faces = [line for line in lines if line.startswith("f ")]
    (folder / "template.obj").write_text("\n".join(["v {} {} {}".format(*v) for v in turned] + faces) + "\n")
    splats = splats_on_sheet()
    splats.means *= torch.from_numpy(OPENGL)
    write_splats(splats, folder / "splats.ply")
    return folder


def test_splats_move_with_the_surface(folder: Path, tmp_path: Path) -> None:
    found = inspect(folder, Events(), tmp_path / "looked")
    assert "splats.ply, for the surface to carry" in found.text()
    assert "splats for it to carry" in found_text({**found.to_json(), "title": "folded"})
    result = pipelines.run(folder, tmp_path / "job", "deform", "fast")
    assert result["status"] == "done", result["error"]
    assert any("50 splats are not near the template" in warning for warning in result["warnings"])
    files = sorted((tmp_path / "job" / result["exports"]["splat_sequence"]).iterdir())
    assert [file.name for file in files] == [f"frame_{i:04d}.spz" for i in range(FRAMES)]
    for file, truth in zip(files, moving("folded", FINE, FRAMES), strict=True):
        found = read_splats(file).means.numpy() * OPENGL
        assert np.linalg.norm(found - truth, axis=1).mean() < 1, "of 250"
    with av.open(str(tmp_path / "job" / result["exports"]["splats_film"])) as film:
        assert sum(1 for _ in film.decode(video=0)) == FRAMES
    assert "swings by" in (tmp_path / "job" / "report.html").read_text()


def test_a_camera_in_the_middle_of_its_swing_sees_the_first_photo(folder: Path, tmp_path: Path) -> None:
    capture = load_deform(folder, Events(), tmp_path)
    first, template = capture.views[0], capture.template
    assert template is not None
    assert first.camera is not None
    carried = CarriedSplats(capture, Mesh(template.vertices, template.faces))
    assert carried.left_out == 50
    frames = np.stack([template.vertices] * 4)
    seen = list(swinging(carried, frames, first.camera))
    photo = first.load()
    assert photo.mask is not None
    inside = (
        np.roll(photo.mask, 3, 0) * np.roll(photo.mask, -3, 0) * np.roll(photo.mask, 3, 1) * np.roll(photo.mask, -3, 1)
    )
    off = [np.abs(picture / 255 - photo.rgb)[inside > 0.5].mean() for picture in seen]
    assert max(off[0], off[2]) < 0.08
    assert min(off[1], off[3]) > 2 * off[0], "from the side it looks otherwise"


def test_splats_elsewhere_or_without_a_template(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    splats = splats_on_sheet()
    splats.means += 1e4
    write_splats(splats, copy / "splats.ply")
    result = pipelines.run(copy, tmp_path / "job", "deform", "fast")
    assert result["error"]["code"] == "splats-elsewhere"
    (copy / "template.obj").unlink()
    np.savez(copy / "tracks.npz", tracks=np.full((FRAMES, 5, 2), 100.0), K=K)
    with pytest.raises(InputError, match="no template that carries them"):
        load_deform(copy, Events(), tmp_path)
