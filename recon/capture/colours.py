"""Colours as they come from files: shares of a type's largest number, linear light, places in a texture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Array


def to_floats(colours: NDArray[Any]) -> Array:
    """Return (…, 3) in [0, 1] of RGB or RGBA in any type: whole numbers are shares of the type's largest."""
    whole = np.iinfo(colours.dtype).max if colours.dtype.kind in "iu" else 1
    return np.clip(colours[..., :3].astype(np.float32) / whole, 0, 1)


def to_linear(srgb: Array) -> Array:
    """IEC 61966-2-1, decoding."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Array) -> Array:
    """IEC 61966-2-1, encoding."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def sample(texture: Array, uvs: NDArray[np.floating]) -> Array:
    """Return the (…, 3) colours of a (H, W, 3) texture at (…, 2) coordinates: u right, v down, repeating beyond [0, 1].

    Between the centres of texels colours are interpolated bilinearly.
    """
    import torch  # seconds, which a batch or a page that only looks at what there is need not wait

    from kernels.texture import texture as look_up

    image = torch.from_numpy(np.require(texture, np.float32, ["C", "W"]))  # torch warns of what is read-only
    places = torch.from_numpy(np.ascontiguousarray(uvs, np.float32)).view(1, 1, -1, 2)
    return look_up(image[None], places).view(*uvs.shape[:-1], 3).numpy()
