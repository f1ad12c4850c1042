"""The tissue mask contains stained tissue, and no glass, pen or border."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge.data import synthetic
from histoedge.scanning import readers, tissue
from histoedge.scanning.grid import Grid
from histoedge.scanning.plane import Plane

UM_PER_PX = 7.776  # of the overview: 8 px of a plane at 0.972 um per px
GLASS, EOSIN, DARK = (242, 240, 243), (214, 150, 190), (12, 10, 14)
GREEN_PEN, BLUE_PEN = (60, 170, 90), (40, 70, 190)

Box = tuple[int, int, int, int]


def grid(rows: int, columns: int, *, step_px: int = 32, patch_px: int = 96) -> Grid:
    return Grid(rows=rows, columns=columns, per_field=30, step_px=step_px, patch_px=patch_px)


def picture(*boxes: tuple[Box, tuple[int, int, int]], side: int = 400) -> np.ndarray:
    """Draw coloured boxes (top, left, bottom, right) on noisy glass, uint8 (side, side, 3)."""
    pixels = np.full((side, side, 3), GLASS, float)
    for (top, left, bottom, right), colour in boxes:
        pixels[top:bottom, left:right] = colour
    return np.clip(pixels + np.random.default_rng(3).normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)


def box_mask(*boxes: Box, side: int = 400) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


WHOLE = (0, 0, 400, 400)
PART = (100, 100, 255, 255)  # 15 % of the picture


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (picture(), box_mask()),
        (np.full((400, 400, 3), 255, np.uint8), box_mask()),
        (picture((WHOLE, EOSIN)), box_mask(WHOLE)),
        (picture((PART, EOSIN)), box_mask(PART)),
        (picture((PART, EOSIN), ((300, 50, 340, 380), GREEN_PEN)), box_mask(PART)),
        (picture((PART, EOSIN), ((20, 20, 60, 380), BLUE_PEN)), box_mask(PART)),
        (picture((PART, EOSIN), ((0, 0, 400, 30), DARK), ((370, 0, 400, 400), DARK)), box_mask(PART)),
        (picture(((0, 0, 400, 60), DARK)), box_mask()),
        (picture((PART, EOSIN), ((20, 20, 24, 24), EOSIN)), box_mask(PART)),
        (picture((PART, EOSIN), ((150, 150, 156, 156), GLASS)), box_mask(PART)),
    ],
    ids=[
        *("glass", "white", "all tissue", "15 %", "green pen", "blue pen", "black border", "border alone"),
        *("a speck", "a small hole"),
    ],
)
def test_the_mask_is_exact_to_two_pixels(pixels: np.ndarray, expected: np.ndarray) -> None:
    mask = tissue.mask(pixels, UM_PER_PX)
    inner = expected & ~_edges(expected)
    outer = ~expected & ~_edges(expected)
    assert mask[inner].all()
    assert not mask[outer].any() or mask[outer].mean() < 1e-3  # smoothing blurs pen and border over two pixels


def _edges(mask: np.ndarray) -> np.ndarray:
    """Return the pixels within 3 px of an edge of the mask, which smoothing blurs and whose corners it rounds."""
    from scipy import ndimage

    return np.asarray(ndimage.binary_dilation(mask, iterations=3) & ~ndimage.binary_erosion(mask, iterations=3))


def test_bands_do_not_change_the_mask() -> None:
    boxes = [((top, 50, top + 100, 300), EOSIN) for top in (200, 480, 700)]
    pixels = picture(*boxes, side=900)
    transposed = tissue.mask(np.ascontiguousarray(pixels.swapaxes(0, 1)), UM_PER_PX).T  # has other bands
    np.testing.assert_array_equal(tissue.mask(pixels, UM_PER_PX), transposed)


def test_a_square_with_one_tissue_pixel_has_tissue() -> None:
    mask = np.zeros((44, 40), bool)  # 11 x 10 squares; the outer ones are not the centre of a patch
    mask[8, 11], mask[43, 39], mask[0, 0] = True, True, True
    squares = tissue.squares(mask, grid(9, 8), 4)
    assert np.argwhere(squares).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("label_px", "patch_px", "pixel", "expected"),
    [
        (64, 64, (8, 3), [[1, 0]]),  # no margin: eight pixels to a square
        (32, 64, (5, 6), [[0, 1]]),  # a margin of 2 pixels, half a square
        (32, 72, (6, 2), [[0, 0], [1, 0]]),  # a margin of 2.5 pixels: the pixel belongs to two squares
    ],
)
def test_squares_lie_in_the_middle_of_their_patches(
    label_px: int, patch_px: int, pixel: tuple[int, int], expected: list[list[int]]
) -> None:
    mask = np.zeros((40, 40), bool)
    mask[pixel] = True
    squares = tissue.squares(mask, grid(4, 4, step_px=label_px, patch_px=patch_px), label_px // 8)
    assert np.argwhere(squares).tolist() == expected


def test_the_overview_has_about_the_same_resolution_for_all_models() -> None:
    for step_px, um_per_px, per_square in [(32, 0.972, 4), (64, 0.5, 4), (224, 0.5, 14), (32, 0.25, 1), (8, 0.1, 1)]:
        assert tissue.pixels_per_square(step_px, um_per_px) == per_square


def test_synthetic_tissue_is_separated_from_glass(write_slide: Callable[..., Path]) -> None:
    pixels = np.full((96 * 8, 96 * 8, 3), GLASS, np.uint8)
    patches = synthetic.generate("test", patches=50, seed=5).patches[:]
    stained = [patch for patch in patches if patch.std() > 20][:16]  # some are glass or fat
    for number, patch in enumerate(stained):
        row, column = divmod(number, 4)
        pixels[96 * (row + 2) : 96 * (row + 3), 96 * (column + 2) : 96 * (column + 3)] = patch
    plane = Plane(readers.open_slide(write_slide(pixels)), um_per_px=0.972, slide_um_per_px=0.972)
    squares = tissue.squares(tissue.mask(tissue.overview(plane, 8), UM_PER_PX), grid(22, 22), 4)
    expected = np.zeros((22, 22), bool)
    expected[5:17, 5:17] = True
    assert squares[expected].mean() > 0.95
    assert squares[~expected].mean() < 0.1  # smoothing reaches the adjacent squares
