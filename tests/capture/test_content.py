"""A file is what it holds, whatever it is called."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import trimesh
from capture_scenes import pixels
from PIL import Image

from recon.capture.content import content_suffix, kind_of
from recon.export import write_splats
from recon.splats.model import Splats


def image(kind: str) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels()).save(data, kind)
    return data.getvalue()


def video(tmp_path: Path, container: str, codec: str = "mpeg4") -> bytes:
    path = tmp_path / "made.bin"
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for seed in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels(seed=seed), format="rgb24")))
        file.mux(stream.encode())
    return path.read_bytes()


def mesh(kind: str) -> bytes:
    data = trimesh.creation.box().export(file_type=kind)
    return data.encode() if isinstance(data, str) else data


def packed(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return data.getvalue()


def splats(tmp_path: Path, suffix: str) -> bytes:
    g = torch.Generator().manual_seed(0)
    n = 20
    some = Splats(
        torch.randn(n, 3, generator=g),
        torch.randn(n, 3, generator=g) - 3,
        torch.randn(n, 4, generator=g),
        torch.randn(n, generator=g),
        torch.randn(n, 1, 3, generator=g),
    )
    write_splats(some, tmp_path / f"made{suffix}")
    return (tmp_path / f"made{suffix}").read_bytes()


def tiff(*tags: int, maker: bytes = b"") -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, 0) for tag in sorted(tags))
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + maker


def brand(*names: bytes) -> bytes:
    return struct.pack(">I4s4sI", 16 + 4 * (len(names) - 1), b"ftyp", names[0], 0) + b"".join(names[1:]) + bytes(50)


PCD = b"VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 1\nHEIGHT 1\nPOINTS 1\nDATA ascii\n0 0 0\n"


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [(".jpg", "JPEG"), (".png", "PNG"), (".tif", "TIFF"), (".webp", "WEBP"), (".bmp", "BMP"), (".avif", "AVIF")],
)
def test_photos(tmp_path: Path, suffix: str, kind: str) -> None:
    (tmp_path / "a.zip").write_bytes(image(kind))
    assert content_suffix(tmp_path / "a.zip") == suffix
    assert kind_of(suffix) == "photo"


@pytest.mark.parametrize(
    ("container", "suffix", "codec"),
    [
        ("mp4", ".mp4", "mpeg4"),
        ("mov", ".mov", "mpeg4"),
        ("3gp", ".3gp", "mpeg4"),
        ("matroska", ".mkv", "mpeg4"),
        ("webm", ".mkv", "libvpx"),
        ("avi", ".avi", "mpeg4"),
        ("mpegts", ".mts", "mpeg2video"),
        ("vob", ".mpg", "mpeg2video"),
        ("mpeg2video", ".mpg", "mpeg2video"),
        ("asf", ".wmv", "mpeg4"),
    ],
)
def test_videos(tmp_path: Path, container: str, suffix: str, codec: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(video(tmp_path, container, codec))
    assert content_suffix(path) == suffix
    assert kind_of(suffix) == "whole"


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        (mesh("ply"), ".ply"),
        (mesh("glb"), ".glb"),
        (mesh("obj"), ".obj"),
        (mesh("off"), ".off"),
        (mesh("stl"), ".stl"),
        (b"solid" + mesh("stl")[5:], ".stl"),
        (mesh("stl_ascii"), ".stl"),
        (PCD, ".pcd"),
        (b"# .PCD v0.7 - Point Cloud Data file format\n" + PCD, ".pcd"),
        (b"1 2 3\n-4 5e-3 nan\n", ".xyz"),
        (b"\xef\xbb\xbf// x y z\r\n1;2;3\r\n", ".xyz"),
        (b"1.0 2.0 3.0 4 5 6\n" * 5000, ".xyz"),
        (b'{"camera_model": "OPENCV"}', ".json"),
        (packed("points.npy", "normals.npy"), ".npz"),
        (packed("poses/a.npy", "a.jpg"), ".zip"),
        (packed(), ".zip"),
        (gzip.compress(mesh("ply"), mtime=0), ".ply.gz"),
        (gzip.compress(b"1 2 3\n" * 10_000, mtime=0), ".xyz.gz"),
        (brand(b"heic"), ".heic"),
        (brand(b"mif1", b"heic"), ".heic"),
        (brand(b"mif1", b"avif"), ".avif"),
        (brand(b"crx "), ".cr3"),
        (tiff(50706, 271), ".dng"),
        (tiff(271, 330, maker=b"NIKON CORPORATION"), ".nef"),
        (tiff(271, 330, maker=b"SONY"), ".arw"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(40), ".cr2"),
        (b"FUJIFILMCCD-RAW 0201", ".raf"),
        (b"IIRO\x08\0\0\0" + bytes(40), ".orf"),
        (b"IIU\0\x18\0\0\0" + bytes(40), ".rw2"),
    ],
)
def test_other_captures(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert content_suffix(tmp_path / "a.jpg") == suffix


@pytest.mark.parametrize("suffix", [".splat", ".spz", ".ply"])
def test_splats(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a.jpg").write_bytes(splats(tmp_path, suffix))
    assert content_suffix(tmp_path / "a.jpg") == suffix
    assert kind_of(suffix) == ("whole" if suffix == ".ply" else "")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"PK",
        b"RIFF",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"\x1f\x8b",
        b"\x1f\x8b\x08" + bytes(30),
        gzip.compress(b"<html>", mtime=0),
        gzip.compress(image("JPEG"), mtime=0),
        b"<!DOCTYPE html>",
        b"<?xml version='1.0'?>",
        b"%PDF-1.4",
        b"%!PS-Adobe",
        b"GIF89a" + bytes(100),
        b"BM, said the letter",
        b"#!/bin/sh\n1 2 3\n",
        b"#EXTM3U\n1.ts\n",
        b"ffconcat version 1.0\nfile a.mp4\n",
        b"\x7fELF" + bytes(316),
        b"MZ" + bytes(300),
        b"\x80\x04\x95\x0b\0\0\0",  # a pickle
        b"\x93NUMPY\x01\0",
        b"import os\n",
        b"Dear all,\nplease find attached\n",
        b"1 2\n3 4\n",
        b"# x y z\n",
        bytes(64),
    ],
)
def test_what_is_nothing_of_ours(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    suffix = content_suffix(tmp_path / "a.jpg")
    assert suffix is None or kind_of(suffix) == ""


def test_any_bytes_are_looked_at_without_an_error(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    starts = [image("TIFF")[:200], brand(b"mp42"), packed("a.npy"), PCD, tiff(271, 330), gzip.compress(PCD, mtime=0)]
    for start in starts:
        for _ in range(50):
            data = bytearray(start[: generator.integers(1, len(start) + 1)])
            for at in generator.integers(0, len(data), 4):
                data[at] = generator.integers(0, 256)
            (tmp_path / "a").write_bytes(data)
            content_suffix(tmp_path / "a")
