import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge import data
from histoedge.data import pcam
from histoedge.edge.errors import DataError

Y = (np.arange(60) % 2).astype(np.uint8)
PARTS = {"train": slice(0, 40), "valid": slice(40, 50), "test": slice(50, 60)}


@pytest.fixture
def patches(make_noise) -> np.ndarray:
    return make_noise(60, side=64)


def assert_official(splits: dict[str, data.Split], patches: np.ndarray) -> None:
    for name, part in PARTS.items():
        np.testing.assert_array_equal(splits[name].patches[:], patches[part])
        np.testing.assert_array_equal(splits[name].labels, Y[part])
        assert splits[name].ids[0] == f"{name}-000000"
        assert splits[name].geometry.patch_px == 64


@pytest.mark.parametrize("names", ["x_{}/y_{}", "{}_images/{}_labels", "patches_{}/labels_{}"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_one_file_with_all_splits(tmp_path: Path, patches: np.ndarray, names: str, save: Callable) -> None:
    arrays = {}
    for name, part in PARTS.items():
        for template, values in zip(names.split("/"), (patches[part], Y[part, None]), strict=True):
            arrays[template.format({"valid": "val"}.get(name, name))] = values
    save(tmp_path / "set.npz", **arrays)
    first = data.load(str(tmp_path))
    assert_official(first, patches)
    assert_official(data.load(str(tmp_path)), patches)  # from the cache
    assert_official(data.load(str(tmp_path), cache=False), patches)
    assert len(list((tmp_path / ".histoedge").glob("*.digests.h5"))) == 3


def test_one_file_per_split(tmp_path: Path, patches: np.ndarray) -> None:
    for name, part in PARTS.items():
        np.savez(tmp_path / f"{name}.npz", patches=patches[part], labels=np.array(["no", "yes"])[Y[part]])
    assert_official(data.load(str(tmp_path)), patches)
    assert data.load(str(tmp_path))["test"].geometry.classes == ("no", "yes")


def test_a_file_without_splits_is_split_80_10_10(tmp_path: Path, patches: np.ndarray, assert_same) -> None:
    np.savez(tmp_path / "all.npz", images=patches, labels=Y.astype(bool))
    splits = data.load(str(tmp_path))
    assert_same(splits, [f"all-{row:06d}" for row in range(60)], patches, Y)


def test_a_changed_file_is_unpacked_again(tmp_path: Path, patches: np.ndarray) -> None:
    np.savez(tmp_path / "all.npz", x=patches, y=Y)
    first = data.load(str(tmp_path))
    np.savez(tmp_path / "all.npz", x=255 - patches, y=Y)
    assert data.load(str(tmp_path))["test"].content_hash != first["test"].content_hash
    assert len([path for path in (tmp_path / ".histoedge").glob("*.h5") if "digests" not in path.name]) == 1


def test_another_size_needs_resample(tmp_path: Path, patches: np.ndarray) -> None:
    np.savez(tmp_path / "all.npz", x=patches, y=Y)
    (tmp_path / "data.toml").write_text("patch_px = 48")
    with pytest.raises(DataError, match=r"all.npz: x has patches of 64 px, expected 48; resample = true"):
        data.load(str(tmp_path))
    (tmp_path / "data.toml").write_text("patch_px = 48\nresample = true")
    assert data.load(str(tmp_path))["train"].patches.shape == (48, 48, 48, 3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((4, 64, 64, 3), np.float32), "y": Y[:4]}, "x is float32 (4, 64, 64, 3), expected uint8"),
        ({"x": np.zeros((4, 64, 64), np.uint8), "y": Y[:4]}, "x is uint8 (4, 64, 64), expected uint8"),
        ({"x": np.zeros((0, 64, 64, 3), np.uint8), "y": Y[:0]}, "x has 0 patches"),
        ({"x": np.zeros((4, 64, 64, 3), np.uint8), "y": Y[:3]}, "y has shape (3,), expected (4,)"),
        ({"x": np.zeros((4, 64, 64, 3), np.uint8), "y": Y[:4] / 2}, "y is float64, expected whole numbers or text"),
        ({"x": np.array([None] * 4), "y": Y[:4]}, "x has Python objects, which are never loaded"),
        ({"x": np.asfortranarray(np.zeros((4, 64, 64, 3), np.uint8)), "y": Y[:4]}, "x is in Fortran order"),
        ({"x_train": np.zeros((4, 64, 64, 3), np.uint8)}, "x_train: expected one array of patches and one of labels"),
        (
            {name: np.zeros((4, 64, 64, 3), np.uint8) for name in ("x_val", "x_valid", "y_val")},
            "x_valid, x_val, y_val: expected one array of patches and one of labels for valid",
        ),
        ({"pixels": np.zeros((4, 64, 64, 3), np.uint8)}, "no patches and labels, expected x_train and y_train; its a"),
    ],
)
def test_a_faulty_array_is_refused(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "all.npz", allow_pickle=True, **arrays)
    with pytest.raises(DataError) as raised:
        data.load(str(tmp_path))
    assert message in str(raised.value)
    assert "all.npz" in str(raised.value)


def test_a_header_that_claims_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=np.zeros((4, 64, 64, 3), np.uint8), y=Y[:4])
    with zipfile.ZipFile(tmp_path / "all.npz") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents["x.npy"] = contents["x.npy"].replace(b"(4, 64, 64, 3), }   ", b"(4000, 64, 64, 3), }")
    with zipfile.ZipFile(tmp_path / "all.npz", "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match=r"all.npz: x claims shape \(4000, 64, 64, 3\) of uint8 but has 49152 bytes"):
        data.load(str(tmp_path))


@pytest.mark.parametrize(
    "header",
    [b"(" * 5000, b"{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (4,), }\n", b"\xff\n", b""],
)
def test_a_forged_header_is_refused(tmp_path: Path, header: bytes) -> None:
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "all.npz", "w") as archive:
        archive.writestr("x.npy", content)
        archive.writestr("y.npy", content)
    with pytest.raises(DataError, match=r"all.npz: x is not an array of one kind of values in NumPy's format"):
        data.load(str(tmp_path))


def test_an_array_that_unpacks_to_far_more_than_it_is_packed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "all.npz", x=np.zeros((60, 64, 64, 3), np.uint8), y=Y)
    monkeypatch.setattr(pcam, "SMALL_UNPACKED_BYTES", 1 << 16)
    with pytest.raises(DataError, match=r"all.npz: x unpacks to 737408 bytes, too many for patches"):
        data.load(str(tmp_path))


def test_a_truncated_and_a_damaged_archive_are_refused(tmp_path: Path, patches: np.ndarray) -> None:
    file = tmp_path / "all.npz"
    np.savez_compressed(file, x=patches, y=Y)
    content = file.read_bytes()
    for damaged in (content[:-300], b"text", content[:20_000] + bytes(500) + content[20_500:]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"all.npz: .*copy it again") as raised:
            data.load(str(tmp_path))
        assert "\n" not in str(raised.value)
    assert not list((tmp_path / ".histoedge").glob("*.part"))


def test_files_of_unknown_names_are_refused(tmp_path: Path, patches: np.ndarray) -> None:
    for name in ("train", "extra"):
        np.savez(tmp_path / f"{name}.npz", x=patches, y=Y)
    with pytest.raises(DataError, match=r"extra.npz: one of 2 .npz files, expected train.npz, valid.npz or test.npz"):
        data.load(str(tmp_path))
