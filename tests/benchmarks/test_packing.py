"""The packing benchmark on a small Kaggle folder."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

Script = Callable[[str], ModuleType]
IMAGES = 60


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    folder = tmp_path / "kaggle"
    (folder / "train").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        patch = random.integers(0, 256, (96, 96, 3), np.uint8)
        Image.fromarray(patch).save(folder / "train" / f"p{number}.tif")
    rows = "".join(f"p{number},{number % 2}\n" for number in range(IMAGES))
    (folder / "train_labels.csv").write_text(f"id,label\n{rows}")
    return folder


def test_a_fresh_process_loads_the_folder_with_and_without_its_pack(
    script: Script, kaggle: Path, tmp_path: Path
) -> None:
    packing, scratch = script("packing"), tmp_path / "scratch"
    assert packing.loading_s(kaggle, scratch, cached=False) > 0
    assert not scratch.exists()
    assert packing.loading_s(kaggle, scratch, cached=True) > 0
    assert any(scratch.iterdir())
    assert not (kaggle / ".histoedge").exists()  # the data folder stays as it is


def test_a_row_has_the_median_and_the_rate(script: Script) -> None:
    row = script("packing").packing_row("pack", range(10), np.array([1.0, 2.0, 9.0]))
    assert row == {"what": "pack", "images": 10, "seconds": 2.0, "images_per_s": 5.0}
