"""What a person sees who gives ``recon run`` something that cannot be reconstructed, or only in part."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pycolmap
import pytest
from capture_scenes import make_photos, make_transforms, write_json
from PIL import Image
from pose_scenes import texture
from splat_capture import write_capture

ROOT = Path(__file__).parents[2]
SHORT = ["--steps", "1", "--splats", "100", "--no-mesh", "--turntable", "0", "--max-side", "64"]


def listing(folder: Path) -> dict[str, int]:
    """Return every file and folder below ``folder`` with its time of change."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


# --- the inputs ---


def nothing(root: Path) -> Path:
    return root / "nowhere"


def empty_folder(root: Path) -> Path:
    root.mkdir()
    return root


def one_photo(root: Path) -> Path:
    make_photos(root, 1)
    return root


def two_photos_of_different_things(root: Path) -> Path:
    root.mkdir()
    for seed in (5, 6):
        Image.fromarray(texture(seed)[:300, :400]).save(root / f"{seed}.png")
    return root


def a_photo_cut_short(root: Path) -> Path:
    write_capture(root)
    photo = root / "images/03.png"
    photo.write_bytes(photo.read_bytes()[:-200])
    return root


def photos_cut_short(root: Path) -> Path:
    for photo in make_photos(root, 3):
        photo.write_bytes(photo.read_bytes()[:-200])
    return root


def odd_pixels(root: Path) -> Path:
    """16-bit, grey and CMYK photos, of two sizes."""
    write_capture(root, mixed=True)
    photos = [Image.open(root / f"images/{i:02d}.png") for i in range(3)]
    Image.fromarray(np.asarray(photos[0].convert("L")).astype(np.uint16) * 257).save(root / "images/00.png")
    photos[1].convert("L").save(root / "images/01.png")
    photos[2].convert("CMYK").save(root / "images/02.jpg")
    (root / "images/02.png").unlink()
    file = root / "transforms.json"
    file.write_text(file.read_text().replace("02.png", "02.jpg"))
    return root


def bombs(root: Path) -> Path:
    """Photos of a few bytes that unfold to 300 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    root.mkdir()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 15000, 8, 2, 0, 0, 0))
    for i in range(2):
        data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        (root / f"{i}.png").write_bytes(data)
    return root


def zip_that_leads_out(root: Path) -> Path:
    root.mkdir()
    with zipfile.ZipFile(root / "in.zip", "w") as archive:
        for i, photo in enumerate(make_photos(root / "photos", 3)):
            archive.write(photo, f"../escaped-{i}.jpg")
    return root / "in.zip"


def zip_of_zeros(root: Path) -> Path:
    """A small archive that unfolds to very much: what is refused is the share, be it 300 MB or 10 GB."""
    root.mkdir()
    kind: dict[str, Any] = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 1}
    with zipfile.ZipFile(root / "in.zip", "w", **kind) as archive, archive.open("zeros.jpg", "w") as file:
        for _ in range(300):
            file.write(bytes(1_000_000))
    return root / "in.zip"


def transforms_without(what: str) -> Callable[[Path], Path]:
    """Return a maker of a capture whose transforms.json misses something in every frame."""

    def make(root: Path) -> Path:
        data = make_transforms(root, 4)
        if what == "photos":
            for photo in (root / "images").iterdir():
                photo.unlink()
        elif what == "numbers":
            for frame in data["frames"]:
                frame["transform_matrix"][1][2] = float("nan")
        else:
            for name in ("fl_x", "fl_y"):
                del data[name]
        write_json(root / "transforms.json", data)
        return root

    return make


def colmap_cut_short(root: Path) -> Path:
    write_capture(root)
    (root / "transforms.json").unlink()
    (root / "points.ply").unlink()
    folder = root / "sparse/0"
    folder.mkdir(parents=True)
    pycolmap.synthesize_dataset(pycolmap.SyntheticDatasetOptions()).write_binary(folder)
    images = folder / "images.bin"
    images.write_bytes(images.read_bytes()[: images.stat().st_size // 2])
    return root


def video_without_frames(root: Path) -> Path:
    root.mkdir()
    with av.open(str(root / "none.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    return root / "none.avi"


def no_video_at_all(root: Path) -> Path:
    root.mkdir()
    (root / "text.mp4").write_text("this is no video")
    return root / "text.mp4"


# --- what is said ---

CASES: dict[str, tuple[Callable[[Path], Path], int, list[str]]] = {
    "nothing": (nothing, 2, ["nowhere does not exist", "Check the path"]),
    "empty folder": (empty_folder, 2, ["empty-folder is empty", "Give a folder"]),
    "one photo": (one_photo, 2, ["only one photo", "at least 20"]),
    "two photos of different things": (two_photos_of_different_things, 3, ["share nothing", "overlap"]),
    "a photo cut short": (a_photo_cut_short, 0, ["warning: Skipped: 03.png", "damaged or cut short"]),
    "photos cut short": (photos_cut_short, 2, ["No photo in", "damaged or cut short"]),
    "odd pixels": (odd_pixels, 0, []),
    "bombs": (bombs, 2, ["300 megapixels", "Export it smaller"]),
    "zip that leads out": (zip_that_leads_out, 2, ["unsafe", "escaped-0.jpg"]),
    "zip of zeros": (zip_of_zeros, 2, ["unpacks to more than 0.20 GB"]),
    "missing photos": (transforms_without("photos"), 2, ["None of the photos", "images/000.jpg"]),
    "a matrix of NaN": (transforms_without("numbers"), 2, ["no usable pose", "not finite"]),
    "no intrinsics": (transforms_without("focal"), 2, ["focal"]),
    "COLMAP cut short": (colmap_cut_short, 2, ["images.bin of the COLMAP model"]),
    "video without frames": (video_without_frames, 2, ["none.avi"]),
    "no video at all": (no_video_at_all, 2, ["text.mp4"]),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """Return exit code, stdout and stderr of each case; all run in one process."""
    root = tmp_path_factory.mktemp("bad")
    (root / "inputs").mkdir()
    commands = {}
    for name, (make, _, _) in CASES.items():
        folder = name.replace(" ", "-")
        input = make(root / "inputs" / folder)
        commands[name] = ["run", str(input), "--out", str(root / "jobs" / folder), *SHORT]
    theirs = root / "inputs/photos-cut-short"
    commands["somebody's folder"] = ["run", str(root / "inputs/odd-pixels"), "--out", str(theirs), *SHORT]
    commands["inside the input"] = ["run", str(theirs), "--out", str(theirs / "job"), *SHORT]
    before = listing(root / "inputs")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECON_")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests/app/many_commands.py")]
    done = subprocess.run(
        command, input=json.dumps(commands), env=environment, cwd=root, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert listing(root / "inputs") == before, "an input is only read"
    assert {path.name for path in root.iterdir()} == {"inputs", "jobs"}
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_each_bad_input_is_explained(said, case):
    _, expected, words = CASES[case]
    code, out, err = said[case]
    assert code == expected, err
    assert [word for word in words if word not in err] == [], err
    assert "Traceback" not in out + err
    if expected:
        assert out == ""
        assert err.count("error: ") == 1
        assert len(err.split("hint: ")[1].strip()) > 10
    else:
        assert "done in" in out


@pytest.mark.parametrize(
    ("case", "word"), [("somebody's folder", "not a job's"), ("inside the input", "inside its input")]
)
def test_nothing_is_written_where_others_keep_their_files(said, case, word):
    code, out, err = said[case]  # that the folders are as they were, the fixture has seen
    assert (code, out) == (2, "")
    assert word in err
    assert "hint: Give --out" in err


def test_a_full_disk_then_resume(tmp_path):
    """A limit on the size of files stands in for the disk: writing fails with the same kind of error."""
    capture = write_capture(tmp_path / "in")
    arguments = ["run", str(capture), "--out", str(tmp_path / "job"), *SHORT]
    command = [sys.executable, "-m", "app.cli", *arguments, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    full = subprocess.run(command, env=environment, capture_output=True, text=True, preexec_fn=limit, timeout=100)
    assert full.returncode == 3, full.stderr
    assert json.loads(full.stdout)["error"]["code"] == "disk-full"
    assert "Free some space" in full.stderr
    assert "--resume" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list((tmp_path / "job").rglob(".part-*"))
    again = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True, timeout=100)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["status"] == "done"
