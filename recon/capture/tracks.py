"""Point tracks: where points of a surface are in each frame, from a file of NumPy's .npz.

    tracks   (T, N, 2)  pixels (x, y), the centre of the image's first pixel at (0.5, 0.5)
    visible  (T, N)     whether a point is seen; all are where there is none
    K        (3, 3)     the camera's intrinsics in the tracks' pixels; may be absent

Trackers leave points that they lost at NaN, far outside of the image, or marked as not visible. All three are invisible
here, so that what uses the tracks looks at ``visible`` alone. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.capture.camera_file import check_intrinsics
from recon.capture.files import broken
from recon.errors import InputError

_DAMAGED = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
_MOST = 1 << 30  # bytes that an array unfolds to
_MARGIN = 0.1
"""Share of the image's sides by which a track may lie outside and count: points leave the picture slowly."""


@dataclass(frozen=True)
class Tracks:
    """Points followed through frames.

    Attributes:
        xy: (T, N, 2) float64 pixels; finite, 0 where not visible.
        visible: (T, N) bool.
        K: (3, 3) float64 intrinsics, None where the file has none.
        warnings: what was not as it should be, in people's words.
    """

    xy: NDArray[np.float64]
    visible: NDArray[np.bool_]
    K: NDArray[np.float64] | None = None
    warnings: tuple[str, ...] = ()


def is_tracks(path: Path) -> bool:
    """Return whether a file is an .npz with an array of tracks, which is not read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "tracks.npy" in archive.namelist()
    except _DAMAGED:
        return False


def read_tracks(path: Path, size: tuple[int, int] | None = None, frames: int | None = None) -> Tracks:
    """Read tracks.

    Args:
        path: the .npz.
        size: (width, height) of the images in pixels, if they are known.
        frames: how many there are, if that is known.

    Raises:
        InputError: damaged or pickled (``"broken-file"``); another shape, or as many frames as there are points and the
            reverse (``"bad-tracks"``); x and y in each other's place (``"swapped-tracks"``); no point visible in any
            frame, or in the first one (``"no-tracks"``).
    """
    arrays = _arrays(path)
    if "tracks" not in arrays:
        held = ", ".join(list(arrays)[:6]) or "none"
        hint = "Name the (T, N, 2) pixels 'tracks'."
        raise broken(path, f"it has no array 'tracks', but {held}", hint)
    tracks = arrays["tracks"]
    if tracks.ndim != 3 or tracks.shape[2] != 2 or tracks.dtype.kind not in "fiu" or 0 in tracks.shape:
        raise _bad(path, f"'tracks' is {tracks.dtype} of shape {tracks.shape}, not numbers of shape (T, N, 2)")
    xy = tracks.astype(np.float64)
    _check_frames(path, xy.shape[:2], arrays.get("visible"), frames)
    visible = np.ones(xy.shape[:2], bool)
    if "visible" in arrays:
        if arrays["visible"].shape != xy.shape[:2] or arrays["visible"].dtype.kind not in "bfiu":
            raise _bad(path, f"'visible' has shape {arrays['visible'].shape}, not {xy.shape[:2]} as 'tracks' has it")
        visible = np.nan_to_num(arrays["visible"].astype(np.float64)) > 0.5
    warnings: list[str] = []
    finite = np.isfinite(xy).all(axis=2)
    if (visible & ~finite).any():
        warnings.append(_lost(path, visible & ~finite, "at NaN or infinity"))
    visible &= finite
    if size is not None and visible.any():
        inside = _inside(xy, size)
        if _share(inside, visible) < 0.5 <= _share(_inside(xy[..., ::-1], size), visible):
            raise InputError(
                f"{path}: most tracks are outside of the {size[0]} × {size[1]} images, and inside if x and y change "
                "places.",
                "Write tracks[..., 0] as x (to the right) and tracks[..., 1] as y (down).",
                "swapped-tracks",
            )
        if (visible & ~inside).any():
            warnings.append(_lost(path, visible & ~inside, "outside of the image"))
        visible &= inside
    if not visible.any(axis=1).all():
        none = np.flatnonzero(~visible.any(axis=1))
        if len(none) == len(visible) or none[0] == 0:
            where = "any frame" if len(none) == len(visible) else "the first frame, which the template belongs to"
            hint = "Check 'visible' and the pixels; tracks are counted in the pixels of the frames."
            raise InputError(f"{path}: no point is visible in {where}.", hint, "no-tracks")
        warnings.append(f"{path.name}: no point is visible in {len(none)} of {len(visible)} frames, {none[0]} first.")
    K = None if "K" not in arrays else check_intrinsics(arrays["K"], path)
    return Tracks(np.where(visible[..., None], xy, 0), visible, K, tuple(warnings))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {name.removesuffix(".npy"): archive.getinfo(name) for name in archive.namelist()}
            wanted = [name for name in ("tracks", "visible", "K") if name in entries]
            if sum(entries[name].file_size for name in wanted) > _MOST:
                raise broken(path, f"its arrays take more than {_MOST >> 20} MB", "Give fewer points or frames.")
            if "tracks" not in wanted:
                return dict.fromkeys(entries, np.empty(0))
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in wanted}
    except _DAMAGED as error:
        raise broken(path, f"it cannot be read as arrays ({str(error).splitlines()[0]})") from error


def _check_frames(path: Path, shape: tuple[int, ...], visible: NDArray[Any] | None, frames: int | None) -> None:
    """Raise where the numbers of frames and points do not fit, and say if they are in each other's place."""
    swapped = f"'tracks' has {shape[0]} frames of {shape[1]} points"
    hint = "The first axis is the frames, the second the points: transpose it, tracks.transpose(1, 0, 2)."
    if frames is not None and shape[0] != frames:
        if shape[1] == frames:
            raise InputError(f"{path}: {swapped}, and there are {frames} frames.", hint, "bad-tracks")
        raise _bad(path, f"{swapped}, and there are {frames} frames")
    if visible is not None and visible.shape == shape[::-1] and shape[0] != shape[1]:
        raise InputError(f"{path}: {swapped}, and 'visible' the reverse.", hint, "bad-tracks")


def _bad(path: Path, why: str) -> InputError:
    hint = "Give 'tracks' (T, N, 2): for each frame and point x and y in pixels; 'visible' (T, N)."
    return InputError(f"{path}: {why}.", hint, "bad-tracks")


def _inside(xy: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return (T, N) whether a point is in the image, or near."""
    edge = _MARGIN * np.array(size)
    with np.errstate(invalid="ignore"):
        return np.asarray(((xy >= -edge) & (xy <= size + edge)).all(axis=2))


def _share(inside: NDArray[np.bool_], visible: NDArray[np.bool_]) -> float:
    return float(inside[visible].mean())


def _lost(path: Path, lost: NDArray[np.bool_], where: str) -> str:
    frame = int(np.flatnonzero(lost.any(axis=1))[0])
    return (
        f"{path.name}: {lost.sum()} of {lost.size} tracked places are {where}, from frame {frame} on; not used there."
    )
