from pathlib import Path

import pytest

from histoedge.data import Geometry, image
from histoedge.data.description import Description, read_description
from histoedge.edge.errors import DataError


def test_without_the_file_nothing_is_said(tmp_path: Path) -> None:
    description = read_description(tmp_path)
    assert description == Description(tmp_path / "data.toml")
    assert description.form(96) == image.FORM
    assert description.geometry(96, ("normal", "tumour"), centred=True) == Geometry()
    assert description.geometry(96, ("a", "b"), centred=False) == Geometry(96, 96, 0.972, ("a", "b"))
    assert description.geometry(64, ("a", "b"), centred=True) == Geometry(64, 64, 0.972, ("a", "b"))


def test_every_key_is_read(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text(
        'layout = "csv"\npositive = "tumour"\nclasses = ["rest", "tumour"]\npatch_px = 64\nlabel_px = 16\n'
        'um_per_px = 0.5\nresample = true\n[columns]\npath = "file"\n'
    )
    description = read_description(tmp_path)
    assert description == Description(
        tmp_path / "data.toml", "csv", {"path": "file"}, ("rest", "tumour"), ("tumour",), 64, 16, 0.5, True
    )
    assert description.form(100) == image.Form(64, resample=True)
    assert description.geometry(64, ("rest", "tumour"), centred=False) == Geometry(64, 16, 0.5, ("rest", "tumour"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("patch = 64", "unknown key patch; the keys: layout, columns, classes, positive, patch_px"),
        ("patch_px = 64.0", "patch_px is 64.0, expected a whole number"),
        ("patch_px = true", "patch_px is True, expected a whole number"),
        ('resample = "yes"', "resample is 'yes', expected true or false"),
        ("positive = []", "positive is [], expected a list of different labels"),
        ("positive = [1]", "positive is [1], expected a list"),
        ('classes = ["a", "a"]', "classes is ['a', 'a'], expected a list of different names"),
        ("columns = 3", "columns is 3, expected a table of column names"),
        ("[columns]\npath = 3", "columns is {'path': 3}, expected a table"),
        ('layout = ""', "layout is '', expected a word"),
        ("patch_px =", "not a readable TOML file"),
        ("\0", "not a readable TOML file"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "data.toml").write_text(content)
    with pytest.raises(DataError) as raised:
        read_description(tmp_path)
    assert f"{tmp_path / 'data.toml'}: {message}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_values_outside_their_range_name_the_file(tmp_path: Path) -> None:
    description = Description(tmp_path / "data.toml", patch_px=16)
    with pytest.raises(DataError, match=r"data.toml: patch_px is 16, expected 32 to 512"):
        description.form(96)
    with pytest.raises(
        DataError, match=r"the first image is 1024 px, expected 32 to 512; .*data.toml with patch_px = 96"
    ):
        Description(tmp_path / "data.toml").form(1024)
    with pytest.raises(DataError, match=r"data.toml: label_px is 97"):
        Description(tmp_path / "data.toml", label_px=97).geometry(96, ("a", "b"), centred=True)
