"""Fitting splats to photos by stochastic steps: coarse to fine, with a splat budget, resumable at any step.

    loss = photometric loss + λ_s mean √eig(Σ)                    (3DGS-MCMC, Kheradmand et al. 2024, §4.3)

the former (:mod:`recon.splats.loss`) summed over the views of a step (MVGS, Du et al. 2024). Everything random is drawn
from the seed and the number of the step alone, so a fit that goes on from a checkpoint takes the very steps of one that
was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from kernels.splat_jacobian import UNKNOWNS, Gradients, SplatJacobian
from recon.memory import coarser
from recon.splats import ranks
from recon.splats.config import SplatsConfig
from recon.splats.corrections import Corrections
from recon.splats.curvature import curvature
from recon.splats.density import count_unseen, redistribute, shares
from recon.splats.loss import photometric_loss
from recon.splats.model import Splats
from recon.splats.photos import LEVELS, Target, TrainingPhoto
from recon.splats.solver import ADAM, SplatRule, SplatSolver
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
SCALE_WEIGHT = 0.01
"""λ_s: no splat is larger than the photos ask for. The unit is about the distance to the scene."""


@dataclass
class Progress:
    """What a step tells: loss of the step, number of splats, level of the photos."""

    loss: float
    splats: int
    level: int


@dataclass
class Look:
    """One photo linearised: its Jacobian, the loss there, the loss's gradient by the splats and the camera."""

    jacobian: SplatJacobian
    loss: Tensor
    gradients: Gradients


@dataclass
class Fit:
    """A fit under way.

    Attributes:
        rule: how its steps are taken.
        splats: the model, leaf tensors that are updated in place.
        photos: training photos with cameras in the fitting frame, whose unit is about the distance to the scene.
        background: (3,).
        config: settings.
        step: steps taken.
        check: called often within a long step; raises to stop it, which leaves the fit as it was before.
        warn: told where a GPU's memory does not suffice for the photos at their size.
        least_level: level of the photos that it does suffice for.
    """

    rule: ClassVar[SplatRule] = ADAM

    splats: Splats
    photos: Sequence[TrainingPhoto]
    background: Tensor
    config: SplatsConfig
    step: int = 0
    check: Callable[[], None] = lambda: None
    warn: Callable[[str], None] = lambda message: None
    least_level: int = field(init=False, default=0)
    solver: SplatSolver = field(init=False)
    corrections: Corrections = field(init=False)
    initial_count: int = field(init=False)
    unseen: Tensor = field(init=False)
    _at_hand: tuple[tuple[int, int], Target] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.initial_count = len(self.splats)
        self.unseen = torch.zeros(len(self.splats), dtype=torch.int64, device=self.device)
        self.solver = SplatSolver(self.splats, self.rule.over(self.config.steps))
        self.corrections = Corrections(len(self.photos), self.config.refine_cameras, self.config.exposure, self.device)

    @property
    def device(self) -> torch.device:
        """Where the fit is computed: where the splats are."""
        return self.splats.means.device

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
        return max(self.least_level, next((level for end, level in COARSE if self.done < end), 0))

    def run(self) -> Iterator[Progress]:
        """Take the steps that are left, one for each item."""
        while self.step < self.config.steps:
            try:
                if self.step % DENSIFY_EVERY < self.stride and DENSIFY[0] <= self.done <= DENSIFY[1]:
                    self._densify()
                loss = self._take_step()
            except torch.OutOfMemoryError as error:
                if ranks.count() > 1:  # the others are in the middle of the step
                    raise
                self.least_level = coarser(self.level, LEVELS, error, self.warn)
                continue
            self.step = min(self.step + self.stride, self.config.steps)
            yield Progress(loss, len(self.splats), self.level)

    def target(self, index: int) -> Target:
        """Return photo ``index`` at this step's size."""
        key = index, self.level
        if self._at_hand is None or self._at_hand[0] != key:  # a step looks at the same one several times in a row
            self._at_hand = key, self.photos[index].levels[self.level].to(self.device)
        return self._at_hand[1]

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

    def look(self, splats: Splats, index: int, sample: Tensor | None = None) -> Look:
        """Linearise photo ``index`` at ``splats``; the photo's own corrections get their gradients.

        The loss's gradient by the image is multiplied by ``sample`` (H, W, 1) where it is given.
        """
        jacobian, target = self.jacobian(splats, index), self.target(index)
        image = jacobian.image.clone().requires_grad_()
        loss = photometric_loss(self.corrections.expose(index, image), target, self.config.ssim_weight)
        loss.backward()
        assert image.grad is not None
        gradients = jacobian.vjp(image.grad if sample is None else sample * image.grad)
        viewmat = self.corrections.pose(index, target.pose).viewmat
        if viewmat.requires_grad:
            viewmat.backward(gradients.viewmat)
        return Look(jacobian, loss.detach(), gradients)

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
        splats, views = self.splats, self._views()
        touched = torch.zeros(len(splats), dtype=torch.bool, device=self.device)
        gradients: list[Gradients] = []
        blocks: list[Tensor] = []
        total = splats.means.new_zeros((), dtype=torch.float64)
        by_block = bool(self.rule.geometry.overlap) and self._due
        for index in ranks.mine(views):
            seen = self.look(splats, index)
            gradients.append(seen.gradients)
            touched |= seen.jacobian.touched
            total += seen.loss
            if by_block:
                blocks.append(seen.jacobian.blocks(curvature(seen.jacobian.image, self.target(index))).geometry)
            self._see_pose(index, seen.jacobian)
        geometry = _sum([g.geometry for g in gradients], splats.means.new_empty(len(splats), UNKNOWNS))
        colors = _sum([g.colors for g in gradients], splats.sh)
        ranks.add_up(total)
        touched = ranks.any_of(touched)
        geometry[:, 3:6] += SCALE_WEIGHT * splats.scales / splats.log_scales.numel()
        if by_block:
            packed = splats.means.new_empty(len(splats), UNKNOWNS * (UNKNOWNS + 1) // 2)
            self.solver.geometry.see(_sum(blocks, packed), touched)
        self.solver.step(splats, geometry, colors, touched, self.done)
        self.corrections.step(self.done, views)
        return total.item() / self.config.views_per_step

    @property
    def _due(self) -> bool:
        """Whether this step looks at blocks of the curvature."""
        return self.step % BLOCKS_EVERY == 0

    def _see_pose(self, index: int, jacobian: SplatJacobian | None = None) -> None:
        """Let the corrections know the curvature of the loss by the pose of photo ``index``, if this step needs it."""
        if self.corrections.wants_block(index, self.done, due=self._due):
            jacobian = jacobian or self.jacobian(self.splats.detach(), index)
            height, width, _ = jacobian.image.shape
            sample = sampled_tiles(height, width, self._generator(0, self.step)).to(self.device)
            weights = sample * curvature(jacobian.image, self.target(index))
            self.corrections.see(index, jacobian.camera_block(weights, 6))

    def _densify(self) -> None:
        share = self._votes(self._voters())
        self.unseen = count_unseen(self.unseen, share)
        generator = self._generator(3, self.step)
        splats, origin = redistribute(self.splats, share[:, 0], self.unseen, self._wanted(), generator)
        self.unseen = torch.where(origin >= 0, self.unseen[origin.clamp(min=0)], 0)
        self.splats = splats
        self.solver.replace(splats, origin)

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
        targets = [self.target(i) for i in ranks.mine(voters)]
        votes = shares(self.splats, targets, self.background, self.sh_degree, self.config.antialiased)
        ranks.add_up(votes)
        return votes.float()

    def state(self) -> dict[str, Tensor]:
        """Return all tensors of the fit, for a checkpoint; with ``step`` and ``initial_count`` they are all of it."""
        return {
            "unseen": self.unseen,
            **{f"splats.{name}": t for name, t in self.splats.tensors().items()},
            **{f"solver.{name}": t for name, t in self.solver.state().items()},
            **{f"corrections.{name}": t for name, t in self.corrections.state().items()},
        }

    def load_state(self, tensors: dict[str, Tensor], step: int, initial_count: int) -> None:
        """Go on from a checkpoint."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self.splats = Splats(**{name: t.clone() for name, t in part("splats.").items()})
        self.solver = SplatSolver(self.splats, self.rule.over(self.config.steps))
        self.solver.load_state(part("solver."))
        self.corrections.load_state(part("corrections."))
        self.unseen = tensors["unseen"].clone()
        self.step, self.initial_count = step, initial_count


def _sum(parts: list[Tensor], like: Tensor) -> Tensor:
    """Return the sum of what all processes found, shaped as ``like``; the very part where there is one alone.

    In float64: its order, which is that of the processes, then hardly ever shows in float32, where Adam would make a
    whole step of a gradient that is rounding alone.
    """
    if len(parts) == ranks.count() == 1:
        return parts[0]
    total = torch.zeros_like(like, dtype=torch.float64)
    for part in parts:
        total += part
    ranks.add_up(total)
    return total.to(like.dtype)
