"""Patches without labels, from a folder of images or a data set."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histoedge.data import synthetic
from histoedge.data.unlabelled import load_unlabelled
from histoedge.edge.errors import DataError


def write(folder: Path, count: int, side: int) -> np.ndarray:
    folder.mkdir()
    patches = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    for number, patch in enumerate(patches):
        Image.fromarray(patch).save(folder / f"{number}.png")
    return patches


def test_a_folder_of_images_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    patches = write(tmp_path / "images", 3, 64)
    loaded = load_unlabelled(str(tmp_path / "images"), patch_px=64)
    np.testing.assert_array_equal(loaded.patches[:], patches)
    (tmp_path / "images" / "2.png").unlink()
    assert load_unlabelled(str(tmp_path / "images"), patch_px=64).content_hash != loaded.content_hash


def test_a_data_set_gives_its_training_patches(tmp_path: Path) -> None:
    synthetic.synth(tmp_path, patches=64, seed=1)
    loaded = load_unlabelled(str(tmp_path), patch_px=96)
    assert loaded.patches.shape[1:] == (96, 96, 3)
    assert len(loaded.patches) == 64
    with pytest.raises(DataError, match="patches of 96 px, the network has 64 px"):
        load_unlabelled(str(tmp_path), patch_px=64)


def test_images_of_another_size_and_empty_folders_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "images", 1, 32)
    with pytest.raises(DataError, match=r"0\.png.*expected a 96 x 96 RGB image"):
        load_unlabelled(str(tmp_path / "images"), patch_px=96)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no data set in this folder"):
        load_unlabelled(str(tmp_path / "empty"), patch_px=96)
