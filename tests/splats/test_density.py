from __future__ import annotations

import math

import torch
from splat_worlds import blobs, photos_of, ring

from recon.splats.density import PATIENCE, count_unseen, redistribute, shares, split
from recon.splats.model import Splats
from recon.splats.render import Pose, gather, render


def test_gather_sums_blending_weights() -> None:
    """With an image of ones, the weights of all splats sum to the rendered alpha."""
    splats, pose = blobs(30), Pose.of(ring(3)[1])
    alpha = render(splats, pose)[1]
    weights = gather(splats, pose, torch.ones(40, 48, 1))
    assert weights.shape == (30, 1)
    torch.testing.assert_close(weights.sum(), alpha.sum(), rtol=1e-4, atol=0)


def test_share_of_the_error_names_the_wrong_splat() -> None:
    splats, cameras = blobs(20), ring(5)
    targets = [photo.levels[0] for photo in photos_of(splats, cameras)]
    wrong = Splats(**{name: t.clone() for name, t in splats.tensors().items()})
    wrong.sh[7] += 2.0
    share = shares(wrong, targets, torch.zeros(3), 0, False)
    assert int(share[:, 0].argmax()) == 7
    assert (share[:, 1] > 0).all()


def test_split_keeps_mean_and_variance_along_the_axis() -> None:
    whole = Splats(
        torch.tensor([[1.0, 2, 3]]),
        torch.tensor([[0.1, 0.4, 0.2]]).log(),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.tensor([0.0]),
        torch.zeros(1, 1, 3),
    )
    halves = split(whole, torch.tensor([0]))
    assert len(halves) == 2
    torch.testing.assert_close(halves.means.mean(0), whole.means[0])
    offset = halves.means[0] - whole.means[0]
    torch.testing.assert_close(offset[[0, 2]], torch.zeros(2))
    variance = halves.scales[0, 1] ** 2 + offset[1] ** 2
    torch.testing.assert_close(variance, torch.tensor(0.16), rtol=1e-5, atol=0)
    torch.testing.assert_close(halves.scales[0, [0, 2]], torch.tensor([0.1, 0.2]))


def test_split_changes_the_picture_little() -> None:
    splats, pose = blobs(12), Pose.of(ring(4)[0])
    before = render(splats, pose)[0]
    after = render(split(splats, torch.arange(12)), pose)[0]
    assert (before - after).abs().mean() < 0.2 * before.abs().mean()


def test_redistribute_keeps_to_the_budget_and_to_the_error() -> None:
    splats = blobs(10)
    splats.logits[3] = math.log(0.001)
    error = torch.zeros(10)
    error[[1, 5]] = 1.0
    new, origin = redistribute(splats, error, torch.zeros(10), 11, torch.Generator().manual_seed(0))
    assert len(new) == len(origin) == 11
    assert 3 not in origin.tolist(), "too faint to stay"
    assert not {1, 5} & set(origin.tolist()), "both were split"
    assert (origin == -1).sum() == 4
    kept = origin >= 0
    assert torch.equal(new.means[kept], splats.means[origin[kept]])


def test_hidden_splats_go_after_several_votes() -> None:
    unseen = torch.zeros(3, dtype=torch.int64)
    share = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 2.0]])
    for _ in range(PATIENCE - 1):
        unseen = count_unseen(unseen, share)
    assert len(redistribute(blobs(3), torch.zeros(3), unseen, 3, torch.Generator())[0]) == 3
    unseen = count_unseen(unseen, share)
    assert unseen.tolist() == [0, PATIENCE, 0]
    assert redistribute(blobs(3), torch.zeros(3), unseen, 3, torch.Generator())[1].tolist() == [0, 2]
