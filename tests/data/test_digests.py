"""Digests of patches: computed once, and again only when the file changes."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from histoedge import data
from histoedge.data import hdf5, pcam

STEM = "camelyonpatch_level_2_split_train"

Files = Callable[..., Path]


def patches(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


def digests_of(folder: Path, told: list[str], *, cache: bool = True) -> tuple[bytes, ...]:
    split = data.load(
        str(folder), splits=("train",), cache=cache, progress=lambda what, done, total, note="": told.append(what)
    )["train"]
    return split.digests


def test_digests_are_found_once_and_again_only_when_the_file_changes(pcam_files: Files) -> None:
    x, told = patches(40), list[str]()
    folder = pcam_files(x=x, chunks=(1, 96, 96, 3))
    assert pcam.load_pcam(folder, "train").known_digests is None
    first = digests_of(folder, told)
    assert set(told) == {"hash train, patches"}
    assert sorted(path.name for path in (folder / ".histoedge").iterdir()) == ["lock", "train.digests.h5"]
    told.clear()
    assert pcam.load_pcam(folder, "train").known_digests == first == digests_of(folder, told)
    assert told == []
    path = folder / f"{STEM}_x.h5"
    changed, before = x.copy(), path.stat()
    changed[1] += 1
    pcam_files(x=changed, chunks=(1, 96, 96, 3))
    os.utime(path, ns=(0, before.st_mtime_ns + 1))
    assert [a == b for a, b in zip(first, digests_of(folder, told), strict=True)].count(False) == 1
    assert told != []


def test_digests_of_another_file_or_version_are_not_believed(pcam_files: Files) -> None:
    folder = pcam_files(x=patches(40))
    told: list[str] = []
    first = digests_of(folder, told)
    kept, path = folder / ".histoedge" / "train.digests.h5", folder / f"{STEM}_x.h5"
    before = path.stat()
    pcam_files(x=patches(40)[::-1])
    os.utime(path, ns=(0, before.st_mtime_ns))  # the same name, size and time
    assert digests_of(folder, told) == first[::-1]
    arrays, attributes = hdf5.read_arrays(kept)
    for spoilt in (({"digests": arrays["digests"][1:]}, attributes), (arrays, {**attributes, "format": 2}), ({}, {})):
        hdf5.write_arrays(kept, *spoilt)
        told.clear()
        assert digests_of(folder, told) == first[::-1]
        assert told != []
    kept.write_text("digests")
    assert digests_of(folder, told) == first[::-1]


def test_without_cache_nothing_is_kept_or_believed(pcam_files: Files) -> None:
    folder, told = pcam_files(x=patches(6)), list[str]()
    first = digests_of(folder, told, cache=False)
    assert not (folder / ".histoedge").exists()
    digests_of(folder, told)
    told.clear()
    assert digests_of(folder, told, cache=False) == first
    assert told != []


def test_where_the_folder_cannot_be_written_digests_are_kept_in_the_users_cache(
    pcam_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, told = pcam_files(x=patches(6)), list[str]()
    (folder / ".histoedge").touch()  # as root, a file in its place is what keeps the folder from being made
    first = digests_of(folder, told)
    assert len(list((tmp_path / "cache").rglob("train.digests.h5"))) == 1
    told.clear()
    assert digests_of(folder, told) == first
    assert told == []
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".histoedge"))
    assert digests_of(folder, told) == first
    assert told != []
