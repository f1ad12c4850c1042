from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histoedge.data import picture
from histoedge.edge.errors import DataError


def test_the_picture_is_complete_and_not_empty(pcam_files: Callable[..., Path], tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        folder = pcam_files(split)
    file = tmp_path / "pictures" / "look.png"
    picture.picture(str(folder), file)
    with Image.open(file) as image:
        assert image.format == "PNG"
        width, height = image.size
        assert width >= 1200
        assert height >= 700
        assert np.asarray(image.convert("L")).std() > 20
    assert [path.name for path in file.parent.iterdir()] == ["look.png"]


def test_after_an_error_in_the_data_there_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        picture.picture(str(tmp_path / "nowhere"), tmp_path / "look.png")
    assert list(tmp_path.iterdir()) == []


def test_patches_of_another_size_and_classes_are_drawn(tmp_path: Path, make_noise, write_pngs) -> None:
    names = [f"{('gland', 'tumour')[row % 2]}/{row}.png" for row in range(40)]
    write_pngs(tmp_path / "data", names, make_noise(40, side=64))
    picture.picture(str(tmp_path / "data"), tmp_path / "look.png")
    with Image.open(tmp_path / "look.png") as image:
        assert np.asarray(image.convert("L")).std() > 20
