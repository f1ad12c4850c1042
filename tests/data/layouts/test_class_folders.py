import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge import data
from histoedge.data import check, sources
from histoedge.edge.errors import DataError

Write = Callable[..., None]
Y = (np.arange(60) % 2).astype(np.uint8)
CLASSES = ("normal", "tumour")


def flat(write: Write, folder: Path, patches: np.ndarray, classes: tuple[str, ...] = CLASSES) -> list[str]:
    names = [f"{classes[label % len(classes)]}/{row:03d}.png" for row, label in enumerate(np.arange(len(patches)))]
    write(folder, names, patches)
    return names


def official(write: Write, folder: Path, patches: np.ndarray, splits: tuple[str, ...]) -> list[str]:
    names = [f"{splits[row // 20]}/{CLASSES[row % 2]}/{row:03d}.png" for row in range(len(patches))]
    write(folder, names, patches)
    return names


@pytest.mark.parametrize("side", [64, 96, 224])
def test_a_folder_per_class_is_split_80_10_10(
    tmp_path: Path, write_pngs: Write, make_noise, assert_same: Write, side: int
) -> None:
    x = make_noise(60, side=side)
    names = flat(write_pngs, tmp_path, x)
    for cache in (True, True, False):
        splits = data.load(str(tmp_path), cache=cache)
        assert_same(splits, names, x, Y)
        assert {name: len(split.labels) for name, split in splits.items()} == {"train": 48, "valid": 6, "test": 6}
        assert splits["test"].geometry == data.Geometry(side, side, 0.972, CLASSES)
        assert splits["test"].slides is None


@pytest.mark.parametrize(
    "names", [("train", "valid", "test"), ("train", "val", "test"), ("Train", "Validation", "Test")]
)
def test_official_splits_stay(tmp_path: Path, write_pngs: Write, make_noise, assert_same: Write, names) -> None:
    x = make_noise(60, side=64)
    ids = official(write_pngs, tmp_path, x, names)
    (tmp_path / "notes").mkdir()
    splits = data.load(str(tmp_path))
    assert_same(splits, ids, x, Y)
    for folder, split in zip(names, splits.values(), strict=True):
        assert {name.split("/")[0] for name in split.ids} == {folder}
    assert sources.open_data_set(str(tmp_path)).layout == "folders"


def test_a_missing_split_is_drawn_from_train(tmp_path: Path, write_pngs: Write, make_noise, assert_same: Write) -> None:
    x = make_noise(60, side=64)
    ids = official(write_pngs, tmp_path, x, ("train", "train", "test"))
    splits = data.load(str(tmp_path))
    assert_same(splits, ids, x, Y)
    assert {name.split("/")[0] for name in splits["test"].ids} == {"test"}
    assert (len(splits["train"].labels), len(splits["valid"].labels)) == (36, 4)
    assert f"{tmp_path}: no valid split; drawn from train with seed 0" in check.check(str(tmp_path)).notes
    assert data.has(str(tmp_path), "valid")
    shutil.rmtree(tmp_path / "train")
    assert [name for name in data.SPLITS if data.has(str(tmp_path), name)] == ["test"]
    with pytest.raises(DataError, match="no valid split, and no train split to draw it from"):
        data.load(str(tmp_path), splits=("valid",))


def test_jpeg_and_tiff_are_read_too(tmp_path: Path, write_pngs: Write, make_noise) -> None:
    x = make_noise(60, side=64)
    write_pngs(tmp_path, [f"{CLASSES[row % 2]}/{row}.{('JPG', 'tif', 'png')[row % 3]}" for row in range(60)], x)
    splits = data.load(str(tmp_path))
    assert sum(len(split.labels) for split in splits.values()) == 60


def test_more_than_two_classes_need_the_positive_ones(tmp_path: Path, write_pngs: Write, make_noise) -> None:
    flat(write_pngs, tmp_path, make_noise(90, side=64), ("stroma", "fat", "tumour"))
    with pytest.raises(DataError, match=r"the labels are fat, stroma, tumour; say in .*data.toml which are positive"):
        data.load(str(tmp_path))
    (tmp_path / "data.toml").write_text('positive = ["tumour"]\n')
    splits = data.load(str(tmp_path))
    assert sum(int(split.labels.sum()) for split in splits.values()) == 30
    assert splits["train"].geometry.classes == ("not tumour", "tumour")


def test_a_class_folder_without_images_is_refused(tmp_path: Path, write_pngs: Write, make_noise) -> None:
    official(write_pngs, tmp_path, make_noise(60, side=64), ("train", "valid", "test"))
    for path in (tmp_path / "valid" / "tumour").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="valid/tumour: no images in this class folder"):
        data.load(str(tmp_path))


def test_class_folders_with_nothing_in_them_are_refused(tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / "train" / name).mkdir(parents=True)
    with pytest.raises(
        DataError, match="train/normal: no images in this class folder; add images, or remove the folder"
    ):
        data.load(str(tmp_path))


def test_two_folders_of_one_split_are_refused(tmp_path: Path, write_pngs: Write, make_noise) -> None:
    official(write_pngs, tmp_path, make_noise(60, side=64), ("train", "valid", "val"))
    with pytest.raises(DataError, match="valid: a second folder for the valid split"):
        data.load(str(tmp_path))


def test_an_image_of_another_size_needs_resample(tmp_path: Path, write_pngs: Write, make_noise) -> None:
    flat(write_pngs, tmp_path, make_noise(60, side=64))
    write_pngs(tmp_path, ["tumour/large.png"], make_noise(1, side=100))
    with pytest.raises(
        DataError, match=r"tumour/large.png: 100 x 100 px, expected a 64 x 64 RGB image.*resample = true"
    ):
        data.load(str(tmp_path))
    (tmp_path / "data.toml").write_text("patch_px = 48\nresample = true\num_per_px = 1\n")
    splits = data.load(str(tmp_path))
    assert splits["valid"].patches.shape[1:] == (48, 48, 3)
    assert splits["valid"].geometry == data.Geometry(48, 48, 1, CLASSES)
    assert check.check(str(tmp_path)).notes == ()
    (tmp_path / "data.toml").write_text("patch_px = 64\nresample = true\n")
    assert data.load(str(tmp_path))["valid"].patches.shape[1:] == (64, 64, 3)
    (tmp_path / "data.toml").write_text("patch_px = 64\n")
    with pytest.raises(DataError, match="large.png: 100 x 100 px"):
        data.load(str(tmp_path))


def test_a_corrupt_image_is_named(tmp_path: Path, write_pngs: Write, make_noise) -> None:
    flat(write_pngs, tmp_path, make_noise(60, side=64))
    path = tmp_path / "tumour" / "007.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"tumour/007.png: cannot be decoded \(.*copy it again"):
        data.load(str(tmp_path))


def test_the_check_prints_what_was_recognised(tmp_path: Path, write_pngs: Write, make_noise) -> None:
    flat(write_pngs, tmp_path, make_noise(60, side=64))
    report = check.check(str(tmp_path))
    assert report.summary() == (
        "layout folders: patches of 64 px, label of the whole patch, 0.972 um per px, normal / tumour"
    )
    assert report.as_json()["geometry"]["patch_px"] == 64
    (note,) = report.notes
    assert note.startswith("um_per_px: assumed 0.972, PatchCamelyon's; say in ")
