"""What a fit may correct of each photo: the camera's pose, and the exposure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from recon.solve.adam import Adam, Rule
from recon.solve.block_lm import BlockLM, BlockRule
from recon.splats import ranks
from recon.splats.render import Pose

EXPOSURES = {"exposures": Rule(torch.full((12,), 2e-3), 0.05)}
POSES = BlockRule(torch.full((6,), 1e-2), torch.full((6,), 0.1), overlap=1.0, momentum=0.5)
FARTHEST = torch.full((6,), 0.02)
"""Largest step of a pose: radians, and units of about the distance to the scene."""
BEGIN = 0.2
"""Share of the fit from which photos are corrected: coarse splats would pull cameras away that were right."""


class Corrections:
    """Small corrections of each photo, none at first, fitted along with the splats.

    A pose is corrected by a rigid motion from the left, X_camera → M X_camera. Its unknowns are a twist ξ (rotation
    vector ω, shift v), M → exp(ξ) M, which takes damped Gauss–Newton steps by its own block of Jᵀ W J, for a short fit
    sees a photo a dozen times, too seldom for Adam. An exposure is a 3×4 affine map of the rendered colour (as in Kerbl
    et al.'s later code). Held-out photos get none. Only the photos of a step move in it.

    Args:
        count: photos.
        poses: whether poses are corrected.
        exposures: whether exposures are.
        device: where.
    """

    def __init__(self, count: int, poses: bool, exposures: bool, device: str | torch.device = "cpu") -> None:
        self._count = count
        self._blocks = BlockLM(count, POSES, device) if poses else None
        self._motions = torch.eye(4, device=device).repeat(count, 1, 1)
        self._twists = torch.zeros(count, 6, requires_grad=poses, device=device)  # of the step under way
        self._exposures = torch.zeros(count, 3, 4, device=device)
        self._adam = Adam({"exposures": self._exposures}, EXPOSURES) if exposures else None
        self._exposures.requires_grad_(exposures)
        self._seen: dict[int, Tensor] = {}  # blocks of the step under way

    def pose(self, index: int, pose: Pose) -> Pose:
        """Return the corrected pose of photo ``index``."""
        if self._blocks is None:
            return pose
        motion = _exponential(self._twists[index]) @ self._motions[index]
        return replace(pose, viewmat=motion @ pose.viewmat)

    def expose(self, index: int, image: Tensor) -> Tensor:
        """Return (H, W, 3) ``image`` as photo ``index`` exposes it."""
        if self._adam is None:
            return image
        change = self._exposures[index]
        return image + image @ change[:, :3].T + change[:, 3]

    def wants_block(self, index: int, done: float, due: bool) -> bool:
        """Whether a step needs the block of photo ``index``: where ``due``, and if none is known yet."""
        return self._blocks is not None and done >= BEGIN and (due or not self._blocks.knows(index))

    def see(self, index: int, block: Tensor) -> None:
        """Take the (6, 6) block of the loss of photo ``index`` by its twist into the average, at this step."""
        self._seen[index] = block

    def step(self, done: float, seen: Sequence[int]) -> None:
        """Take a step along the gradients that the losses of the photos ``seen`` left.

        ``done`` is the share of the fit that is over.
        """
        touched = self._only(seen)
        for leaf in (self._twists, self._exposures):
            if leaf.requires_grad and ranks.count() > 1:
                leaf.grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
                ranks.add_up(leaf.grad)
        with torch.no_grad():
            self._take_blocks()
            if self._blocks is not None and self._twists.grad is not None and done >= BEGIN:
                twists = self._blocks.step(self._twists.grad, touched, done, FARTHEST.to(touched.device))
                for index in set(seen):
                    self._motions[index] = _exponential(twists[index]) @ self._motions[index]
            if self._adam is not None and self._exposures.grad is not None and done >= BEGIN:
                self._adam.step({"exposures": self._exposures.grad}, touched, done)
        self._twists.grad = self._exposures.grad = None

    def _take_blocks(self) -> None:
        if self._blocks is not None:
            packed, which = self._motions.new_zeros(self._count, 21), self._only(list(self._seen))
            for index, block in self._seen.items():
                packed[index] = block[*torch.triu_indices(6, 6)]
            ranks.add_up(packed)
            self._blocks.see(packed, ranks.any_of(which))
            self._seen = {}

    def state(self) -> dict[str, Tensor]:
        """Return everything, for a checkpoint."""
        found = {"motions": self._motions, "exposures": self._exposures.detach()}
        for name, part in self._solvers().items():
            found |= {f"{name}.{key}": t for key, t in part.state().items()}
        return found

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's :meth:`state`."""
        self._motions = tensors["motions"].clone()
        with torch.no_grad():
            self._exposures.copy_(tensors["exposures"])
        for name, part in self._solvers().items():
            start = f"{name}."
            part.load_state({n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)})

    def _solvers(self) -> dict[str, Adam | BlockLM]:
        found = {"adam": self._adam, "blocks": self._blocks}
        return {name: part for name, part in found.items() if part is not None}

    def _only(self, seen: Sequence[int]) -> Tensor:
        touched = torch.zeros(self._count, dtype=torch.bool, device=self._motions.device)
        touched[list(seen)] = True
        return touched


def _exponential(twist: Tensor) -> Tensor:
    """Return the (4, 4) rigid motion of a small twist (6,): rotation by the matrix exponential, then the shift."""
    w, v = twist[:3], twist[3:]
    zero = twist.new_zeros(())
    cross = torch.stack([zero, -w[2], w[1], w[2], zero, -w[0], -w[1], w[0], zero]).view(3, 3)
    top = torch.cat([torch.linalg.matrix_exp(cross), v[:, None]], 1)
    return torch.cat([top, twist.new_tensor([[0.0, 0, 0, 1]])])
