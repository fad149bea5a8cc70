"""Whether a template lies where the first frame shows it, and by which axes it was written.

Template and camera are to share one frame, OpenCV's: x right, y down, z forward. Tools write others: OpenGL's (y up,
z backward), or x and y the other way round. Of the four turns S = diag(±1, ±1, ±1) with det S = 1, that one is taken
under which the template's silhouette overlaps the first mask best:

    overlap = |silhouette ∩ mask| / |silhouette ∪ mask|

Where there is no mask, it is the share of the template's vertices that lie in the image and before the camera. A sheet
that overlaps about alike by several turns (its own half turn around the view's axis) stays as it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.capture.capture import Array, Camera
from recon.capture.resize import resize_image
from recon.errors import InputError

Turn = tuple[int, int, int]
"""The diagonal of S."""
AS_IT_STANDS: Turn = (1, 1, 1)
TURNS: dict[Turn, str] = {
    AS_IT_STANDS: "as it stands",
    (-1, -1, 1): "with x and y negated",
    (1, -1, -1): "with y and z negated (OpenGL's axes)",
    (-1, 1, -1): "with x and z negated",
}
"""The turns in people's words."""
LEAST = 0.2
"""Overlap below which a template is not where the first frame shows it."""
_CLEARLY = 0.1  # overlap that a turn must gain to be preferred
_SIDE = 512  # pixels of the longest side at which silhouettes are compared


def place_template(
    vertices: Array, faces: NDArray[np.int32], camera: Camera, mask: Array | None
) -> tuple[Turn, list[str]]:
    """Return by which turn a template lies in the camera's frame, and what people should be told of it.

    Args:
        vertices: (V, 3).
        faces: (F, 3).
        camera: at the origin; its pose is not looked at.
        mask: (H, W) in [0, 1], of the first frame and the camera's size; None if there is none.

    Raises:
        InputError: it overlaps by less than :data:`LEAST` under each turn (code ``"template-elsewhere"``).
    """

    def measured(turn: Turn) -> float:
        turned = vertices * np.array(turn, np.float32)
        return in_view(turned, camera) if mask is None else overlap(turned, faces, camera, mask)

    shares = {turn: measured(turn) for turn in TURNS}
    best = max(TURNS, key=lambda turn: shares[turn])
    what = "image" if mask is None else "mask"
    if shares[best] < LEAST:
        raise InputError(
            f"The template does not lie where the first frame's {what} is: they overlap by {shares[best]:.0%} at best.",
            "Give the template in the camera's frame (x right, y down, z forward, in front of it), as the first frame "
            "shows it, and check camera.json.",
            "template-elsewhere",
        )
    if shares[best] - shares[AS_IT_STANDS] < _CLEARLY:
        return AS_IT_STANDS, []
    return best, [
        f"The template is used {TURNS[best]}: so it overlaps the first frame's {what} by {shares[best]:.0%}, "
        f"as it stands by {shares[AS_IT_STANDS]:.0%}."
    ]


def overlap(vertices: Array, faces: NDArray[np.int32], camera: Camera, mask: Array) -> float:
    """Return the intersection over union of a mask and a mesh's silhouette; arguments as :func:`place_template`'s."""
    import torch  # seconds, which a batch or a page that only looks at what there is need not wait

    from kernels.clip import clip_positions
    from kernels.rasterize_mesh import rasterize_mesh

    scale = min(1.0, _SIDE / max(camera.width, camera.height))
    small = camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))
    inside = torch.from_numpy(resize_image(mask, small.width, small.height)) > 0.5
    points = torch.from_numpy(vertices)
    deepest = float(points[:, 2].max())
    if deepest <= 0:
        return 0.0
    K, planes = torch.from_numpy(small.K).float()[None], (1e-4 * deepest, 2 * deepest)
    positions = clip_positions(points, torch.eye(4)[None], K, small.width, small.height, *planes)
    rast, _ = rasterize_mesh(positions, torch.from_numpy(faces), small.width, small.height)
    silhouette = rast[0, ..., 3] > 0
    union = int((silhouette | inside).sum())
    return int((silhouette & inside).sum()) / union if union else 0.0


def in_view(vertices: Array, camera: Camera) -> float:
    """Return the share of the (V, 3) vertices that lie before the camera and in its image."""
    ahead = vertices[vertices[:, 2] > 0] @ camera.K.T
    x, y = (ahead[:, :2] / ahead[:, 2:]).T
    inside = (x >= 0) & (x <= camera.width) & (y >= 0) & (y <= camera.height)
    return float(inside.sum()) / len(vertices)
