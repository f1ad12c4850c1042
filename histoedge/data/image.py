"""One patch from one image file, its header checked before a pixel is decoded."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from histoedge.edge.errors import DataError
from histoedge.edge.patches import PATCH_PX

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
LARGEST_FILE_BYTES = 1 << 22
_FORMATS = ("TIFF", "PNG", "JPEG")
_MODES = {
    "RGBA": "RGB with transparency",
    "L": "grey levels",
    "LA": "grey levels",
    "P": "a palette",
    "1": "two colours",
}


def read_patch(path: Path) -> np.ndarray:
    """The patch as uint8 (96, 96, 3) RGB.

    Raises:
        DataError: missing, too large, cut short, not an image, several images, not 96 x 96, or not 8-bit RGB.
    """
    expected = f"expected a {PATCH_PX} x {PATCH_PX} RGB image of 8 bits"
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise DataError(f"{path}: {size} bytes, {expected}, at most {LARGEST_FILE_BYTES} bytes")
        # Pillow warns of odd tags and of large images; both are refused below
        with _quiet(), Image.open(path, formats=_FORMATS) as image:
            if image.size != (PATCH_PX, PATCH_PX):
                raise DataError(f"{path}: {image.size[0]} x {image.size[1]} px, {expected}")
            if image.mode != "RGB":
                found = _MODES.get(image.mode, f"colour mode {image.mode}")
                raise DataError(f"{path}: {found}, {expected}; convert it first")
            # Pillow opens 16 bits per colour as RGB too, and would drop half of them
            if any(";16" in str(tile[3]) for tile in image.tile):
                raise DataError(f"{path}: 16 bits per colour, {expected}; convert it first")
            if getattr(image, "n_frames", 1) != 1:
                raise DataError(f"{path}: {getattr(image, 'n_frames', 1)} images in one file, {expected}")
            return np.array(image)
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a TIFF, PNG or JPEG image, {expected}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as cause:
        raise DataError(f"{path}: cannot be decoded ({' '.join(str(cause).split())[:80]}); copy it again") from cause


_decoding: list[warnings.catch_warnings] = []  # the one that the first of all threads that decode has entered
_threads = 0
_lock = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings while any thread decodes: each with a ``catch_warnings`` of its own would undo the others'."""
    global _threads
    with _lock:
        _threads += 1
        if _threads == 1:
            _decoding.append(warnings.catch_warnings())
            _decoding[0].__enter__()
            warnings.simplefilter("ignore")
    try:
        yield
    finally:
        with _lock:
            _threads -= 1
            if _threads == 0:
                _decoding.pop().__exit__(None, None, None)
