import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge import data
from histoedge.data import Split, evenly_spaced, sources
from histoedge.edge.errors import DataError

X = np.random.default_rng(3).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
Y = np.array([0, 1, 1, 0], np.uint8)


def split(x: np.ndarray = X, y: np.ndarray = Y) -> Split:
    return Split("train", x, y, [str(index) for index in range(len(y))])


def test_digests_are_the_sha1_of_each_patchs_raw_bytes() -> None:
    assert split().digests == tuple(hashlib.sha1(patch.tobytes()).digest() for patch in X)


def test_the_content_hash_depends_only_on_pixels_labels_and_order(pcam_files: Callable[..., Path]) -> None:
    same = data.load(str(pcam_files(x=X, y=Y, chunks=(3, 20, 20, 2), compression="gzip")), splits=("train",))["train"]
    assert same.content_hash == split().content_hash == split(np.asfortranarray(X)).content_hash
    changed = X.copy()
    changed[3, 95, 95, 2] ^= 1
    order = [1, 0, 2, 3]
    others = (split(changed), split(y=Y[::-1]), split(y=1 - Y), split(X[order], Y[order]), split(X[:3], Y[:3]))
    assert len({same.content_hash, *(other.content_hash for other in others)}) == 5
    assert split(y=Y[::-1]).content_hash == split().content_hash  # these labels are a palindrome


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[:3], Y, r"patches have shape \(3, 96, 96, 3\), expected \(4, 96, 96, 3\)"),
        (X[:, :64], Y, r"patches have shape \(4, 64, 96, 3\)"),
        (X, np.ones(4, np.uint8), "label values are 1; a split needs both 0 and 1"),
        (X, np.array([0, 1, 2, 0]), "label values are 0, 1, 2"),
        (X[:0], Y[:0], "label values are none"),
    ],
)
def test_an_invalid_split_is_an_error(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split(x, y)


def test_the_error_for_a_missing_data_set_states_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder; give a folder with a data set, or the word synthe"):
        data.load(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no data set in this folder; expected one of: camelyonpatch_level_2_split_"):
        data.load(str(tmp_path))
    (tmp_path / "patches.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="patches.zip: a file, expected a folder; give a folder"):
        data.load(str(tmp_path / "patches.zip"))


def test_two_data_sets_in_one_folder_are_an_error(pcam_files: Callable[..., Path]) -> None:
    folder = pcam_files()
    (folder / "train_labels.csv").write_text("id,label\n")
    with pytest.raises(DataError, match="contains both"):
        data.load(str(folder))


def test_has_is_false_for_a_split_without_files(pcam_files: Callable[..., Path]) -> None:
    folder = pcam_files("test")
    assert [name for name in data.SPLITS if data.has(str(folder), name)] == ["test"]
    assert data.has("synthetic", "valid")


def test_data_imports_no_framework_and_no_plotting() -> None:
    code = (
        "import sys, histoedge.data.sources, histoedge.data.synthetic, histoedge.data.check, histoedge.data.picture; "
        "histoedge.data.sources.layouts(); heavy = 'tensorflow', 'keras', 'click', 'matplotlib', 'rich', 'pyarrow'; "
        "print([name for name in heavy if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_subset_is_a_view_with_the_available_digests() -> None:
    full = Split("train", X, Y, list("abcd"), list("ssst"))
    rows = np.array([3, 1])
    without = full.subset(rows, "some")
    assert without.stored_digests is None
    values = (without.name, list(without.ids), without.slides, without.labels.tolist(), without.size_bytes)
    assert values == ("some", ["d", "b"], ["t", "s"], [0, 1], 2 * 96 * 96 * 3)
    np.testing.assert_array_equal(without.patches[:], X[rows])
    assert without.digests == (full.digests[3], full.digests[1])
    with_digests = full.subset(rows).subset(np.array([1, 0]))
    assert with_digests.stored_digests == (full.digests[1], full.digests[3])
    assert with_digests.name == "train"
    assert with_digests.content_hash == split(X[[1, 3]], Y[[1, 3]]).content_hash
    with pytest.raises(DataError, match="label values are 1"):
        full.subset(np.array([1, 2]))
    with pytest.raises(IndexError):
        full.subset(np.array([4]))


def test_the_content_hash_is_the_one_recorded_in_runs() -> None:
    expected = hashlib.sha256(Y.tobytes())
    for patch in X:
        expected.update(hashlib.sha1(patch.tobytes()).digest())
    assert split().content_hash == expected.hexdigest()


@pytest.mark.parametrize(
    ("count", "most", "indices"), [(10, 4, [0, 3, 6, 9]), (3, 8, [0, 1, 2]), (5, 1, [0]), (1, 4, [0]), (0, 4, [])]
)
def test_evenly_spaced_indices(count: int, most: int, indices: list[int]) -> None:
    assert evenly_spaced(count, most).tolist() == indices


@pytest.mark.parametrize("side", [64, 224])
def test_patchcamelyons_files_may_have_patches_of_another_size(
    pcam_files: Callable[..., Path], make_noise: Callable[..., np.ndarray], side: int
) -> None:
    for name in data.SPLITS:
        folder = pcam_files(name, x=make_noise(6, side=side))
    (folder / "data.toml").write_text('classes = ["benign", "malignant"]\num_per_px = 0.5\nlabel_px = 20\n')
    splits = data.load(str(folder))
    assert {split.geometry for split in splits.values()} == {data.Geometry(side, 20, 0.5, ("benign", "malignant"))}
    (folder / "data.toml").write_text("patch_px = 96\n")
    with pytest.raises(DataError, match=rf"patches of {side} px, data.toml says 96; correct patch_px"):
        data.load(str(folder))
    (folder / "data.toml").write_text("resample = true\n")
    with pytest.raises(DataError, match="resample has no meaning in the layout patchcamelyon; remove it"):
        data.load(str(folder))
    (folder / "data.toml").unlink()
    pcam_files("test", x=make_noise(6))
    with pytest.raises(DataError, match=rf"of different size \(train {side} px, valid {side} px, test 96 px\)"):
        data.load(str(folder))


def test_a_stray_table_or_array_next_to_patchcamelyons_files_is_not_a_data_set(pcam_files: Callable[..., Path]) -> None:
    folder = pcam_files("test")
    (folder / "notes.csv").write_text("path,label\n")
    np.savez(folder / "extra.npz", x=np.zeros(1))
    assert len(data.load(str(folder), splits=("test",))["test"].labels) == 6
    (folder / "camelyonpatch_level_2_split_test_x.h5").unlink()
    (folder / "camelyonpatch_level_2_split_test_y.h5").unlink()
    with pytest.raises(DataError, match=r"contains both \*.npz and labels.csv; .*data.toml: layout = \"npz\""):
        data.load(str(folder))


def test_the_layout_of_data_toml_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text('layout = "csv"\n')
    with pytest.raises(DataError, match=r"data.toml says csv; expected labels.csv"):
        data.load(str(tmp_path))
    (tmp_path / "data.toml").write_text('layout = "imagenet"\n')
    with pytest.raises(
        DataError, match=r"no layout 'imagenet'; choose from: patchcamelyon, kaggle, wilds, parquet, npz"
    ):
        data.load(str(tmp_path))


def test_the_refusal_of_an_unknown_folder_names_every_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        data.load(str(tmp_path))
    for layout in sources.layouts().values():
        assert layout.files in str(raised.value)
