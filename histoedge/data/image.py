"""Read one patch from one image; the header is checked before pixels are decoded."""

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from histoedge.edge.errors import DataError
from histoedge.edge.patches import PATCH_PX

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
LARGEST_FILE_BYTES = 1 << 22
LARGEST_RESAMPLED_PX = 4096
_FORMATS = ("TIFF", "PNG", "JPEG")
# raised by Pillow 13 for 200,000 images with flipped bytes
_FAULTS = (OSError, ValueError, SyntaxError, TypeError, struct.error, Image.DecompressionBombError)
_MODES = {
    "RGBA": "RGB with transparency",
    "L": "grey levels",
    "LA": "grey levels",
    "P": "a palette with transparency",
    "1": "two colours",
    "I": "32 bits per pixel",
    "F": "32 bits per pixel",
    "CMYK": "CMYK",
}


@dataclass(frozen=True)
class Form:
    """The side of the patches in px, and whether square images of another size are resampled to it."""

    patch_px: int = PATCH_PX
    resample: bool = False

    @property
    def patch_bytes(self) -> int:
        """Bytes of a patch's pixels."""
        return 3 * self.patch_px**2


FORM = Form()  # of PatchCamelyon


def read_patch(path: Path, *, patch_px: int = PATCH_PX) -> np.ndarray:
    """Return the patch as uint8 (patch_px, patch_px, 3) RGB.

    An opaque alpha channel is dropped, an opaque RGB palette is looked up, and the orientation in EXIF is applied.

    Raises:
        DataError: missing, too large, truncated, not an image, several images, another size, or not 8-bit opaque RGB.
    """
    return _patch(path, str(path), Form(patch_px), "")


def patch_of_data(source: Path | bytes, form: Form, *, where: str) -> np.ndarray:
    """Return a patch of a data set in this form, from an image file or the bytes of one; ``where`` names it in errors.

    With ``form.resample``, a square image of another size is resampled, antialiased. Else as ``read_patch``.
    """
    return _patch(source, where, form, "; resample = true in DATA/data.toml resamples it")


def side_px(source: Path | bytes, *, where: str) -> int:
    """Return the side of a square image in px, from its header.

    Raises:
        DataError: not a readable image, or not square.
    """
    with _opened(source, where, "expected an image") as image:
        width, height = image.size
    if width != height:
        raise DataError(f"{where}: {width} x {height} px, expected a square image; cut the patches square first")
    return int(width)


def resampled(pixels: np.ndarray, patch_px: int) -> np.ndarray:
    """Return a patch, uint8 (side, side, 3), at another size: an antialiased bicubic filter."""
    return np.asarray(Image.fromarray(pixels).resize((patch_px, patch_px), Image.Resampling.BICUBIC))


def _expected(patch_px: int) -> str:
    return f"expected a {patch_px} x {patch_px} RGB image with 8 bits per channel"


@contextmanager
def _opened(source: Path | bytes, where: str, expected: str) -> Iterator[ImageFile.ImageFile]:
    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise DataError(f"{where}: {size} bytes, {expected}, of at most {LARGEST_FILE_BYTES} bytes")
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        # Pillow warns about unknown tags and large images; large images are refused by their header
        with _quiet(), Image.open(file, formats=_FORMATS) as image:
            yield image
    except UnidentifiedImageError:
        raise DataError(f"{where}: not a TIFF, PNG or JPEG image, {expected}") from None
    except FileNotFoundError:
        raise DataError(f"{where}: no such image") from None
    except _FAULTS as cause:
        reason = " ".join(str(cause).split())[:80]
        raise DataError(f"{where}: cannot be decoded ({reason}); copy it again") from cause


def _patch(source: Path | bytes, where: str, form: Form, advice: str) -> np.ndarray:
    """Return the patch; ``advice`` ends the error for another size."""
    expected = _expected(form.patch_px)
    with _opened(source, where, expected) as image:
        _check_size(image.size, where, form, advice)
        # Pillow opens 16 bits per channel as RGB too and drops the lower 8
        if any(";16" in str(tile[3]) for tile in image.tile):
            raise DataError(f"{where}: 16 bits per channel, {expected}; convert it first")
        opaque = _as_rgb(image)
        if opaque is None:
            mode = _MODES.get(image.mode, f"colour mode {image.mode}")
            raise DataError(f"{where}: {mode}, {expected}; convert it first")
        if getattr(image, "n_frames", 1) != 1:
            raise DataError(f"{where}: {getattr(image, 'n_frames', 1)} images in one file, {expected}")
        if image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # Pillow turns TIFFs
            opaque = ImageOps.exif_transpose(opaque)
        pixels = np.array(opaque)
    return pixels if pixels.shape[0] == form.patch_px else resampled(pixels, form.patch_px)


def _as_rgb(image: Image.Image) -> Image.Image | None:
    """Return the image if it is RGB, the RGB image of an opaque RGBA or palette image, else None."""
    if image.mode == "RGB":
        return image
    if image.mode == "RGBA":
        return image.convert("RGB") if image.getchannel("A").getextrema() == (255, 255) else None
    if image.mode == "P" and "transparency" not in image.info:
        image.load()
        if image.palette is not None and image.palette.mode == "RGB":
            return image.convert("RGB")
    return None


def _check_size(size: tuple[int, int], where: str, form: Form, advice: str) -> None:
    if size == (form.patch_px, form.patch_px):
        return
    found, expected = f"{where}: {size[0]} x {size[1]} px", _expected(form.patch_px)
    if not form.resample:
        raise DataError(f"{found}, {expected}{advice}")
    if size[0] != size[1] or size[0] > LARGEST_RESAMPLED_PX:
        raise DataError(f"{found}, expected a square image of at most {LARGEST_RESAMPLED_PX} px to resample")


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
