"""Splats as SPZ, Niantic's compressed format (about a tenth of the PLY): https://github.com/nianticlabs/spz.

One gzip stream of a 16-byte header and six arrays, each for all splats in turn: positions (24-bit fixed point),
opacities, colours, log-scales (bytes), rotations, spherical harmonics (bytes). Written is version 3, the newest that
is gzip and that every maintained reader knows; version 2, the other one in use, rebuilds w from three bytes and turns
splats by up to some ten degrees where w is near zero. Both are read. Version 4 needs Zstandard and is refused.

Axes: by its specification SPZ is right-up-back (OpenGL's), while 3DGS PLY files of photo captures are right-down-front
(OpenCV's). As the format's library does when told so, writing turns by half a turn about x and reading turns back: the
splats that are read have the axes that were written.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from recon.capture.archive import most_of_cloud
from recon.capture.files import broken
from recon.errors import InputError
from recon.export.checks import check_splats
from recon.export.files import opened, replacing
from recon.export.splat import unquantised_logits
from recon.splats.model import Splats
from recon.splats.transform import transform

_HEADER = struct.Struct("<4sIIBBBB")  # magic, version, count, SH degree, fractional bits, flags, reserved
_MAGIC = b"NGSP"
_RDF_TO_RUB = np.diag([1.0, -1.0, -1.0, 1.0])
_COLOUR_SCALE = 0.15  # of the constant band, so that colours somewhat outside [0, 1] survive
_SMALLEST_THREE = 511 * 2**0.5  # the three smaller components are within ±√½ and get nine bits and a sign
_FIXED_MAX = 2**23 - 1


def write_spz(splats: Splats, path: Path) -> None:
    """Write SPZ version 3.

    Positions get as many fractional bits as the farthest splat leaves (of 23); log-scales are rounded to 1/16 within
    [−10, 5.94], opacities to 1/255, spherical harmonics to 1/16 (degree 1) and 1/8 (degrees 2, 3) within ±1, the
    format's customary precisions.

    Raises:
        InputError: no splats, a value that is not finite or too far from the origin, or a place that cannot be written.
    """
    splats = transform(check_splats(splats, path), _RDF_TO_RUB)
    means = splats.means.numpy().astype(np.float64)
    farthest = float(np.abs(means).max())
    fractional_bits = int(np.clip(np.floor(np.log2(_FIXED_MAX / max(farthest, 1e-9))), 0, 23))
    if farthest > _FIXED_MAX / 2:
        raise InputError(
            f"{path}: a splat lies {farthest:.3g} units from the origin, SPZ reaches {_FIXED_MAX // 2}.",
            "Export a .ply, or remove far-away splats in an editor.",
            "out-of-range",
        )
    fixed = np.rint(means * 2.0**fractional_bits).astype("<i4")
    header = _HEADER.pack(_MAGIC, 3, len(splats), splats.sh_degree, fractional_bits, 0, 0)
    parts = [
        header,
        np.ascontiguousarray(fixed.view(np.uint8).reshape(-1, 3, 4)[:, :, :3]).tobytes(),
        _bytes(splats.opacities * 255),
        _bytes((splats.sh[:, 0] * _COLOUR_SCALE + 0.5) * 255),
        _bytes((splats.log_scales + 10) * 16),
        _pack_rotations(splats.quats.numpy()),
        _pack_harmonics(splats.sh[:, 1:]),
    ]
    compressor = zlib.compressobj(level=5, wbits=31)  # the default, 6, takes twice as long for one per cent
    with replacing(path) as beside, beside.open("wb") as file:
        for part in parts:
            file.write(compressor.compress(part))
        file.write(compressor.flush())


def read_spz(path: Path) -> Splats:
    """Read SPZ of version 2 or 3, SH degree 0 to 3.

    Raises:
        InputError: unreadable, not SPZ, another version, or truncated.
    """
    with opened(path) as file:
        data = file.read()
    if data[:4] == _MAGIC:
        raise _unsupported(path, int.from_bytes(data[4:8], "little"))
    inflate = zlib.decompressobj(wbits=31)
    try:
        header = inflate.decompress(data, _HEADER.size)
        if len(header) < _HEADER.size or header[:4] != _MAGIC:
            raise broken(path, "it is not an SPZ file", "Give a .spz file of Niantic's format.")
        _, version, count, degree, fractional_bits, _, _ = _HEADER.unpack(header)
        if version not in (2, 3):
            raise _unsupported(path, version)
        if degree > 3 or fractional_bits > 24:
            raise broken(path, f"its header asks for SH degree {degree} and {fractional_bits} fractional bits")
        rest = (degree + 1) ** 2 - 1
        widths = [9, 1, 3, 3, 3 if version == 2 else 4, 3 * rest]
        expected = count * sum(widths)
        if expected > most_of_cloud(len(data)):
            raise broken(path, f"it announces {count} splats, more than {len(data)} bytes can hold")
        body = inflate.decompress(inflate.unconsumed_tail, expected) if expected else b""
    except zlib.error as error:
        raise broken(path, f"it does not decompress ({error})") from error
    if len(body) < expected:
        raise broken(path, f"it ends early: {count} splats are announced, {len(body) // sum(widths)} are there")
    cuts = np.cumsum([w * count for w in widths])[:-1]
    positions, alphas, colours, scales, rotations, harmonics = np.split(np.frombuffer(body, np.uint8), cuts)
    fixed = np.zeros((count, 3, 4), np.uint8)
    fixed[:, :, 1:] = positions.reshape(count, 3, 3)  # in the upper bytes, so that shifting down extends the sign
    means = (fixed.view("<i4")[:, :, 0] >> 8) * 2.0**-fractional_bits
    dc = (_floats(colours, count, 1, 3) / 255 - 0.5) / _COLOUR_SCALE
    splats = Splats(
        means=torch.from_numpy(means.astype(np.float32)),
        log_scales=_floats(scales, count, 3) / 16 - 10,
        quats=torch.from_numpy(_unpack_first_three(rotations) if version == 2 else _unpack_smallest_three(rotations)),
        logits=unquantised_logits(_floats(alphas, count) / 255),
        sh=torch.cat([dc, (_floats(harmonics, count, rest, 3) - 128) / 128], dim=1),
    )
    return transform(check_splats(splats, path), _RDF_TO_RUB)


def _unsupported(path: Path, version: int) -> InputError:
    hint = "Convert it with SuperSplat to a .ply, or to SPZ version 3."
    return InputError(f"{path} is SPZ of version {version}; versions 2 and 3 are read.", hint, "spz-version")


def _bytes(values: torch.Tensor) -> bytes:
    return values.round().clamp(0, 255).to(torch.uint8).numpy().tobytes()


def _floats(values: NDArray[np.uint8], *shape: int) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def _pack_harmonics(rest: torch.Tensor) -> bytes:
    """Bytes 128 + 128·c, rounded to multiples of 8 (five bits, degree 1) and 16 (four bits) that compress well."""
    step = torch.full((rest.shape[1], 1), 16.0)
    step[:3] = 8
    return _bytes((rest * 128 / step).round() * step + 128)


def _pack_rotations(quats: NDArray[np.float32]) -> bytes:
    """Two bits say which component of xyzw is largest; it is made positive and left out of the ten-bit others."""
    xyzw = np.roll(quats, -1, axis=1).astype(np.float64)
    norm = np.linalg.norm(xyzw, axis=1, keepdims=True)
    xyzw = np.where(norm > 0, xyzw / np.where(norm > 0, norm, 1), [0, 0, 0, 1])
    largest = np.abs(xyzw).argmax(axis=1)
    rows = np.arange(len(xyzw))
    xyzw *= np.where(xyzw[rows, largest] < 0, -1, 1)[:, None]
    small = xyzw[np.arange(4) != largest[:, None]].reshape(-1, 3)
    fields = (small < 0).astype(np.uint32) << 9 | np.rint(np.abs(small) * _SMALLEST_THREE).astype(np.uint32)
    packed = largest.astype(np.uint32) << 30 | fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2]
    return packed.astype("<u4").tobytes()


def _unpack_smallest_three(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    packed = np.frombuffer(data.tobytes(), "<u4")
    fields = np.stack([packed >> 20 & 1023, packed >> 10 & 1023, packed & 1023], axis=1).astype(np.int32)
    small = np.where(fields & 512, -1, 1) * (fields & 511) / _SMALLEST_THREE
    xyzw = np.empty((len(packed), 4))
    largest = np.arange(4)[None, :] == (packed >> 30)[:, None]
    xyzw[~largest] = small.ravel()
    xyzw[largest] = np.sqrt(np.maximum(0, 1 - (small**2).sum(axis=1)))
    return np.roll(xyzw, 1, axis=1).astype(np.float32)


def _unpack_first_three(data: NDArray[np.uint8]) -> NDArray[np.float32]:
    xyz = data.reshape(-1, 3) / 127.5 - 1
    w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(axis=1)))
    return np.concatenate([w[:, None], xyz], axis=1).astype(np.float32)
