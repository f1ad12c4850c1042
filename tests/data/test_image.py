import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

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


def test_an_opaque_alpha_channel_is_dropped_and_an_opaque_palette_looked_up(tmp_path: Path) -> None:
    rgba = Image.fromarray(PATCH).convert("RGBA")
    for name in ("a.png", "a.tif"):
        rgba.save(tmp_path / name)
        np.testing.assert_array_equal(image.read_patch(tmp_path / name), PATCH)
    flat = Image.fromarray(PATCH // 128 * 200)
    flat.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    np.testing.assert_array_equal(image.read_patch(tmp_path / "p.png"), np.asarray(flat))


def test_transparency_is_an_error(tmp_path: Path) -> None:
    rgba = Image.fromarray(PATCH).convert("RGBA")
    rgba.putpixel((5, 5), (0, 0, 0, 254))
    rgba.save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png: RGB with transparency, expected a 96 x 96 RGB image"):
        image.read_patch(tmp_path / "a.png")
    Image.fromarray(PATCH).convert("P").save(tmp_path / "p.png", transparency=3)
    with pytest.raises(DataError, match=r"p.png: a palette with transparency"):
        image.read_patch(tmp_path / "p.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_the_orientation_in_exif_is_applied_once(tmp_path: Path, name: str) -> None:
    upright = np.zeros((96, 96, 3), np.uint8)
    upright[:48] = 200
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # stored on its side, to be turned clockwise
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    stored.save(tmp_path / name, exif=exif)
    assert np.abs(image.read_patch(tmp_path / name).astype(int) - upright).max() <= 3


def test_16_bit_grey_levels_are_an_error(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif"):
        Image.fromarray(np.zeros((96, 96), np.uint16)).save(tmp_path / name)
        with pytest.raises(DataError, match=f"{name}: 16 bits per channel"):
            image.read_patch(tmp_path / name)


@pytest.mark.parametrize("side", [32, 64, 224, 512])
def test_patches_of_any_size_are_read_and_resampled(tmp_path: Path, side: int) -> None:
    patch = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(patch).save(tmp_path / "a.png")
    np.testing.assert_array_equal(image.read_patch(tmp_path / "a.png", patch_px=side), patch)
    assert image.side_px(tmp_path / "a.png", where="a.png") == side
    small = image.patch_of_data(tmp_path / "a.png", image.Form(48, resample=True), where="a.png")
    assert small.shape == (48, 48, 3)
    if side > 48:
        assert small.std() < patch.std()  # antialiased


def test_resampling_keeps_the_shape_of_tissue(tmp_path: Path) -> None:
    Image.new("RGB", (120, 96)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"120 x 96 px, expected a square image of at most 4096 px to resample"):
        image.patch_of_data(tmp_path / "a.png", image.Form(resample=True), where="a.png")
    Image.new("1", (5000, 5000)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"5000 x 5000 px, expected a square image of at most 4096 px"):
        image.patch_of_data(tmp_path / "a.png", image.Form(resample=True), where="a.png")
    with pytest.raises(DataError, match=r"a.png: 120 x 96 px, expected a square image; cut"):
        Image.new("RGB", (120, 96)).save(tmp_path / "a.png")
        image.side_px(tmp_path / "a.png", where=str(tmp_path / "a.png"))


def test_an_image_in_bytes_is_read_like_a_file(tmp_path: Path) -> None:
    Image.fromarray(PATCH).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(image.patch_of_data(content, image.FORM, where="row 7"), PATCH)
    with pytest.raises(
        DataError, match=r"row 7: 96 x 96 px, expected a 64 x 64 .*; resample = true in DATA/data.toml resamples it"
    ):
        image.patch_of_data(content, image.Form(64), where="row 7")
    with pytest.raises(DataError, match="row 7: not a TIFF, PNG or JPEG image"):
        image.patch_of_data(b"text", image.FORM, where="row 7")
    with pytest.raises(DataError, match="row 7: cannot be decoded"):
        image.patch_of_data(content[:5000], image.FORM, where="row 7")


def test_a_tiff_whose_next_image_is_damaged_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(PATCH).save(tmp_path / "a.tif")
    content = (tmp_path / "a.tif").read_bytes()
    entries = int.from_bytes(content[8:10], "little")
    following = slice(10 + 12 * entries, 14 + 12 * entries)  # where the next image is: 0 for none
    empty = len(content).to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(content[: following.start] + empty + content[following.stop :] + bytes(6))
    with pytest.raises(DataError, match=r"a.tif: cannot be decoded \(Missing dimensions\); copy it again"):
        image.read_patch(tmp_path / "a.tif")
