"""Read one patch from one image file; the header is checked before pixels are decoded."""

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


def read_patch(path: Path, *, patch_px: int = PATCH_PX) -> np.ndarray:
    """Return the patch as uint8 (patch_px, patch_px, 3) RGB.

    Raises:
        DataError: missing, too large, truncated, not an image, several images, another size, or not 8-bit RGB.
    """
    expected = f"expected a {patch_px} x {patch_px} RGB image with 8 bits per channel"
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise DataError(f"{path}: {size} bytes, {expected}, of at most {LARGEST_FILE_BYTES} bytes")
        # Pillow warns about unknown tags and large images; large images are refused below
        with _quiet(), Image.open(path, formats=_FORMATS) as image:
            if image.size != (patch_px, patch_px):
                raise DataError(f"{path}: {image.size[0]} x {image.size[1]} px, {expected}")
            if image.mode != "RGB":
                mode = _MODES.get(image.mode, f"colour mode {image.mode}")
                raise DataError(f"{path}: {mode}, {expected}; convert it first")
            # Pillow opens 16 bits per channel as RGB too and drops the lower 8
            if any(";16" in str(tile[3]) for tile in image.tile):
                raise DataError(f"{path}: 16 bits per channel, {expected}; convert it first")
            if getattr(image, "n_frames", 1) != 1:
                raise DataError(f"{path}: {getattr(image, 'n_frames', 1)} images in one file, {expected}")
            return np.array(image)
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a TIFF, PNG or JPEG image, {expected}") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as cause:
        raise DataError(f"{path}: cannot be decoded ({' '.join(str(cause).split())[:80]}); copy it again") from cause


_catchers: list[warnings.catch_warnings] = []  # entered by the first thread that decodes
_threads = 0
_lock = threading.Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings while any thread decodes; ``catch_warnings`` per thread would restore the filters too early."""
    global _threads
    with _lock:
        _threads += 1
        if _threads == 1:
            _catchers.append(warnings.catch_warnings())
            _catchers[0].__enter__()
            warnings.simplefilter("ignore")
    try:
        yield
    finally:
        with _lock:
            _threads -= 1
            if _threads == 0:
                _catchers.pop().__exit__(None, None, None)
