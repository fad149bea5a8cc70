"""Photos at the working resolution: each output pixel is the mean of the area that it covers.

A cut-out picture is averaged premultiplied, so that the (meaningless, often black) colour of its transparent pixels
does not bleed into the rim: c = Σ a c / Σ a over the area (Porter & Duff 1984, Compositing Digital Images).
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from recon.capture.capture import Array, Photo, View


def resize_image(image: Array, width: int, height: int) -> Array:
    """Return (H, W) or (H, W, 3) ``image`` resampled by area averaging (linear where that enlarges)."""
    rows, columns = image.shape[:2]
    if (columns, rows) == (width, height):
        return image
    method = cv2.INTER_AREA if width <= columns and height <= rows else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def resize_photo(photo: Photo, width: int, height: int) -> Photo:
    """Return ``photo`` resampled to ``width`` × ``height`` by area averaging (linear where that enlarges)."""
    if photo.rgb.shape[:2] == (height, width):
        return photo
    if photo.mask is None:
        return replace(photo, rgb=resize_image(photo.rgb, width, height))
    mask = resize_image(photo.mask, width, height)
    if not photo.mask_is_alpha:
        return replace(photo, rgb=resize_image(photo.rgb, width, height), mask=mask)
    rgb = resize_image(photo.rgb * photo.mask[..., None], width, height)
    return replace(photo, rgb=unpremultiplied(rgb, mask), mask=mask)


def unpremultiplied(rgb: Array, alpha: Array) -> Array:
    """Return (H, W, 3) straight colour in [0, 1] of premultiplied ``rgb`` and (H, W) ``alpha``; 0 where that is 0."""
    alpha = alpha[..., None]
    return np.divide(rgb, alpha, out=np.zeros_like(rgb), where=alpha > 0).clip(0, 1)


def working_size(view: View, max_side: int) -> tuple[int, int]:
    """Return (width, height) of ``view`` with at most ``max_side`` pixels on the longest side; never enlarges."""
    scale = min(1.0, max_side / max(view.width, view.height))
    return max(1, round(view.width * scale)), max(1, round(view.height * scale))


def working_photo(view: View, width: int, height: int) -> Photo:
    """Read ``view`` and return its pixels at ``width`` × ``height``; its camera there is ``camera.resized``."""
    return resize_photo(view.load(), width, height)


def working_view(view: View, max_side: int) -> View:
    """Return ``view`` at the working resolution: size, ``load``, camera and focal length all of the smaller picture."""
    width, height = working_size(view, max_side)
    if (width, height) == (view.width, view.height):
        return view
    return replace(
        view,
        width=width,
        height=height,
        load=lambda: working_photo(view, width, height),
        camera=view.camera and view.camera.resized(width, height),
        focal=view.focal and view.focal * max(width, height) / max(view.width, view.height),
    )
