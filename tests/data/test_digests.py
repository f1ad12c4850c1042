"""Digests of patches: computed once, and again only if the file changes."""

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


def digests_of(folder: Path, calls: list[str], *, cache: bool = True) -> tuple[bytes, ...]:
    split = data.load(
        str(folder), splits=("train",), cache=cache, progress=lambda what, done, total, note="": calls.append(what)
    )["train"]
    return split.digests


def test_digests_are_computed_again_only_if_the_file_changes(pcam_files: Files) -> None:
    x, calls = patches(40), list[str]()
    folder = pcam_files(x=x, chunks=(1, 96, 96, 3))
    assert pcam.load_pcam(folder, "train").stored_digests is None
    first = digests_of(folder, calls)
    assert set(calls) == {"hash train, patches"}
    assert sorted(path.name for path in (folder / ".histoedge").iterdir()) == ["lock", "train.digests.h5"]
    calls.clear()
    assert pcam.load_pcam(folder, "train").stored_digests == first == digests_of(folder, calls)
    assert calls == []
    path = folder / f"{STEM}_x.h5"
    changed, before = x.copy(), path.stat()
    changed[1] += 1
    pcam_files(x=changed, chunks=(1, 96, 96, 3))
    os.utime(path, ns=(0, before.st_mtime_ns + 1))
    assert [a == b for a, b in zip(first, digests_of(folder, calls), strict=True)].count(False) == 1
    assert calls != []


def test_stored_digests_of_another_file_or_format_are_not_used(pcam_files: Files) -> None:
    folder = pcam_files(x=patches(40))
    calls: list[str] = []
    first = digests_of(folder, calls)
    stored, path = folder / ".histoedge" / "train.digests.h5", folder / f"{STEM}_x.h5"
    before = path.stat()
    pcam_files(x=patches(40)[::-1])
    os.utime(path, ns=(0, before.st_mtime_ns))  # the same name, size and modification time
    assert digests_of(folder, calls) == first[::-1]
    arrays, attributes = hdf5.read_arrays(stored)
    for damaged in (({"digests": arrays["digests"][1:]}, attributes), (arrays, {**attributes, "format": 2}), ({}, {})):
        hdf5.write_arrays(stored, *damaged)
        calls.clear()
        assert digests_of(folder, calls) == first[::-1]
        assert calls != []
    stored.write_text("digests")
    assert digests_of(folder, calls) == first[::-1]


def test_without_cache_digests_are_neither_stored_nor_reused(pcam_files: Files) -> None:
    folder, calls = pcam_files(x=patches(6)), list[str]()
    first = digests_of(folder, calls, cache=False)
    assert not (folder / ".histoedge").exists()
    digests_of(folder, calls)
    calls.clear()
    assert digests_of(folder, calls, cache=False) == first
    assert calls != []


def test_digests_of_a_read_only_folder_are_in_the_users_cache(
    pcam_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, calls = pcam_files(x=patches(6)), list[str]()
    (folder / ".histoedge").touch()  # a file of that name prevents the folder, also for root
    first = digests_of(folder, calls)
    assert len(list((tmp_path / "cache").rglob("train.digests.h5"))) == 1
    calls.clear()
    assert digests_of(folder, calls) == first
    assert calls == []
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".histoedge"))
    assert digests_of(folder, calls) == first
    assert calls != []
