"""The photos as a fit reads them: 8-bit, at full, half and quarter size, behind a plain background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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

    def to(self, device: torch.device) -> Target:
        """Return the photo on ``device``; one that lies in pinned memory is on its way while the host goes on."""
        mask = None if self.mask is None else self.mask.to(device, non_blocking=True)
        pose = replace(self.pose, viewmat=self.pose.viewmat.to(device), K=self.pose.K.to(device))
        return Target(self.image.to(device, non_blocking=True), mask, pose)


@dataclass(frozen=True)
class TrainingPhoto:
    """One photo at all sizes, the largest first; eight bits a channel, so that hundreds fit into memory.

    For a fit on a GPU the pictures lie in pinned memory of the host, however many they are, and the cameras on the GPU.
    """

    name: str
    camera: Camera
    levels: tuple[Target, ...]

    def to(self, device: torch.device) -> TrainingPhoto:
        """Return the photo for a fit on another device."""
        return replace(self, levels=tuple(_placed(level, device) for level in self.levels))


def load_photos(
    views: Sequence[View], setting: str, events: Events, stage: str, device: str = "cpu"
) -> tuple[list[TrainingPhoto], Tensor]:
    """Read the views (already at the working resolution, with cameras) for a fit on ``device``.

    Returns:
        The photos, and the background's colour (3,), which is on the device.
    """
    photos: list[TrainingPhoto] = []
    background = torch.zeros(3)
    for view, camera, photo, background in read_views(views, setting, events, stage):
        photos.append(TrainingPhoto(view.name, camera, tuple(_levels(photo, camera, background, torch.device(device)))))
    return photos, background.to(device)


def _levels(photo: Photo, camera: Camera, background: Tensor, device: torch.device) -> list[Target]:
    levels = []
    for level in range(LEVELS):
        width, height = max(1, camera.width >> level), max(1, camera.height >> level)
        small = resize_photo(photo, width, height)
        image, mask = (over(small, background) * 255).round().clamp(0, 255).to(torch.uint8), counted(small)
        levels.append(_placed(Target(image, mask, Pose.of(camera.resized(width, height))), device))
    return levels


def _placed(target: Target, device: torch.device) -> Target:
    """Return a photo as a fit on ``device`` keeps it."""
    pose = replace(target.pose, viewmat=target.pose.viewmat.to(device), K=target.pose.K.to(device))
    image, mask = target.image, target.mask
    if device.type == "cuda":
        image, mask = image.pin_memory(), None if mask is None else mask.pin_memory()
    return Target(image, mask, pose)
