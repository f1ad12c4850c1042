"""Open slide files of all formats as a ``Slide``: 8-bit RGB at several resolutions."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from histoedge.edge.errors import DataError
from histoedge.scanning.segments import Segments
from histoedge.scanning.slide import PICTURES, SUFFIXES, WHITE, Slide

LARGEST_DECODED_BYTES = 400 << 20
"""Limit of what must be decoded at once: a whole picture, or a tile or strip of a TIFF file."""

PLAUSIBLE_UM = (0.05, 20.0)
"""Range of plausible resolution tags in um per px; tags outside it describe a screen (72 dpi: 353) and are ignored."""


def open_slide(path: Path) -> Slide:
    """Open a slide: SVS, NDPI, DICOM and others with OpenSlide, TIFF and OME-TIFF with tifffile, pictures with Pillow.

    Raises:
        DataError: no such file, not a slide, damaged, too large to decode, or not 8-bit RGB.
    """
    if not path.is_file():
        fault = "a folder, expected a slide file" if path.is_dir() else "no such slide"
        raise DataError(f"{path}: {fault}")
    if path.suffix.lower() in PICTURES:
        return _picture(path)
    import openslide

    vendor = openslide.OpenSlide.detect_format(path)
    if path.suffix.lower() in (".tif", ".tiff") and vendor in (None, "generic-tiff"):
        return _tiff(path)
    if vendor is None:
        suffixes = ", ".join(SUFFIXES)
        raise DataError(
            f"{path}: not a slide that OpenSlide can read, or damaged at its start; expected one of {suffixes}"
        )
    return _openslide(path)


def _picture(path: Path) -> Slide:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            decoded = picture.width * picture.height * len(picture.getbands())
            if decoded > LARGEST_DECODED_BYTES:
                raise DataError(f"{path}: {picture.width} x {picture.height} px: {_too_large(decoded)}")
            if picture.mode not in ("RGB", "RGBA"):
                raise DataError(f"{path}: colour mode {picture.mode}; expected RGB with 8 bits per channel")
            pixels = _on_white(np.asarray(picture))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a picture, truncated or damaged ({error})") from error

    def read(level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        return pixels[top : top + height, left : left + width]

    return Slide(path=path, um_per_px=None, levels=((pixels.shape[1], pixels.shape[0], 1.0),), read=read)


def _openslide(path: Path) -> Slide:
    import openslide
    from PIL import Image

    try:
        opened = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise DataError(f"{path}: cannot be opened; truncated or damaged ({error})") from error
    mpp = [opened.properties.get(name) for name in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)]
    colour = f"#{opened.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, 'ffffff')}"

    def read(level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        downsample = opened.level_downsamples[level]
        corner = round(left * downsample), round(top * downsample)
        try:
            region = opened.read_region(corner, level, (width, height))
        except openslide.OpenSlideError as error:
            raise DataError(f"{path}: truncated or damaged near {corner}, level {level} ({error})") from error
        background = Image.new("RGB", region.size, colour)
        background.paste(region, mask=region.getchannel("A"))
        return np.asarray(background)

    levels = tuple(
        (*size, float(downsample))
        for size, downsample in zip(opened.level_dimensions, opened.level_downsamples, strict=True)
    )
    return Slide(path=path, um_per_px=_square_um(path, *mpp), levels=levels, read=read)


def _tiff(path: Path) -> Slide:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return _tiff_slide(path, file)
    except (OSError, tifffile.TiffFileError, IndexError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a TIFF file, truncated or damaged ({error})") from error


def _tiff_slide(path: Path, file: Any) -> Slide:
    series = file.series[0]
    axes, shape = series.axes, series.shape
    if axes not in ("YXS", "SYX") or shape[axes.index("S")] not in (3, 4) or series.dtype != np.uint8:
        raise DataError(
            f"{path}: {series.dtype} pixels with axes {axes}, shape {shape}; expected RGB with 8 bits per channel"
        )
    length = os.path.getsize(path)
    pages = [level.keyframe for level in series.levels]
    for page in pages:
        ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if max(ends, default=0) > length:
            raise DataError(
                f"{path}: truncated: the pixels end at byte {max(ends)}, the file at byte {length}; copy it again"
            )
        chunk = math.prod(page.chunks)
        if chunk > LARGEST_DECODED_BYTES:
            raise DataError(f"{path}: {_too_large(chunk)}")
    segments = Segments(path, pages)

    def read(level: int, left: int, top: int, width: int, height: int) -> np.ndarray:
        try:
            return _on_white(segments.read(level, left, top, width, height))
        except Exception as error:  # each codec raises its own subclasses of Exception
            raise DataError(f"{path}: damaged near ({left}, {top}), level {level} ({error})") from error

    sizes = [(page.imagewidth, page.imagelength) for page in pages]
    levels = tuple((*size, sizes[0][0] / size[0]) for size in sizes)
    return Slide(path=path, um_per_px=_tiff_um(path, file), levels=levels, read=read)


def _tiff_um(path: Path, file: Any) -> float | None:
    if file.is_ome:
        import tifffile

        image = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
        pixels = (image[0] if isinstance(image, list) else image)["Pixels"]
        if any(pixels.get(f"PhysicalSize{axis}Unit", "µm") not in ("µm", "um") for axis in "XY"):
            return None
        return _square_um(path, *(pixels.get(f"PhysicalSize{axis}") for axis in "XY"))
    page = file.pages[0]
    um = {2: 25_400.0, 3: 10_000.0}.get(int(page.tags.valueof("ResolutionUnit", default=1)))  # inch, centimetre
    densities = [page.tags.valueof(f"{axis}Resolution", default=(0, 1)) for axis in "XY"]
    if um is None or any(not above or not below for above, below in densities):
        return None
    return _square_um(path, *(um * below / above for above, below in densities))


def _square_um(path: Path, across: object, down: object) -> float | None:
    """Return um per px of square pixels; None if a side is missing or implausible.

    Raises:
        DataError: the pixels are not square.
    """
    sides = [float(side) for side in (across, down) if side is not None]  # type: ignore[arg-type]
    if len(sides) < 2 or not all(PLAUSIBLE_UM[0] <= side <= PLAUSIBLE_UM[1] for side in sides):
        return None
    if abs(sides[0] / sides[1] - 1) > 0.01:
        raise DataError(f"{path}: pixels of {sides[0]:.4g} x {sides[1]:.4g} um; expected square pixels")
    return sum(sides) / 2


def _on_white(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 (H, W, 3 or 4) pixels as RGB; transparent pixels become white, as glass."""
    if pixels.shape[-1] == 3:
        return pixels
    alpha = pixels[..., 3:].astype(np.uint16)
    mixed = pixels[..., :3] * alpha + WHITE * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def _too_large(decoded_bytes: int) -> str:
    return (
        f"{decoded_bytes / 1e6:,.0f} MB must be decoded at once, at most {LARGEST_DECODED_BYTES / 1e6:,.0f} MB is "
        "allowed; convert the file to a tiled pyramid (vips tiffsave --tile --pyramid)"
    )
