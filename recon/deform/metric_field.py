"""A surface that follows tracks as a network (:mod:`recon.deform.neural_surface`) whose metric is kept.

The network f is fitted to the template first, then to each frame from what it was in the frame before, by Adam on

    L = mean |(π(f) − p) / size|²  +  mean (f − f')²  +  mean (g − g₀)²  +  S,   g = Jᵀ J,   J = ∂f / ∂(u, v)

with the projection π, the tracks p, the surface f' of the frame before and the metric g₀ that the network had when it
was the template. The means are over tracks, over vertices and over vertices, and over the two coordinates, three
coordinates and four entries of each. S is how far π(f) is from the frame's mask (:mod:`recon.deform.silhouette`), where
there is one. The template's farthest vertex is at a distance of 1 from its centre.

Source: Barbany, Colomé & Torras 2024, "Deformable surface reconstruction via Riemannian metric preservation", §3, with
the settings of its code. That code keeps the step that is nearest to the true surface, and has the unit of length from
true surfaces; here the loss says which step is kept and when a frame is done, and the template what the unit is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.deform.descent import Descent
from recon.deform.neural_surface import NeuralSurface
from recon.deform.observations import Seen, projected
from recon.deform.shape import Sheet
from recon.deform.silhouette import Silhouette
from recon.deform.track_fit import FrameShape
from recon.errors import InputError
from recon.mesh.topology import boundary

IN_FACES, ON_BORDER = 2, 3
"""Random points of each face and of each edge of the border that the template is fitted at besides its vertices."""
OUTLINED = 2000
"""Random points, about, that are compared with a mask: fewer would cover it best by not reaching its outline."""


@dataclass(frozen=True)
class MetricRule:
    """How the network is fitted, by default as published.

    Attributes:
        projection: weight of the projection in the loss.
        time: weight of the frame before.
        metric: weight of the metric.
        silhouette: weight of the mask.
        rate: of Adam.
        steps: of a frame, at most.
        patience: steps without a lower loss at which a frame is done.
        template_patience: the same for the template, which takes as many steps as it needs.
    """

    projection: float = 1.0
    time: float = 1.0
    metric: float = 1.0
    silhouette: float = 1.0
    rate: float = 1e-4
    steps: int = 200
    patience: int = 50
    template_patience: int = 300


class MetricField:
    """Frames of one template, in their order; used as :class:`recon.deform.track_fit.TrackFit` is.

    Args:
        sheet: the template; its points are those of the tracks.
        uvs: (V, 2) in [0, 1] of its vertices (:mod:`recon.deform.parameterise`).
        K: (3, 3) float64.
        size: width and height of the frames in pixels, cropped to where the surface is seen.
        rule: how the network is fitted.
        seed: of the network and of the random points.
        device: where the network is fitted; what it is given and what it returns is on the CPU.
        check: called often; raises where the fit is to stop, which leaves the network as the last frame did.

    Raises:
        InputError: ``uvs`` are not (V, 2) or not finite (code ``"bad-uvs"``).
    """

    def __init__(
        self,
        sheet: Sheet,
        uvs: NDArray[np.float64],
        K: NDArray[np.float64],
        size: tuple[float, float],
        rule: MetricRule | None = None,
        seed: int = 0,
        device: str = "cpu",
        check: Callable[[], None] | None = None,
    ) -> None:
        if uvs.shape != (len(sheet.template), 2) or not np.isfinite(uvs).all():
            raise InputError(
                f"The (u, v) {uvs.shape} of the template's {len(sheet.template)} vertices are not (V, 2), or not all "
                "are finite.",
                "Give each vertex one, as recon.deform.parameterise does.",
                "bad-uvs",
            )
        self._sheet, self._K, self._rule, self._seed = sheet, K, rule or MetricRule(), seed
        self._check = check or (lambda: None)
        self._device = torch.device(device)
        self._size = torch.tensor(size, device=device)
        self._uv = torch.from_numpy(uvs).float().to(device)
        self._uv_points = sheet.points.at(torch.from_numpy(uvs)).float().to(device)
        faces = sheet.faces.repeat(-(-OUTLINED // len(sheet.faces)), 1)
        self._uv_dense = _drawn(self._uv[faces], torch.Generator().manual_seed(seed))
        self._centre = sheet.template.mean(0)
        self._unit = float((sheet.template - self._centre).norm(dim=1).max())
        self._net = NeuralSurface(seed).to(device)
        self._descent = Descent(self._net, self._rule.rate, self._rule.template_patience)
        self._metric: Tensor | None = None  # (V, 2, 2) g₀, once the network is fitted to the template

    def fit_template(self, between: Callable[[], None] = lambda: None) -> Tensor:
        """Return (V, 2, 2) g₀, once the network is fitted to the template; the first frame begins with that.

        ``between`` is called between steps, where :meth:`state` may be taken.
        """
        faces, border = self._sheet.faces, torch.from_numpy(boundary(self._sheet.faces.int().numpy()))
        elements = [t.to(self._device) for t in (faces.repeat(IN_FACES, 1), border.repeat(ON_BORDER, 1))]
        vertices = torch.cat([self._uv, self._in_units(self._sheet.template)], 1)
        generator = torch.Generator()

        def loss() -> Tensor:
            generator.manual_seed(self._seed + self._descent.steps)  # wherever the fit goes on from
            samples = torch.cat([vertices, *(_drawn(vertices[element], generator) for element in elements)])
            return (self._net(samples[:, :2]) - samples[:, 2:]).square().mean()

        while self._metric is None:
            self._check()
            between()
            if not self._descent.step(loss()):
                self._descent.finish()
                with torch.no_grad():
                    self._metric = _metric(self._net.with_jacobian(self._uv)[1])
        return self._metric

    def frame(
        self,
        pixels: NDArray[np.float64],
        belief: NDArray[np.float64],
        before: Tensor | None,
        mask: NDArray[np.floating] | None = None,
    ) -> FrameShape:
        """Return the shape of a frame.

        The network starts from what it holds, which is the frame that was fitted last, or else the template.

        Args:
            pixels: (N, 2) where the points are seen; anything where ``belief`` is 0.
            belief: (N,) in [0, 1].
            before: (V, 3) the frame before, which the shape is kept near; None for what the network holds.
            mask: (H, W) of the frame, above one half where the surface is.

        Returns:
            The shape, never ``bent``; its cost is L and its steps are Adam's.
        """
        rest = self.fit_template()
        pixels = np.where(belief[:, None] > 0, pixels, 0)
        K = torch.from_numpy(self._K)
        seen = Seen(torch.from_numpy(pixels), torch.from_numpy(belief), K, 1.0, math.inf)
        outline = None
        if mask is not None and (mask > 0.5).any():
            outline = Silhouette(mask, self._size, self._seed)
        loss = self._loss(seen, rest, self._vertices() if before is None else before, outline)
        net = copy.deepcopy(self._net)
        descent = Descent(net, self._rule.rate, self._rule.patience)
        while descent.steps < self._rule.steps and descent.step(loss(net)):
            self._check()
        descent.finish()
        self._net.load_state_dict(net.state_dict())
        vertices = self._vertices()
        distance = seen.residuals(self._sheet.points.at(vertices)).norm(dim=1)
        return FrameShape(vertices, descent.least, distance, descent.steps, bent=False)

    def state(self) -> dict[str, Tensor]:
        """Return what the network holds, for a checkpoint: whole frames, or whole steps of the template's fit."""
        of = self._descent.state() if self._metric is None else {"metric": self._metric}
        return {**of, **{f"net.{name}": t.clone() for name, t in self._net.state_dict().items()}}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint's :meth:`state`, of the same template, rule and seed."""
        self._net.load_state_dict({name: state[f"net.{name}"] for name in self._net.state_dict()})
        if "metric" in state:
            self._metric = state["metric"].to(self._device)
        else:
            self._metric = None
            self._descent.load_state(state)

    def _loss(
        self, seen: Seen, rest: Tensor, before: Tensor, outline: Silhouette | None
    ) -> Callable[[NeuralSurface], Tensor]:
        """Return L of a frame."""
        rule, last = self._rule, self._in_units(before)
        some = seen.belief > 0
        uv, shares = self._uv_points[some.to(self._device)], (seen.belief / seen.belief.sum())[some]
        pixels, shares, K = (t.float().to(self._device) for t in (seen.pixels[some], shares, seen.K))
        seen = Seen(pixels, shares, K, 1.0, math.inf)

        def loss(net: NeuralSurface) -> Tensor:
            points, jacobian = net.with_jacobian(self._uv)
            off = seen.residuals(self._in_camera(net(uv))) / self._size
            projection = (seen.belief * off.square().mean(1)).sum()
            time, metric = (points - last).square().mean(), (_metric(jacobian) - rest).square().mean()
            total = rule.projection * projection + rule.time * time + rule.metric * metric
            if outline is None:
                return total
            image = projected(self._in_camera(net(self._uv_dense)), seen.K)[0]
            return total + rule.silhouette * outline.distance(image)

        return loss

    def _vertices(self) -> Tensor:
        """Return (V, 3) float64 where the network has the vertices."""
        with torch.no_grad():
            return self._in_camera(self._net(self._uv).double().cpu())

    def _in_units(self, vertices: Tensor) -> Tensor:
        return ((vertices - self._centre) / self._unit).float().to(self._device)

    def _in_camera(self, points: Tensor) -> Tensor:
        return self._unit * points + self._centre.to(points)


def _drawn(corners: Tensor, generator: torch.Generator) -> Tensor:
    """Return (E, d) random points of (E, k, d) simplices, spread evenly in each."""
    weights = torch.empty(corners.shape[:2]).exponential_(generator=generator).to(corners.device)
    return ((weights / weights.sum(1, keepdim=True))[:, None] @ corners)[:, 0]


def _metric(jacobian: Tensor) -> Tensor:
    return jacobian.mT @ jacobian
