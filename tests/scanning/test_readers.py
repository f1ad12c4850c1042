"""Slides and pictures that ``histoedge scan`` opens or refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histoedge.scanning import batch

pytest.importorskip("skimage")  # the extra `slides`
tifffile = pytest.importorskip("tifffile")

Texture = Callable[[int, int], np.ndarray]
WriteSlide = Callable[..., Path]

PINK = (200, 120, 160)  # the colour of tissue


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (np.zeros((300, 300, 3), np.uint16), {}, "uint16 pixels with axes YXS"),
        (np.zeros((300, 300), np.uint8), {"photometric": "minisblack"}, "expected RGB with 8 bits per channel"),
        (np.full((300, 300, 3), 99, np.uint8), {"um_per_px": 353.0}, "no resolution in its metadata; give --um-per-px"),
        (
            np.full((300, 300, 3), 99, np.uint8),
            {"um_per_px": 1.3},
            "1.3 um per px, too coarse: the model was trained at",
        ),
        (np.full((60, 300, 3), 99, np.uint8), {}, "300 x 60 px at 0.972 um per px; expected at least 96 x 96 px"),
        (np.full((21_000, 7_000, 3), 9, np.uint8), {"tile": None, "rowsperstrip": 21_000}, "must be decoded at once"),
    ],
    ids=["16 bits", "grey", "no resolution", "too coarse", "small", "one giant strip"],
)
def test_an_unsuitable_slide_is_reported_in_one_line(
    write_slide: WriteSlide,
    mean_red: Path,
    tmp_path: Path,
    pixels: np.ndarray,
    options: dict[str, Any],
    message: str,
    scan: Callable[..., Any],
) -> None:
    path = write_slide(pixels, **options)
    result = scan(path, "--model", mean_red, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"histoedge: {path}: ")
    assert message in result.stderr
    assert (result.stdout, result.stderr.count("\n")) == ("", 1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [batch.ALL]


def test_transparent_pixels_are_glass(
    write_slide: WriteSlide,
    mean_red: Path,
    tmp_path: Path,
    scan: Callable[..., Any],
    logits: Callable[[Path], np.ndarray],
) -> None:
    pixels = np.zeros((300, 400, 4), np.uint8)
    pixels[96:250, 96:250] = (*PINK, 255)
    path = write_slide(pixels, extrasamples=["unassalpha"])
    assert scan(path, "--model", mean_red, "--out", tmp_path / "out").exit_code == 0
    values = logits(tmp_path / "out" / "slide")
    assert np.isnan(values[0, 8])
    assert values[3, 3] == pytest.approx(PINK[0] / 255, abs=1e-5)


def test_a_picture_requires_a_stated_resolution(
    texture: Texture, mean_red: Path, tmp_path: Path, scan: Callable[..., Any], logits: Callable[[Path], np.ndarray]
) -> None:
    from PIL import Image

    for suffix in ("png", "jpg"):
        path = tmp_path / f"region.{suffix}"
        Image.fromarray(texture(300, 400)).save(path)
        out = tmp_path / suffix
        refused = scan(path, "--model", mean_red, "--out", out)
        assert refused.exit_code == 1
        assert "give --um-per-px" in refused.stderr
        accepted = scan(path, "--model", mean_red, "--out", out, "--um-per-px", "0.972", "--everywhere")
        assert accepted.exit_code == 0, accepted.output
        assert logits(out / "region").shape == (7, 10)
