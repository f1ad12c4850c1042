from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histoedge.data import picture
from histoedge.edge.errors import DataError


def test_a_picture_is_drawn_whole_and_says_something(pcam_files: Callable[..., Path], tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        folder = pcam_files(split)
    file = tmp_path / "pictures" / "look.png"
    picture.picture(str(folder), file)
    with Image.open(file) as drawn:
        assert drawn.format == "PNG"
        width, height = drawn.size
        assert width >= 1200
        assert height >= 700
        assert np.asarray(drawn.convert("L")).std() > 20
    assert [path.name for path in file.parent.iterdir()] == ["look.png"]


def test_a_fault_in_the_data_leaves_no_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        picture.picture(str(tmp_path / "nowhere"), tmp_path / "look.png")
    assert list(tmp_path.iterdir()) == []
