"""Point tracks of a video, where there are none: points of the template, each taken along by optical flow.

They drift by what the flow is off in each frame, and end where it does not lead back (:mod:`recon.deform.flow`): for
methods that know nothing but tracks. :mod:`recon.deform.video_fit` begins each frame anew on the surface instead.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.capture.capture import Photo
from recon.deform.flow import flowed, grey
from recon.deform.observations import SurfacePoints, projected
from recon.deform.sampling import surface_samples
from recon.deform.visibility import visible

_POINTS = 500


class TrackedPoints:
    """Points on their way through a video.

    Args:
        template: (V, 3) float64, the surface in the first frame.
        faces: (F, 3) int64.
        K: (3, 3) float64 of the frames.
        first: the first frame.

    Attributes:
        points: on the template.
        pixels: (N, 2) float64 where they were last.
        known: (N,) bool whether they still are.
    """

    def __init__(self, template: Tensor, faces: Tensor, K: NDArray[np.float64], first: Photo) -> None:
        every, border = surface_samples(faces, _POINTS)
        inside = torch.nonzero(~border)[:, 0]
        inside = inside[:: max(1, len(inside) // _POINTS)]
        self.points = SurfacePoints(every.corners[inside], every.weights[inside])
        camera = torch.from_numpy(K)
        height, width = first.rgb.shape[:2]
        self.pixels, _ = projected(self.points.at(template), camera)
        self.known = visible(self.points, template, faces, camera, width, height)

    def follow(self, last: Photo, photo: Photo) -> None:
        """Go on from a frame to the next."""
        found, believed = flowed(grey(last.rgb), grey(photo.rgb), self.pixels)
        self.known = self.known & believed
        self.pixels = torch.where(self.known[:, None], found, self.pixels)
