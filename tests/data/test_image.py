import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histoedge.data import image
from histoedge.edge.errors import DataError

PATCH = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.png"])
def test_a_lossless_patch_is_read_unchanged(tmp_path: Path, name: str) -> None:
    Image.fromarray(PATCH).save(tmp_path / name)
    pixels = image.read_patch(tmp_path / name)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, PATCH)


def test_an_lzw_tiff_and_a_jpeg_are_read(tmp_path: Path) -> None:
    Image.fromarray(PATCH).save(tmp_path / "a.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(image.read_patch(tmp_path / "a.tif"), PATCH)
    Image.fromarray(np.full((96, 96, 3), 200, np.uint8)).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(image.read_patch(tmp_path / "a.jpg").astype(int) - 200).max() <= 1  # JPEG is lossy


@pytest.mark.parametrize(
    ("mode", "description"),
    [("L", "grey levels"), ("LA", "grey levels"), ("1", "two colours"), ("CMYK", "CMYK"), ("F", "32 bits per pixel")],
)
def test_other_colour_modes_are_errors(tmp_path: Path, mode: str, description: str) -> None:
    Image.fromarray(PATCH).convert(mode).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=f"a.tif: {description}, expected a 96 x 96 RGB image with 8 bits"):
        image.read_patch(tmp_path / "a.tif")


def test_another_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("RGB", (97, 96)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="97 x 96 px, expected a 96 x 96"):
        image.read_patch(tmp_path / "a.tif")
    Image.new("1", (8_000, 8_000)).save(tmp_path / "bomb.png")  # 8 kB that unpack to 64 million pixels
    with pytest.raises(DataError, match=r"bomb.png"):
        image.read_patch(tmp_path / "bomb.png")


def test_16_bits_per_channel_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png_of_16_bits())
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.mode == "RGB"  # Pillow does not report the depth
    with pytest.raises(DataError, match="16 bits per channel"):
        image.read_patch(tmp_path / "a.png")


def test_two_images_in_one_file_are_refused(tmp_path: Path) -> None:
    patch = Image.fromarray(PATCH)
    patch.save(tmp_path / "a.tif", save_all=True, append_images=[patch])
    with pytest.raises(DataError, match="2 images in one file"):
        image.read_patch(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_a_truncated_image_is_an_error(tmp_path: Path, name: str) -> None:
    Image.fromarray(PATCH).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    for length in (0, 3, 100, len(content) // 2):
        (tmp_path / name).write_bytes(content[:length])
        with pytest.raises(DataError, match=name) as raised:
            image.read_patch(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_a_missing_file_a_folder_a_text_and_a_huge_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such image"):
        image.read_patch(tmp_path / "a.tif")
    with pytest.raises(DataError, match="cannot be decoded"):
        image.read_patch(tmp_path)
    (tmp_path / "a.tif").write_text("not an image")
    with pytest.raises(DataError, match="not a TIFF, PNG or JPEG image"):
        image.read_patch(tmp_path / "a.tif")
    with open(tmp_path / "a.tif", "wb") as file:
        file.truncate(image.LARGEST_FILE_BYTES + 1)
    with pytest.raises(DataError, match="at most 4194304 bytes"):
        image.read_patch(tmp_path / "a.tif")


def _png_of_16_bits() -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 96, 16, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + bytes(96 * 6)) * 96))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b"")
