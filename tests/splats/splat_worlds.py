"""Small worlds of splats and the photos that cameras around them take."""

from __future__ import annotations

import math

import numpy as np
import torch

from recon.capture.capture import Camera
from recon.splats.model import Splats
from recon.splats.photos import Target, TrainingPhoto
from recon.splats.render import Pose, render


def ring(count: int, width: int = 48, height: int = 40) -> list[Camera]:
    """Cameras on a circle of radius 1 around the origin, looking at it."""
    cameras = []
    for k in range(count):
        angle = 2 * math.pi * k / count
        position = np.array([math.cos(angle), math.sin(angle), 0.4])
        forward = -position / np.linalg.norm(position)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        viewmat = np.eye(4)
        viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ position
        K = np.array([[50.0, 0, width / 2], [0, 50, height / 2], [0, 0, 1]])
        cameras.append(Camera(viewmat, K, width, height))
    return cameras


def blobs(count: int, seed: int = 0) -> Splats:
    """Opaque coloured splats around the origin."""
    generator = torch.Generator().manual_seed(seed)
    return Splats(
        0.5 * (torch.rand(count, 3, generator=generator) - 0.5),
        math.log(0.05) + 0.3 * torch.randn(count, 3, generator=generator),
        torch.randn(count, 4, generator=generator),
        torch.full((count,), 2.0),
        torch.randn(count, 1, 3, generator=generator),
    )


def photos_of(splats: Splats, cameras: list[Camera]) -> list[TrainingPhoto]:
    """What the cameras see, as photos."""
    photos = []
    for k, camera in enumerate(cameras):
        levels = []
        for level in range(3):
            small = camera.resized(camera.width >> level, camera.height >> level)
            with torch.no_grad():
                image = render(splats, Pose.of(small))[0]
            levels.append(Target((image.clamp(0, 1) * 255).byte(), None, Pose.of(small)))
        photos.append(TrainingPhoto(f"{k:03d}.png", camera, tuple(levels)))
    return photos
