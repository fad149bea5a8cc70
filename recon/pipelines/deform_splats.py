"""Splats that the surface carries: bound to the template, written for each frame, filmed from new views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.nearest import nearest
from recon.capture.capture import Camera
from recon.capture.deform_folder import DeformCapture
from recon.deform.carried import Carried, bind
from recon.errors import InputError
from recon.evaluate.previews import to_bytes
from recon.export import read_splats, write_splats
from recon.mesh.mesh import Mesh
from recon.pipelines.context import Context
from recon.splats.model import Splats
from recon.splats.render import Pose, render
from recon.splats.transform import transform, turn_harmonics

FARTHEST = 0.05
"""Splats farther from the template than this share of its size belong to what surrounds it, and are left out."""
SWING = 25.0
"""Degrees to either side by which the film's camera goes around the surface."""
_GROUND = 0.96


class CarriedSplats:
    """The splats of a capture, wherever its surface takes them.

    Attributes:
        left_out: how many are not near the template.
    """

    def __init__(self, capture: DeformCapture, template: Mesh) -> None:
        """Bind the splats of ``capture.splats`` to ``template``, which lies in the camera's frame.

        Raises:
            InputError: unreadable splats, or none of them near the template (code ``"splats-elsewhere"``).
        """
        assert capture.splats is not None
        there = transform(read_splats(capture.splats), np.diag([*capture.turn, 1.0]))
        vertices = torch.from_numpy(template.vertices)
        squared = nearest(there.means, vertices, torch.from_numpy(template.faces))[0]
        near = squared.sqrt() <= FARTHEST * float(torch.linalg.vector_norm(vertices.amax(0) - vertices.amin(0)))
        if not near.any():
            raise InputError(
                f"None of the {len(there):,} splats in {capture.splats.name} lies near the template.",
                "Give splats in the axes and units of the template's file.",
                "splats-elsewhere",
            )
        self.left_out = int((~near).sum())
        self._splats = there[near]
        self._carried: Carried = bind(self._splats.means, self._splats.quats, self._splats.log_scales, template)

    def at(self, vertices: NDArray[np.float32]) -> Splats:
        """Return the splats where (V, 3) deformed ``vertices`` take them, colours turned along."""
        places = torch.from_numpy(vertices)
        means, quats, log_scales = self._carried.at(places)
        sh = turn_harmonics(self._splats.sh, self._carried.rotations(places))
        return replace(self._splats, means=means, quats=quats, log_scales=log_scales, sh=sh)


def export_splats(
    context: Context[Any], carried: CarriedSplats, frames: NDArray[np.float32], axes: NDArray[np.float32]
) -> None:
    """Write the splats of each of (T, V, 3) frames, turned by the diagonal ``axes``, as a sequence of SPZ files.

    Tells the first half of the stage's progress.
    """
    turn = np.diag([*axes.tolist(), 1.0])
    with context.export("splat_sequence", "exports/splats") as folder:
        folder.mkdir()
        for number, vertices in enumerate(frames):
            write_splats(transform(carried.at(vertices), turn), folder / f"frame_{number:04d}.spz")
            context.progress(number + 1, 2 * len(frames))


def swinging(
    carried: CarriedSplats, frames: NDArray[np.float32], camera: Camera, device: str = "cpu"
) -> Iterator[NDArray[np.uint8]]:
    """Yield (H, W, 3) the splats of each frame, seen by a camera that swings around the surface.

    Args:
        carried: the splats.
        frames: (T, V, 3) of the surface, in the frame of ``camera``.
        camera: in the middle of the swing.
        device: where they are rendered.
    """
    centre = (frames.min(axis=(0, 1)) + frames.max(axis=(0, 1))) / 2.0
    for number, vertices in enumerate(frames):
        angle = np.radians(SWING) * np.sin(2 * np.pi * number / len(frames))
        c, s = np.cos(angle), np.sin(angle)
        viewmat = np.eye(4)
        viewmat[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
        viewmat[:3, 3] = centre - viewmat[:3, :3] @ centre
        pose, ground = Pose.of(replace(camera, viewmat=viewmat), device), torch.full((3,), _GROUND, device=device)
        with torch.no_grad():
            image = render(carried.at(vertices).to(device), pose, ground)[0]
        yield to_bytes(image.clamp(0, 1).cpu().numpy())
