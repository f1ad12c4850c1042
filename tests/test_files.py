import errno
import os
from pathlib import Path

import pytest

from histoedge import files
from histoedge.edge.errors import DataError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == '{\n "old": 1\n}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(files.WriteError, match="the disk is full"), files.replacing(tmp_path / "a") as temporary:
        temporary.write_text("x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(files.WriteError, match="the disk is full"), files.replacing(tmp_path / "a") as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_text("x")


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(files.WriteError, match="cannot be written"):
        files.write_text(tmp_path / "file" / "a", "x")


def test_sweep_removes_the_files_of_killed_writers(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for path in (tmp_path / ".a.part", tmp_path / "models" / ".b.part", tmp_path / "kept"):
        path.write_text("")
    files.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "models"]


def test_a_folder_is_replaced_completely_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "folder"
    with files.replacing_folder(place) as folder:
        (folder / "first").write_text("1")
    with pytest.raises(ZeroDivisionError), files.replacing_folder(place) as folder:
        (folder / "second").write_text(str(1 / 0))
    assert [path.name for path in place.iterdir()] == ["first"]
    with files.replacing_folder(place) as folder:
        (folder / "third").write_text("3")
    assert [path.name for path in place.iterdir()] == ["third"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_places_are_expanded_in_order_and_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    for name in ("b.png", "folder/d.png", "folder/c.png", "empty/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def expand(*names: str) -> list[str]:
        places = [tmp_path / name for name in names]
        paths = files.expand(places, lambda folder: sorted(folder.glob("*.png")), kind="image", suffixes=(".png",))
        return [path.name for path in paths]

    assert expand("folder", "b.png") == ["c.png", "d.png", "b.png"]
    with pytest.raises(DataError, match=r"empty: no images in this folder; expected files ending in \.png"):
        expand("empty")
    with pytest.raises(DataError, match="missing: no such image or folder"):
        expand("missing")
