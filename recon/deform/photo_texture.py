"""A template's texture from the frame that shows it: the photo itself, seen by the camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Array, Camera, Photo
from recon.mesh.mesh import Mesh


def textured_by(photo: Photo, camera: Camera, vertices: NDArray[np.floating], faces: NDArray[np.int32]) -> Mesh:
    """Return the mesh with the part of a photo that it covers as texture.

    What the photo does not see, a fold's other side, shows what lies before it.

    Args:
        photo: of the camera's size.
        camera: at the origin.
        vertices: (V, 3) in its frame (OpenCV axes), all before it.
        faces: (F, 3).
    """
    image = vertices.astype(np.float64) @ camera.K.T
    pixels = (image[:, :2] / image[:, 2:]).clip(0, [camera.width, camera.height])
    left, top = np.floor(pixels.min(0)).astype(int).clip(0, [camera.width - 1, camera.height - 1])
    right, bottom = np.maximum(np.ceil(pixels.max(0)).astype(int), [left + 1, top + 1])
    texture: Array = np.ascontiguousarray(photo.rgb[top:bottom, left:right])
    uvs = ((pixels - [left, top]) / [right - left, bottom - top]).astype(np.float32)
    return Mesh(vertices.astype(np.float32), faces, None, uvs[faces], texture)
