"""Write a large synthetic slide: ``python benchmarks/slidemaker.py OUT.tif [--side PX] [--tissue SHARE]``.

A TIFF pyramid of JPEG tiles with round pieces of synthetic tissue on glass. Level 0 has half the model's um per px. The
slide is written tile by tile: memory does not grow with its size.
"""

import argparse
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from record import run_script

from histoedge.data import synthetic

UM_PER_PX = 0.486  # of level 0; level 1 has that of the synthetic patches
SIDE_PX, TISSUE = 40_000, 0.15
TILE_PX = 256
GLASS = (243, 241, 244)
PATCHES, SEED = 400, 11
PIECES = (
    (0.32, 0.30, 3),
    (0.70, 0.62, 2),
    (0.25, 0.78, 1),
)  # centre (down, across) as shares of the side, share of the area


@cache
def patches() -> np.ndarray:
    """Return the synthetic patches of the tissue, uint8 (N, 96, 96, 3)."""
    return np.asarray(synthetic.generate("test", patches=PATCHES, seed=SEED).patches)


def window(row: int, column: int, side: int, *, of_side: int, tissue: float) -> np.ndarray:
    """Return a square of ``side`` x ``side`` patches from (row, column) on, uint8 (96 x side, 96 x side, 3)."""
    pixels = np.full((side, side, 96, 96, 3), GLASS, np.uint8)
    y, x = np.mgrid[row : row + side, column : column + side] * 96 + 48
    parts = sum(part for *_, part in PIECES)
    inside = np.zeros(y.shape, bool)
    for down, across, part in PIECES:
        radius = of_side * np.sqrt(tissue * part / parts / np.pi)
        inside |= np.hypot(y - down * of_side, x - across * of_side) < radius
    chosen = (y // 96 * 7919 + x // 96 * 104_729) % len(patches())  # two primes: neighbours differ
    pixels[inside] = patches()[chosen[inside]]
    return pixels.swapaxes(1, 2).reshape(96 * side, 96 * side, 3)


def tiles(level: int, *, side_px: int, tissue: float) -> Iterator[np.ndarray]:
    """Yield the tiles of a level, row by row: level 0 doubles the patches' pixels, level 2 halves them, and so on."""
    side = side_px >> level
    half = side_px // 2  # pixels of level 1
    reach = TILE_PX * 2 ** max(level - 1, 0) // (2 if level == 0 else 1)  # pixels of level 1 in a tile
    for top in range(0, -(-side // TILE_PX)):
        for left in range(0, -(-side // TILE_PX)):
            y, x = top * reach, left * reach
            patch_row, patch_column = y // 96, x // 96
            count = -(-(reach + 95) // 96)
            pixels = window(patch_row, patch_column, count, of_side=half, tissue=tissue)
            pixels = pixels[y % 96 : y % 96 + reach, x % 96 : x % 96 + reach]
            if level == 0:
                yield pixels.repeat(2, 0).repeat(2, 1)
            else:
                by = reach // TILE_PX
                means = pixels.reshape(TILE_PX, by, TILE_PX, by, 3).mean((1, 3), dtype=np.float32)
                yield np.rint(means).astype(np.uint8)


def write_slide(path: Path, *, side_px: int = SIDE_PX, tissue: float = TISSUE) -> None:
    """Write the slide with levels down to 2,500 px or less."""
    import tifffile

    levels = max(1, int(np.ceil(np.log2(side_px / 2_500))) + 1)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(levels):
            file.write(
                tiles(level, side_px=side_px, tissue=tissue),
                shape=(side_px >> level, side_px >> level, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 80},
                resolution=(1e4 / (UM_PER_PX * 2**level),) * 2,
                resolutionunit="CENTIMETER",
                subfiletype=1 if level else None,  # 1: a smaller version of level 0
                subifds=None if level else levels - 1,
            )


def slidemaker_command() -> None:
    """Write the slide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.tif")
    parser.add_argument("--side", type=int, default=SIDE_PX, help="width and height, px")
    parser.add_argument("--tissue", type=float, default=TISSUE, help="share of the area")
    arguments = parser.parse_args()
    write_slide(arguments.out, side_px=arguments.side, tissue=arguments.tissue)
    sys.stdout.write(f"{arguments.out}\n")


if __name__ == "__main__":
    run_script(slidemaker_command)
