"""Where points of one frame are in the next: dense optical flow, believed where it leads back.

    q = p + f(p),   |f(p) + b(q)| ≤ 1 pixel

f is the flow from the first image to the second one, b the one back.

Sources: Kroeger et al. 2016, "Fast optical flow using dense inverse search" (OpenCV's DIS); Kalal, Mikolajczyk &
Matas 2010, "Forward-backward error: automatic detection of tracking failures".
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.capture.capture import Array
from recon.deform.observations import bilinear

_BACK = 1.0


def grey(rgb: Array) -> NDArray[np.uint8]:
    """Return (H, W) grey of (H, W, 3) colours in [0, 1]."""
    return np.asarray(255 * cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY).clip(0, 1), np.uint8)


def flowed(before: NDArray[np.uint8], after: NDArray[np.uint8], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return where points are in the second image.

    Args:
        before, after: (H, W) grey.
        pixels: (N, 2) float64 in the first image.

    Returns:
        (N, 2) pixels, and (N,) bool whether they can be believed.
    """
    forward, back = _flow(before, after), _flow(after, before)
    step = bilinear(forward, pixels)[0]
    found = pixels + step
    inside = ((found >= 0) & (found <= torch.tensor(after.shape[::-1]))).all(1)
    return found, inside & ((step + bilinear(back, found)[0]).norm(dim=1) <= _BACK)


def _flow(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Tensor:
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start = np.zeros((*one.shape, 2), np.float32)
    return torch.from_numpy(search.calc(one, other, start).astype(np.float64))
