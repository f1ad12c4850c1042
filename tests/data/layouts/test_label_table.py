from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge import data
from histoedge.edge.errors import DataError

Write = Callable[..., None]
Y = (np.arange(60) % 2).astype(np.uint8)
NAMES = [f"images/{row:03d}.png" for row in range(60)]


@pytest.fixture
def patches(make_noise) -> np.ndarray:
    return make_noise(60, side=64)


@pytest.fixture
def folder(tmp_path: Path, write_pngs: Write, patches: np.ndarray) -> Path:
    write_pngs(tmp_path, NAMES, patches)
    return tmp_path


def write_table(folder: Path, header: str, *columns: list, name: str = "labels.csv", mark: str = ",") -> None:
    rows = [mark.join(map(str, row)) for row in zip(NAMES, Y, *columns, strict=True)]
    (folder / name).write_text("\n".join([header, *rows]) + "\n")


def test_a_table_of_paths_and_labels_is_split_80_10_10(folder: Path, patches: np.ndarray, assert_same: Write) -> None:
    write_table(folder, "path,label")
    splits = data.load(str(folder))
    assert_same(splits, NAMES, patches, Y)
    assert {name: len(split.labels) for name, split in splits.items()} == {"train": 48, "valid": 6, "test": 6}
    assert splits["train"].geometry == data.Geometry(64, 64, 0.972, ("normal", "tumour"))


@pytest.mark.parametrize(("mark", "start"), [(";", ""), ("\t", ""), (",", "\ufeff"), (";", "\ufeff")])
def test_semicolons_tabs_and_a_byte_order_mark_are_read(folder: Path, mark: str, start: str) -> None:
    write_table(folder, f"{start}Image{mark}Label", mark=mark, name="anything.csv")
    assert sum(len(split.labels) for split in data.load(str(folder)).values()) == 60


def test_official_splits_and_slides_are_read(folder: Path, patches: np.ndarray, assert_same: Write) -> None:
    parts = [("train", "train", "val", "Test")[row // 15] for row in range(60)]
    write_table(folder, "file,label,split,slide", parts, [f"s{row // 5}" for row in range(60)])
    splits = data.load(str(folder))
    assert_same(splits, NAMES, patches, Y)
    assert [len(split.labels) for split in splits.values()] == [30, 15, 15]
    assert set(splits["test"].slides) == {"s9", "s10", "s11"}


def test_a_slide_is_never_in_two_splits(folder: Path) -> None:
    write_table(folder, "path,label,slide", [f"s{row // 4}" for row in range(60)])
    slides = [set(split.slides) for split in data.load(str(folder)).values()]
    assert sum(map(len, slides)) == len(set.union(*slides)) == 15
    parts = [("train", "valid", "test")[row // 20] for row in range(60)]
    write_table(folder, "path,label,slide,split", [f"s{row // 8}" for row in range(60)], parts)
    with pytest.raises(DataError, match="slide s2 is in train and in valid; give all patches of a slide one split"):
        data.load(str(folder))


def test_columns_and_classes_are_named_in_data_toml(folder: Path) -> None:
    rows = [f"{name},{('B', 'M')[label]}" for name, label in zip(NAMES, Y, strict=True)]
    (folder / "labels.csv").write_text("\n".join(["where,diagnosis", *rows]))
    with pytest.raises(
        DataError, match=r"labels.csv: no column path or image or .*; its columns: where, diagnosis; name"
    ):
        data.load(str(folder))
    toml = folder / "data.toml"
    toml.write_text(
        'positive = "M"\nclasses = ["benign", "malignant"]\n[columns]\npath = "where"\nlabel = "diagnosis"\n'
    )
    splits = data.load(str(folder))
    assert splits["test"].geometry.classes == ("benign", "malignant")
    assert sum(int(split.labels.sum()) for split in splits.values()) == 30
    toml.write_text('[columns]\npath = "where"\nlabel = "grade"\n')
    with pytest.raises(DataError, match=r"data.toml: labels.csv has no column grade; its columns: where, diagnosis"):
        data.load(str(folder))
    toml.write_text('[columns]\npaths = "where"\n')
    with pytest.raises(DataError, match=r"data.toml: columns has paths; expected some of path, label, split, slide"):
        data.load(str(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\nimages/000.png,0\nimages/../images/000.png,1\n", "is in line 2 and in line 3; keep one"),
        ("path,label\nimages/000.png,0\n/etc/passwd,1\n", "image /etc/passwd is outside"),
        ("path,label\nimages/000.png,0\n../secret.png,1\n", "image ../secret.png is outside"),
        ("path,label\nimages/000.png,0\nimages/900.png,1\n", "image images/900.png cannot be read"),
        ("path,label\nimages/000.png,0\nimages/001.png,\n", "line 3 has an empty label"),
        ("path,label\nimages/000.png,0\nimages/001.png", "line 3 has no label; the file may be truncated"),
        (
            "path,label,split\nimages/000.png,0,train\nimages/001.png,1,fold1\n",
            "split 'fold1' in line 3, expected train",
        ),
        ("path,label,label\n", "two columns are named label"),
        ("path,label\n", "no patches"),
        ("", "no column path"),
        ("path,label\nimages/000.png,0\nimages/001.png,0\n", "2 patches with the label 0 only"),
        ("path,label\nimages/000.png,0\nimages/001.png,1\nimages/002.png,2\n", "the labels are 0, 1, 2; say in"),
        ("path,label\nimages/000.png,a\nimages/001.png,b\n", 'which are positive, such as positive = ["b"]'),
    ],
)
def test_the_error_for_a_faulty_table_names_the_place(folder: Path, content: str, message: str) -> None:
    (folder / "labels.csv").write_text(content)
    with pytest.raises(DataError) as raised:
        data.load(str(folder))
    assert message in str(raised.value)
    assert "labels.csv" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_two_class_folders_and_a_table_of_another_name_are_ambiguous(
    folder: Path, patches: np.ndarray, write_pngs
) -> None:
    write_pngs(folder, ["other/a.png"], patches[:1])
    write_table(folder, "path,label", name="table.csv")
    with pytest.raises(DataError, match=r"contains both labels.csv and <class>/\*.png.*: layout = \"csv\""):
        data.load(str(folder))
    (folder / "data.toml").write_text('layout = "csv"\n')
    assert len(data.load(str(folder))["train"].labels) == 48
