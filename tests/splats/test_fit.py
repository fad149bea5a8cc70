from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from splat_worlds import blobs, photos_of, ring
from torch import Tensor

from recon.capture.capture import Points
from recon.splats import fit
from recon.splats.block_fit import BlockFit
from recon.splats.config import SplatsConfig
from recon.splats.fit import Fit
from recon.splats.initial import hull_points, splats_at, thinned
from recon.splats.lm_fit import LMFit
from recon.splats.loss import photometric_loss
from recon.splats.photos import Target, TrainingPhoto
from recon.splats.render import Pose, render
from recon.splats.sampled_fit import SampledFit
from recon.splats.solver import ADAM, SETTLING

KINDS = [Fit, BlockFit, LMFit, SampledFit]


def start(steps: int, kind: type[Fit] = Fit, photos: list[TrainingPhoto] | None = None, **settings: object) -> Fit:
    generator = np.random.default_rng(0)
    points = Points(generator.uniform(-0.3, 0.3, (150, 3)), np.full((150, 3), 0.5, np.float32))
    config = SplatsConfig(steps=steps, splats=300, sh_degree=1, **settings)
    return kind(splats_at(points, 1), photos or photos_of(blobs(40), ring(10)), torch.zeros(3), config)


def error(model: Fit) -> float:
    """Mean squared error from a camera between the training ones."""
    camera = ring(20)[1]
    with torch.no_grad():
        truth = render(blobs(40), Pose.of(camera))[0].clamp(0, 1)
        return float((render(model.splats, Pose.of(camera))[0] - truth).square().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_fits_what_it_has_not_seen(kind: type[Fit]) -> None:
    model = start(250, kind)
    before = error(model)
    for _ in model.run():
        pass
    psnr = -10 * math.log10(error(model))
    least = 20 if kind is SampledFit else 24  # its steps are few
    assert psnr > least, f"{psnr:.1f} dB, from {-10 * math.log10(before):.1f} dB"
    assert len(model.splats) <= 300


@pytest.mark.parametrize("kind", KINDS)
def test_going_on_takes_the_same_steps(kind: type[Fit]) -> None:
    """Across a change of the splats' number, the level of the photos and the degree of the colour."""
    whole = start(220, kind, refine_cameras=True, exposure=True)
    states = []
    for _ in whole.run():
        if whole.step == 90:
            states = [{name: t.clone() for name, t in whole.state().items()}]
    resumed = start(220, kind, refine_cameras=True, exposure=True)
    resumed.load_state(states[0], 90, whole.initial_count)
    for _ in resumed.run():
        pass
    for name, tensor in whole.splats.tensors().items():
        assert torch.equal(tensor, resumed.splats.tensors()[name]), name
    for name, tensor in whole.corrections.state().items():
        assert torch.equal(tensor, resumed.corrections.state()[name]), name


@pytest.mark.parametrize("setting", ["refine_cameras", "exposure", "antialiased"])
def test_optional_parts_take_steps(setting: str) -> None:
    model = start(12, **{setting: True}, views_per_step=2)
    losses = [progress.loss for progress in model.run()]
    assert all(math.isfinite(loss) for loss in losses)
    if setting != "antialiased":
        fresh, end = start(12, **{setting: True}).corrections.state(), model.corrections.state()
        name = "motions" if setting == "refine_cameras" else "exposures"
        assert (end[name] != fresh[name]).any((1, 2)).all()


@pytest.mark.parametrize("kind", [Fit, BlockFit])
def test_wrong_poses_are_found_again(kind: type[Fit]) -> None:
    """Cameras off by about a pixel come back, and the fit gets better at what it has not seen."""
    cameras = ring(12)
    generator = np.random.default_rng(1)
    wrong = []
    for camera in cameras:
        shift = np.eye(4)
        shift[:3, 3] = generator.normal(0, 0.02, 3)
        wrong.append(Pose.of(replace(camera, viewmat=shift @ camera.viewmat)).viewmat)
    photos = [
        replace(photo, levels=tuple(replace(t, pose=replace(t.pose, viewmat=viewmat)) for t in photo.levels))
        for photo, viewmat in zip(photos_of(blobs(40), cameras), wrong, strict=True)
    ]
    errors, off = {}, {}
    for refine in (False, True):
        model = start(600, kind, photos, refine_cameras=refine)
        for _ in model.run():
            pass
        errors[refine] = error(model)
        poses = [model.corrections.pose(i, photo.levels[0].pose).viewmat for i, photo in enumerate(photos)]
        centres = [-pose[:3, :3].T @ pose[:3, 3] for pose in poses]
        truth = [camera.position for camera in cameras]
        off[refine] = np.mean([np.linalg.norm(c.detach().numpy() - t) for c, t in zip(centres, truth, strict=True)])
    assert off[True] < 0.9 * off[False]
    assert errors[True] < 0.6 * errors[False]


def test_where_memory_runs_out_photos_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU says it: the fit takes all its steps, and says so; where there is nothing left to halve it ends."""
    seen: list[int] = []

    def loss(image: Tensor, target: Target, weight: float) -> Tensor:
        seen.append(len(target.image))
        if len(target.image) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return photometric_loss(image, target, weight)

    monkeypatch.setattr(fit, "photometric_loss", loss)
    model, warnings = start(10), []
    model.warn = warnings.append
    sizes = [len(target.image) for target in model.photos[0].levels]
    most = sizes[1]
    assert len(list(model.run())) == model.step == 10
    assert seen.count(sizes[0]) == 1, "of the first step that looks at them"
    assert warnings == ["The GPU's memory does not suffice: the fit goes on with the photos at half their size."]
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        list(start(10).run())


def test_masked_pixels_do_not_count() -> None:
    pose = Pose.of(ring(3)[0])
    photo = torch.randint(0, 255, (40, 48, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mask = torch.zeros(40, 48, dtype=torch.bool)
    mask[:, :30] = True
    image = (photo.float() / 255).requires_grad_()
    shown = torch.where(mask[..., None], image, torch.ones(3))
    loss = photometric_loss(shown, Target(photo, mask, pose), 0.2)
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_points_become_splats_as_wide_as_their_distance() -> None:
    xyz = np.array([[x, y, 0.0] for x in range(4) for y in range(4)])
    splats = splats_at(Points(xyz, np.tile(np.float32([1, 0.5, 0]), (16, 1))), 2)
    # A corner's neighbours lie at 1, 1 and √2; an inner point's all at 1.
    torch.testing.assert_close(splats.scales[0], torch.full((3,), math.sqrt(4 / 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(splats.scales[5], torch.ones(3), rtol=1e-5, atol=0)
    colour = render(splats, Pose.of(ring(1)[0]))
    assert splats.sh.shape == (16, 9, 3)
    assert torch.isfinite(colour[0]).all()
    torch.testing.assert_close(0.5 + 0.28209479 * splats.sh[0, 0], torch.tensor([1.0, 0.5, 0.0]))


def test_hull_lies_within_the_masks() -> None:
    """Silhouettes of a ball of radius 0.2: no point of the hull is much further out."""
    cameras = ring(12)
    masks = []
    for camera in cameras:
        x, y = np.meshgrid(np.arange(48) + 0.5, np.arange(40) + 0.5)
        rays = np.stack([(x - 24) / 50, (y - 20) / 50, np.ones_like(x)], -1) @ camera.viewmat[:3, :3]
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        miss = np.linalg.norm(np.cross(rays, -camera.position), axis=-1)
        masks.append((miss < 0.2).astype(np.float32))
    images = [np.full((40, 48, 3), 0.25, np.float32)] * 12
    points = hull_points(cameras, images, masks, 500, np.random.default_rng(0))
    assert points is not None
    assert len(points.xyz) == 500
    assert np.linalg.norm(points.xyz, axis=1).max() < 0.32
    np.testing.assert_allclose(points.rgb, 0.25)
    assert hull_points(cameras, images, [np.zeros((40, 48), np.float32)] * 12, 500, np.random.default_rng(0)) is None


def test_thinning_keeps_points() -> None:
    points = Points(np.arange(30.0).reshape(10, 3), np.zeros((10, 3), np.float32))
    assert len(thinned(points, 4, np.random.default_rng(0)).xyz) == 4
    assert thinned(points, 20, np.random.default_rng(0)) is points


def test_longer_fits_come_down_to_lower_rates() -> None:
    """In proportion, beyond the length that the rates were found for; a rule without such a length stays as it is."""
    assert ADAM.length is not None
    assert ADAM.over(ADAM.length) is ADAM.over(10) is ADAM
    longer = ADAM.over(4 * ADAM.length)
    torch.testing.assert_close(longer.geometry.decays, ADAM.geometry.decays / 4)
    assert longer.decay == ADAM.decay / 4
    torch.testing.assert_close(longer.geometry.rates, ADAM.geometry.rates)
    assert SETTLING.over(10_000) is SETTLING
