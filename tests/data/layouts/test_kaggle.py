from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histoedge import data
from histoedge.data import check
from histoedge.edge.errors import DataError

Folder = Callable[..., Path]


def patches(count: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


def labels(count: int, *, share: float = 0.4) -> np.ndarray:
    return (np.arange(count) % 10 < 10 * share).astype(np.uint8)


def load(folder: Path, seed: int = 0) -> dict[str, data.Split]:
    return data.load(str(folder), seed=seed)


def test_a_folder_is_split_80_10_10_in_both_classes(kaggle_folder: Folder) -> None:
    splits = load(kaggle_folder(patches(100), labels(100)))
    assert {name: len(split.labels) for name, split in splits.items()} == {"train": 80, "valid": 10, "test": 10}
    assert {name: int(split.labels.sum()) for name, split in splits.items()} == {"train": 32, "valid": 4, "test": 4}


def test_every_patch_is_in_one_split_with_its_own_label_and_pixels(kaggle_folder: Folder) -> None:
    x, y = patches(60), labels(60)
    ids = [f"patch-{index:02d}" for index in range(60)]
    splits = load(kaggle_folder(x, y, ids=ids))
    assert sorted(name for split in splits.values() for name in split.ids) == ids
    for split in splits.values():
        chosen = [ids.index(name) for name in split.ids]
        np.testing.assert_array_equal(split.patches[:], x[chosen])
        np.testing.assert_array_equal(split.labels, y[chosen])
        np.testing.assert_array_equal(split.patches[-1], x[chosen[-1]])
        np.testing.assert_array_equal(split.patches[np.array([1, 0])], x[chosen][[1, 0]])


def test_the_split_depends_only_on_the_seed(kaggle_folder: Folder) -> None:
    folder = kaggle_folder(patches(60), labels(60))
    first, again, other = load(folder), load(folder), load(folder, seed=1)
    assert [first[name].content_hash for name in data.SPLITS] == [again[name].content_hash for name in data.SPLITS]
    assert list(first["test"].ids) != list(other["test"].ids)


def test_the_same_pixels_are_never_in_two_splits(kaggle_folder: Folder) -> None:
    x = patches(100)
    x[20:60] = x[:20].repeat(2, axis=0)  # twenty patches occur three times
    splits = load(kaggle_folder(x, labels(100), ids=[f"patch-{index:03d}" for index in range(100)]))
    digests = {name: set(split.digests) for name, split in splits.items()}
    assert sum(map(len, digests.values())) == 60
    assert not digests["train"] & digests["valid"]
    assert not digests["train"] & digests["test"]
    assert not digests["valid"] & digests["test"]


@pytest.mark.parametrize("where", ["column", "patch_id_wsi.csv", "patch_id_wsi_full.csv"])
def test_a_slide_is_never_in_two_splits(kaggle_folder: Folder, where: str) -> None:
    slides = [f"slide-{index // 5}" for index in range(100)]
    ids = [f"patch-{index:03d}" for index in range(100)]
    folder = kaggle_folder(patches(100), labels(100), ids=ids, slides=slides if where == "column" else None)
    if where != "column":
        rows = "".join(f"{name},{slide}\n" for name, slide in zip(ids, slides, strict=True))
        (folder / where).write_text("id,wsi\n" + rows)
    splits = load(folder)
    slides_by_split = {name: set(split.slides or ()) for name, split in splits.items()}
    assert sum(map(len, slides_by_split.values())) == 20
    assert len(set.union(*slides_by_split.values())) == 20
    assert {name: len(split.labels) for name, split in splits.items()} == {"train": 80, "valid": 10, "test": 10}


def test_too_few_slides_for_three_splits_are_refused(kaggle_folder: Folder) -> None:
    folder = kaggle_folder(patches(20), labels(20), slides=["a"] * 10 + ["b"] * 10)
    with pytest.raises(
        DataError, match=r"20 patches in 2 groups .* too few for both classes in the (valid|test) split"
    ):
        load(folder)


def test_an_id_without_image_and_an_image_without_row_are_errors(kaggle_folder: Folder) -> None:
    ids = [f"patch-{index:02d}" for index in range(40)]
    folder = kaggle_folder(patches(40), labels(40), ids=ids)
    (folder / "train" / "patch-07.tif").rename(folder / "train" / "stranger.tif")
    (folder / "train" / "patch-31.tif").unlink()
    with pytest.raises(DataError, match=r"train_labels.csv: no image train/patch-07.tif for its id \(2 such ids\)"):
        load(folder)
    table = folder / "train_labels.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if line[:8] not in ("patch-07", "patch-31")))
    with pytest.raises(DataError, match=r"train/stranger.tif: no row in train_labels.csv \(1 such images\)"):
        load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,label\npatch-00,2\n", "label '2' in line 2, expected 0 or 1"),
        ("id,label\npatch-00,0.9\n", "label '0.9' in line 2"),
        ("id,label\npatch-00,0\npatch-00,1\n", "duplicate id patch-00 in line 3"),
        ("id,label\npatch-00,0\npatch-01", "line 3 has no label; the file may be truncated"),
        ("name,tumour\npatch-00,0\n", "no column id; its columns: name, tumour"),
        ("", "no column id; its columns: none"),
        ("id,label\n../../secret,1\n", "no image train/../../secret.tif for its id"),
    ],
)
def test_the_error_for_a_faulty_table_names_the_line(kaggle_folder: Folder, content: str, message: str) -> None:
    folder = kaggle_folder(patches(1), labels(1), ids=["patch-00"])
    (folder / "train_labels.csv").write_text(content)
    with pytest.raises(DataError) as raised:
        load(folder)
    assert message in str(raised.value)
    assert "train_labels.csv" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_images_without_a_table_are_an_error(kaggle_folder: Folder) -> None:
    folder = kaggle_folder(patches(1), labels(1))
    (folder / "train_labels.csv").unlink()
    with pytest.raises(DataError, match=r"train_labels.csv: no such file; the competition's folder has train/\*.tif"):
        load(folder)


def test_a_slide_table_without_an_id_is_an_error(kaggle_folder: Folder) -> None:
    folder = kaggle_folder(patches(3), labels(3), ids=["a", "b", "c"])
    (folder / "patch_id_wsi.csv").write_text("id,wsi\na,one\nz,two\n")
    with pytest.raises(DataError, match=r"patch_id_wsi.csv: no slide for id b \(2 such ids\)"):
        load(folder)


@pytest.mark.parametrize("fault", ["size", "mode", "cut short"])
def test_an_image_that_is_not_a_patch_is_an_error(kaggle_folder: Folder, fault: str) -> None:
    ids = [f"patch-{index:02d}" for index in range(40)]
    folder = kaggle_folder(patches(40), labels(40), ids=ids)
    path = folder / "train" / "patch-13.tif"
    if fault == "size":
        Image.new("RGB", (96, 95)).save(path)
    elif fault == "mode":
        Image.new("L", (96, 96)).save(path)
    else:
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match="patch-13.tif"):
        load(folder)


def test_patches_of_one_class_are_an_error(kaggle_folder: Folder) -> None:
    with pytest.raises(DataError, match="train_labels.csv: 40 patches with the label 0 only; a data set needs both"):
        load(kaggle_folder(patches(40), np.zeros(40, np.uint8)))


def test_the_pack_and_the_images_have_the_same_splits(kaggle_folder: Folder) -> None:
    folder = kaggle_folder(patches(60), labels(60))
    plain = data.load(str(folder), cache=False)
    assert not (folder / ".histoedge").exists()
    first = load(folder)
    assert (folder / ".histoedge" / "pack.h5").is_file()
    for name, split in load(folder).items():
        assert split.content_hash == first[name].content_hash == plain[name].content_hash
        assert list(split.ids) == list(plain[name].ids)
        assert split.size_bytes == plain[name].size_bytes
        np.testing.assert_array_equal(split.patches[:], plain[name].patches[:])


def test_the_pack_of_a_read_only_folder_is_in_the_users_cache(
    kaggle_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = kaggle_folder(patches(60), labels(60))
    (folder / ".histoedge").touch()  # a file of that name prevents the folder, also for root
    first = load(folder)
    (packed,) = (tmp_path / "cache").rglob("pack.h5")
    assert load(folder)["test"].content_hash == first["test"].content_hash
    packed.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".histoedge"))
    assert load(folder)["test"].content_hash == first["test"].content_hash


@pytest.mark.parametrize("place", [".", "test"])
def test_the_error_for_images_without_labels_suggests_predict(tmp_path: Path, place: str) -> None:
    (tmp_path / "test").mkdir()
    Image.new("RGB", (96, 96)).save(tmp_path / "test" / "a.tif")
    folder = tmp_path / "test"
    with pytest.raises(
        DataError, match=f"{folder}: images without labels.*: histoedge predict MODEL {folder} --csv sub"
    ):
        data.load(str(tmp_path / place))


def test_the_check_notes_unlabelled_images(kaggle_folder: Folder) -> None:
    folder = kaggle_folder(patches(60), labels(60))
    assert check.check(str(folder)).notes == ()
    (folder / "test").mkdir()
    Image.new("RGB", (96, 96)).save(folder / "test" / "a.tif")
    (note,) = check.check(str(folder)).notes
    assert note.startswith(f"{folder / 'test'}: 1 images without labels, not used; to predict them: histoedge predict ")
    assert sum(len(split.labels) for split in load(folder).values()) == 60


def test_png_and_jpeg_images_are_read(kaggle_folder: Folder) -> None:
    x, ids = patches(60), [f"patch-{index:02d}" for index in range(60)]
    folder = kaggle_folder(x, labels(60), ids=ids)
    plain = load(folder)
    for path in (folder / "train").iterdir():
        with Image.open(path) as image:
            image.save(path.with_suffix(".png"))
        path.unlink()
    for name, split in load(folder).items():
        assert split.content_hash == plain[name].content_hash
        assert list(split.ids) == list(plain[name].ids)
    (folder / "train" / "patch-07.png").rename(folder / "train" / "patch-08.jpg")
    with pytest.raises(DataError, match=r"train/patch-08.jpg: another image has the same id; remove one of them"):
        load(folder)


def test_patches_of_another_size_have_their_label_everywhere(kaggle_folder: Folder) -> None:
    folder = kaggle_folder(patches(60)[:, :64, :64], labels(60))
    assert load(folder)["test"].geometry == data.Geometry(64, 64)
    (folder / "data.toml").write_text("label_px = 32\num_per_px = 0.486\n")
    assert load(folder)["test"].geometry == data.Geometry(64, 32, 0.486)


def test_images_in_train_with_another_table_are_that_tables(kaggle_folder: Folder) -> None:
    folder = kaggle_folder(patches(60), labels(60), ids=[f"{index:02d}" for index in range(60)])
    rows = (folder / "train_labels.csv").read_text().splitlines()[1:]
    (folder / "train_labels.csv").unlink()
    table = ["path,label", *(f"train/{row.replace(',', '.tif,')}" for row in rows)]
    (folder / "labels.csv").write_text("\n".join(table))
    assert check.check(str(folder)).layout == "csv"
