from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge import data
from histoedge.data import check
from histoedge.edge.errors import DataError

HEADER = ",patient,node,x_coord,y_coord,tumor,slide,center,split"
Y = (np.arange(60) % 2).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path, write_pngs: Callable[..., None], make_noise) -> Path:
    """Sixty patches, twelve per hospital; one of six in the hospitals of train is in WILDS' validation inside."""
    names, rows = [], []
    for row in range(60):
        centre, inside = row // 12, int(row % 12 > 9)
        place = f"patient_{centre:03d}_node_{row % 3}"
        names.append(f"patches/{place}/patch_{place}_x_{row}_y_{2 * row}.png")
        rows.append(f"{row},{centre:03d},{row % 3},{row},{2 * row},{Y[row]},{10 * centre + row % 3},{centre},{inside}")
    write_pngs(tmp_path, names, make_noise(60))
    (tmp_path / "metadata.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return tmp_path


def test_hospitals_are_the_splits_of_wilds(folder: Path, make_noise) -> None:
    splits = data.load(str(folder))
    hospitals = {name: {int(slide) // 10 for slide in split.slides} for name, split in splits.items()}
    assert hospitals == {"train": {0, 3, 4}, "valid": {1}, "test": {2}}
    assert {name: len(split.labels) for name, split in splits.items()} == {"train": 30, "valid": 12, "test": 12}
    assert splits["test"].geometry == data.Geometry()
    assert splits["test"].ids[0] == "patch_patient_002_node_0_x_24_y_48"
    np.testing.assert_array_equal(splits["test"].patches[:], make_noise(60)[24:36])
    np.testing.assert_array_equal(splits["test"].labels, Y[24:36])
    report = check.check(str(folder))
    assert report.layout == "wilds"
    (note,) = report.notes
    assert note.endswith("metadata.csv: 6 patches of the validation inside the training hospitals are not used")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",center,", ",hospital,", "metadata.csv: no column center"),
        ("0,000,0,0,0,0,0,0,0", "0,000,0,0,0,2,0,0,0", "tumor '2' in line 2, expected 0 or 1"),
        ("0,000,0,0,0,0,0,0,0", "0,000,0,0,0,0,0,0,7", "split '7' in line 2, expected 0 or 1"),
        ("1,000,1,1,2,", "1,000,1,9,2,", "patch_patient_000_node_1_x_9_y_2.png cannot be read"),
    ],
)
def test_a_faulty_table_is_refused(folder: Path, old: str, new: str, message: str) -> None:
    table = folder / "metadata.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(DataError) as raised:
        data.load(str(folder))
    assert message in str(raised.value)
