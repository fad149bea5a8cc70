"""Frames of films that show how a surface moves: over the photos that it was found from, and from the side.

Over the photo of a frame lies the surface as the camera sees it there, half transparent, with the grid that it carries
(:mod:`recon.mesh.drawing`) and the points that were tracked: what is right stays on what it shows. What a camera cannot
tell is depth, so the other film looks from the side, without perspective, from one place and at one scale in all
frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels.clip import clip_positions
from recon.capture.capture import Camera, View
from recon.capture.resize import resize_image
from recon.capture.tracks import Tracks
from recon.mesh.animation import Animation
from recon.mesh.drawing import grid_of, paint
from recon.mesh.mesh import Mesh

LONGEST_SIDE = 960
"""Pixels of the films' frames, at most."""
SIDE_TURN = 60.0
"""Degrees about the vertical from which the side is seen: at 90 a sheet that faces the camera would be a line."""

_LARGEST = 2.0
"""Pixels of a film along one of its photos', at most."""
_MARGIN = 0.15
"""Room around the surface, as a share of its longer side."""
_FILLED = 0.9
_BACKGROUND = 0.96
_OPACITY = 0.4
_DOT, _DOT_RIM, _DOT_RADIUS = (255, 196, 0), (60, 30, 0), 2.5
_SHIFT = 4  # bits of the fraction of OpenCV's places

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Window:
    """The part of a camera's pictures that a film shows.

    Attributes:
        camera: at the origin, whose picture is the window, of even width and height.
        box: left, top, right and bottom as shares of a photo's sides; None where there are none.
    """

    camera: Camera
    box: tuple[float, float, float, float] | None = None

    def photo(self, view: View) -> Tensor:
        """Return (H, W, 3) the window's part of a photo, at the camera's size."""
        assert self.box is not None  # there are photos
        rgb = view.load().rgb
        height, width = rgb.shape[:2]
        left, top, right, bottom = np.rint(np.array(self.box) * (width, height, width, height)).astype(int)
        return torch.from_numpy(resize_image(rgb[top:bottom, left:right], self.camera.width, self.camera.height))


def film_window(animation: Animation, K: NDArray[np.float64], views: Sequence[View] = ()) -> Window:
    """Return the window in which the surface is seen, with some room around it, in all frames.

    Args:
        animation: in the camera's axes, x right, y down, z forward, the camera at the origin.
        K: (3, 3) intrinsics in pixels, for want of photos; those of the photos are their cameras'.
        views: the photos, all of one camera.
    """
    if views:
        assert views[0].camera is not None  # it stands at the origin
        K, most, whole = views[0].camera.K, _LARGEST, np.array([[0.0, 0.0], [views[0].width, views[0].height]])
    else:
        # Nobody says how large the pictures are: the principal point is taken for their middle.
        most, half = np.inf, np.maximum(K[:2, 2], K[[0, 1], [0, 1]] / 2)
        whole = K[:2, 2] + np.array([-half, half])
    frames = animation.frames[:, np.unique(animation.mesh.faces)]
    ends = [found for found in (_ends(frame, K) for frame in frames) if found is not None]
    box = whole
    if ends:
        low, high = np.min(ends, axis=0)[0], np.max(ends, axis=0)[1]
        margin = _MARGIN * (high - low).max()
        near = np.clip([low - margin, high + margin], *whole)
        box = near if (near[1] > near[0]).all() else whole
    if views:
        box = np.array([np.floor(box[0]), np.ceil(box[1])])
    extent = box[1] - box[0]
    scale = min(most, LONGEST_SIDE / extent.max())
    width, height = (max(2, 2 * round(side * scale / 2)) for side in extent.tolist())
    own = K.copy()
    own[:2, 2] -= box[0]
    own[:2] *= np.array([[width], [height]]) / extent[:, None]
    camera = Camera(np.eye(4), own, width, height)
    if not views:
        return Window(camera)
    left, top, right, bottom = (box / whole[1]).ravel().tolist()
    return Window(camera, (left, top, right, bottom))


def overlay(
    animation: Animation,
    template: NDArray[np.floating],
    K: NDArray[np.float64],
    views: Sequence[View] = (),
    tracks: Tracks | None = None,
) -> Iterator[Frame]:
    """Yield (H, W, 3) uint8 the surface of each frame over its photo, or over a plain ground where there are none.

    Args:
        animation: T frames in the camera's axes, as for :func:`film_window`, whose window is shown.
        template: (V, 3), which the grid is drawn on.
        K: (3, 3) intrinsics in pixels of the tracks.
        views: one for each frame, or none; read one at a time.
        tracks: T frames of points, in pixels of K; drawn where they are visible.
    """
    window, grid = film_window(animation, K, views), grid_of(template)
    for i, mesh in enumerate(_plain(animation)):
        if views:
            frame = _bytes(seen(mesh, window.camera, window.photo(views[i]), grid, _OPACITY))
        else:
            frame = _bytes(seen(mesh, window.camera, grid=grid))
        if tracks is not None:
            rays = (tracks.xy[i][tracks.visible[i]] - K[:2, 2]) / K[[0, 1], [0, 1]]
            _draw_dots(frame, rays @ window.camera.K[:2, :2].T + window.camera.K[:2, 2])
        yield frame


def side(
    animation: Animation, template: NDArray[np.floating], width: int, height: int, turn: float = SIDE_TURN
) -> Iterator[Frame]:
    """Yield (height, width, 3) uint8 the surface of each frame from the right, in its own colours if it has any.

    Args:
        animation: as for :func:`overlay`.
        template: likewise; the grid is drawn where the surface has neither texture nor colours.
        width, height: in pixels; all frames together fill the picture.
        turn: degrees about the vertical, 0 for the camera's own direction.
    """
    mesh = animation.mesh
    own = mesh.colours is not None or (mesh.uvs is not None and mesh.texture is not None)
    meshes = (animation.at(i) for i in range(len(animation))) if own else _plain(animation)
    grid = None if own else grid_of(template)
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    axes = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    used = np.unique(mesh.faces)
    ends = np.array([[edge(frame[used] @ axes.T, axis=0) for edge in (np.min, np.max)] for frame in animation.frames])
    low, high = ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)
    extent = np.maximum(high - low, 1e-30)
    pixels = _FILLED * min(width / extent[0], height / extent[1])
    scale = np.array([2 * pixels / width, 2 * pixels / height, 1 / extent[2]])
    for one in meshes:
        turned = one.vertices @ axes.T
        clip = np.concatenate([(turned - (low + high) / 2) * scale, np.ones((len(turned), 1))], axis=1)
        local = replace(one, vertices=turned.astype(np.float32))
        ground = torch.full((height, width, 3), _BACKGROUND)
        yield _bytes(paint(local, torch.from_numpy(clip.astype(np.float32)), ground, grid))


def seen(
    mesh: Mesh,
    camera: Camera,
    background: Tensor | None = None,
    grid: NDArray[np.float32] | None = None,
    opacity: float = 1.0,
    shaded: bool = True,
) -> Tensor:
    """Return (H, W, 3) float32 in [0, 1], a mesh as a camera sees it; what is behind the camera is not.

    Args:
        mesh: in the world.
        camera: of the picture, its size too.
        background: (H, W, 3), None for a plain one.
        grid, opacity, shaded: as for :func:`recon.mesh.drawing.paint`.
    """
    viewmat, K = (torch.from_numpy(m).float() for m in (camera.viewmat, camera.K))
    local = torch.from_numpy(mesh.vertices) @ viewmat[:3, :3].T + viewmat[:3, 3]
    far = 2 * max(float(local[:, 2].max()), 1e-30)
    clip = clip_positions(local, torch.eye(4)[None], K[None], camera.width, camera.height, 1e-3 * far, far)[0]
    if background is None:
        background = torch.full((camera.height, camera.width, 3), _BACKGROUND)
    return paint(replace(mesh, vertices=local.numpy()), clip, background, grid, opacity, shaded)


def _plain(animation: Animation) -> Iterator[Mesh]:
    """Yield the frames without colours; of a sheet the camera sees the front in the first frame, however it winds."""
    faces = animation.mesh.faces
    corners = animation.frames[0][faces].astype(np.float64)
    normals, middles = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), corners.mean(axis=1)
    # The solid angle of each face, positive where its back is seen; those of a closed surface cancel.
    angles = np.einsum("fi,fi->f", normals, middles) / np.maximum(np.linalg.norm(middles, axis=1) ** 3, 1e-300)
    if angles.sum() > 0.5 * np.abs(angles).sum():
        faces = np.ascontiguousarray(faces[:, ::-1])
    for vertices in animation.frames:
        yield Mesh(vertices, faces)


def _ends(points: NDArray[np.floating], K: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return (2, 2) the least and the greatest x and y of (N, 3) points in pixels; None where all are behind."""
    ahead = points[points[:, 2] > 1e-3 * max(points[:, 2].max(), 0)]
    if len(ahead) == 0:
        return None
    xy = ahead[:, :2] / ahead[:, 2:] * K[[0, 1], [0, 1]] + K[:2, 2]
    return np.array([xy.min(axis=0), xy.max(axis=0)])


def _draw_dots(frame: Frame, xy: NDArray[np.float64]) -> None:
    """Draw points, in pixels whose first one has its centre at (0.5, 0.5), into a frame."""
    shown = ((xy > 0) & (xy < frame.shape[1::-1])).all(axis=1)
    for x, y in np.rint((xy[shown] - 0.5) * 2**_SHIFT).astype(int).tolist():
        for colour, radius in ((_DOT_RIM, _DOT_RADIUS + 1), (_DOT, _DOT_RADIUS)):
            cv2.circle(frame, (x, y), round(radius * 2**_SHIFT), colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _bytes(image: Tensor) -> Frame:
    """Return a picture in [0, 1] as bytes."""
    result: Frame = (image * 255).round().byte().numpy()
    return result
