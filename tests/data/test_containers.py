"""Containers are unpacked once, and a killed unpacking continues."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from histoedge.data import containers, image
from histoedge.data.listing import Container
from histoedge.edge.errors import DataError

UNPACKING = """
import sys
from histoedge import data
def show(what, done, total, note=""):
    print(what, done, total, sep="; ", flush=True)
    if what.startswith("unpack valid") and done:
        sys.stdin.readline()
data.load(sys.argv[1], progress=show)
"""


def test_a_killed_unpacking_keeps_the_finished_files(tmp_path: Path, make_noise) -> None:
    x, y = make_noise(40, side=64), (np.arange(40) % 2).astype(np.uint8)
    for name in ("test", "train", "valid"):
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
    command = [sys.executable, "-c", UNPACKING, str(tmp_path)]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    while not running.stdout.readline().startswith("unpack valid.npz x, patches; 40"):
        pass
    running.kill()
    running.communicate()
    assert len(list((tmp_path / ".histoedge").glob("[!.]*.digests.h5"))) == 2
    again = subprocess.run(command, input="\n", capture_output=True, text=True, check=True)
    assert {line.split(";")[0] for line in again.stdout.splitlines() if line.startswith("unpack")} == {
        "unpack valid.npz x, patches"
    }
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
    assert not list((tmp_path / ".histoedge").glob(".*.part"))


@pytest.mark.parametrize("count", [3, 5])
def test_a_container_with_another_number_of_patches_is_refused(tmp_path: Path, make_noise, count: int) -> None:
    file = tmp_path / "source"
    file.touch()
    container = Container(file, "", 4, 96, lambda form: iter([make_noise(count)]))
    with pytest.raises(DataError, match="source: not the 4 patches it claims; copy it again"):
        containers.open_containers([container], image.FORM, [tmp_path / "cache"])
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_without_a_writable_place_patches_are_in_a_temporary_file(
    tmp_path: Path, make_noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    file = tmp_path / "source"
    file.touch()
    container = Container(file, "", 4, 96, lambda form: iter([make_noise(4)]))
    opened = containers.open_containers([container, container], image.FORM, [file / "not a folder"])
    np.testing.assert_array_equal(opened.patches[:], np.concatenate([make_noise(4)] * 2))
    assert len(opened.digests) == 8
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("damage", ["pixels", "end", "digests"])
def test_a_damaged_file_of_the_cache_is_written_again(tmp_path: Path, make_noise, damage: str) -> None:
    x, file = make_noise(4), tmp_path / "source"
    file.touch()
    container = Container(file, "", 4, 96, lambda form: iter([x]))
    first = containers.open_containers([container], image.FORM, [tmp_path / "cache"])
    (hashed,) = (tmp_path / "cache").glob("*.digests.h5")
    unpacked = hashed.with_name(hashed.name.replace(".digests", ""))
    if damage == "digests":
        hashed.unlink()
    else:
        content, times = unpacked.read_bytes(), unpacked.stat()
        unpacked.write_bytes(content[:-100_000] + (bytes(100_000) if damage == "pixels" else b""))
        os.utime(unpacked, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = containers.open_containers([container], image.FORM, [tmp_path / "cache"])
    np.testing.assert_array_equal(again.patches[:], x)
    assert again.digests == first.digests
    assert hashed.is_file()
