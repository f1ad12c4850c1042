"""benchmarks/slidemaker.py"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

Script = Callable[[str], ModuleType]


def test_a_synthetic_slide_has_the_requested_tissue_and_levels(script: Script, tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    from histoedge.scanning import readers

    maker = script("slidemaker")
    maker.write_slide(tmp_path / "slide.tif", side_px=6000, tissue=0.15)
    opened = readers.open_slide(tmp_path / "slide.tif")
    assert [level[:2] for level in opened.levels] == [(6000, 6000), (3000, 3000), (1500, 1500)]
    assert opened.um_per_px == pytest.approx(maker.UM_PER_PX)
    means = [opened.read(level, 0, 0, *opened.levels[level][:2]).mean((0, 1)) for level in range(3)]
    assert np.abs(np.diff(means, axis=0)).max() < 0.5  # JPEG alone is between the levels
    stained = np.ptp(opened.read(2, 0, 0, 1500, 1500).astype(int), axis=2) > 12
    assert stained.mean() == pytest.approx(0.15, abs=0.03)  # some patches are glass or fat
