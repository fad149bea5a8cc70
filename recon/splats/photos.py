"""The photos as a fit reads them: 8-bit, at full, half and quarter size, behind a plain background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recon.capture.capture import Camera, Photo, View
from recon.capture.composite import counted, over, read_views
from recon.capture.resize import resize_photo
from recon.events import Events
from recon.splats.render import Pose

LEVELS = 3


@dataclass(frozen=True)
class Target:
    """One photo at one size.

    Attributes:
        image: (H, W, 3) uint8, over the background where it is cut out.
        mask: (H, W) bool, what counts; None means all of it.
        pose: the camera at this size.
    """

    image: Tensor
    mask: Tensor | None
    pose: Pose

    @property
    def rgb(self) -> Tensor:
        """(H, W, 3) float32 in [0, 1]."""
        return self.image.float() / 255


@dataclass(frozen=True)
class TrainingPhoto:
    """One photo at all sizes, the largest first; eight bits a channel, so that hundreds fit into memory."""

    name: str
    camera: Camera
    levels: tuple[Target, ...]


def load_photos(views: Sequence[View], setting: str, events: Events, stage: str) -> tuple[list[TrainingPhoto], Tensor]:
    """Read the views (already at the working resolution, with cameras) and return them with the background's colour."""
    photos: list[TrainingPhoto] = []
    background = torch.zeros(3)
    for view, camera, photo, background in read_views(views, setting, events, stage):
        photos.append(TrainingPhoto(view.name, camera, tuple(_levels(photo, camera, background))))
    return photos, background


def _levels(photo: Photo, camera: Camera, background: Tensor) -> list[Target]:
    levels = []
    for level in range(LEVELS):
        width, height = max(1, camera.width >> level), max(1, camera.height >> level)
        small = resize_photo(photo, width, height)
        image = (over(small, background) * 255).round().clamp(0, 255).to(torch.uint8)
        levels.append(Target(image, counted(small), Pose.of(camera.resized(width, height))))
    return levels
