"""A surface that moves: one mesh whose vertices have a place in each frame; faces, texture and colours stay."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon.errors import InputError
from recon.mesh.mesh import Mesh


@dataclass(frozen=True)
class Animation:
    """One surface a frame.

    Attributes:
        mesh: the faces, and the texture or colours; its own vertices are no frame.
        frames: (T, V, 3) float32, the vertices in each frame.
        rate: frames a second.
    """

    mesh: Mesh
    frames: NDArray[np.float32]
    rate: float

    def check(self) -> Animation:
        """Return the animation itself if it can be worked with.

        Raises:
            InputError: an unusable mesh (code ``"bad-mesh"``); no frames, frames of another shape than its vertices, a
                coordinate that is not finite, or a rate that is not positive (code ``"bad-animation"``).
        """
        self.mesh.check()
        why = self._fault()
        if why:
            raise InputError(f"The animation {why}.", "Reconstruct it again.", "bad-animation")
        return self

    def _fault(self) -> str:
        if self.frames.ndim != 3 or self.frames.shape[1:] != self.mesh.vertices.shape or len(self.frames) == 0:
            return f"has frames {self.frames.shape}, not (T, {len(self.mesh.vertices)}, 3) with T >= 1"
        wrong = np.flatnonzero(~np.isfinite(self.frames).all(axis=(1, 2)))
        if len(wrong):
            return f"has a vertex at NaN or infinity in {len(wrong)} frames, frame {wrong[0]} first"
        return "" if 0 < self.rate < np.inf else f"has {self.rate} frames a second"

    def __len__(self) -> int:
        return len(self.frames)

    def at(self, frame: int) -> Mesh:
        """Return the mesh as it is in a frame, counted from 0."""
        return replace(self.mesh, vertices=self.frames[frame])

    @property
    def times(self) -> NDArray[np.float32]:
        """(T,) seconds of the frames, the first at 0."""
        return (np.arange(len(self.frames)) / self.rate).astype(np.float32)
