"""What a browser sent: told by its content, under a clean name, whole or refused."""

from __future__ import annotations

import io
import os
import shutil
import zipfile

import numpy as np
import pytest
import trimesh
from PIL import Image

from app.uploads import clean_name, receive, strays, title_of, unique_names
from recon.capture.load import load
from recon.errors import InputError
from recon.events import Events


def picture(kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)).save(data, kind)
    return data.getvalue()


def packed(**files: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def uploads(tmp_path, files):
    """Write (name, content) each into a folder of its own, as an upload does."""
    paths = []
    for i, (name, content) in enumerate(files):
        paths.append(tmp_path / "sent" / str(i) / name)
        paths[-1].parent.mkdir(parents=True)
        paths[-1].write_bytes(content)
    return paths


JPEG, PNG = picture(), picture("PNG")
BOX = trimesh.creation.box()
HTML = b"<!DOCTYPE html><html><script>alert(1)</script></html>"
ELF = b"\x7fELF\x02\x01\x01" + bytes(200)


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("IMG_0001.JPG", "IMG_0001.JPG"),
        ("../../etc/passwd", "passwd"),
        ("C:\\fotos\\ein Bild.png", "ein_Bild.png"),
        (".hidden.jpg", "hidden.jpg"),
        ("Äpfel (2).jpg", "Äpfel_2_.jpg"),
        ("a\0b\n.jpg", "a_b_.jpg"),
        ("-rf.jpg", "rf.jpg"),
        ("<b>.png", "b_.png"),
        ("..", "file"),
        ("", "file"),
        ("x" * 300 + ".jpeg", "x" * 80 + ".jpeg"),
        ("𐎠" * 100 + ".jpg", "𐎠" * 20 + ".jpg"),  # of four bytes each
    ],
)
def test_names_are_cleaned(name, clean):
    assert clean_name(name) == clean
    assert clean_name(clean) == clean


def test_equal_names_are_told_apart():
    assert unique_names(["a.jpg", "A.JPG", "x/a.jpg", "a-2.jpg"]) == ["a.jpg", "A-2.JPG", "a-3.jpg", "a-2-2.jpg"]


def test_photos_become_a_folder_with_the_suffixes_of_their_contents(tmp_path):
    heic = b"\0\0\0\x18ftypheic" + bytes(100)
    files = uploads(tmp_path, [("a.jpg", JPEG), ("a.jpg", PNG), ("a", JPEG), ("b.jpg", heic), ("c.zip", JPEG)])
    folder = receive(files, tmp_path / "in")
    assert folder == tmp_path / "in" / "5-photos"
    assert sorted(path.name for path in folder.iterdir()) == ["a-2.jpg", "a.jpg", "a.png", "b.heic", "c.jpg"]
    assert all(file.exists() for file in files), "they stay for another run"
    assert (folder / "a.jpg").stat().st_ino == files[0].stat().st_ino, "nothing is copied"
    assert len(load(folder, Events(), tmp_path / "work").views) == 4


def mesh(kind: str) -> bytes:
    data = BOX.export(file_type=kind)
    return data.encode() if isinstance(data, str) else data


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        *((mesh(kind), f".{kind}") for kind in ("glb", "obj", "stl", "off", "ply")),
        (mesh("stl_ascii"), ".stl"),
        (b"0 0 0\n1 0 0\n0 1 0\n", ".xyz"),
        (b"3\n0 0 0 5 10 20 30\n1 0 0 5 10 20 30\n0 1 0 5 10 20 30\n", ".xyz"),
        (b"x,y,z\n0,0,0\n1,0,0\n0,1e-3,-0\n", ".xyz"),
        (packed(**{"points.npy": b"\x93NUMPY"}), ".npz"),
        (packed(**{"photos/a.jpg": JPEG}), ".zip"),
    ],
    ids=["glb", "obj", "stl", "off", "ply", "stl in words", "xyz", "pts", "csv", "npz", "zip"],
)
@pytest.mark.parametrize("name", ["My scan 1.2.jpg", "My scan 1.2.tar"])
def test_a_single_capture_gets_the_suffix_of_its_content(tmp_path, name, content, suffix):
    (file,) = uploads(tmp_path, [(name, content)])
    stored = receive([file], tmp_path / "in")
    assert stored == tmp_path / "in" / f"My_scan_1-2{suffix}"
    assert stored.stem == title_of([file]) == "My_scan_1-2"
    if suffix not in (".npz", ".zip"):
        assert len(load(stored, Events(), tmp_path / "work").points.xyz) >= 3


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "nothing to reconstruct"),
        ([("a.jpg", JPEG)], "One photo is not enough"),
        ([("a.jpg", JPEG), ("b.jpg", HTML)], r"b\.jpg is no photo, video, zip, cloud or mesh"),
        ([("a.jpg", ELF)], r"a\.jpg is no photo"),
        ([("a.jpg", b"")], r"a\.jpg is no photo"),
        ([("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>")], r"a\.svg is no photo"),
        ([("a.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n")], r"a\.jpg is no photo"),
        ([("a.mp4", b"#EXTM3U\n/etc/passwd\n")], r"a\.mp4 is no photo"),
        ([("a.jpg", b"#!/bin/sh\nrm -rf /\n")], r"a\.jpg is no photo"),
        ([("a.jpg", JPEG), ("b.jpg", PNG), ("c.jpg", packed(a=JPEG))], "by itself"),
        ([("a.ply", mesh("ply")), ("b.ply", mesh("ply"))], "by itself"),
        ([("a.jpg", b"\0\0\0\x18ftypheic" + bytes(100))] * 3, "HEIC images cannot be read"),
        ([("a.json", b'{"frames": []}')], "JSON"),
        ([("a.splat", np.float32([0, 0, 0, 1, 1, 1]).tobytes() + b"abc\xff\xff\x80\x80\x80")], "Gaussian splats"),
    ],
)
def test_what_is_no_capture_is_refused(tmp_path, files, words):
    with pytest.raises(InputError, match=words) as caught:
        receive(uploads(tmp_path, files), tmp_path / "in")
    assert caught.value.hint
    assert not (tmp_path / "in").exists()


def test_notes_among_photos_are_strays(tmp_path):
    notes = [("notes.docx", packed(a=b"words")), ("a.txt", b"Bring milk."), ("Thumbs.db", b"x"), ("b.json", b"{}")]
    files = uploads(tmp_path, [("a.jpg", JPEG), ("b.jpg", PNG), *notes])
    assert [file.name for file in strays(files)] == ["notes.docx", "a.txt"]


def test_links_and_devices_are_refused(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(JPEG)
    (tmp_path / "link.jpg").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("link.jpg", "pipe.jpg"):
        with pytest.raises(InputError, match="link or a device"):
            receive([secret, tmp_path / name], tmp_path / "in")
    with pytest.raises(InputError, match="did not arrive"):
        receive([secret, tmp_path / "absent.jpg"], tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_limits_hold_and_name_their_setting(tmp_path, limits):
    files = uploads(tmp_path, [("a.jpg", JPEG), ("b.jpg", JPEG), ("c.jpg", JPEG)])
    limits(max_files=2)
    with pytest.raises(InputError, match="3 files are more than the 2") as caught:
        receive(files, tmp_path / "in")
    assert "RECON_MAX_FILES" in caught.value.hint
    limits(max_files=3, max_upload_gb=1e-7)
    with pytest.raises(InputError, match="GB") as caught:
        receive(files, tmp_path / "in")
    assert "RECON_MAX_UPLOAD_GB" in caught.value.hint
    limits(max_upload_gb=1)
    assert receive(files, tmp_path / "in").is_dir()


def test_nothing_is_left_of_what_did_not_fit(tmp_path, monkeypatch):
    files = uploads(tmp_path, [("a.jpg", JPEG), ("b.jpg", JPEG)])
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("", (), {"free": 3}))
    with pytest.raises(InputError, match="disk is full"):
        receive(files, tmp_path / "in")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (["Grandma's vase.zip"], "Grandma_s_vase"),
        (["scan.ply.gz"], "scan"),
        (["vase_001.jpg", "vase_002.jpg"], "vase"),
        (["IMG_0001.jpg", "IMG_0023.jpg"], "2-photos"),
        (["a.jpg", "b.jpg", "c.jpg"], "3-photos"),
        (["../x/v1.5 red-01.jpg", "v1.5 red-02.jpg"], "v1-5_red"),
        (["..", "..."], "file"),
    ],
)
def test_titles(tmp_path, names, title):
    assert title_of([tmp_path / str(i) / name.replace("/", "\\") for i, name in enumerate(names)]) == title
