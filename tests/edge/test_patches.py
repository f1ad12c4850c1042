from pathlib import Path

import numpy as np
import pytest

from histoedge import edge
from histoedge.edge.errors import DataError


@pytest.mark.parametrize(
    ("patches", "message"),
    [
        (np.zeros((1, 96, 96, 3), np.float32), "do not divide, normalise"),
        (np.full((1, 96, 96, 3), np.nan), "patches are float64 with NaN in it"),
        (np.zeros((1, 3, 96, 96), np.uint8), r"channels first, use numpy.transpose\(patches, \(0, 2, 3, 1\)\)"),
        (np.zeros((96, 96, 3), np.uint8), r"shape \(96, 96, 3\).* patches\[None\]"),
        (np.zeros((1, 96, 96, 4), np.uint8), r"shape \(1, 96, 96, 4\)"),
        (np.zeros((0, 96, 96, 3), np.uint8), "at least one patch"),
        (np.zeros((1, 95, 96, 3), np.uint8), r"shape \(1, 95, 96, 3\); expected at least one patch, of 96 x 96 px"),
        (np.ma.zeros((1, 96, 96, 3), np.uint8), "patches are MaskedArray"),
        ([[1]], "patches are list"),
    ],
)
def test_wrong_pixels_are_refused_in_one_line(mean_red: Path, patches: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        edge.load(mean_red).predict(patches)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (np.zeros((96, 96, 3), np.float32), "the field is float32"),
        (np.zeros((3, 96, 128), np.uint8), r"channels first, use numpy.transpose\(patches, \(1, 2, 0\)\)"),
        (np.zeros((1, 96, 96, 3), np.uint8), "one field at a time"),
        (np.zeros((300, 95, 3), np.uint8), "the field is 300 x 95 px"),
    ],
)
def test_a_wrong_field_is_refused_in_one_line(mean_red: Path, field: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        edge.load(mean_red).map(field)


@pytest.mark.parametrize(("side", "cut"), [(96, 96), (103, 96), (104, 104), (384, 384), (200, 200), (239, 232)])
def test_a_field_is_cut_to_whole_patches(side: int, cut: int) -> None:
    field = np.zeros((1, side, 96, 3), np.uint8)
    assert edge.check_patches(field, stride_px=8).shape == (1, cut, 96, 3)
    assert edge.check_patches(field.transpose(0, 2, 1, 3), stride_px=8).flags.c_contiguous
