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
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob("*")}


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
    Image.open(photo).save(photo.with_suffix(".jpg"))
    photo.unlink()
    photo = photo.with_suffix(".jpg")
    photo.write_bytes(photo.read_bytes()[:-200])
    file = root / "transforms.json"
    file.write_text(file.read_text().replace("03.png", "03.jpg"))
    return root


def odd_names(root: Path) -> Path:
    """A zip of a folder in a folder, of photos with blanks, umlauts and upper-case suffixes in their names."""
    capture = write_capture(root / "capture")
    file = capture / "transforms.json"
    text = file.read_text()
    with zipfile.ZipFile(root / "photos № 1.zip", "w") as archive:
        for photo in (capture / "images").iterdir():
            archive.write(photo, f"meine Fotos/für später/images/Fuß {photo.stem} 写真.PNG")
            text = text.replace(f"images/{photo.name}", f"images/Fuß {photo.stem} 写真.PNG")
        archive.write(capture / "points.ply", "meine Fotos/für später/points.ply")
        archive.writestr("meine Fotos/für später/transforms.json", text)
        archive.writestr("__MACOSX/meine Fotos/._x.PNG", "")
    return root / "photos № 1.zip"


def links(root: Path) -> Path:
    """A link to a folder of links to photos, one of which leads nowhere."""
    capture = write_capture(root / "capture")
    (root / "linked/images").mkdir(parents=True)
    for name in ("transforms.json", "points.ply", *(f"images/{i:02d}.png" for i in range(14))):
        (root / "linked" / name).symlink_to(capture / name)
    (root / "linked/images/05.png").unlink()
    (root / "linked/images/05.png").symlink_to(root / "nowhere.png")
    (root / "link").symlink_to(root / "linked")
    return root / "link"


def a_frame_without_photo_and_one_without_pose(root: Path) -> Path:
    write_capture(root)
    (root / "images/04.png").unlink()
    file = root / "transforms.json"
    data = json.loads(file.read_text())
    data["frames"][6]["transform_matrix"][1][2] = float("nan")
    write_json(file, data)
    return root


def of_a_camera(root: Path) -> Path:
    root.mkdir()
    for name in ("IMG_1.HEIC", "IMG_2.DNG"):
        (root / name).write_bytes(b"as it came from the camera")
    return root


def empty_zip(root: Path) -> Path:
    root.mkdir()
    zipfile.ZipFile(root / "in.zip", "w").close()
    return root / "in.zip"


def a_job(root: Path) -> Path:
    (root / "previews").mkdir(parents=True)
    make_photos(root / "previews", 3)
    (root / "config.yaml").write_text("egregium: 1\npipeline: splats\n")
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
    "a photo cut short": (a_photo_cut_short, 0, ["warning: Skipped: 03.jpg", "damaged or cut short"]),
    "odd names": (odd_names, 0, []),
    "links": (links, 0, ["warning: Photos named in transforms.json that are missing (1 of 14): images/05.png"]),
    "frames amiss": (
        a_frame_without_photo_and_one_without_pose,
        0,
        ["missing (1 of 14): images/04.png", "usable pose, left out (1 of 14): images/06.png (its matrix is not fin"],
    ),
    "of a camera": (of_a_camera, 2, ["format that cannot be read (1 .heic, 1 .dng)", "Convert them to JPEG"]),
    "empty zip": (empty_zip, 2, ["error: in.zip is empty"]),
    "a job": (a_job, 2, ["a-job is a job", "--resume"]),
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

IN, OUT = "inputs/odd-pixels", "jobs/odd-pixels"
LOCKED = "/sys/job" if sys.platform == "linux" else "/System/job"
"""Where not even an administrator may write."""

COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "somebody's folder": (["run", IN, "--out", "inputs/photos-cut-short"], ["not a job's", "hint: Give --out"]),
    "inside the input": (["run", IN, "--out", f"{IN}/job"], ["inside its input", "hint: Give --out"]),
    "the input itself": (["run", IN, "--out", IN], ["not a job's", "hint: Give --out"]),
    "a file": (["run", IN, "--out", "inputs/a-photo-cut-short/transforms.json"], ["is a file", "hint: Give --out"]),
    "no permission": (["run", IN, "--out", LOCKED], [f"No permission for {LOCKED}", "may write to"]),
    "a finished job": (["run", IN, "--out", OUT], ["already holds a job", "--resume"]),
    "no such format": (["export", OUT, "--to", "model.xyz"], [".xyz is not a format", ".spz"]),
    "no mesh": (["export", OUT, "--to", "model.glb"], ["splats and cameras, but no mesh"]),
    "export too early": (["export", "jobs/one-photo", "--to", "model.spz"], ["the job is not done"]),
    "export of nothing": (["export", "nowhere", "--to", "model.spz"], ["nowhere does not exist"]),
    "export where one may not": (["export", OUT, "--to", f"{LOCKED}.spz"], [f"No permission for {LOCKED}.spz"]),
    "eval of no job": (["eval", IN], ["is not a job", "--out"]),
    "eval too early": (["eval", "jobs/one-photo"], ["no finished stage", "--resume"]),
}
"""Others that end with exit code 2, and write nothing."""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    """Return exit code, stdout and stderr of each case; all run in one process."""
    root = tmp_path_factory.mktemp("bad")
    (root / "inputs").mkdir()
    commands = {}
    for name, (make, code, _) in CASES.items():
        folder = name.replace(" ", "-")
        input = make(root / "inputs" / folder)
        commands[name] = ["run", str(input), "--out", f"jobs/{folder}", *SHORT]
        if code == 2:
            commands[f"inspect {name}"] = ["inspect", str(input)]
    commands |= {name: arguments for name, (arguments, _) in COMMANDS.items()}
    commands["once more"] = ["run", IN, "--out", "jobs/empty-folder", *SHORT]
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
    if expected:
        explained(said[case], expected, words)
    else:
        code, out, err = said[case]
        assert code == 0, err
        assert "done in" in out
        assert [word for word in words if word not in err] == [], err
        assert ("warning: " in err) == bool(words), err


@pytest.mark.parametrize("case", [name for name, (_, code, _) in CASES.items() if code == 2])
def test_inspect_says_the_same(said, case):
    explained(said[f"inspect {case}"], 2, CASES[case][2])


@pytest.mark.parametrize("case", COMMANDS)
def test_what_cannot_be_done_is_explained_and_nothing_is_written(said, case):
    explained(said[case], 2, COMMANDS[case][1])  # that the folders are as they were, the fixture has seen


def test_a_job_that_came_to_nothing_is_not_in_the_way(said):
    code, out, err = said["once more"]
    assert code == 0, err
    assert "done in" in out


def explained(told: tuple[int, str, str], expected: int, words: list[str]) -> None:
    code, out, err = told
    assert (code, out) == (expected, ""), err
    assert [word for word in words if word not in err] == [], err
    assert "Traceback" not in err
    assert err.count("error: ") == 1
    assert len(err.split("hint: ")[1].strip()) > 10


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
