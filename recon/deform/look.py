"""How a surface looks in a frame, whatever the light: what is compared when it is fitted to the frame's pixels.

    L = log(I + ε) − (G_σ * m log(I + ε)) / (G_σ * m)            inside of the mask m, 0 outside

Light and shade multiply colours, and change slowly along a surface; L is what is left of the pattern. It is blurred by
4, 2 and 1 pixels in turn, so that the coarse patterns, which reach further, lead to the fine ones.

Sources: Horn 1974, "Determining lightness from an image", for the logarithm and what is slow in it; Knutsson & Westin
1993, "Normalized and differential convolution", for the mean inside of a mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.capture.capture import Array, Photo

BLURS = (4.0, 2.0, 1.0)
"""Standard deviations in pixels, in the order in which a fit goes through them."""
_SLOW = 12.0
"""σ in pixels."""
_DARK = 0.1
"""ε: black is noise."""


@dataclass(frozen=True)
class Window:
    """A part of an image.

    Attributes:
        left, top, right, bottom: pixels; the latter two are the first ones outside.
    """

    left: int
    top: int
    right: int
    bottom: int

    def camera(self, K: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the (3, 3) intrinsics of the part of an image with ``K``."""
        moved = K.copy()
        moved[:2, 2] -= self.left, self.top
        return moved

    def cut(self, image: Array) -> Array:
        """Return the part of an (H, W, …) image."""
        return image[self.top : self.bottom, self.left : self.right]


def looks(photo: Photo, window: Window) -> list[Tensor]:
    """Return (H, W, 3) float64 L of a part of a frame, for each of :data:`BLURS`."""
    rgb, mask = window.cut(photo.rgb), _mask(photo, window)
    plain = _without_light(rgb, np.ones(rgb.shape[:2], np.float32) if mask is None else mask)
    return [torch.from_numpy(cv2.GaussianBlur(plain, (0, 0), blur).astype(np.float64)) for blur in BLURS]


def outline(photo: Photo, window: Window) -> Tensor | None:
    """Return (H, W, 1) float64 pixels to the mask's outline, negative inside, of a part of a frame with a mask."""
    mask = _mask(photo, window)
    return None if mask is None else torch.from_numpy(_distance(mask)[:, :, None])


def _mask(photo: Photo, window: Window) -> Array | None:
    return None if photo.mask is None else (window.cut(photo.mask) > 0.5).astype(np.float32)


def _without_light(rgb: Array, mask: Array) -> Array:
    logarithm = np.log(rgb + np.float32(_DARK)) * mask[:, :, None]
    slow = cv2.GaussianBlur(logarithm, (0, 0), _SLOW)
    share = np.maximum(cv2.GaussianBlur(mask, (0, 0), _SLOW), 1e-3)
    return np.asarray((logarithm - slow / share[:, :, None]) * mask[:, :, None])


def _distance(mask: Array) -> NDArray[np.float64]:
    inside = (mask > 0.5).astype(np.uint8)
    if inside.all():
        return np.full(mask.shape, -1e3)
    outer = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    inner = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(inside > 0, 0.5 - inner, outer - 0.5).astype(np.float64)
