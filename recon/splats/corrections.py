"""What a fit may correct of each photo: the camera's pose, and the exposure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from recon.solve.adam import Adam, Rule
from recon.splats.render import Pose

RULES = {"twists": Rule(torch.full((6,), 1e-3), 0.05), "exposures": Rule(torch.full((12,), 2e-3), 0.05)}
BEGIN = 0.2
"""Share of the fit from which photos are corrected: coarse splats would pull cameras away that were right."""


class Corrections:
    """Small corrections of each photo, all zero at first, fitted along with the splats.

    A pose is corrected by a twist (rotation vector ω, shift v) from the left: X_camera → exp(ω×) X_camera + v. An
    exposure is a 3×4 affine map of the rendered colour (as in Kerbl et al.'s later code). Held-out photos get none.
    Only the photos of a step move in it: Adam's momentum would carry the others far off between two looks at them.
    """

    def __init__(self, count: int, poses: bool, exposures: bool) -> None:
        self._tensors: dict[str, Tensor] = {}
        if poses:
            self._tensors["twists"] = torch.zeros(count, 6)
        if exposures:
            self._tensors["exposures"] = torch.zeros(count, 3, 4)
        self._count = count
        self._optimiser = Adam(self._tensors, RULES) if self._tensors else None
        for tensor in self._tensors.values():
            tensor.requires_grad_()

    def pose(self, index: int, pose: Pose) -> Pose:
        """Return the corrected pose of photo ``index``."""
        if "twists" not in self._tensors:
            return pose
        return replace(pose, viewmat=_exponential(self._tensors["twists"][index]) @ pose.viewmat)

    def expose(self, index: int, image: Tensor) -> Tensor:
        """Return (H, W, 3) ``image`` as photo ``index`` exposes it."""
        if "exposures" not in self._tensors:
            return image
        change = self._tensors["exposures"][index]
        return image + image @ change[:, :3].T + change[:, 3]

    def step(self, done: float, seen: Sequence[int]) -> None:
        """Take a step along the gradients that the losses of the photos ``seen`` left.

        ``done`` is the share of the fit that is over.
        """
        if self._optimiser is None:
            return
        if done >= BEGIN:
            touched = torch.zeros(self._count, dtype=torch.bool)
            touched[list(seen)] = True
            gradients = {name: t.grad for name, t in self._tensors.items() if t.grad is not None}
            with torch.no_grad():
                self._optimiser.step(gradients, touched, done)
        for tensor in self._tensors.values():
            tensor.grad = None

    def state(self) -> dict[str, Tensor]:
        """Return everything, for a checkpoint."""
        moments = self._optimiser.state() if self._optimiser is not None else {}
        tensors = {name: t.detach() for name, t in self._tensors.items()}
        return tensors | {f"adam.{name}": t for name, t in moments.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's :meth:`state`."""
        if self._optimiser is None:
            return
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(tensors[name])
        self._optimiser.load_state({n.removeprefix("adam."): t for n, t in tensors.items() if n.startswith("adam.")})


def _exponential(twist: Tensor) -> Tensor:
    """Return the (4, 4) rigid motion of a small twist (6,): rotation by the matrix exponential, then the shift."""
    w, v = twist[:3], twist[3:]
    zero = torch.zeros(())
    cross = torch.stack([zero, -w[2], w[1], w[2], zero, -w[0], -w[1], w[0], zero]).view(3, 3)
    top = torch.cat([torch.linalg.matrix_exp(cross), v[:, None]], 1)
    return torch.cat([top, torch.tensor([[0.0, 0, 0, 1]])])
