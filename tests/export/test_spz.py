"""SPZ: bytes by hand, round trips within the format's rounding, both rotation codings, files that lie."""

import gzip
import struct

import numpy as np
import pytest
import torch
from export_scenes import nothing_half_written, some_splats

from kernels.reference.spherical_harmonics import spherical_harmonics
from recon.errors import InputError
from recon.export.spz import read_spz, write_spz
from recon.splats.model import Splats


def header(version=3, count=1, degree=0, bits=12, magic=b"NGSP"):
    return struct.pack("<4sIIBBBB", magic, version, count, degree, bits, 0, 0)


def test_one_splat_by_hand(tmp_path):
    """Values that the format holds exactly, and the half turn about x."""
    splats = Splats(
        means=torch.tensor([[1.5, -2, 0.25]]),
        log_scales=torch.tensor([[-1.0, -2, -3.5]]),
        quats=torch.tensor([[0.0, 3, 0, 0]]),  # half a turn about x; with the format's own it makes none at all
        logits=torch.tensor([0.0]),
        sh=torch.tensor([[[0.0, 1, -1], [0.5, 0, 0], [0, 0.25, 0], [0, 0, -1]]]),
    )
    write_spz(splats, tmp_path / "a.spz")
    data = gzip.decompress((tmp_path / "a.spz").read_bytes())
    assert struct.unpack("<4sIIBBBB", data[:16]) == (b"NGSP", 3, 1, 1, 21, 0, 0)

    def fixed(x):
        return int(x * 2**21).to_bytes(3, "little", signed=True)

    assert data[16:25] == fixed(1.5) + fixed(2) + fixed(-0.25)
    assert data[25] == 128
    assert list(data[26:29]) == [128, round((0.15 + 0.5) * 255), round((-0.15 + 0.5) * 255)]
    assert list(data[29:32]) == [9 * 16, 8 * 16, 6.5 * 16]
    assert int.from_bytes(data[32:36], "little") >> 30 == 3, "w is the largest"
    assert int.from_bytes(data[32:36], "little") & 0x1FF7FDFF == 0, "x, y, z are zero but for their signs"
    # Directions turn: −y and z (indices 1, 2) change sign, −x does not.
    assert list(data[36:]) == [64, 128, 128, 128, 96, 128, 128, 128, 0]


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip_within_rounding(tmp_path, degree):
    splats = some_splats(degree, 500)
    write_spz(splats, tmp_path / "a.spz")
    back = read_spz(tmp_path / "a.spz")
    bits = np.floor(np.log2((2**23 - 1) / splats.means.abs().max().item()))
    assert (back.means - splats.means).abs().max() <= 0.5 * 2**-bits + 1e-6
    assert (back.log_scales - splats.log_scales).abs().max() <= 0.5 / 16 + 1e-6
    assert (back.opacities - splats.opacities).abs().max() <= 0.5 / 255 + 1e-6
    assert (back.sh[:, 0] - splats.sh[:, 0]).abs().max() <= 0.5 / 255 / 0.15 + 1e-6
    if degree:
        assert (back.sh[:, 1:4] - splats.sh[:, 1:4].clamp(-1, 127 / 128)).abs().max() <= 4 / 128 + 1e-6
    if degree > 1:
        assert (back.sh[:, 4:] - splats.sh[:, 4:].clamp(-1, 127 / 128)).abs().max() <= 8 / 128 + 1e-6
    quats = torch.nn.functional.normalize(splats.quats, dim=1)
    error = (quats - back.quats * (quats * back.quats).sum(1, keepdim=True).sign()).norm(dim=1)
    # Three components off by half a step √½/511; the largest, at least ½, follows with at most √3·√3 times one of them.
    assert error.max() <= 0.5 * 0.5**0.5 / 511 * (3 + 9) ** 0.5 + 1e-6
    assert nothing_half_written(tmp_path)


def test_colours_turn_with_the_axes(tmp_path):
    """What a viewer with the format's own axes sees from (x, −y, −z) is what was seen from (x, y, z)."""
    splats = some_splats(3, 20)
    splats.sh[:, 1:] = (splats.sh[:, 1:] * 8).round() / 8
    splats.sh[:, 1:] = splats.sh[:, 1:].clamp(-0.75, 0.75)
    write_spz(splats, tmp_path / "a.spz")
    raw = np.frombuffer(gzip.decompress((tmp_path / "a.spz").read_bytes()), np.uint8)[-20 * 45 :]
    stored = torch.from_numpy((raw.reshape(20, 15, 3).astype(np.float32) - 128) / 128)
    stored = torch.cat([torch.zeros(20, 1, 3), stored], dim=1)
    splats.sh[:, 0] = 0
    d = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    flipped = d * torch.tensor([1.0, -1, -1])
    torch.testing.assert_close(spherical_harmonics(3, flipped, stored), spherical_harmonics(3, d, splats.sh))


def test_version_2_by_hand(tmp_path):
    """xyz of a quaternion as bytes, w ≥ 0 rebuilt; 12 fractional bits; a trailing extension is ignored."""
    body = (4096).to_bytes(3, "little") + (-8192).to_bytes(3, "little", signed=True) + bytes(3)
    body += bytes([51, 255, 0, 128, 160, 144, 176]) + bytes([255, 128, 127])
    (tmp_path / "a.spz").write_bytes(gzip.compress(header(2) + body + b"extension", mtime=0))
    splats = read_spz(tmp_path / "a.spz")
    assert splats.means.tolist() == [[1, 2, 0]]
    assert splats.opacities.item() == pytest.approx(0.2)
    np.testing.assert_allclose(splats.sh[0, 0], [0.5 / 0.15, -0.5 / 0.15, 0.5 / 255 / 0.15], rtol=1e-4)
    assert splats.log_scales.tolist() == [[0, -1, 1]]
    # The stored turn is about x by half; turning back by half gives none: w = ±1.
    np.testing.assert_allclose(np.abs(splats.quats[0]), [1, 0, 1 / 255, 1 / 255], atol=1e-6)


@pytest.mark.parametrize("largest", range(4))
@pytest.mark.parametrize("sign", [-1, 1])
def test_every_largest_component(tmp_path, largest, sign):
    splats = some_splats(0, 1)
    splats.quats = torch.tensor([[0.2, -0.3, 0.1, -0.15]])
    splats.quats[0, largest] = sign
    write_spz(splats, tmp_path / "a.spz")
    back = read_spz(tmp_path / "a.spz").quats
    quats = torch.nn.functional.normalize(splats.quats, dim=1)
    assert abs(float((quats * back).sum())) > 1 - 1e-5


def test_positions_far_and_near(tmp_path):
    for size in (1e-3, 1.0, 4e6):
        splats = some_splats(0, 10)
        splats.means = torch.linspace(-size, size, 30).reshape(10, 3)
        write_spz(splats, tmp_path / "a.spz")
        step = max(size / 2**22, 2**-23)
        assert (read_spz(tmp_path / "a.spz").means - splats.means).abs().max() <= step / 2 + size * 1e-7
    splats.means *= 2
    with pytest.raises(InputError, match="units from the origin"):
        write_spz(splats, tmp_path / "a.spz")


ONE = bytes(9 + 1 + 3 + 3 + 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an SPZ"),
        (b"no gzip at all", "does not decompress"),
        (gzip.compress(b"short", mtime=0), "not an SPZ"),
        (gzip.compress(header(magic=b"NOPE") + ONE, mtime=0), "not an SPZ"),
        (header(version=4) + bytes(100), "version 4"),
        (gzip.compress(header(version=1) + ONE, mtime=0), "version 1"),
        (gzip.compress(header(degree=4) + bytes(200), mtime=0), "SH degree 4"),
        (gzip.compress(header(bits=99) + ONE, mtime=0), "99 fractional bits"),
        (gzip.compress(header(count=2) + ONE, mtime=0), "2 splats are announced, 1 are there"),
        (gzip.compress(header(count=4_000_000_000) + ONE, mtime=0), "more than"),
        (gzip.compress(header(count=0), mtime=0), "no splats"),
    ],
)
def test_broken_files(tmp_path, content, message):
    (tmp_path / "a.spz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_spz(tmp_path / "a.spz")


def test_every_cut_is_noticed(tmp_path):
    write_spz(some_splats(1, 5), tmp_path / "a.spz")
    whole = (tmp_path / "a.spz").read_bytes()
    for size in range(0, len(whole) - 8, 9):  # the last eight bytes are gzip's checksum and length
        (tmp_path / "b.spz").write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_spz(tmp_path / "b.spz")
