"""The sheet of flips: selection and place of the patches, and the sheet without flips."""

import io

import numpy as np
import pytest
from PIL import Image

from histoedge.benchmark import sheet
from histoedge.data import Split
from histoedge.edge.errors import DataError
from histoedge.edge.patches import PATCH_PX

LABELS = np.arange(12) % 2
COLOURS = np.stack([20 * np.arange(12), 240 - 20 * np.arange(12), np.full(12, 90)], axis=1).astype(np.uint8)
SPLIT = Split(
    "test", np.broadcast_to(COLOURS[:, None, None], (12, PATCH_PX, PATCH_PX, 3)), LABELS, [str(n) for n in range(12)]
)
REFERENCE = np.full(12, 1.0)


def drawn(logits: np.ndarray) -> np.ndarray:
    names = {"model": "int8.onnx", "reference_model": "fp32.onnx"}
    png = sheet.draw_flips(SPLIT, logits, REFERENCE, threshold_logit=0.5, temperature=1.0, **names)
    assert png == sheet.draw_flips(SPLIT, logits, REFERENCE, threshold_logit=0.5, temperature=1.0, **names)
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_the_largest_change_comes_first_and_equal_changes_stay_in_order() -> None:
    logits = np.array([1.0, 0.4, -3.0, 0.6, 0.4, 9.0])
    reference = np.array([0.4, 1.0, 1.0, 0.4, 1.0, 8.0])
    indices = sheet.worst_flips(logits, reference, threshold_logit=0.5)
    assert indices.tolist() == [2, 0, 1, 4, 3]
    assert sheet.worst_flips(logits, reference, threshold_logit=0.5, count=2).tolist() == [2, 0]


def test_every_flip_is_drawn_at_its_place_with_its_centre_square() -> None:
    logits = -np.arange(12.0)  # all flip; the last one has the largest change
    pixels = drawn(logits)
    rows = 2
    height = sheet.TITLE_PX + rows * (PATCH_PX + sheet.CAPTION_PX + sheet.GAP_PX)
    assert pixels.shape == (2 * height, 2 * (10 * (PATCH_PX + sheet.GAP_PX) + sheet.GAP_PX), 3)
    for place, index in enumerate(range(11, -1, -1)):
        left = 2 * (sheet.GAP_PX + place % 10 * (PATCH_PX + sheet.GAP_PX))
        top = 2 * (sheet.TITLE_PX + place // 10 * (PATCH_PX + sheet.CAPTION_PX + sheet.GAP_PX))
        patch = pixels[top : top + 2 * PATCH_PX, left : left + 2 * PATCH_PX].astype(int)
        assert np.abs(patch[4:40, 4:-4] - COLOURS[index]).max() <= 8  # the palette has 256 colours
        assert np.abs(patch[96, 60:68] - COLOURS[index]).max() > 60  # the left side of the square, at 32 of 96 px
        assert np.abs(patch[90:100, 90:100] - COLOURS[index]).max() <= 8


def test_at_most_fifty_are_drawn() -> None:
    count = 70
    split = Split("test", np.zeros((count, PATCH_PX, PATCH_PX, 3), np.uint8), np.arange(count) % 2, ["x"] * count)
    logits = np.linspace(-1, -2, count)
    png = sheet.draw_flips(
        split, logits, -logits, threshold_logit=0.0, temperature=1.0, model="a$b", reference_model="c"
    )
    with Image.open(io.BytesIO(png)) as image:
        assert image.size[1] == 2 * (sheet.TITLE_PX + 5 * (PATCH_PX + sheet.CAPTION_PX + sheet.GAP_PX))


def test_without_flips_only_the_title_is_drawn() -> None:
    pixels = drawn(REFERENCE + 1)
    assert pixels.shape[0] == 2 * sheet.TITLE_PX
    assert pixels.min() < 100 < pixels.max()


def test_different_numbers_of_logits_and_patches_are_refused() -> None:
    names = {"model": "a", "reference_model": "b"}
    with pytest.raises(DataError, match="11 and 12 logits for 12 patches of test"):
        sheet.draw_flips(SPLIT, REFERENCE[1:], REFERENCE, threshold_logit=0.0, temperature=1.0, **names)
    with pytest.raises(DataError, match="cannot be compared"):
        sheet.worst_flips(REFERENCE, REFERENCE[:3], threshold_logit=0.0)
