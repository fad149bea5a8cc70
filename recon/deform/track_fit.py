"""A surface that follows tracks: a shape for each frame, from the template, the camera and where points are seen.

Two starts are tried: the frame before, and the template bent to where an inextensible surface's points must about be
(:mod:`recon.deform.farthest`), which needs no frame before and settles the sense of bends. Each is first solved stiffly
with all tracks believed; that of lower energy, for nothing else is known of a frame, is then let loose, with wrong
tracks left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.deform.farthest import consistent, farthest_points
from recon.deform.observations import Placed, Seen
from recon.deform.rigid import kabsch
from recon.deform.shape import Shape, Sheet, solve
from recon.deform.sheet import neighbours

BENDING = 0.03
"""β."""
STIFF = 30.0
"""How many times that while it is not known yet which tracks are wrong."""
PLACED = (1000.0, 10.0)
"""The same, where the template is bent to points in space, in this order."""
WRONG = 5.0
"""σ of the robust loss, in units of the noise."""
STEPS = 60
TOLERANCE = 1e-3
"""Share of the cost at which a solution is good enough: a tenth of what 1 px of noise makes of it."""


@dataclass(frozen=True)
class FrameShape:
    """What was found in a frame.

    Attributes:
        vertices: (V, 3) float64, in the camera's frame.
        cost: energy.
        pixels: (N,) distance of each point from where it was seen.
        steps: of Levenberg–Marquardt, all starts.
        bent: whether the start was the template bent to points in space, not the frame before.
    """

    vertices: Tensor
    cost: float
    pixels: Tensor
    steps: int
    bent: bool


class TrackFit:
    """Frames of one template, in any order.

    Args:
        sheet: the template; its points are those of the tracks.
        K: (3, 3) float64.
        noise: standard deviation of tracks that are right, in pixels.
        bending: β.
        check: called often; raises where the fit is to stop.
    """

    def __init__(
        self,
        sheet: Sheet,
        K: NDArray[np.float64],
        noise: float = 1.0,
        bending: float = BENDING,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._sheet, self._K, self._noise, self._bending, self._check = sheet, K, noise, bending, check
        self._rest = sheet.points.at(sheet.template)

    def frame(self, pixels: NDArray[np.float64], belief: NDArray[np.float64], before: Tensor | None) -> FrameShape:
        """Return the shape of a frame.

        Args:
            pixels: (N, 2) where the points are seen; anything where ``belief`` is 0.
            belief: (N,) in [0, 1].
            before: (V, 3) the frame before, None without one.
        """
        starts = [] if before is None else [(False, before, 0)]
        if (belief > 0).sum() >= 4:
            starts.append((True, *self._bent(pixels, belief)))
        stiff, loose = self._shape(pixels, belief, STIFF, 1e3), self._shape(pixels, belief, 1, WRONG)
        tried, total = [], 0
        for bent, start, steps in starts:
            if stiff.cost(start) < float("inf"):
                vertices, taken = self._solve(stiff, start)
                tried.append((stiff.cost(vertices), bent, vertices))
                total += taken
            total += steps
        _, bent, vertices = min(tried, key=lambda one: one[0])
        vertices, taken = self._solve(loose, vertices)
        cost, total = loose.cost(vertices), total + taken
        distance = self._noise * loose.observed[0].residuals(self._sheet.points.at(vertices)).norm(dim=1)
        return FrameShape(vertices, cost, distance, total, bent)

    def _bent(self, pixels: NDArray[np.float64], belief: NDArray[np.float64]) -> tuple[Tensor, int]:
        """Return the template bent to where its points must about be, and the steps that took."""
        seen = belief > 0
        rest = self._rest.numpy()
        seen[seen] = consistent(rest[seen], pixels[seen], self._noise)
        rest = rest[seen]
        places = np.zeros((len(seen), 3))
        places[seen] = farthest_points(pixels[seen], self._K, *neighbours(rest), self._noise)
        rotation, shift = kabsch(rest, places[seen])
        vertices = self._sheet.template @ torch.from_numpy(rotation.T.copy()) + torch.from_numpy(shift)
        unsure = 6 * self._noise / self._K[0, 0] * float(places[seen, 2].mean())
        observed = Placed(torch.from_numpy(places), torch.from_numpy(np.where(seen, belief, 0)), unsure, 10)
        steps = 0
        for stiff in PLACED:
            vertices, taken = self._solve(Shape(self._sheet, (observed,), stiff * self._bending), vertices)
            steps += taken
        return vertices, steps

    def _shape(self, pixels: NDArray[np.float64], belief: NDArray[np.float64], stiff: float, wrong: float) -> Shape:
        pixels = np.where(belief[:, None] > 0, pixels, 0)
        K = torch.from_numpy(self._K)
        seen = Seen(torch.from_numpy(pixels), torch.from_numpy(belief), K, self._noise, wrong)
        return Shape(self._sheet, (seen,), stiff * self._bending)

    def _solve(self, shape: Shape, start: Tensor) -> tuple[Tensor, int]:
        return solve(shape, start, STEPS, TOLERANCE, self._check)
