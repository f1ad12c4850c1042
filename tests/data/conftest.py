"""Small files in PatchCamelyon's HDF5 layout and in the competition's folder layout."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image


def noise(count: int, seed: int = 0, *, side: int = 96) -> np.ndarray:
    """uint8 (count, side, side, 3), all patches different."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def alternating(count: int) -> np.ndarray:
    return (np.arange(count) % 2).astype(np.uint8)


@pytest.fixture
def make_noise() -> Callable[..., np.ndarray]:
    """``make_noise(count, seed=0, side=96)``: uint8 (count, side, side, 3), all patches different."""
    return noise


@pytest.fixture
def pcam_files(tmp_path: Path) -> Callable[..., Path]:
    """Write the x and y file of a split; arguments can make either file faulty."""

    def write(
        split: str = "train",
        *,
        x: np.ndarray | None = None,
        y: np.ndarray | None = None,
        x_name: str = "x",
        y_name: str = "y",
        **storage: Any,
    ) -> Path:
        x = noise(6, seed=len(split)) if x is None else x
        y = alternating(len(x)).reshape(-1, 1, 1, 1) if y is None else y
        for part, name, values, options in (("x", x_name, x, storage), ("y", y_name, y, {})):
            with h5py.File(tmp_path / f"camelyonpatch_level_2_split_{split}_{part}.h5", "w") as file:
                file.create_dataset(name, data=values, **options)
        return tmp_path

    return write


@pytest.fixture
def kaggle_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write ``train/*.tif`` named by SHA-1, and ``train_labels.csv``; ``slides`` adds the column wsi."""

    def write(
        patches: np.ndarray, labels: np.ndarray, *, ids: list[str] | None = None, slides: list[str] | None = None
    ) -> Path:
        ids = ids or [hashlib.sha1(patch.tobytes()).hexdigest() for patch in patches]
        (tmp_path / "train").mkdir()
        for name, patch in zip(ids, patches, strict=True):
            Image.fromarray(patch).save(tmp_path / "train" / f"{name}.tif")
        rows = ["id,label" + (",wsi" if slides else "")]
        for number, (name, label) in enumerate(zip(ids, labels, strict=True)):
            rows.append(f"{name},{label}" + (f",{slides[number]}" if slides else ""))
        (tmp_path / "train_labels.csv").write_text("\n".join(rows) + "\n")
        return tmp_path

    return write


@pytest.fixture
def write_pngs() -> Callable[..., None]:
    """``write_pngs(folder, names, patches)``: write each patch under its name, whose suffix is the format."""

    def write(folder: Path, names: list[str], patches: np.ndarray) -> None:
        for name, patch in zip(names, patches, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(patch).save(folder / name)

    return write


@pytest.fixture
def assert_same() -> Callable[..., None]:
    """``assert_same(splits, ids, patches, labels)``: every patch is in one split, with its own pixels and label."""

    def check(splits: dict[str, Any], ids: list[str], patches: np.ndarray, labels: np.ndarray) -> None:
        assert sorted(name for split in splits.values() for name in split.ids) == sorted(ids)
        for split in splits.values():
            rows = [ids.index(name) for name in split.ids]
            np.testing.assert_array_equal(split.patches[:], patches[rows])
            np.testing.assert_array_equal(split.labels, labels[rows])
            np.testing.assert_array_equal(split.patches[-1], patches[rows[-1]])
            assert split.digests == tuple(hashlib.sha1(patch.tobytes()).digest() for patch in patches[rows])

    return check
