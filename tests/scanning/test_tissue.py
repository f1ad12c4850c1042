"""The mask takes stained tissue, and no glass, pen or border."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge.data import synthetic
from histoedge.scanning import slide, tissue
from histoedge.scanning.plane import Plane

UM_PER_PX = 7.776  # of the picture: 8 pixels of a plane at 0.972
GLASS, EOSIN, DARK = (242, 240, 243), (214, 150, 190), (12, 10, 14)
GREEN_PEN, BLUE_PEN = (60, 170, 90), (40, 70, 190)

Box = tuple[int, int, int, int]


def picture(*boxes: tuple[Box, tuple[int, int, int]], side: int = 400) -> np.ndarray:
    """Glass with noise, uint8 (side, side, 3), and boxes (top, left, bottom, right) of colours on it."""
    pixels = np.full((side, side, 3), GLASS, float)
    for (top, left, bottom, right), colour in boxes:
        pixels[top:bottom, left:right] = colour
    return np.clip(pixels + np.random.default_rng(3).normal(0, 2, pixels.shape), 0, 255).astype(np.uint8)


def box_mask(*boxes: Box, side: int = 400) -> np.ndarray:
    found = np.zeros((side, side), bool)
    for top, left, bottom, right in boxes:
        found[top:bottom, left:right] = True
    return found


WHOLE = (0, 0, 400, 400)
PART = (100, 100, 255, 255)  # 15 % of the picture


@pytest.mark.parametrize(
    ("shown", "expected"),
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
def test_tissue_is_found_to_a_pixel_or_two(shown: np.ndarray, expected: np.ndarray) -> None:
    found = tissue.mask(shown, UM_PER_PX)
    inner = expected & ~_edges(expected)
    outer = ~expected & ~_edges(expected)
    assert found[inner].all()
    assert not found[outer].any() or found[outer].mean() < 1e-3  # pen and border fade over two pixels


def _edges(mask: np.ndarray) -> np.ndarray:
    """Where the mask changes within 3 px: the smoothing's spread, and the corners it rounds."""
    from scipy import ndimage

    return np.asarray(ndimage.binary_dilation(mask, iterations=3) & ~ndimage.binary_erosion(mask, iterations=3))


def test_a_tall_picture_is_no_different_from_its_bands() -> None:
    boxes = [((top, 50, top + 100, 300), EOSIN) for top in (200, 480, 700)]
    shown = picture(*boxes, side=900)
    turned = tissue.mask(np.ascontiguousarray(shown.swapaxes(0, 1)), UM_PER_PX).T  # other bands
    np.testing.assert_array_equal(tissue.mask(shown, UM_PER_PX), turned)


def test_squares_hold_tissue_where_any_pixel_of_them_does() -> None:
    found = np.zeros((44, 40), bool)  # 11 x 10 squares, the outer ones of them no patch's middle
    found[8, 11], found[43, 39], found[0, 0] = True, True, True
    wanted = tissue.squares(found, 9, 8)
    assert np.argwhere(wanted).tolist() == [[1, 1]]


def test_synthetic_tissue_on_glass_is_told_apart(write_slide: Callable[..., Path]) -> None:
    pixels = np.full((96 * 8, 96 * 8, 3), GLASS, np.uint8)
    patches = synthetic.generate("test", patches=50, seed=5).patches
    stained = [patch for patch in patches if patch.std() > 20][:16]  # some are glass or fat
    for number, patch in enumerate(stained):
        row, column = divmod(number, 4)
        pixels[96 * (row + 2) : 96 * (row + 3), 96 * (column + 2) : 96 * (column + 3)] = patch
    seen = Plane(slide.open_slide(write_slide(pixels)), um_per_px=0.972, slide_um_per_px=0.972)
    wanted = tissue.squares(tissue.mask(tissue.overview(seen), UM_PER_PX), 22, 22)
    expected = np.zeros((22, 22), bool)
    expected[5:17, 5:17] = True
    assert wanted[expected].mean() > 0.95
    assert wanted[~expected].mean() < 0.1  # the squares around it, that smoothing reaches
