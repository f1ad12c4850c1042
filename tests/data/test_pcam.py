import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from histoedge import data
from histoedge.data import pcam
from histoedge.edge.errors import DataError

STEM = "camelyonpatch_level_2_split_train"
PATCH_BYTES = 96 * 96 * 3

Files = Callable[..., Path]


def patches(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "storage",
    [{}, {"chunks": (1, 96, 96, 3)}, {"chunks": (4, 96, 96, 3), "compression": "gzip"}, {"chunks": (3, 32, 32, 1)}],
    ids=["contiguous", "chunks", "gzip", "odd chunks"],
)
def test_a_split_indexes_like_an_array_in_every_storage_layout(pcam_files: Files, storage: dict) -> None:
    x = patches(10)
    split = pcam.load_pcam(pcam_files(x=x, **storage), "train")
    assert split.patches.shape == (10, 96, 96, 3)
    for index in (0, 9, -1, np.int64(3), slice(None), slice(2, 5), slice(8, 99), slice(None, None, -3), slice(5, 5)):
        np.testing.assert_array_equal(split.patches[index], x[index])
    for chosen in ([7, 2, 2, -1], [], np.arange(10) % 3 == 0):
        chosen = np.asarray(chosen, dtype=None if len(chosen) else int)
        np.testing.assert_array_equal(split.patches[chosen], x[chosen])
    with pytest.raises(IndexError):
        split.patches[10]


def test_a_split_has_labels_ids_and_size(pcam_files: Files) -> None:
    folder = pcam_files(y=np.array([0, 1, 1, 1, 0, 1], np.uint8).reshape(-1, 1, 1, 1))
    split = pcam.load_pcam(folder, "train")
    assert split.labels.tolist() == [0, 1, 1, 1, 0, 1]
    assert split.labels.dtype == np.uint8
    assert list(split.ids) == [f"train-00000{index}" for index in range(6)]
    assert split.ids[-1] == "train-000005"
    assert split.slides is None
    assert split.size_bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_slides_are_read_from_the_meta_table(pcam_files: Files) -> None:
    folder = pcam_files()
    rows = "".join(f"{index},0,0,True,{index % 2},camelyon16_train_normal_00{index // 2}\n" for index in range(6))
    meta = folder / f"{STEM}_meta.csv"
    meta.write_text(",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi\n" + rows)
    assert pcam.load_pcam(folder, "train").slides == [f"camelyon16_train_normal_00{index // 2}" for index in range(6)]
    meta.write_text(meta.read_text().replace("wsi", "slide"))
    with pytest.raises(DataError, match=r"meta.csv: no column wsi; its columns: , coord_y"):
        pcam.load_pcam(folder, "train")
    meta.write_text(",wsi\n0,a\n")
    with pytest.raises(DataError, match="meta.csv: 1 rows for 6 patches"):
        pcam.load_pcam(folder, "train")
    meta.write_bytes(b",wsi\n\xff\xfe")
    with pytest.raises(DataError, match="meta.csv: not a readable CSV table"):
        pcam.load_pcam(folder, "train")


@pytest.mark.parametrize("part", ["x", "y"])
def test_a_missing_x_or_y_file_is_an_error(pcam_files: Files, part: str) -> None:
    folder = pcam_files()
    (folder / f"{STEM}_{part}.h5").unlink()
    with pytest.raises(DataError, match=f"{STEM}_{part}.h5: neither this file nor {STEM}_{part}.h5.gz exists"):
        data.load(str(folder), splits=("train",))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"y": np.zeros((5, 1, 1, 1), np.uint8)}, r"_y.h5: 5 labels for the 6 patches of \S+_x.h5"),
        ({"x": np.zeros((6, 96, 96), np.uint8)}, r"_x.h5: x has shape \(6, 96, 96\), expected uint8 \(N, 96, 96, 3\)"),
        ({"x": np.zeros((6, 64, 96, 3), np.uint8)}, r"_x.h5: x has shape \(6, 64, 96, 3\), expected"),
        ({"x": np.zeros((6, 16, 16, 3), np.uint8)}, r"\(6, 16, 16, 3\), expected .* or square patches of 32 to 512 px"),
        ({"x": np.zeros((6, 3, 96, 96), np.uint8)}, r"_x.h5: x has shape \(6, 3, 96, 96\), expected"),
        ({"x": np.zeros((6, 96, 96, 3), np.float32)}, r"_x.h5: x is float32, expected uint8"),
        ({"y": np.zeros((6, 1, 1, 1), np.float32)}, r"_y.h5: y is float32, expected unsigned integers"),
        ({"y": np.zeros((6, 2), np.uint8)}, r"_y.h5: y has shape \(6, 2\), expected"),
        ({"x_name": "images"}, r"_x.h5: no dataset 'x'; its datasets: 'images'"),
        ({"y_name": "label"}, r"_y.h5: no dataset 'y'; its datasets: 'label'"),
        ({"y": np.array([0, 1, 0, 2, 1, 3], np.uint8)}, r"_y.h5: label 2 at index 3, expected 0 or 1"),
        ({"y": np.array([0, 1, -1, 0, 1, 0], np.int64)}, r"_y.h5: label -1 at index 2, expected 0 or 1"),
        ({"y": np.ones((6, 1, 1, 1), np.uint8)}, r"_y.h5: only label 1 in 6 patches; a split needs both classes"),
        ({"x": np.zeros((0, 96, 96, 3), np.uint8)}, r"_y.h5: no label in 0 patches"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_is_a_one_line_error_that_names_file_and_place(pcam_files: Files, fault: dict, message: str) -> None:
    folder = pcam_files(**fault)
    with pytest.raises(DataError, match=message) as raised:
        data.load(str(folder), splits=("train",))
    assert "\n" not in str(raised.value)


def test_a_truncated_file_and_a_text_file_are_errors_on_opening(pcam_files: Files) -> None:
    folder = pcam_files()
    path = folder / f"{STEM}_x.h5"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(DataError, match=r"_x.h5: not a complete HDF5 file \(.*truncated"):
        pcam.load_pcam(folder, "train")
    path.write_text("<html>quota exceeded</html>")
    with pytest.raises(DataError, match="_x.h5: not a complete HDF5 file"):
        pcam.load_pcam(folder, "train")


def test_a_corrupt_patch_is_an_error_and_the_others_are_readable(pcam_files: Files) -> None:
    x = patches(6)
    folder = pcam_files(x=x, chunks=(1, 96, 96, 3), compression="gzip", fletcher32=True)
    path = folder / f"{STEM}_x.h5"
    with h5py.File(path) as file:
        chunk = file["x"].id.get_chunk_info_by_coord((4, 0, 0, 0))
    with open(path, "r+b") as raw:
        raw.seek(chunk.byte_offset + chunk.size // 2)
        raw.write(b"\0" * 64)
    split = pcam.load_pcam(folder, "train")
    np.testing.assert_array_equal(split.patches[:4], x[:4])
    for index in (4, slice(0, 6), np.array([5, 4])):
        with pytest.raises(DataError, match=r"_x.h5: not a complete HDF5 file .*\[patch 4\]") as raised:
            split.patches[index]
        assert "\n" not in str(raised.value)


def test_unwritten_patches_are_an_error(pcam_files: Files) -> None:
    folder = pcam_files()
    with h5py.File(folder / f"{STEM}_x.h5", "w") as file:
        x = file.create_dataset("x", (6, 96, 96, 3), np.uint8, chunks=(1, 96, 96, 3))
        x[:3] = 200
    with pytest.raises(DataError, match="_x.h5: 'x' has 3 of 6 chunks, the others were never written"):
        pcam.load_pcam(folder, "train")


def test_external_links_are_never_followed(pcam_files: Files) -> None:
    folder = pcam_files()
    os.rename(folder / f"{STEM}_x.h5", folder / "elsewhere.h5")
    with h5py.File(folder / f"{STEM}_x.h5", "w") as file:
        file["x"] = h5py.ExternalLink("elsewhere.h5", "/x")
    with pytest.raises(DataError, match="_x.h5: 'x' is a link, which is never followed"):
        pcam.load_pcam(folder, "train")


def test_gzipped_files_are_unpacked_again_only_if_they_change(
    pcam_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    x = patches(6)
    folder = pcam_files(x=x)
    plain = pcam.load_pcam(folder, "train").content_hash
    for part in ("x", "y"):
        path = folder / f"{STEM}_{part}.h5"
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()

    def cached() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "histoedge").iterdir()}

    split = data.load(str(folder), splits=("train",))["train"]
    assert split.content_hash == plain
    first = cached()
    assert len(first) == 2
    pcam.load_pcam(folder, "train")
    assert cached() == first
    packed = folder / f"{STEM}_y.h5.gz"
    os.utime(packed, ns=(0, packed.stat().st_mtime_ns + 1))
    pcam.load_pcam(folder, "train")
    second = cached()
    assert len(second) == 2
    assert len(first.keys() & second.keys()) == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "not a complete gzip file"),
        (lambda content: content[:-8] + b"\0" * 8, "not a complete gzip file"),
        (lambda content: content[:2000] + b"\xff" * 50 + content[2050:], "not a complete gzip file"),
        (lambda content: b"PK\3\4" + content, "not a complete gzip file"),
        (lambda content: b"", "not a complete gzip file|not a complete HDF5 file"),
        (lambda content: gzip.compress(b"text"), "not a complete HDF5 file"),
    ],
    ids=["truncated", "wrong checksum", "corrupt", "a zip", "empty", "not HDF5"],
)
def test_a_damaged_gzip_file_is_an_error_and_leaves_no_file(
    pcam_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes], message: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = pcam_files()
    path = folder / f"{STEM}_x.h5"
    (folder / f"{path.name}.gz").write_bytes(damage(gzip.compress(path.read_bytes())))
    path.unlink()
    with pytest.raises(DataError, match=message) as raised:
        pcam.load_pcam(folder, "train")
    assert path.name in str(raised.value)
    assert "\n" not in str(raised.value)
    if "HDF5" not in message:
        assert list((tmp_path / "cache" / "histoedge").iterdir()) == []


def test_unpacking_a_gzip_bomb_stops_at_the_limit(
    pcam_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pcam, "SMALL_UNPACKED_BYTES", 1 << 20)
    folder = pcam_files()
    path = folder / f"{STEM}_x.h5"
    path.unlink()
    (folder / f"{path.name}.gz").write_bytes(gzip.compress(bytes(64 << 20)))
    with pytest.raises(DataError, match=r"_x.h5.gz: unpacks to more than \d+ bytes, too large for a Patch"):
        pcam.load_pcam(folder, "train")
    assert list((tmp_path / "cache" / "histoedge").iterdir()) == []


@pytest.mark.parametrize("storage", [{}, {"chunks": (1, 96, 96, 3)}, {"chunks": (4, 96, 96, 3), "compression": "gzip"}])
def test_truncating_an_open_file_is_an_error_that_names_the_patch(pcam_files: Files, storage: dict) -> None:
    x = patches(40)
    folder = pcam_files(x=x, **storage)
    split = pcam.load_pcam(folder, "train")
    np.testing.assert_array_equal(split.patches[0], x[0])
    path = folder / f"{STEM}_x.h5"
    os.truncate(path, path.stat().st_size - 6 * PATCH_BYTES)
    with pytest.raises(DataError, match=r"_x.h5: .*patch 3\d") as raised:
        split.patches[np.arange(40)]
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("storage", [{"chunks": (1, 96, 96, 3)}, {"chunks": (4, 96, 96, 3), "compression": "gzip"}])
def test_concurrent_threads_read_the_same_pixels(pcam_files: Files, storage: dict) -> None:
    x = patches(40)
    split = pcam.load_pcam(pcam_files(x=x, **storage), "train")
    chosen = [np.sort(np.random.default_rng(seed).integers(0, 40, 20)) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for index, pixels in zip(chosen, pool.map(lambda index: split.patches[index], chosen), strict=True):
            np.testing.assert_array_equal(pixels, x[index])


MEMORY = """
import resource, sys
import numpy as np
from histoedge import data
split = data.load(sys.argv[1], splits=("train",))["train"]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
random = np.random.default_rng(0)
for start in range(0, 40):
    split.patches[random.permutation(len(split.labels))[:128]]
    split.patches[start * 1024 : start * 1024 + 1024]
assert len(split.ids) == 262_144 and split.ids[-1] == "train-262143"
print(len(split.labels), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_data_set_of_full_size_needs_little_memory(tmp_path: Path) -> None:
    count = 262_144
    with h5py.File(tmp_path / f"{STEM}_x.h5", "w") as file:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # a sparse file of 7.2 GB
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple((count, 96, 96, 3)), dcpl=layout)
    with h5py.File(tmp_path / f"{STEM}_y.h5", "w") as file:
        file["y"] = (np.arange(count) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)
    assert (tmp_path / f"{STEM}_x.h5").stat().st_size > count * PATCH_BYTES
    # the address space is limited too: the file cannot be memory-mapped
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({4 << 30}, {4 << 30}))\n{MEMORY}"
    ran = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    count_read, grown_kb = map(int, ran.stdout.split())
    assert count_read == count
    assert grown_kb < 150_000  # 1,024 patches are 28 MB; all of them would be 7.2 GB


@pytest.mark.real
def test_real_splits_share_no_patch() -> None:
    folder = os.environ.get("HISTOEDGE_DATA")
    if not folder:
        pytest.skip("HISTOEDGE_DATA names no folder in PatchCamelyon's layout")
    splits = data.load(folder)
    assert tuple(splits) == data.SPLITS
    for split in splits.values():
        some = split.patches[:: max(len(split.labels) // 50, 1)]
        assert some.dtype == np.uint8
        assert 20 < some.mean() < 250
        assert 0.2 < split.labels.mean() < 0.8
    digests = [set(splits[name].digests) for name in ("valid", "test")]
    assert not digests[0] & digests[1]
