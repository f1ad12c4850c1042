from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WriteSlide = Callable[..., Path]


@pytest.fixture
def write_slide(tmp_path: Path) -> WriteSlide:
    """``write_slide(pixels, um_per_px=0.972, downsamples=(1,), **options)`` writes a TIFF file with these levels.

    Coarser levels are block means of level 0; ``options`` are passed to tifffile.
    """
    tifffile = pytest.importorskip("tifffile")
    from PIL import Image

    def write(
        pixels: np.ndarray,
        *,
        um_per_px: float = 0.972,
        downsamples: Sequence[int] = (1,),
        name: str = "slide.tif",
        **options: object,
    ) -> Path:
        tiff_options = {"photometric": "rgb", "tile": (256, 256), **options}
        path = tmp_path / name
        with tifffile.TiffWriter(path) as file:
            for number, downsample in enumerate(downsamples):
                level = np.asarray(Image.fromarray(pixels).reduce(downsample)) if downsample > 1 else pixels
                place = {"subfiletype": 1} if number else {"subifds": len(downsamples) - 1}
                density = (1e4 / (um_per_px * downsample),) * 2
                file.write(level, resolution=density, resolutionunit="CENTIMETER", **tiff_options, **place)
        return path

    return write


@pytest.fixture
def texture() -> Callable[[int, int], np.ndarray]:
    """``texture(height, width)``: random pixels with structure at several scales, uint8 (h, w, 3)."""

    def draw(height: int, width: int) -> np.ndarray:
        random = np.random.default_rng(7)
        values = random.integers(0, 64, (height, width, 3))
        for side in (5, 17, 93):
            coarse = random.integers(0, 64, (height // side + 1, width // side + 1, 3))
            values += coarse.repeat(side, 0).repeat(side, 1)[:height, :width]
        return values.astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def scan(invoke: Callable[..., Any]) -> Callable[..., Any]:
    """``scan(*arguments)``: the result of the command ``histoedge scan``."""
    return partial(invoke, "scan")


@pytest.fixture(scope="session")
def logits() -> Callable[[Path], np.ndarray]:
    """``logits(folder)``: the logits in the map of that output folder."""
    tifffile = pytest.importorskip("tifffile")

    def read(folder: Path) -> np.ndarray:
        with tifffile.TiffFile(folder / "map.ome.tif") as file:
            values: np.ndarray = file.series[1].asarray()
            return values

    return read
