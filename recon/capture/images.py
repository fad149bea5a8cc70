"""Reading one image file: its header first, whether it is whole, and its pixels last.

The size is judged from the header before anything is decoded, so that a small file that would unfold to gigabytes
never does. Pillow decodes; 16-bit, grey, CMYK, palette and transparency all become float RGB with an optional mask.
"""

from __future__ import annotations

import io
import math
import os
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from recon.capture.capture import Array, Photo
from recon.capture.files import CAMERA_SUFFIXES
from recon.errors import InputError
from recon.events import Events
from recon.settings import settings

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "AVIF")
"""What Pillow may decode. Of the others, EPS runs Ghostscript."""

# Pillow mutters about damaged metadata and about sizes short of its own limit; what matters we say ourselves.
warnings.filterwarnings("ignore", module=r"PIL\.")

_ORIENTATION, _EXIF, _FOCAL_MM, _FOCAL_35MM = 274, 0x8769, 37386, 41989
_EXIF_WIDTH, _PLANE_RESOLUTION, _PLANE_UNIT = 40962, 41486, 41488
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0}


@dataclass(frozen=True)
class Header:
    """What an image file says before it is decoded.

    Attributes:
        width, height: size in pixels as stored.
        turned: EXIF says that it is to be shown turned by a quarter, so that width and height change places.
        focal: focal length in pixels from EXIF, None if unknown.
    """

    width: int
    height: int
    turned: bool = False
    focal: float | None = None

    def size(self, oriented: bool = True) -> tuple[int, int]:
        """Return (width, height), by default after EXIF's orientation was applied."""
        return (self.height, self.width) if oriented and self.turned else (self.width, self.height)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong until it is closed becomes an InputError that names the file."""
    if path.suffix.lower() in CAMERA_SUFFIXES:
        raise InputError(
            f"{path.name}: {path.suffix[1:].upper()} images cannot be read.",
            "Convert the photos to JPEG or PNG.",
            "unsupported-format",
        )
    # Pillow refuses what has twice its own limit.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, math.ceil(settings().max_megapixels * 5e5))
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        # Pillow refuses in open() already, before the header is ours to read; its message holds the pixel count.
        pixels = re.search(r"\d+", str(error))
        raise _too_large(path, int(pixels.group()) / 1e6 if pixels else math.inf) from error
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{path.name} is not an image that can be read.", "Save it again as JPEG or PNG.", "unreadable-image"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them trip over
        if isinstance(error, OSError) and error.strerror:  # a link to nowhere, no permission
            what, hint = f"cannot be opened: {error.strerror}", "Check that it is there and that you may read it."
            raise InputError(f"{path.name} {what}.", hint, "unreadable-image") from error
        raise InputError(
            f"{path.name} is damaged or cut short ({error}).", "Copy or export it once more.", "unreadable-image"
        ) from error


def _too_large(path: Path, megapixels: float, size: str = "") -> InputError:
    limit = settings().max_megapixels
    return InputError(
        f"{path.name} has {megapixels:.0f} megapixels{size}, more than the {limit:g} that are read.",
        "Export it smaller: 4000 pixels on the longest side are plenty. Or raise RECON_MAX_MEGAPIXELS.",
        "image-too-large",
    )


def read_header(path: Path) -> Header:
    """Read an image's header; no pixel is decoded.

    Raises:
        InputError: no image, a format that is not read (HEIC, raw), or more pixels than are read
            (``RECON_MAX_MEGAPIXELS``).
    """
    with _opened(path) as image:
        return _header(path, image)


def _header(path: Path, image: Image.Image) -> Header:
    width, height = image.size
    if width * height > settings().max_megapixels * 1e6:
        raise _too_large(path, width * height / 1e6, f" ({width} × {height})")
    try:
        exif = _exif(image)
        return Header(width, height, int(exif.get(_ORIENTATION, 1)) in (5, 6, 7, 8), _focal(exif, width, height))
    except Exception:  # damaged metadata must not cost the photo
        return Header(width, height)


def _exif(image: Image.Image) -> Image.Exif:
    """Return the EXIF block in front of the pixels. A PNG's own getexif decodes the pixels to look behind them."""
    return Image.Image.getexif(image)


def _focal(exif: Image.Exif, width: int, height: int) -> float | None:
    """Return the focal length in pixels.

    The 35 mm equivalent is defined over the image's diagonal (CIPA DCG-001), which a 36 mm × 24 mm film has of
    43.27 mm. Otherwise the lens's millimetres times the sensor's pixels per millimetre, where EXIF gives both.
    """
    ifd = exif.get_ifd(_EXIF)
    film = float(ifd.get(_FOCAL_35MM) or 0)
    if film > 0:
        focal = film / math.hypot(36, 24) * math.hypot(width, height)
    else:
        millimetres = float(ifd.get(_FOCAL_MM) or 0)
        per_unit = float(ifd.get(_PLANE_RESOLUTION) or 0)
        focal = millimetres * per_unit / _MM_PER_UNIT.get(int(ifd.get(_PLANE_UNIT) or 2), 25.4)
        focal *= width / (float(ifd.get(_EXIF_WIDTH) or 0) or width)  # the photo was made smaller after it was taken
    longest = max(width, height)
    return focal if 0.1 * longest < focal < 30 * longest else None


def check_image(path: Path) -> Header:
    """Read the header and find out cheaply whether the file is whole.

    A JPEG is decoded at an eighth of its size, a PNG's checksums are verified, others are decoded.

    Raises:
        InputError: as :func:`read_header`, or damaged or cut short.
    """
    with _opened(path) as image:
        header = _header(path, image)
        if image.format == "PNG":
            image.verify()
        else:
            image.draft("L", (1, 1))
            image.load()
        return header


def check_images(paths: Sequence[Path], events: Events, stage: str = "load") -> dict[Path, Header | InputError]:
    """Run :func:`check_image` on many files in threads, telling the progress; the failures are returned, not raised."""
    results: dict[Path, Header | InputError] = {}
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="check-images")
    try:
        jobs = {pool.submit(check_image, path): path for path in dict.fromkeys(paths)}
        waiting, told = set(jobs), time.monotonic()
        while waiting:
            done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            for job in done:
                error = job.exception()
                if error is not None and not isinstance(error, InputError):
                    raise error
                results[jobs[job]] = error if isinstance(error, InputError) else job.result()
            events.check()
            if time.monotonic() - told > 0.2 or not waiting:
                told = time.monotonic()
                events.progress(stage, len(results), len(jobs))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return {path: results[path] for path in jobs.values()}  # in the order asked for, not of completion


def read_photo(path: Path, oriented: bool = True) -> Photo:
    """Decode an image into straight float colour; transparency, where there is any, becomes the mask.

    Args:
        path: the file.
        oriented: apply EXIF's orientation.

    Raises:
        InputError: as :func:`check_image`.
    """
    with _opened(path) as image:
        _header(path, image)
        turn = _TURNS.get(int(_exif(image).get(_ORIENTATION, 1))) if oriented else None
        image = image if turn is None else image.transpose(turn)
        if image.mode == "F" or image.mode.startswith("I"):  # one channel: float in [0, 1], or 16 bits
            grey = np.asarray(image, np.float32) * np.float32(1 if image.mode == "F" else 1 / 65535)
            return Photo(np.repeat(np.nan_to_num(grey).clip(0, 1)[..., None], 3, axis=2))
        if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
            rgba = np.asarray(image.convert("RGBA"))
            alpha = rgba[..., 3]
            rgb = _to_float(rgba[..., :3])
            return Photo(rgb) if alpha.min() == 255 else Photo(rgb, _to_float(alpha), mask_is_alpha=True)
        return Photo(_to_float(np.asarray(image.convert("RGB"))))


def read_mask(path: Path) -> Array:
    """Read a mask file: (H, W) float32, 1 where something is to be reconstructed.

    Black is 0 and white is 1; so are the values 0 and 1 of a file of labels. A cut-out picture gives its transparency.

    Raises:
        InputError: as :func:`check_image`.
    """
    photo = read_photo(path)
    if photo.mask is not None:
        return photo.mask
    grey = photo.rgb.max(axis=2)
    return (grey > 0).astype(np.float32) if grey.max() <= 1.5 / 255 else grey


def is_empty_mask(path: Path) -> bool:
    """Return whether a mask file, as :func:`read_mask` takes it, is 0 everywhere; several times faster.

    Raises:
        InputError: as :func:`check_image`.
    """
    with _opened(path) as image:
        _header(path, image)
        if "A" in image.getbands() or "transparency" in image.info:
            rgba = np.asarray(image.convert("RGBA"))
            return not (rgba[..., 3] if rgba[..., 3].min() < 255 else rgba[..., :3]).any()
        return not np.any(np.asarray(image.convert("RGB") if image.mode == "P" else image))


def read_depth(path: Path) -> NDArray[np.uint16]:
    """Read a depth map: (H, W) of 16 bits, as stored.

    Raises:
        InputError: as :func:`check_image`, or not a grey image of 16 bits (code ``"bad-depth"``).
    """
    with _opened(path) as image:
        _header(path, image)
        if not image.mode.startswith("I"):
            raise InputError(f"{path} is no depth map.", "Depth is 16-bit grey PNG in millimetres.", "bad-depth")
        return np.asarray(image).astype(np.uint16)


def check_texture(data: bytes, path: Path) -> bool:
    """Return whether ``data`` is an image that may be decoded; ``path`` is the file that it belongs to, for messages.

    Raises:
        InputError: too many pixels (code ``"image-too-large"``).
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            megapixels = image.width * image.height / 1e6
    except Image.DecompressionBombError:
        megapixels = math.inf
    except Exception:  # whatever a damaged file makes Pillow trip over
        return False
    if megapixels > (limit := settings().max_megapixels):
        raise InputError(
            f"{path} has a texture of {megapixels:.0f} megapixels, more than the {limit:g} that are read.",
            "Make the texture smaller: 8192 pixels on a side are plenty. Or raise RECON_MAX_MEGAPIXELS.",
            "image-too-large",
        )
    return True


def _to_float(pixels: np.ndarray) -> Array:
    return np.multiply(pixels, np.float32(1 / 255), dtype=np.float32)
