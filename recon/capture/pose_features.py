"""Pictures on disk, and their cameras in COLMAP's database.

Files are named by the view's number (``000007.jpg`` is view 7): COLMAP's lists of pairs cannot hold names with spaces.
Each step goes on where a killed run stopped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from recon.capture.capture import Array, Photo, View
from recon.capture.pose_extract import CAMERA_MODEL
from recon.capture.pose_run import Meter, threads
from recon.events import Events

_QUALITY = 98
_RIM = 5  # pixels inside a mask's edge whose features see across it


def picture_name(index: int) -> str:
    """Return the file name of view ``index``."""
    return f"{index:06d}.jpg"


def view_index(name: str) -> int:
    """Return which view a file name belongs to."""
    return int(Path(name).stem)


def write_pictures(views: Sequence[View], pictures: Path, masks: Path, events: Events) -> None:
    """Write each view (already at the working resolution) as JPEG, and where it has a mask that as PNG for COLMAP.

    Pictures that are there already are kept.
    """
    pictures.mkdir(parents=True, exist_ok=True)
    masks.mkdir(exist_ok=True)

    def write(index: int) -> None:
        path = pictures / picture_name(index)
        if path.exists() or events.cancelled:
            return
        photo = views[index].load()
        if photo.mask is not None:
            _write_image(masks / f"{path.name}.png", _colmap_mask(photo.mask), [])
        # The picture last: that it exists says that its mask does too.
        _write_image(path, _colmap_picture(photo), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])

    meter = Meter(events, "pictures", len(views))
    with ThreadPoolExecutor(min(threads(), 4)) as pool:  # each holds a photo at full size
        futures = [pool.submit(write, i) for i in range(len(views))]
        try:
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, 0.25)
                for future in done:
                    future.result()
                events.check()
                meter(len(futures) - len(waiting))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _colmap_picture(photo: Photo) -> np.ndarray:
    rgb = photo.rgb
    if photo.mask is not None and photo.mask_is_alpha:
        # What lies behind a cut-out object is arbitrary; its mean colour makes the weakest silhouette.
        alpha = photo.mask[..., None]
        mean = (rgb * alpha).sum((0, 1)) / max(float(alpha.sum()), 1e-6)
        rgb = rgb * alpha + mean * (1 - alpha)
    return (rgb[..., ::-1] * 255 + 0.5).clip(0, 255).astype(np.uint8)


def _colmap_mask(mask: Array) -> np.ndarray:
    """Return (H, W) uint8, 0 where features are not wanted."""
    kept = (mask > 0.5).astype(np.uint8) * 255
    return cv2.erode(kept, np.ones((_RIM, _RIM), np.uint8))


def _write_image(path: Path, image: np.ndarray, options: list[int]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(cv2.imencode(path.suffix, image, options)[1].tobytes())
    part.replace(path)


def import_views(database: Path, pictures: Path, views: Sequence[View], shared_camera: bool) -> None:
    """Enter the pictures and their cameras into a new database, unless that was done.

    Views of the same size and focal length get one camera if ``shared_camera``, else each gets its own. The focal
    length from EXIF is a prior; without one COLMAP starts at 1.2 times the longest side.
    """
    if _is_complete(database, len(views)):
        return
    for suffix in ("", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    pycolmap.Database.open(database).close()
    groups: dict[tuple[int, int, float, int], list[int]] = defaultdict(list)
    for i, view in enumerate(views):
        groups[view.width, view.height, round(view.focal or 0, 1), 0 if shared_camera else i].append(i)
    for (width, height, focal, _), members in groups.items():
        options = pycolmap.ImageReaderOptions()
        options.camera_model = CAMERA_MODEL
        if focal:
            options.camera_params = f"{focal},{width / 2},{height / 2},0"
        names = [picture_name(i) for i in members]
        pycolmap.import_images(database, pictures, pycolmap.CameraMode.SINGLE, names, options)


def _is_complete(database: Path, total: int) -> bool:
    if not database.exists():
        return False
    try:
        with pycolmap.Database.open(database) as db:
            return bool(db.num_images() == total)
    except RuntimeError:  # cut short
        return False


def feature_counts(database: Path, total: int) -> NDArray[np.int64]:
    """Return (n,) the number of features of each view."""
    counts = np.zeros(total, np.int64)
    with pycolmap.Database.open(database) as db:
        for image in db.read_all_images():
            counts[view_index(image.name)] = db.num_keypoints_for_image(image.image_id)
    return counts
