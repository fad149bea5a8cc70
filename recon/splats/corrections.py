"""What a fit may correct of each photo: the camera's pose, and the exposure."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from recon.splats.render import Pose

POSE_RATE = 2e-4
EXPOSURE_RATE = 2e-3
DECAY = 0.05


class Corrections:
    """Small corrections of each photo, all zero at first, fitted along with the splats.

    A pose is corrected by a twist (rotation vector ω, shift v) from the left: X_camera → exp(ω×) X_camera + v. An
    exposure is a 3×4 affine map of the rendered colour (as in Kerbl et al.'s later code). Held-out photos get none.
    """

    def __init__(self, count: int, poses: bool, exposures: bool) -> None:
        self._twists = torch.zeros(count, 6) if poses else None
        self._exposures = torch.zeros(count, 3, 4) if exposures else None
        groups = [(self._twists, POSE_RATE), (self._exposures, EXPOSURE_RATE)]
        used = [{"params": [t.requires_grad_()], "lr": rate, "rate": rate} for t, rate in groups if t is not None]
        self._optimiser = torch.optim.Adam(used) if used else None

    def pose(self, index: int, pose: Pose) -> Pose:
        """Return the corrected pose of photo ``index``."""
        if self._twists is None:
            return pose
        return replace(pose, viewmat=_exponential(self._twists[index]) @ pose.viewmat)

    def expose(self, index: int, image: Tensor) -> Tensor:
        """Return (H, W, 3) ``image`` as photo ``index`` exposes it."""
        if self._exposures is None:
            return image
        change = self._exposures[index]
        return image + image @ change[:, :3].T + change[:, 3]

    def step(self, done: float) -> None:
        """Take a step along the gradients that the last losses left; ``done`` is the share of the fit that is over."""
        if self._optimiser is None:
            return
        for group in self._optimiser.param_groups:
            group["lr"] = group["rate"] * DECAY**done
        self._optimiser.step()
        self._optimiser.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """Return everything, for a checkpoint."""
        tensors: dict[str, Tensor] = {}
        for name, values in (("twists", self._twists), ("exposures", self._exposures)):
            if values is not None and self._optimiser is not None:
                tensors[name] = values.detach()
                for key, value in self._optimiser.state[values].items():
                    tensors[f"{name}.{key}"] = value
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's :meth:`state`."""
        for name, values in (("twists", self._twists), ("exposures", self._exposures)):
            if values is not None and self._optimiser is not None:
                with torch.no_grad():
                    values.copy_(tensors[name])
                saved = {k.removeprefix(f"{name}."): t.clone() for k, t in tensors.items() if k.startswith(f"{name}.")}
                if saved:
                    self._optimiser.state[values] = saved


def _exponential(twist: Tensor) -> Tensor:
    """Return the (4, 4) rigid motion of a small twist (6,): rotation by the matrix exponential, then the shift."""
    w, v = twist[:3], twist[3:]
    zero = torch.zeros(())
    cross = torch.stack([zero, -w[2], w[1], w[2], zero, -w[0], -w[1], w[0], zero]).view(3, 3)
    top = torch.cat([torch.linalg.matrix_exp(cross), v[:, None]], 1)
    return torch.cat([top, torch.tensor([[0.0, 0, 0, 1]])])
