"""Pixels of a plane are the same in every window and at their position on the slide."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import numpy as np
import pytest

from histoedge.edge.errors import DataError
from histoedge.scanning import plane, readers
from histoedge.scanning.cache import Cache
from histoedge.scanning.plane import Plane

Texture = Callable[[int, int], np.ndarray]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": None, "rowsperstrip": 7},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "tile": None, "rowsperstrip": 100},
        {"compression": "deflate", "predictor": True},
        {"compression": "lzw", "tile": (128, 64)},
    ],
    ids=["tiles", "strips", "separate channels", "separate channels in strips", "deflate", "lzw"],
)
def test_a_tiff_file_reads_as_it_was_written(
    write_slide: Callable[..., Path], texture: Texture, options: dict[str, object]
) -> None:
    pixels = texture(301, 530)
    separate = options.get("planarconfig") == "separate"
    path = write_slide(np.moveaxis(pixels, -1, 0) if separate else pixels, **options)
    opened = readers.open_slide(path)
    np.testing.assert_array_equal(opened.read(0, 0, 0, 530, 301), pixels)
    np.testing.assert_array_equal(opened.read(0, 250, 120, 270, 150), pixels[120:270, 250:520])
    np.testing.assert_array_equal(opened.read(0, 529, 300, 1, 1), pixels[300:, 529:])


def test_pixels_are_unchanged_if_a_level_has_the_resolution(write_slide: Callable[..., Path], texture: Texture) -> None:
    pixels = texture(700, 900)
    opened = readers.open_slide(write_slide(pixels))
    slide_plane = Plane(opened, um_per_px=0.98, slide_um_per_px=0.972)  # a difference of 0.8 %
    assert (slide_plane.um_per_px, slide_plane.scale, slide_plane.width, slide_plane.height) == (0.972, 1, 900, 700)
    np.testing.assert_array_equal(slide_plane.read(100, 200, 600, 450), pixels[200:650, 100:700])


def test_pixels_beyond_the_slide_are_white(write_slide: Callable[..., Path], texture: Texture) -> None:
    pixels = texture(300, 200)
    slide_plane = Plane(readers.open_slide(write_slide(pixels)), um_per_px=0.972, slide_um_per_px=0.972)
    window = slide_plane.read(-10, 290, 250, 30)
    np.testing.assert_array_equal(window[:10, 10:210], pixels[290:])
    assert (window[10:] == 255).all()
    assert (window[:, :10] == 255).all()
    assert (window[:, 210:] == 255).all()


@pytest.mark.parametrize("um_per_px", [0.972, 0.499, 0.237, 1.2])
def test_a_pixel_is_the_same_through_every_window(
    write_slide: Callable[..., Path], texture: Texture, um_per_px: float
) -> None:
    opened = readers.open_slide(write_slide(texture(2400, 2600), um_per_px=um_per_px))
    whole = Plane(opened, um_per_px=0.972, slide_um_per_px=um_per_px)
    pixels = whole.read(0, 0, whole.width, whole.height)
    other = Plane(opened, um_per_px=0.972, slide_um_per_px=um_per_px, kept_bytes=0)
    random = np.random.default_rng(1)
    for _ in range(20):
        left, top = random.integers(0, (whole.width - 1, whole.height - 1)).tolist()
        window = other.read(left, top, 400, 300)
        inside = pixels[top : top + 300, left : left + 400]
        np.testing.assert_array_equal(window[: inside.shape[0], : inside.shape[1]], inside)


def test_the_coarsest_level_that_is_fine_enough_is_read(write_slide: Callable[..., Path], texture: Texture) -> None:
    path = write_slide(texture(1600, 1600), um_per_px=0.243, downsamples=(1, 2, 4, 8))
    opened = readers.open_slide(path)
    assert [level[2] for level in opened.levels] == [1, 2, 4, 8]
    for um_per_px, level in ((0.243, 0), (0.4, 0), (0.486, 1), (0.972, 2), (0.96, 2), (1.5, 2), (1.944, 3), (9.0, 3)):
        assert Plane(opened, um_per_px=um_per_px, slide_um_per_px=0.243).level == level


def test_resampled_pixels_keep_their_position(write_slide: Callable[..., Path]) -> None:
    ramp = np.repeat(np.linspace(0, 250, 2000)[None, :, None], 600, 0).repeat(3, 2)
    opened = readers.open_slide(write_slide(np.rint(ramp).astype(np.uint8), um_per_px=0.499))
    slide_plane = Plane(opened, um_per_px=0.972, slide_um_per_px=0.499)
    values = slide_plane.read(0, 0, slide_plane.width, 64)[32, :, 0].astype(float)
    centres = (np.arange(slide_plane.width) + 0.5) * slide_plane.scale - 0.5  # of each pixel, in level 0
    inner = slice(5, -5)  # the filter is truncated at the edges
    assert np.abs(values - 250 / 1999 * centres)[inner].max() <= 1  # rounded in the file and after resampling


@pytest.mark.parametrize(
    ("written", "stated", "expected"),
    [(0.972, None, 0.972), (0.25, 0.972, 0.972), (0.5, None, 0.972), (1.2, None, 0.972)],
)
def test_a_stated_resolution_overrides_the_metadata(
    write_slide: Callable[..., Path], texture: Texture, written: float, stated: float | None, expected: float
) -> None:
    opened = readers.open_slide(write_slide(texture(300, 300), um_per_px=written))
    slide_plane = plane.of_model(opened, 0.972, stated)
    assert slide_plane.um_per_px == pytest.approx(expected)
    assert slide_plane.scale == pytest.approx(expected / (stated or written))


@pytest.mark.parametrize(("um_per_px", "message"), [(353.0, "no resolution in its metadata"), (1.3, "too coarse")])
def test_an_unusable_resolution_is_an_error(
    write_slide: Callable[..., Path], texture: Texture, um_per_px: float, message: str
) -> None:
    opened = readers.open_slide(write_slide(texture(300, 300), um_per_px=um_per_px))
    with pytest.raises(DataError, match=message):
        plane.of_model(opened, 0.972, None)


def test_two_threads_compute_the_same_array_once() -> None:
    cache, calls, both = Cache(100), [], Barrier(2)
    started, go = Event(), Event()

    def make() -> np.ndarray:
        started.set()
        go.wait()
        calls.append(1)
        return np.zeros(10, np.uint8)

    def get() -> np.ndarray:
        both.wait()
        return cache.get("a", make)

    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(get) for _ in range(2)]
        started.wait()
        go.set()
        assert futures[0].result() is futures[1].result()
    assert calls == [1]


def test_the_least_recently_used_array_is_dropped() -> None:
    cache, calls = Cache(25), []

    def get(key: str) -> None:
        def make() -> np.ndarray:
            calls.append(key)
            return np.zeros(10, np.uint8)

        cache.get(key, make)

    for key in "abacabb":  # c drops b, b drops c
        get(key)
    assert "".join(calls) == "abcb"


def test_an_error_of_make_is_raised_and_not_cached() -> None:
    cache = Cache(100)

    def fail() -> np.ndarray:
        raise DataError("damaged")

    with pytest.raises(DataError, match="damaged"):
        cache.get("a", fail)
    assert cache.get("a", lambda: np.ones(1)).tolist() == [1]
