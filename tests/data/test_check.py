import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge.data import check
from histoedge.edge.errors import DataError

Files = Callable[..., Path]


def distinct(count: int, first: int) -> np.ndarray:
    """Patches of one grey level each, from ``first``; equal levels are equal patches."""
    levels = np.arange(first, first + count, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, 96, 96, 3)).copy()


def pcam(files: Files, **splits: np.ndarray) -> Path:
    for name, x in splits.items():
        folder = files(name, x=x)
    return folder


def test_patches_positives_and_duplicates_are_counted(pcam_files: Files) -> None:
    train = distinct(10, 0)
    train[3] = train[4] = train[0]  # two duplicates of the first
    valid = distinct(6, 100)
    valid[5] = train[0]  # one leak from train, where three patches have these pixels
    folder = pcam(pcam_files, train=train, valid=valid, test=distinct(4, 200))
    calls: list[tuple[str, int, int]] = []
    report = check.check(str(folder), progress=lambda what, done, total, note="": calls.append((what, done, total)))
    rows = {row.split: row for row in report.splits}
    assert {name: row.patches for name, row in rows.items()} == {"train": 10, "valid": 6, "test": 4}
    assert {name: row.positives for name, row in rows.items()} == {"train": 5, "valid": 3, "test": 2}
    assert {name: row.duplicates_inside for name, row in rows.items()} == {"train": 2, "valid": 0, "test": 0}
    assert {name: row.duplicates_across for name, row in rows.items()} == {"train": 3, "valid": 1, "test": 0}
    assert rows["train"].size_bytes > 10 * 96 * 96 * 3
    assert len({row.content_hash for row in rows.values()}) == 3
    assert rows["train"].slides is rows["train"].slides_across is rows["train"].ids_wrong is None
    assert [done for what, done, _ in calls if what == "read, splits"] == [1, 2, 3]


def test_slides_shared_between_splits_are_counted(pcam_files: Files) -> None:
    folder = pcam(pcam_files, train=distinct(4, 0), valid=distinct(2, 50), test=distinct(2, 90))
    for split, slides in (("train", "abbc"), ("valid", "cd"), ("test", "ee")):
        meta = folder / f"camelyonpatch_level_2_split_{split}_meta.csv"
        meta.write_text("wsi\n" + "\n".join(slides) + "\n")
    rows = check.check(str(folder)).splits
    assert [(row.slides, row.slides_across) for row in rows] == [(3, 1), (2, 1), (1, 0)]


def test_ids_that_differ_from_the_sha1_of_their_pixels_are_counted(kaggle_folder: Files) -> None:
    x, y = distinct(40, 0), (np.arange(40) % 2).astype(np.uint8)
    folder = kaggle_folder(x, y)
    assert [row.ids_wrong for row in check.check(str(folder)).splits] == [0, 0, 0]
    names = sorted(path.name for path in (folder / "train").iterdir())
    (folder / "train" / names[0]).rename(folder / "x")
    (folder / "train" / names[1]).rename(folder / "train" / names[0])
    (folder / "x").rename(folder / "train" / names[1])
    rows = check.check(str(folder)).splits
    assert sum(row.ids_wrong or 0 for row in rows) == 2
    assert {f"{row.first_wrong_id}.tif" for row in rows if row.first_wrong_id} <= set(names[:2])


def test_the_report_is_json_and_its_rows_omit_empty_columns(pcam_files: Files) -> None:
    folder = pcam(pcam_files, train=distinct(4, 0), valid=distinct(2, 50), test=distinct(2, 90))
    report = check.check(str(folder))
    document = json.loads(json.dumps(report.as_json()))
    assert document["source"] == str(folder)
    assert document["splits"][0]["content_hash"] == report.splits[0].content_hash
    assert [row["split"] for row in report.rows()] == ["train", "valid", "test"]
    assert "slides" not in report.rows()[0]
    assert len({tuple(row) for row in report.rows()}) == 1  # the same columns in every row


def test_a_fault_found_while_reading_is_a_one_line_error(pcam_files: Files) -> None:
    folder = pcam(pcam_files, train=distinct(4, 0), valid=distinct(2, 50), test=distinct(2, 90))
    (folder / "camelyonpatch_level_2_split_test_y.h5").write_bytes(b"")
    with pytest.raises(DataError, match="test_y.h5: not a complete HDF5 file"):
        check.check(str(folder))
