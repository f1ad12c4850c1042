from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histoedge.data import picture, synthetic
from histoedge.edge.errors import DataError

STAINS = np.stack([synthetic.HAEMATOXYLIN, synthetic.EOSIN])


@pytest.mark.parametrize("amounts", [(0.0, 0.0), (0.8, 0.0), (0.0, 0.7), (0.5, 0.3)])
def test_stains_finds_the_densities_that_were_mixed(amounts: tuple[float, float]) -> None:
    unit = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    colour = 256 * np.exp(-np.array(amounts) @ unit) - 1
    pixels = np.broadcast_to(np.rint(colour).astype(np.uint8), (2, 96, 96, 3))
    found = picture.stains(pixels)
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found, [amounts, amounts], atol=0.01)  # pixels are rounded to 8 bits


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
