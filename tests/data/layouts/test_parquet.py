import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histoedge import data
from histoedge.edge.errors import DataError

Y = (np.arange(60) % 2).astype(np.uint8)
PARTS = {"train": slice(0, 40), "validation": slice(40, 50), "test": slice(50, 60)}


def png(patch: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(patch).save(file, "PNG")
    return file.getvalue()


def write_file(file: Path, patches: np.ndarray, labels: list, *, names: list[str] | None = None, plain=False, **more):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    contents = [png(patch) for patch in patches]
    images = contents if plain else [{"bytes": content, "path": f"{row}.png"} for row, content in enumerate(contents)]
    table = pyarrow.table({"image": images, "label": labels, **more})
    if names:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    file.parent.mkdir(exist_ok=True)
    parquet.write_table(table, file, row_group_size=16)


@pytest.fixture
def patches(make_noise) -> np.ndarray:
    return make_noise(60, side=64)


@pytest.mark.parametrize("place", [".", "data"])
def test_files_named_by_their_split(tmp_path: Path, patches: np.ndarray, place: str) -> None:
    for name, part in PARTS.items():
        rows = np.arange(60)[part]
        for shard, mine in enumerate(np.array_split(rows, 2)):
            file = tmp_path / place / f"{name}-{shard:05d}-of-00002-0a1b.parquet"
            write_file(file, patches[mine], Y[mine].tolist(), names=["benign", "malignant"])
    for cache in (True, True, False):
        splits = data.load(str(tmp_path), cache=cache)
        for split, part in zip(splits.values(), PARTS.values(), strict=True):
            np.testing.assert_array_equal(split.patches[:], patches[part])
            np.testing.assert_array_equal(split.patches[np.array([7, 1])], patches[part][[7, 1]])
            np.testing.assert_array_equal(split.labels, Y[part])
        assert splits["test"].geometry == data.Geometry(64, 64, 0.972, ("benign", "malignant"))
    assert len(list((tmp_path / ".histoedge").glob("*.digests.h5"))) == 6


def test_a_file_without_split_has_its_slides_kept_together(tmp_path: Path, patches: np.ndarray) -> None:
    slides = [f"s{row // 4}" for row in range(60)]
    write_file(tmp_path / "all.parquet", patches, [bool(label) for label in Y], plain=True, slide=slides)
    splits = data.load(str(tmp_path))
    found = [set(split.slides) for split in splits.values()]
    assert sum(map(len, found)) == len(set.union(*found)) == 15
    assert sum(len(split.labels) for split in splits.values()) == 60


def test_columns_are_named_in_data_toml(tmp_path: Path, patches: np.ndarray) -> None:
    write_file(tmp_path / "all.parquet", patches, Y.tolist(), tumour=Y.tolist()[::-1])
    (tmp_path / "data.toml").write_text('[columns]\nlabel = "tumour"\n')
    by_other = data.load(str(tmp_path))["train"]
    rows = [int(name.split("-")[1]) for name in by_other.ids]
    np.testing.assert_array_equal(by_other.labels, Y[::-1][rows])
    (tmp_path / "data.toml").write_text('[columns]\nimage = "picture"\n')
    with pytest.raises(DataError, match=r"all.parquet: no column picture; its columns: image, label, tumour"):
        data.load(str(tmp_path))
    (tmp_path / "data.toml").write_text('[columns]\nimage = "label"\n')
    with pytest.raises(DataError, match=r"all.parquet: label is int64, expected the bytes of image files"):
        data.load(str(tmp_path))


def test_a_truncated_file_and_a_corrupt_image_are_refused(tmp_path: Path, patches: np.ndarray) -> None:
    file = tmp_path / "train-0.parquet"
    write_file(file, patches, Y.tolist())
    content = file.read_bytes()
    for damaged in (content[:-100], content[:50], b""):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"train-0.parquet: not a complete parquet file \(") as raised:
            data.load(str(tmp_path))
        assert "\n" not in str(raised.value)
    place = content.index(png(patches[33])[20:200])
    file.write_bytes(content[:place] + bytes(150) + content[place + 150 :])
    with pytest.raises(DataError, match=r"train-0.parquet"):
        data.load(str(tmp_path))
    assert not list((tmp_path / ".histoedge").glob("*.h5"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5] * 60, "label of row 0 is 0.5, expected a whole number or text"),
        ([None, *[1] * 59], "label of row 0 is None, expected"),
        ([0, 1, 2] * 20, "the labels are 0, 1, 2; say in"),
    ],
)
def test_faulty_labels_are_refused(tmp_path: Path, patches: np.ndarray, labels: list, message: str) -> None:
    write_file(tmp_path / "train-0.parquet", patches, labels)
    with pytest.raises(DataError) as raised:
        data.load(str(tmp_path))
    assert message in str(raised.value)


def test_images_without_bytes_and_mixed_names_are_refused(tmp_path: Path, patches: np.ndarray) -> None:
    write_file(tmp_path / "train-0.parquet", patches, Y.tolist())
    write_file(tmp_path / "other.parquet", patches, Y.tolist())
    with pytest.raises(DataError, match=r"other.parquet: no split in its name, unlike the other files"):
        data.load(str(tmp_path))
    (tmp_path / "other.parquet").unlink()
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    content = {"bytes": None, "path": "a.png"}
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table({"image": pyarrow.array([content] * 2, kind), "label": [0, 1]})
    parquet.write_table(table, tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match=r"train-0.parquet: row 0 has no bytes of an image"):
        data.load(str(tmp_path))


def test_without_pyarrow_the_error_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1")
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from histoedge import data\n"
        "try: data.load(sys.argv[1])\n"
        "except Exception as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert ran.stdout.strip().endswith("parquet files need pyarrow: pip install 'histoedge[parquet]'")
