"""Rows read without HDF5 by several threads, and views of selected rows."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from histoedge.data.rows import FileRows, Joined, PatchView
from histoedge.edge.errors import DataError

ROWS = np.arange(40 * 12, dtype=np.uint8).reshape(40, 4, 3)
INDICES = (0, -1, np.int64(7), slice(None), slice(3, 9), slice(30, 2, -3), slice(5, 5), [7, 2, 2, -1, 3, 4])


def write_rows(path: Path, *, gap: int) -> FileRows:
    """Write the rows one after the other, with a gap before every tenth row."""
    offsets, content = [], b""
    for number, row in enumerate(ROWS):
        content += bytes(gap) if number % 10 == 0 else b""
        offsets.append(len(content))
        content += row.tobytes()
    path.write_bytes(content)
    return FileRows(path, np.array(offsets), (4, 3))


def test_rows_index_like_an_array(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows", gap=5)
    assert rows.shape == ROWS.shape
    for index in (*INDICES, np.arange(40) % 3 == 0, np.array([[1, 2], [3, 39]])):
        np.testing.assert_array_equal(rows[index], ROWS[index])
    with pytest.raises(IndexError):
        rows[40]


def test_concurrent_threads_read_the_same_rows(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows", gap=5)
    chosen = [np.random.default_rng(seed).integers(0, 40, 20) for seed in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for index, pixels in zip(chosen, pool.map(rows.__getitem__, chosen), strict=True):
            np.testing.assert_array_equal(pixels, ROWS[index])


def test_the_error_for_a_truncated_file_names_the_row(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows", gap=0)
    with open(tmp_path / "rows", "r+b") as file:
        file.truncate(20 * 12 + 5)
    np.testing.assert_array_equal(rows[:20], ROWS[:20])
    for index, row in ((20, 20), (slice(15, 30), 20), (np.array([3, 25, 21]), 25), (-1, 39)):
        with pytest.raises(DataError, match=rf"rows: patch {row} cannot be read \(the file ends before it\)"):
            rows[index]
        with pytest.raises(DataError, match=rf"patch {row} cannot"):
            PatchView(rows, np.arange(40))[index]
    (tmp_path / "rows").unlink()
    np.testing.assert_array_equal(rows[0], ROWS[0])  # the open file is still readable
    with pytest.raises(DataError, match="rows: cannot be opened"):
        FileRows(tmp_path / "rows", np.array([0]), (4, 3))


def test_a_view_of_a_view_indexes_like_an_array() -> None:
    first = PatchView(ROWS, np.array([5, 4, 39, 0, 8, 8, 20]))
    second = PatchView(first, np.array([6, 0, 1]))
    assert second.patches is ROWS
    assert len(second) == 3
    np.testing.assert_array_equal(second[:], ROWS[[20, 5, 4]])
    np.testing.assert_array_equal(second[-1], ROWS[4])
    np.testing.assert_array_equal(second[np.array([True, False, True])], ROWS[[20, 4]])


def test_joined_parts_are_indexed_like_one_array() -> None:
    whole = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    joined = Joined([whole[:2], whole[2:7], whole[7:]])
    assert (len(joined), joined.shape) == (9, whole.shape)
    for index in (
        0,
        2,
        -1,
        slice(None),
        slice(1, 8),
        slice(8, 1, -3),
        [8, 0, 3, 3],
        np.arange(9) % 2 == 0,
        np.arange(0),
    ):
        np.testing.assert_array_equal(joined[index], whole[index])
    with pytest.raises(IndexError):
        joined[9]
