"""Marching cubes over sparse blocks: any field, however rough, gives closed surfaces."""

import numpy as np
import pytest
import torch

from recon.events import Events
from recon.mesh.extract import extract
from recon.mesh.repair import separate
from recon.mesh.volume import BLOCK, Volume


def volume_of(field: np.ndarray, seen: np.ndarray | None = None) -> Volume:
    """Return a field of all its blocks; its sides are multiples of 8."""
    shape = tuple(n // BLOCK for n in field.shape)
    weight = np.ones(field.shape) if seen is None else seen.astype(float)

    def blocks(values):
        split = values.reshape(shape[0], BLOCK, shape[1], BLOCK, shape[2], BLOCK).transpose(0, 2, 4, 1, 3, 5)
        return torch.from_numpy(split.reshape(-1, BLOCK, BLOCK, BLOCK).astype(np.float32))

    keys = torch.arange(int(np.prod(shape)))
    return Volume(np.zeros(3), 1.0, 4.0, shape, keys, blocks(field * weight * 3), blocks(weight * 3))


def padded(field: np.ndarray) -> np.ndarray:
    """Return the field with positive distances around, so that every surface closes."""
    field = field.copy()
    for axis in range(3):
        field.swapaxes(0, axis)[[0, -1]] = 1
    return field


@pytest.mark.parametrize("shape", [(72, 24, 24), (136, 72, 16)])
def test_noise_gives_closed_surfaces(shape):
    field = padded(np.random.default_rng(3).uniform(-1, 1, shape))
    mesh = extract(volume_of(field), Events())
    s = mesh.check().statistics()
    assert s.boundary_edges == 0
    assert separate(mesh).statistics().watertight


@pytest.mark.parametrize("level", [0.0, 1e-5, -1e-5])
def test_a_surface_through_samples(level):
    """Faces of a box on layers of samples, one of them the layer between two regions; noise around zero."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (72, 32, 32)], indexing="ij"), -1).astype(float)
    field = np.maximum(np.abs(grid - [48, 16, 16]) - [16, 8, 8], -3).max(-1) / 4
    field += level * np.random.default_rng(0).normal(size=field.shape)
    s = extract(volume_of(padded(np.clip(field, -1, 1))), Events()).check().statistics()
    assert s.watertight
    assert s.volume == pytest.approx(32 * 16 * 16, rel=0.02), "outward; the edges are cut"


def test_only_cells_seen_at_all_corners():
    z = np.broadcast_to(np.arange(16) - 7.5, (16, 16, 16))
    seen = np.zeros((16, 16, 16), bool)
    seen[3:10, 4:12, :] = True
    mesh = extract(volume_of(np.clip(z / 4, -1, 1), seen), Events())
    assert mesh.vertices.min(axis=0).tolist() == [3, 4, 7.5]
    assert mesh.vertices.max(axis=0).tolist() == [9, 11, 7.5]
    assert mesh.statistics().area == pytest.approx(6 * 7)


def test_blocks_that_are_not_there():
    whole = volume_of(padded(np.random.default_rng(3).uniform(-1, 1, (24, 24, 24))))
    some = torch.arange(27) % 2 == 0
    sparse = Volume(whole.origin, 1, 4, whole.shape, whole.keys[some], whole.distance[some], whole.weight[some])
    mesh = extract(sparse, Events())
    assert len(mesh.faces) > 0
    # Cells within a block of which no neighbour is there end at its last sample.
    assert not np.any((mesh.vertices % BLOCK > BLOCK - 1) & (mesh.vertices % BLOCK < BLOCK))


def test_no_surface():
    mesh = extract(volume_of(np.ones((8, 8, 8))), Events())
    assert (len(mesh.vertices), len(mesh.faces)) == (0, 0)
