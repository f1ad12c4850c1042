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
