"""A surface that follows a video: from frame to frame by optical flow, then by how it looked in the first one.

Flow says where each point went, a pixel more or less, and a little more so with each frame. The look of the first frame
(:mod:`recon.deform.look`), compared point by point, is what the surface is held to, so that nothing drifts; and the
mask's outline, where there is one. All of it is one energy with the metric and bending (:mod:`recon.deform.shape`),
minimised by Levenberg–Marquardt: a few steps for the flow, a few for each blur.

Points that are hidden, by the surface as it was, are left out; so is what light, folds or other things have changed, by
the robust loss.

Sources: Lucas & Kanade 1981; Ngo et al. 2015, "Dense image registration and deformable surface reconstruction in
presence of occlusions and minimal texture".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.capture.capture import Photo
from recon.deform.flow import flowed, grey
from recon.deform.look import BLURS, Window, looks, outline
from recon.deform.observations import Looking, Observation, Outlined, Seen, bilinear, projected
from recon.deform.sampling import surface_samples
from recon.deform.shape import Shape, Sheet, solve
from recon.deform.track_fit import BENDING, STEPS, TOLERANCE, WRONG
from recon.deform.visibility import visible

SAMPLES = 6000
LOOK_NOISE = 0.06
"""Standard deviation of a look's channel."""
OUTLINE = (3.0, 3.0)
"""Noise of the outline in pixels, masks being cut out roughly, and σ of its robust loss in units of that."""
RIM = 3.0
"""Pixels inside of the first outline that are left out: there the background shines through."""
_MARGIN = 0.1
"""Of the surface's size in the image that is looked at around it."""


@dataclass(frozen=True)
class FollowedShape:
    """What was found in a frame.

    Attributes:
        vertices: (V, 3) float64, in the camera's frame.
        look: root of the mean square of the look's difference, over the points that are seen, in units of its noise.
        seen: share of the points that are.
        steps: of Levenberg–Marquardt.
    """

    vertices: Tensor
    look: float
    seen: float
    steps: int


class VideoFit:
    """Frames of one template, each from the one before.

    Args:
        template: (V, 3) float64 whose metric is kept.
        faces: (F, 3) int64.
        K: (3, 3) float64, of the photos.
        first: the first photo; all others are of its size.
        shape: (V, 3) the surface in it.
        bending: β.
        check: called often; raises where the fit is to stop.
    """

    def __init__(
        self,
        template: Tensor,
        faces: Tensor,
        K: NDArray[np.float64],
        first: Photo,
        shape: Tensor,
        bending: float = BENDING,
        check: Callable[[], None] | None = None,
    ) -> None:
        points, self._border = surface_samples(faces, SAMPLES)
        self._sheet = Sheet(template, faces, points)
        self._K, self._bending, self._check = K, bending, check
        self._size = first.rgb.shape[1], first.rgb.shape[0]
        window = self._window(first, shape)
        pixels, _ = projected(points.at(shape), torch.from_numpy(window.camera(K)))
        self._looks = [bilinear(one, pixels)[0] for one in looks(first, window)]
        self._known = self._visible(shape)
        distance = outline(first, window)
        if distance is not None:
            self._known &= bilinear(distance, pixels)[0][:, 0] < -RIM

    def follow(self, photo: Photo, last: Photo, before: Tensor) -> FollowedShape:
        """Return the shape of a frame from the one before.

        Args:
            photo: the frame.
            last: the one before.
            before: (V, 3) the surface in that.
        """
        window = self._window(photo, before)
        camera, seen = torch.from_numpy(window.camera(self._K)), self._visible(before)
        pixels, _ = projected(self._sheet.points.at(before), camera)
        found, believed = flowed(grey(window.cut(last.rgb)), grey(window.cut(photo.rgb)), pixels)
        flow = Seen(found, (believed & seen & self._known).double(), camera, 1.0, WRONG)
        vertices, steps = self._solve((flow, *self._outlined(outline(photo, window), seen, camera)), before)
        refined = self.refine(photo, vertices)
        return replace(refined, steps=steps + refined.steps)

    def refine(self, photo: Photo, vertices: Tensor) -> FollowedShape:
        """Return the shape of a frame from (V, 3) about where it is."""
        window, total = self._window(photo, vertices), 0
        distance, camera = outline(photo, window), torch.from_numpy(window.camera(self._K))
        for image, values in zip(looks(photo, window), self._looks, strict=True):
            seen = self._visible(vertices)
            belief = (seen & self._known).double()
            observed = Looking(image, values, belief, camera, LOOK_NOISE, WRONG)
            vertices, steps = self._solve((observed, *self._outlined(distance, seen, camera)), vertices)
            total += steps
        squares = observed.residuals(self._sheet.points.at(vertices)).square().mean(1)
        off = float(((belief * squares).sum() / belief.sum().clamp(min=1)).sqrt())
        return FollowedShape(vertices, off, float(seen.double().mean()), total)

    def _solve(self, observed: tuple[Observation, ...], start: Tensor) -> tuple[Tensor, int]:
        return solve(Shape(self._sheet, observed, self._bending), start, STEPS, TOLERANCE, self._check)

    def _outlined(self, distance: Tensor | None, seen: Tensor, camera: Tensor) -> tuple[Observation, ...]:
        if distance is None:
            return ()
        return (Outlined(distance, self._border, seen.double(), camera, *OUTLINE),)

    def _visible(self, vertices: Tensor) -> Tensor:
        K = torch.from_numpy(self._K)
        return visible(self._sheet.points, vertices, self._sheet.faces, K, *self._size)

    def _window(self, photo: Photo, vertices: Tensor) -> Window:
        """Return the part of the image where the surface was, and where the mask is."""
        pixels = projected(vertices, torch.from_numpy(self._K))[0].numpy()
        low, high = pixels.min(0), pixels.max(0)
        if photo.mask is not None and (photo.mask > 0.5).any():
            rows, columns = np.nonzero(photo.mask > 0.5)
            low = np.minimum(low, [columns.min(), rows.min()])
            high = np.maximum(high, [columns.max() + 1, rows.max() + 1])
        margin = _MARGIN * (high - low).max() + 4 * max(BLURS)
        left, top = np.clip(low - margin, 0, np.array(self._size) - 1).astype(int)
        right, bottom = np.minimum(np.ceil(high + margin), self._size).astype(int)
        return Window(int(left), int(top), max(int(right), int(left) + 1), max(int(bottom), int(top) + 1))
