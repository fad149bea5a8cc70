"""What a file is, told from its first bytes and never from its name.

The suffix that a file gets by its content is the one by which :func:`recon.capture.load.load` finds the reader. What
only looks like a format is the reader's to refuse: it reads all of it, and here a few kilobytes are looked at.
"""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

from recon.capture.files import CAMERA_SUFFIXES, IMAGE_SUFFIXES, VIDEO_SUFFIXES

WHOLE = VIDEO_SUFFIXES | {".zip", ".ply", ".pcd", ".npz", ".glb", ".stl", ".obj", ".off", ".xyz"}
_HEAD = 8 << 10
_STL_HEADER, _STL_FACE = 84, 50
_SPLAT = 32  # bytes of one in a .splat

_MAGIC = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"BM", ".bmp"),
    (b"glTF", ".glb"),
    (b"ply\n", ".ply"),
    (b"ply\r", ".ply"),
    (b"\x1aE\xdf\xa3", ".mkv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", ".wmv"),
    (b"\x00\x00\x01\xba", ".mpg"),
    (b"\x00\x00\x01\xb3", ".mpg"),
    (b"FUJIFILMCCD-RAW", ".raf"),
    (b"IIRO", ".orf"),
    (b"IIRS", ".orf"),
    (b"IIU\x00", ".rw2"),
    (b"NGSP", ".spz"),
)
_RIFF = {b"WEBP": ".webp", b"AVI ": ".avi"}
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_BRANDS = {b"qt  ": ".mov", b"avif": ".avif", b"avis": ".avif", b"crx ": ".cr3", b"M4V ": ".m4v"}
_MAKERS = (
    (re.compile(rb"NIKON", re.I), ".nef"),
    (re.compile(rb"SONY", re.I), ".arw"),
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf)", re.I)
_OBJ = re.compile(r"(v|vn|vt|vp|f|l|p|o|g|s|usemtl|mtllib)\s", re.A)
_MARKUP = re.compile(rb"\s*(<[!?a-z]|#!)", re.I)


def content_suffix(path: Path) -> str | None:
    """Return the suffix that a file's content has, None where it is nothing that Egregium knows.

    Known are what :mod:`recon.capture` reads (photos, zips, videos, clouds, meshes, ``transforms.json``, each with one
    suffix for all of its kind) and what it names in its messages although it reads it not: photos of phones and cameras
    (``.heic``, ``.dng``, ``.nef`` …), splats (``.splat``, ``.spz``). A packed cloud has two suffixes: ``.ply.gz``.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[:2] == b"PK":
        return _of_zip(path)
    if head[:2] != b"\x1f\x8b":
        return _of_bytes(head, size)
    try:
        inner = _of_bytes(zlib.decompressobj(wbits=31).decompress(head, _HEAD), None)
    except zlib.error:
        return None
    return inner if inner == ".spz" else f"{inner}.gz" if inner and kind_of(inner) == "whole" else None


def _of_bytes(head: bytes, size: int | None) -> str | None:
    """Return the suffix of what begins with ``head`` and has ``size`` bytes, None if that is not known."""
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _of_brand(head)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _of_tiff(head)
    for magic, suffix in _MAGIC:
        if head.startswith(magic) and (suffix != ".bmp" or _is_bitmap(head)):
            return suffix
    if _is_transport_stream(head):
        return ".mts"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return ".mov"  # QuickTime of before there was a mark for it
    if len(head) >= _STL_HEADER and size == _STL_HEADER + _STL_FACE * struct.unpack_from("<I", head, 80)[0]:
        return ".stl"
    return _of_text(head, size == len(head)) or (".splat" if size and _is_splat(head, size) else None)


def kind_of(suffix: str) -> str:
    """Return what a suffix of :func:`content_suffix` is taken as: ``photo``, ``whole`` (one is a capture), or nothing.

    Photos that cannot be read are photos all the same; the loader names them.
    """
    if suffix in IMAGE_SUFFIXES | CAMERA_SUFFIXES:
        return "photo"
    return "whole" if suffix.removesuffix(".gz") in WHOLE else ""


def _of_brand(head: bytes) -> str | None:
    """ISO base media files: the brand, or the first compatible one that says something."""
    length = min(struct.unpack_from(">I", head)[0], len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, length - 3, 4))]
    for brand in brands:
        if brand in _BRANDS:
            return _BRANDS[brand]
    if any(brand in _HEIC for brand in brands):
        return ".heic"
    return ".3gp" if head[8:10] == b"3g" else ".mp4"


def _of_tiff(head: bytes) -> str:
    """A TIFF, or a camera's raw file, which has the same beginning."""
    if head[8:10] == b"CR":
        return ".cr2"
    order = "<" if head[:2] == b"II" else ">"
    at, tags = struct.unpack_from(order + "I", head, 4)[0] if len(head) >= 8 else 0, set()
    if 8 <= at <= len(head) - 2:
        count = struct.unpack_from(order + "H", head, at)[0]
        entries = range(at + 2, min(at + 2 + 12 * count, len(head) - 11), 12)
        tags = {struct.unpack_from(order + "H", head, entry)[0] for entry in entries}
    if 50706 in tags:  # DNGVersion
        return ".dng"
    if 330 in tags and 271 in tags:  # pictures within, and a camera's maker
        return next((suffix for maker, suffix in _MAKERS if maker.search(head[:4096])), ".tif")
    return ".tif"


def _of_zip(path: Path) -> str | None:
    """A zip, which NumPy's is too; its first file is an array then. What is damaged is for the unpacking to tell."""
    with path.open("rb") as file:
        head = file.read(30 + 1024)
    if head[:4] not in (b"PK\3\4", b"PK\5\6"):
        return None
    length = struct.unpack_from("<H", head, 26)[0] if head[:4] == b"PK\3\4" and len(head) >= 30 else 0
    name = head[30 : 30 + length]
    return ".npz" if name.endswith(b".npy") and b"/" not in name else ".zip"


def _is_bitmap(head: bytes) -> bool:
    return len(head) >= 18 and struct.unpack_from("<I", head, 14)[0] in (12, 16, 40, 52, 56, 64, 108, 124)


def _is_transport_stream(head: bytes) -> bool:
    """Packets of 188 bytes that begin with 0x47; cameras write four bytes of time before each."""
    return any(
        len(head) >= start + 4 * size and all(head[start + i * size] == 0x47 for i in range(4))
        for start, size in ((0, 188), (4, 192))
    )


def _is_splat(head: bytes, size: int) -> bool:
    """Whole records, with sizes that are positive and turns that are of length 1."""
    if size == 0 or size % _SPLAT:
        return False
    records = [head[at : at + _SPLAT] for at in range(0, min(len(head), 64 * _SPLAT), _SPLAT)]
    turns = [sum((value - 128) ** 2 for value in record[28:]) ** 0.5 for record in records]
    sizes = [struct.unpack_from("<3f", record, 12) for record in records]
    return all(120 < turn < 136 for turn in turns) and all(0 < value < 1e6 for three in sizes for value in three)


def _of_text(head: bytes, all_of_it: bool) -> str | None:
    """PCD (whose header is text), JSON, OBJ, OFF, STL in words, and clouds of a point a line."""
    if head.lstrip().startswith(b"# .PCD") or re.search(rb"^FIELDS .*\r?\n(?s:.*)^DATA ", head[:8192], re.M):
        return ".pcd"
    if b"\0" in head or _MARKUP.match(head):
        return None
    try:
        text = head.decode("utf-8-sig", "strict" if all_of_it else "ignore")
    except UnicodeDecodeError:
        text = head.decode("latin-1")
    if text.lstrip().startswith("{"):
        return ".json"
    lines = text.splitlines()
    if not all_of_it:
        lines = lines[:-1]  # which is cut
    lines = [line for line in map(str.strip, lines) if line]
    said = [line for line in lines if not line.startswith(("#", "//"))]
    if not said:
        return None
    first = said[0].split()
    if first[0] in ("OFF", "COFF", "NOFF"):
        return ".off"
    if first[0].lower() == "solid" and any(line.startswith("facet") for line in said[1:3]):
        return ".stl"
    if any(line.startswith("v ") for line in said) and all(_OBJ.match(f"{line} ") for line in said[:50]):
        return ".obj"
    return ".xyz" if _is_table(said) else None


def _is_table(lines: list[str]) -> bool:
    """Rows of at least three numbers, below a count or a line of column names perhaps."""
    rows = [re.sub(r"[,;\t]", " ", line).replace('"', "").split() for line in lines[:50]]
    if {"x", "y", "z"} <= {word.lower() for word in rows[0]} or (len(rows[0]) == 1 and rows[0][0].isdecimal()):
        rows = rows[1:]
    return bool(rows) and all(len(row) >= 3 and all(map(_NUMBER.fullmatch, row)) for row in rows)
