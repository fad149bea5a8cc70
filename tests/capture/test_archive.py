from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from capture_scenes import Listener

from recon.capture.archive import extract_zip
from recon.errors import InputError
from recon.events import Events, Progress

Limits = Callable[..., None]


def make_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return path


def refused(path: Path) -> InputError:
    folder = path.with_suffix("")
    with pytest.raises(InputError) as caught:
        extract_zip(path, folder, Events())
    assert path.name in caught.value.message
    assert not folder.exists()  # nothing half-written
    assert not folder.with_name(folder.name + ".part").exists()
    return caught.value


def test_contents_arrive_and_junk_does_not(tmp_path: Path) -> None:
    path = make_zip(
        tmp_path / "a.zip",
        {
            "set/images/a.jpg": b"aaa",
            "set/b.txt": b"bb",
            "./set/c.txt": b"c",
            "__MACOSX/set/._a.jpg": b"x",
            "set/.DS_Store": b"x",
            "set/Thumbs.db": b"x",
        },
    )
    heard = Listener()
    extract_zip(path, tmp_path / "out", heard.events)
    files = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    assert files == {"set/images/a.jpg": b"aaa", "set/b.txt": b"bb", "set/c.txt": b"c"}
    assert any(isinstance(event, Progress) for event in heard)


@pytest.mark.parametrize("name", ["../evil.jpg", "a/../../evil.jpg", "/etc/evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"])
def test_names_that_lead_out(tmp_path: Path, name: str) -> None:
    error = refused(make_zip(tmp_path / "a.zip", {"good.jpg": b"a", name: b"evil"}))
    assert "holds a file outside of itself" in error.message
    assert error.code == "archive-unsafe"
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_links(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("images")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc")
    assert "holds the link 'images'" in refused(tmp_path / "a.zip").message


def test_gigabytes_of_zeros(tmp_path: Path, limits: Limits) -> None:
    limits(max_zip_gb=0.01)
    path = make_zip(tmp_path / "a.zip", {"zeros.jpg": bytes(30_000_000)})
    assert path.stat().st_size < 100_000
    error = refused(path)
    assert "unpacks to more than 0.01 GB" in error.message
    assert "RECON_MAX_ZIP_GB" in error.hint
    assert error.code == "archive-too-large"


def test_what_counts_is_what_is_written_not_what_is_announced(tmp_path: Path, limits: Limits) -> None:
    path = make_zip(tmp_path / "a.zip", {"zeros.jpg": bytes(30_000_000)})
    data = path.read_bytes()
    true, false = struct.pack("<I", 30_000_000), struct.pack("<I", 1000)
    assert data.count(true) == 2  # in the local header and in the directory
    path.write_bytes(data.replace(true, false))
    # Python's zipfile stops at the announced size, and then the checksum is wrong.
    limits(max_zip_gb=0.01)
    assert refused(path).code == "archive-damaged"


def test_unlikely_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits) -> None:
    monkeypatch.setattr("recon.capture.archive.FREE_BYTES", 1_000_000)
    path = make_zip(tmp_path / "a.zip", {"zeros": bytes(5_000_000)})
    error = refused(path)
    assert error.code == "archive-too-large"
    assert "RECON_MAX_ZIP_RATIO" in error.hint
    limits(max_zip_ratio=2000)
    extract_zip(path, tmp_path / "out", Events())


def test_too_many_files(tmp_path: Path, limits: Limits) -> None:
    limits(max_zip_files=5)
    error = refused(make_zip(tmp_path / "a.zip", {f"{i}.jpg": b"" for i in range(6)}))
    assert "holds 6 files" in error.message
    assert "RECON_MAX_ZIP_FILES" in error.hint


def test_a_directory_too_large_for_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits
) -> None:
    limits(max_zip_files=5)
    path = make_zip(tmp_path / "a.zip", {f"{i}{'x' * 100}.jpg": b"" for i in range(60)})
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("read"))
    assert "more than 5 files" in refused(path).message


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b", "a"], ["x" * 300 + ".jpg"], ["/".join("ab" * 1500)], ["."]])
def test_names_that_no_folder_can_hold(tmp_path: Path, names: list[str]) -> None:
    assert refused(make_zip(tmp_path / "a.zip", {name: b"x" for name in names})).code == "archive-unsafe"


def test_damaged(tmp_path: Path) -> None:
    whole = make_zip(tmp_path / "a.zip", {"a.jpg": bytes(range(256)) * 400}, zipfile.ZIP_STORED).read_bytes()
    for number, data in enumerate(
        [b"", b"not a zip", whole[: len(whole) // 2], whole.replace(b"\x80\x81", b"\0\0", 1)]
    ):
        path = tmp_path / f"{number}.zip"
        path.write_bytes(data)
        error = refused(path)
        assert "is a damaged zip" in error.message
        assert error.code == "archive-damaged"


def test_password(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.jpg": b"a"})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(bytes(data))
    assert refused(path).code == "archive-encrypted"
