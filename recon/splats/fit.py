"""Fitting splats to photos, here by Adam: coarse to fine, with a splat budget, resumable at any step.

    loss = (1 − λ) mean |render − photo| + λ (1 − mean SSIM)                          (Kerbl et al. 2023, eq. 7)
           + λ_s mean √eig(Σ)                                      (3DGS-MCMC, Kheradmand et al. 2024, §4.3)

summed over the views of a step (MVGS, Du et al. 2024). Everything random is drawn from the seed and the number of the
step alone, so a fit that goes on from a checkpoint takes the very steps of one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kernels.splat_jacobian import SplatJacobian
from kernels.ssim import ssim
from recon.solve.adam import Adam, Rule
from recon.splats.config import SplatsConfig
from recon.splats.corrections import Corrections
from recon.splats.curvature import curvature
from recon.splats.density import count_unseen, redistribute, shares
from recon.splats.model import Splats
from recon.splats.photos import Target, TrainingPhoto
from recon.splats.render import render
from recon.splats.tiles import sampled_tiles

COARSE = ((0.06, 2), (0.2, 1))
"""Until this share of the fit: level of the photos (each level halves their size)."""
HARMONICS = (0.1, 0.2, 0.3)
"""Share of the fit from which degree 1, 2, 3 of the view-dependent colour are fitted."""
DENSIFY = (0.02, 0.6)
"""Share of the fit in which splats come and go."""
DENSIFY_EVERY = 100
VOTING_VIEWS = 10
BLOCKS_EVERY = 4
"""Steps between two looks at blocks of the curvature, which change more slowly than the gradient."""
COOLDOWN = 0.4
"""Share of the fit in which Adam's rates come down to zero."""
SCALE_WEIGHT = 0.01
"""λ_s: no splat is larger than the photos ask for. The unit is about the distance to the scene."""


@dataclass
class Progress:
    """What a step tells: loss of the step, number of splats, level of the photos."""

    loss: float
    splats: int
    level: int


@dataclass
class Fit:
    """A fit under way.

    Attributes:
        splats: the model, leaf tensors that are updated in place.
        photos: training photos with cameras in the fitting frame, whose unit is about the distance to the scene.
        background: (3,).
        config: settings.
        step: steps taken.
        check: called often within a long step; raises to stop it, which leaves the fit as it was before.
    """

    splats: Splats
    photos: Sequence[TrainingPhoto]
    background: Tensor
    config: SplatsConfig
    step: int = 0
    check: Callable[[], None] = lambda: None
    optimiser: Any = field(init=False)
    corrections: Corrections = field(init=False)
    initial_count: int = field(init=False)
    unseen: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.initial_count = len(self.splats)
        self.unseen = torch.zeros(len(self.splats), dtype=torch.int64)
        self.optimiser = self._make_optimiser()
        self.corrections = Corrections(len(self.photos), self.config.refine_cameras, self.config.exposure)

    @property
    def done(self) -> float:
        """Share of the fit that is over."""
        return self.step / self.config.steps

    @property
    def stride(self) -> int:
        """Steps that the next one counts for, by the time it takes."""
        return 1

    @property
    def sh_degree(self) -> int:
        """Degree of the view-dependent colour that is fitted at this step."""
        return min(self.config.sh_degree, sum(self.done >= start for start in HARMONICS))

    @property
    def level(self) -> int:
        """Level of the photos at this step."""
        return next((level for end, level in COARSE if self.done < end), 0)

    def run(self) -> Iterator[Progress]:
        """Take the steps that are left, one for each item."""
        while self.step < self.config.steps:
            if self.step % DENSIFY_EVERY < self.stride and DENSIFY[0] <= self.done <= DENSIFY[1]:
                self._densify()
            loss = self._take_step()
            self.step = min(self.step + self.stride, self.config.steps)
            yield Progress(loss, len(self.splats), self.level)

    def target(self, index: int) -> Target:
        """Return photo ``index`` at this step's size."""
        return self.photos[index].levels[self.level]

    def jacobian(self, splats: Splats, index: int, **options: Any) -> SplatJacobian:
        """Return photo ``index`` as ``splats`` show it at this step, with its Jacobian; ``options`` are its own."""
        target = self.target(index)
        pose = self.corrections.pose(index, target.pose)
        return SplatJacobian(
            splats.means,
            splats.quats,
            splats.scales,
            splats.opacities,
            splats.sh,
            pose.viewmat.detach(),
            pose.K,
            pose.width,
            pose.height,
            sh_degree=self.sh_degree,
            background=self.background,
            mask=target.mask,
            rasterize_mode="antialiased" if self.config.antialiased else "classic",
            **options,
        )

    def _make_optimiser(self) -> Any:
        return Adam(self.splats.tensors(), rules(self.splats))

    def _views(self) -> list[int]:
        """Return the photos of this step: each appears once before any appears again."""
        count, each = len(self.photos), self.config.views_per_step
        chosen = []
        for k in range(self.step * each, self.step * each + each):
            epoch, place = divmod(k, count)
            chosen.append(int(torch.randperm(count, generator=self._generator(1, epoch))[place]))
        return chosen

    def _generator(self, purpose: int, number: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.config.seed * 4 + purpose) * 1_000_003 + number)

    def _take_step(self) -> float:
        parameters = self.splats.tensors()
        for tensor in parameters.values():
            tensor.requires_grad_(True)
            tensor.grad = None
        touched = torch.zeros(len(self.splats), dtype=torch.bool)
        total = 0.0
        views = self._views()
        for index in views:
            target = self.target(index)
            pose = self.corrections.pose(index, target.pose)
            image, _, meta = render(
                self.splats,
                pose,
                self.background,
                sh_degree=self.sh_degree,
                mask=target.mask,
                antialiased=self.config.antialiased,
            )
            touched |= meta["radii"][0] > 0
            loss = photometric_loss(self.corrections.expose(index, image), target, self.config.ssim_weight)
            loss.backward()
            total += loss.item()
            self._see_pose(index)
        gradients = {name: t.grad for name, t in parameters.items() if t.grad is not None}
        for tensor in parameters.values():
            tensor.requires_grad_(False)
        gradients["log_scales"] += SCALE_WEIGHT * self.splats.scales / self.splats.log_scales.numel()
        self._update(gradients, touched)
        self.corrections.step(self.done, views)
        return total / self.config.views_per_step

    def _see_pose(self, index: int, jacobian: SplatJacobian | None = None) -> None:
        """Let the corrections know the curvature of the loss by the pose of photo ``index``, if this step needs it."""
        if self.corrections.wants_block(index, self.done, due=self.step % BLOCKS_EVERY == 0):
            jacobian = jacobian or self.jacobian(self.splats.detach(), index)
            height, width, _ = jacobian.image.shape
            sample = sampled_tiles(height, width, self._generator(0, self.step))
            weights = sample * curvature(jacobian.image, self.target(index))
            self.corrections.see(index, jacobian.camera_block(weights, 6))

    def _update(self, gradients: dict[str, Tensor], touched: Tensor) -> None:
        # No splat moves by more than half its own size in a step.
        limits = {"means": 0.5 * self.splats.log_scales.mean(1).exp()}
        self.optimiser.step(gradients, touched, self.done, limits)

    def _densify(self) -> None:
        share = self._votes(self._voters())
        self.unseen = count_unseen(self.unseen, share)
        generator = self._generator(3, self.step)
        splats, origin = redistribute(self.splats, share[:, 0], self.unseen, self._wanted(), generator)
        self.unseen = torch.where(origin >= 0, self.unseen[origin.clamp(min=0)], 0)
        self.splats = splats
        self.optimiser.replace(splats.tensors(), origin)

    def _wanted(self) -> int:
        """Return the number of splats that this step's densification is to reach."""
        return round(self.initial_count * (self._budget / self.initial_count) ** self._grown)

    @property
    def _budget(self) -> int:
        return max(self.config.splats, self.initial_count)

    @property
    def _grown(self) -> float:
        """Share of the way to the budget, 1 some time before densification ends."""
        first, last = DENSIFY
        return min(1.0, (self.done - first) / (0.75 * (last - first)))

    def _voters(self) -> list[int]:
        """Return the photos that vote at this step's densification."""
        order = torch.randperm(len(self.photos), generator=self._generator(2, self.step))
        return order[:VOTING_VIEWS].tolist()

    def _votes(self, voters: Sequence[int]) -> Tensor:
        """Return (N, 2) of :func:`recon.splats.density.shares`."""
        targets = [self.target(i) for i in voters]
        return shares(self.splats, targets, self.background, self.sh_degree, self.config.antialiased)

    def state(self) -> dict[str, Tensor]:
        """Return all tensors of the fit, for a checkpoint; with ``step`` and ``initial_count`` they are all of it."""
        return {
            "unseen": self.unseen,
            **{f"splats.{name}": t for name, t in self.splats.tensors().items()},
            **{f"optimiser.{name}": t for name, t in self.optimiser.state().items()},
            **{f"corrections.{name}": t for name, t in self.corrections.state().items()},
        }

    def load_state(self, tensors: dict[str, Tensor], step: int, initial_count: int) -> None:
        """Go on from a checkpoint."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self.splats = Splats(**{name: t.clone() for name, t in part("splats.").items()})
        self.optimiser = self._make_optimiser()
        self.optimiser.load_state(part("optimiser."))
        self.corrections.load_state(part("corrections."))
        self.unseen = tensors["unseen"].clone()
        self.step, self.initial_count = step, initial_count


def photometric_loss(image: Tensor, target: Target, ssim_weight: float) -> Tensor:
    """Return the loss of one (H, W, 3) render; where the photo's mask is False nothing counts."""
    photo = target.rgb
    if target.mask is None:
        error = (image - photo).abs().mean()
        return (1 - ssim_weight) * error + ssim_weight * (1 - ssim(image, photo).mean())
    mask = target.mask[..., None]
    image = torch.where(mask, image, photo)  # alike outside, so that windows at the border see no difference
    share = mask.float().mean().clamp(min=1e-6)
    dissimilarity = ((1 - ssim(image, photo)) * mask).mean() / share
    return (1 - ssim_weight) * (image - photo).abs().mean() / share + ssim_weight * dissimilarity


def rules(splats: Splats) -> dict[str, Rule]:
    """Return the optimiser's rules: 5 to 40 times the rates of 3DGS, made safe by the limits on each step."""
    harmonics = torch.full((splats.sh.shape[1], 3), 4e-3)
    harmonics[0] = 4e-2
    return {
        "means": Rule(torch.full((3,), 1.5e-3), 0.15, cooldown=COOLDOWN),
        "log_scales": Rule(torch.full((3,), 1e-1), 0.3, 0.3, COOLDOWN),
        "quats": Rule(torch.full((4,), 2e-2), 0.3, 0.3, COOLDOWN),
        "logits": Rule(torch.full((1,), 1e-1), 0.3, 1.0, COOLDOWN),
        "sh": Rule(harmonics.flatten(), 0.3, 0.5, COOLDOWN),
    }
