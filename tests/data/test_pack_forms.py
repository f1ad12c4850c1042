"""Packs of patches of other sizes, and of resampled ones."""

import os
from pathlib import Path

import numpy as np
import pytest

from histoedge.data import digests, image, image_files, pack
from histoedge.edge.errors import DataError


@pytest.fixture
def folder(tmp_path: Path, make_noise, write_pngs) -> Path:
    write_pngs(tmp_path / "images", [f"{row:02d}.png" for row in range(20)], make_noise(20, side=64))
    return tmp_path / "images"


def open_pack(folder: Path, form: image.Form) -> tuple[pack.Pack, list[str]]:
    notes: list[str] = []
    images = image_files.listed(folder).as_form(form)
    opened = pack.open_pack(
        images, [folder.parent / "cache"], progress=lambda what, done, total, note="": notes.append(f"{what} {note}")
    )
    assert opened is not None
    return opened, notes


def test_a_pack_of_another_form_is_rebuilt(folder: Path, make_noise) -> None:
    x = make_noise(20, side=64)
    opened, _ = open_pack(folder, image.Form(64))
    np.testing.assert_array_equal(opened.patches[:], x)
    opened, notes = open_pack(folder, image.Form(32, resample=True))
    assert "rebuilt: the pack has patches of 64 px, DATA has resampled patches of 32 px" in notes[0]
    assert opened.patches.shape == (20, 32, 32, 3)
    np.testing.assert_array_equal(opened.patches[3], image.resampled(x[3], 32))
    assert opened.digests[3] == digests.digest_of(image.resampled(x[3], 32))
    assert open_pack(folder, image.Form(32, resample=True))[1] == []
    opened, _ = open_pack(folder, image.Form(64))
    np.testing.assert_array_equal(opened.patches[:], x)


def test_resampled_images_of_an_interrupted_packing_are_not_used_without_resample(folder: Path) -> None:
    content = (folder / "19.png").read_bytes()
    (folder / "19.png").write_bytes(content[:500])
    times = (folder / "19.png").stat()
    with pytest.raises(DataError, match=r"19.png: cannot be decoded"):
        open_pack(folder, image.Form(48, resample=True))
    assert (folder.parent / "cache" / "journal").is_file()
    with pytest.raises(DataError, match=r"00.png: 64 x 64 px, expected a 48 x 48 RGB image"):
        open_pack(folder, image.Form(48))
    (folder / "19.png").write_bytes(content)
    os.utime(folder / "19.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    opened, notes = open_pack(folder, image.Form(48, resample=True))
    assert notes[0].startswith("check interrupted pack, images")
    assert opened.patches.shape == (20, 48, 48, 3)
