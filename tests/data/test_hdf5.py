import json
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from histoedge.data import hdf5
from histoedge.edge.errors import HistoedgeError, ModelError

ARRAYS = {
    "stem/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4, 1),
    "stem/range": np.array([0.0, 1.0]),
    "head": np.arange(-4, 4, dtype=np.int8),
    "step": np.array(7, np.int64),
}


def test_arrays_and_attributes_are_read_unchanged(tmp_path: Path) -> None:
    hdf5.write_arrays(tmp_path / "w.h5", ARRAYS, {"name": "edge", "epoch": 3, "auc": 0.91})
    arrays, attributes = hdf5.read_arrays(tmp_path / "w.h5")
    assert attributes == {"name": "edge", "epoch": 3, "auc": 0.91}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_the_bytes_do_not_depend_on_order_or_time(tmp_path: Path) -> None:
    hdf5.write_arrays(tmp_path / "a.h5", ARRAYS, {"a": 1, "b": 2})
    time.sleep(1.1)  # HDF5 timestamps have a resolution of seconds
    hdf5.write_arrays(tmp_path / "b.h5", dict(reversed(ARRAYS.items())), {"b": 2, "a": 1})
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_attributes_may_exceed_the_hdf5_limit_of_64_kb(tmp_path: Path) -> None:
    long = json.dumps(list(range(100_000)))
    hdf5.write_arrays(tmp_path / "w.h5", ARRAYS, {"inputs": long})
    assert hdf5.read_arrays(tmp_path / "w.h5")[1] == {"inputs": long}


def test_objects_are_never_written_and_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected numbers"):
        hdf5.write_arrays(tmp_path / "w.h5", {"a": np.array([object()])}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    hdf5.write_arrays(tmp_path / "w.h5", ARRAYS, {})
    before = (tmp_path / "w.h5").read_bytes()
    with pytest.raises(TypeError):
        hdf5.write_arrays(tmp_path / "w.h5", ARRAYS, {"not JSON": object()})
    assert (tmp_path / "w.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["w.h5"]


def test_a_missing_a_text_and_a_truncated_file_are_one_line_errors(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with pytest.raises(ModelError, match="no such file"):
        hdf5.read_arrays(path)
    path.write_text("weights\n")
    with pytest.raises(ModelError, match="not a complete HDF5 file"):
        hdf5.read_arrays(path)
    hdf5.write_arrays(path, ARRAYS, {})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match="not a complete HDF5 file") as raised:
        hdf5.read_arrays(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_string_is_not_an_array_of_numbers(tmp_path: Path) -> None:
    hdf5.write_arrays(tmp_path / "w.h5", {}, {})
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file["arrays/text"] = "import os"
    with pytest.raises(ModelError, match=r"arrays/text: dtype object, expected numbers"):
        hdf5.read_arrays(tmp_path / "w.h5")


def test_more_bytes_than_the_limit_are_refused_before_they_are_read(tmp_path: Path) -> None:
    hdf5.write_arrays(tmp_path / "w.h5", {"a": np.zeros(1000), "b": np.zeros(1000)}, {})
    assert len(hdf5.read_arrays(tmp_path / "w.h5", limit_bytes=16_000)[0]) == 2
    with pytest.raises(ModelError, match="arrays of more than 15999 bytes"):
        hdf5.read_arrays(tmp_path / "w.h5", limit_bytes=15_999)


def test_a_small_file_that_claims_a_terabyte_is_refused(tmp_path: Path) -> None:
    hdf5.write_arrays(tmp_path / "w.h5", {}, {})
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file.create_dataset("arrays/never-written", (1 << 40,), np.uint8)
        file.create_dataset("arrays/never-written-chunks", (1 << 40,), np.uint8, chunks=(1 << 20,))
    assert (tmp_path / "w.h5").stat().st_size < 10_000
    with pytest.raises(ModelError, match=r"claims 1099511627776 bytes but stores 0"):
        hdf5.read_arrays(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "a") as file:
        del file["arrays/never-written"]
    with pytest.raises(ModelError, match=r"has 0 of 1048576 chunks"):
        hdf5.read_arrays(tmp_path / "w.h5")


def test_one_huge_chunk_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("x", (1 << 29,), np.uint8, chunks=(1 << 29,), compression="gzip")
        with pytest.raises(ModelError, match="chunks of 536870912 bytes"):
            hdf5.dataset(file, "x", where=tmp_path / "w.h5", error=ModelError)


@pytest.mark.parametrize("kind", ["soft", "external", "external storage", "virtual"])
def test_references_to_other_data_are_refused(tmp_path: Path, kind: str) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["a"] = np.arange(4.0)
    hdf5.write_arrays(tmp_path / "w.h5", {"real": np.arange(4.0)}, {})
    with h5py.File(tmp_path / "w.h5", "a") as file:
        if kind == "soft":
            file["arrays/a"] = h5py.SoftLink("/arrays/real")
        elif kind == "external":
            file["arrays/a"] = h5py.ExternalLink("secret.h5", "/a")
        elif kind == "external storage":
            secret = [(str(tmp_path / "secret.h5"), 0, 32)]
            file.create_dataset("arrays/a", (4,), np.float64, external=secret)
        else:
            layout = h5py.VirtualLayout((4,), np.float64)
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "a", (4,))
            file.create_virtual_dataset("arrays/a", layout)
    with pytest.raises(ModelError, match="never (followed|read)"):
        hdf5.read_arrays(tmp_path / "w.h5")


def test_a_group_that_contains_itself_is_refused(tmp_path: Path) -> None:
    hdf5.write_arrays(tmp_path / "w.h5", {"a": np.zeros(1)}, {})
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file["arrays/again"] = file["arrays"]
    with pytest.raises(ModelError, match="not a group of arrays, or too deep; not a file of weights"):
        hdf5.read_arrays(tmp_path / "w.h5")


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(ModelError, match=r"no dataset 'attributes'; its datasets: 'weights'"):
        hdf5.read_arrays(tmp_path / "w.h5")


def test_flipped_bytes_raise_only_histoedge_errors(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    hdf5.write_arrays(path, ARRAYS, {"a": 1})
    content = path.read_bytes()
    random = np.random.default_rng(0)
    messages: list[str] = []
    for _ in range(400):
        flipped = bytearray(content)
        for position in random.integers(0, len(content), 3):
            flipped[position] = random.integers(256)
        path.write_bytes(flipped)
        try:
            hdf5.read_arrays(path)
        except HistoedgeError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not [message for message in messages if "\n" in message]


X = np.random.default_rng(0).integers(0, 256, (10, 4, 6), dtype=np.uint8)


def offsets(path: Path, *, userblock: int = 0, **storage: object) -> np.ndarray | None:
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file["before"] = np.zeros(100)
        file.create_dataset("x", data=X, **storage)
    with hdf5.opened(path, error=ModelError) as file:
        dataset = hdf5.dataset(file, "x", where=path, error=ModelError)
        return hdf5.row_offsets(dataset, where=path, error=ModelError)


@pytest.mark.parametrize("storage", [{}, {"chunks": (1, 4, 6)}, {"chunks": (3, 4, 6)}, {"chunks": (10, 4, 6)}])
def test_offsets_locate_uncompressed_rows(tmp_path: Path, storage: dict) -> None:
    starts = offsets(tmp_path / "x.h5", **storage)
    assert starts is not None
    content = (tmp_path / "x.h5").read_bytes()
    for row, start in zip(X, starts.tolist(), strict=True):
        assert content[start : start + row.nbytes] == row.tobytes()


@pytest.mark.parametrize(
    "storage",
    [{"chunks": (3, 2, 6)}, {"chunks": (1, 4, 6), "compression": "gzip"}, {"fletcher32": True}, {"userblock": 512}],
)
def test_there_are_no_offsets_for_compressed_or_split_rows(tmp_path: Path, storage: dict) -> None:
    assert offsets(tmp_path / "x.h5", **storage) is None


def test_a_row_outside_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    starts = offsets(path, chunks=(1, 4, 6))
    assert starts is not None
    content = path.read_bytes()
    address = starts.tolist()[4].to_bytes(8, "little")
    assert content.count(address) == 1
    path.write_bytes(content.replace(address, (len(content) - 5).to_bytes(8, "little")))
    with hdf5.opened(path, error=ModelError) as file:
        x = hdf5.dataset(file, "x", where=path, error=ModelError)
        with pytest.raises(ModelError, match="x.h5: row 4 is outside the file; download or write it again"):
            hdf5.row_offsets(x, where=path, error=ModelError)
