"""The 32-byte .splat: bytes by hand, a round trip within its rounding."""

import struct

import numpy as np
import pytest
import torch
from export_scenes import nothing_half_written, some_splats

from recon.errors import InputError
from recon.export.splat import read_splat, write_splat
from recon.splats.model import SH_C0, Splats


def test_one_record_by_hand(tmp_path):
    splats = Splats(
        means=torch.tensor([[1.0, -2, 3]]),
        log_scales=torch.tensor([[0.0, 1, -1]]),
        quats=torch.tensor([[0.0, -2, 0, 0]]),
        logits=torch.tensor([0.0]),
        sh=torch.tensor([[[0.5 / SH_C0, -0.5 / SH_C0, 9.0]]]),
    )
    write_splat(splats, tmp_path / "a.splat")
    record = struct.unpack("<6f8B", (tmp_path / "a.splat").read_bytes())
    np.testing.assert_allclose(record[:6], [1, -2, 3, 1, np.e, 1 / np.e], rtol=1e-6)
    assert record[6:] == (255, 0, 255, 128, 128, 0, 128, 128)


def test_round_trip_within_rounding(tmp_path):
    splats = some_splats(3, 200)
    write_splat(splats, tmp_path / "a.splat")
    back = read_splat(tmp_path / "a.splat")
    order = (splats.log_scales.sum(1).exp() * splats.opacities).argsort(descending=True)
    splats = splats[order]
    assert torch.equal(back.means, splats.means)
    torch.testing.assert_close(back.log_scales, splats.log_scales, atol=1e-6, rtol=1e-6)
    assert (back.opacities - splats.opacities).abs().max() <= 0.5 / 255 + 1e-6
    colour = (0.5 + SH_C0 * splats.sh[:, 0]).clamp(0, 1)
    assert (0.5 + SH_C0 * back.sh[:, 0] - colour).abs().max() <= 0.5 / 255 + 1e-6
    quats = torch.nn.functional.normalize(splats.quats, dim=1)
    # Each component is off by half a step of 1/128, by a whole one at 1, where the byte ends; four make twice that.
    assert (back.quats - quats).norm(dim=1).max() <= 2 / 128
    assert nothing_half_written(tmp_path)


def test_extreme_values_survive(tmp_path):
    splats = some_splats(0, 4)
    splats.log_scales = torch.tensor([[-200.0] * 3, [100.0] * 3, [0.0] * 3, [1.0] * 3])
    splats.logits = torch.tensor([-50.0, 50, 0, 1])
    splats.quats[2] = 0
    write_splat(splats, tmp_path / "a.splat")
    back = read_splat(tmp_path / "a.splat")
    assert all(bool(t.isfinite().all()) for t in back.tensors().values())
    torch.testing.assert_close(back.quats.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (bytes(33), "33 bytes"),
        (bytes(32), "not positive"),
        (struct.pack("<6f8B", 0, 0, 0, float("nan"), 1, 1, *[9] * 8), "not positive"),
        (struct.pack("<6f8B", float("nan"), 0, 0, 1, 1, 1, *[9] * 8), "NaN"),
    ],
)
def test_broken_files(tmp_path, content, message):
    (tmp_path / "a.splat").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_splat(tmp_path / "a.splat")
