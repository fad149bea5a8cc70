"""What a surface is fitted to: photos with, where known, the share of each pixel that the object covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recon.capture.capture import Camera, Photo, View
from recon.capture.composite import counted, over, read_views
from recon.capture.resize import resize_photo
from recon.events import Events

LEVELS = 3
"""Sizes of a photo, each half the one before."""


@dataclass(frozen=True)
class Target:
    """One photo at one size.

    Attributes:
        image: (H, W, 3) uint8, over the background where it is cut out.
        coverage: (H, W) uint8, 255 where the object is; None where it is not known.
        counts: (H, W) bool, where the colours are the object's or its background's; None: everywhere.
        whole: the photo shows what is behind the object, too.
        camera: at this size, in the fitting frame.
        viewmat: (1, 4, 4) float32; ``K``: (1, 3, 3).
        depth: (H, W) float32 along the camera's axis, NaN where it is not known; None: nowhere.
    """

    image: Tensor
    coverage: Tensor | None
    counts: Tensor | None
    whole: bool
    camera: Camera
    viewmat: Tensor
    K: Tensor
    depth: Tensor | None = None

    def to(self, device: torch.device) -> Target:
        """Return the photo on ``device``; one that lies in pinned memory is on its way while the host goes on."""
        moved: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device, non_blocking=True)
        return replace(self, **moved)


@dataclass(frozen=True)
class Photos:
    """All photos of a fit, on the CPU: a fit on a GPU takes to it what a step looks at.

    Attributes:
        levels: of each photo the targets, the largest first.
        background: (3,), behind cut-out photos.
    """

    levels: Sequence[Sequence[Target]]
    background: Tensor

    @property
    def cut_out(self) -> bool:
        """Whether every photo says where the object is."""
        return all(levels[0].coverage is not None for levels in self.levels)


def load_targets(views: Sequence[View], setting: str, events: Events, stage: str, device: str = "cpu") -> Photos:
    """Read views, which are at the working resolution and have cameras.

    Args:
        views: to read.
        setting: the background, see :func:`~recon.capture.composite.background_colour`.
        events: progress of ``stage``, and the wish to stop.
        stage: its name.
        device: where the fit is to be; for a GPU the pictures are laid into pinned memory.
    """
    photos: list[list[Target]] = []
    background = torch.zeros(3)
    for _, camera, photo, background in read_views(views, setting, events, stage):
        levels = [_target(photo, camera, level, background) for level in range(LEVELS)]
        if torch.device(device).type == "cuda":
            levels = [replace(target, image=target.image.pin_memory()) for target in levels]
        photos.append(levels)
    return Photos(photos, background)


def _target(photo: Photo, camera: Camera, level: int, background: Tensor) -> Target:
    width, height = max(1, camera.width >> level), max(1, camera.height >> level)
    small, camera = resize_photo(photo, width, height), camera.resized(width, height)
    coverage = None
    if small.mask is not None:
        coverage = torch.from_numpy((small.mask * 255).round().astype(np.uint8))
    return Target(
        (over(small, background) * 255).round().clamp(0, 255).to(torch.uint8),
        coverage,
        counted(small),
        not photo.mask_is_alpha,
        camera,
        *pose_of(camera),
    )


def pose_of(camera: Camera) -> tuple[Tensor, Tensor]:
    """Return a camera's (1, 4, 4) viewmat and (1, 3, 3) K, float32."""
    viewmat, K = (torch.from_numpy(m.astype(np.float32))[None] for m in (camera.viewmat, camera.K))
    return viewmat, K
