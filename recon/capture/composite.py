"""What of a photo counts: cut-out photos over a plain background, masks of what to ignore."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from recon.capture.capture import Camera, Photo, View
from recon.events import Events
from recon.memory import give_back


def background_colour(setting: str, photos: Sequence[Photo]) -> Tensor:
    """Return (3,): what ``setting`` says, ``auto`` being white where a photo is cut out and black otherwise."""
    white = setting == "white" or (setting == "auto" and any(p.mask_is_alpha for p in photos))
    return torch.full((3,), 1.0 if white else 0.0)


def read_views(
    views: Sequence[View], setting: str, events: Events, stage: str
) -> Iterator[tuple[View, Camera, Photo, Tensor]]:
    """Read views one after the other: each with its camera, its photo and the background that the first one chose.

    Args:
        views: to read, with cameras.
        setting: the background, see :func:`background_colour`.
        events: progress of ``stage``, and the wish to stop.
        stage: its name.
    """
    background: Tensor | None = None
    for i, view in enumerate(views):
        events.progress(stage, i, len(views))
        photo = view.load()
        if background is None:
            background = background_colour(setting, [photo])
        if view.camera is None:
            raise ValueError(f"view {view.name} has no camera")
        yield view, view.camera, photo, background
    give_back()


def over(photo: Photo, background: Tensor) -> Tensor:
    """Return (H, W, 3) of ``photo`` composited over the background where its mask is alpha."""
    rgb = torch.from_numpy(np.ascontiguousarray(photo.rgb))
    if not photo.mask_is_alpha or photo.mask is None:
        return rgb
    alpha = torch.from_numpy(np.ascontiguousarray(photo.mask))[..., None]
    return rgb * alpha + background * (1 - alpha)


def counted(photo: Photo) -> Tensor | None:
    """Return (H, W) bool, the pixels that are to be reconstructed; None where all are."""
    if photo.mask is None or photo.mask_is_alpha:
        return None
    return torch.from_numpy(photo.mask > 0.5)
