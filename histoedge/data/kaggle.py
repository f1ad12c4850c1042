"""The layout of the Kaggle competition "Histopathologic Cancer Detection": ``train/*.tif`` and ``train_labels.csv``.

There is no official split, so one is made: 80/10/10, stratified and seeded, by slide where slides are known, and
never with the same pixels in two splits.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histoedge.data import PATCH_PX, SPLITS, Split, image, read_rows, table
from histoedge.edge.errors import DataError

LABELS = "train_labels.csv"
SLIDES = ("patch_id_wsi_full.csv", "patch_id_wsi.csv")
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
SHA1 = re.compile(r"[0-9a-f]{40}")


def load(folder: Path, *, splits: Sequence[str] = SPLITS, seed: int = 0) -> dict[str, Split]:
    """The seeded splits of the folder; every image is decoded once to find equal ones, then again when it is asked for.

    Raises:
        DataError: a row without image or the reverse, a label other than 0 and 1, an image that is not a patch,
            too few patches for two classes in every split.
    """
    labels, slides = _table(folder)
    ids = sorted(labels)
    patches = TiffPatches([folder / "train" / f"{name}.tif" for name in ids])
    digests = [hashlib.sha1(patches[index].tobytes()).digest() for index in range(len(ids))]
    y = np.array([labels[name] for name in ids], np.uint8)
    known = [slides[name] for name in ids] if slides is not None else None
    groups: list[Hashable] = list(digests) if known is None else _joined(known, digests)
    parts = assign(y, groups, seed=seed)
    for number, name in enumerate(SPLITS):
        if len(np.unique(y[parts == number])) < 2:
            raise DataError(
                f"{folder}: {len(y)} patches in {len(set(groups))} groups (slides, or patches that are not equal) "
                f"leave the {name} split without one of the classes; add patches"
            )
    chosen = {}
    for name in splits:
        indices = np.flatnonzero(parts == SPLITS.index(name)).tolist()
        chosen[name] = Split(
            name,
            TiffPatches([patches.paths[index] for index in indices]),
            y[indices],
            [ids[index] for index in indices],
            None if known is None else [known[index] for index in indices],
            sum(patches.paths[index].stat().st_size for index in indices),
            tuple(digests[index] for index in indices),
        )
    return chosen


def assign(labels: np.ndarray, groups: Sequence[Hashable], *, seed: int) -> np.ndarray:
    """A split number, int (N,), for every patch: whole groups, near 80/10/10, with the classes near alike.

    The seed shuffles the groups; then, largest first, each goes where it leaves the split sizes, per class and
    relative to what was wished, closest to 80/10/10.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    order = list(members.values())
    order = [order[at] for at in np.random.default_rng(seed).permutation(len(order))]
    order.sort(key=len, reverse=True)
    shares = np.array([SHARES[name] for name in SPLITS])[:, None]
    wished = np.maximum(shares * np.array([np.sum(labels == 0), np.sum(labels == 1)]), 1e-9)
    held = np.zeros_like(wished)
    parts = np.zeros(len(labels), int)
    for indices in order:
        positives = int(labels[indices].sum())
        more = np.array([len(indices) - positives, positives])
        # how much the sum of held^2 / wished would rise: least where the group fills what is emptiest
        rise = (((held + more) ** 2 - held**2) / wished).sum(axis=1)
        part = int(np.argmin(rise))
        held[part] += more
        parts[indices] = part
    return parts


def _joined(slides: Sequence[str], digests: Sequence[bytes]) -> list[Hashable]:
    """Slides that share a patch are one group."""
    parent: dict[str, str] = {slide: slide for slide in slides}

    def root(slide: str) -> str:
        while parent[slide] != slide:
            slide = parent[slide]
        return slide

    first: dict[bytes, str] = {}
    for slide, digest in zip(slides, digests, strict=True):
        parent[root(slide)] = root(first.setdefault(digest, slide))
    return [root(slide) for slide in slides]


class TiffPatches:
    """Image files that index like an array; each is decoded when it is asked for."""

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, 96, 96, 3)."""
        return (len(self.paths), PATCH_PX, PATCH_PX, 3)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> np.ndarray:
        return read_rows(self, index, lambda row: image.read_patch(self.paths[row]))


def _table(folder: Path) -> tuple[dict[str, int], dict[str, str] | None]:
    """Label and, where known, slide of every id; every id has an image and the reverse."""
    path = folder / LABELS
    if not path.is_file():
        raise DataError(f"{path}: no such file; the competition's folder has train/*.tif and {LABELS}")
    rows = table.read(path, ("id", "label"))
    labels: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        if row["label"] not in ("0", "1"):
            raise DataError(f"{path}: label {row['label']!r} in line {number}, expected 0 or 1")
        if row["id"] in labels:
            raise DataError(f"{path}: id {row['id']} twice, the second time in line {number}")
        labels[row["id"]] = int(row["label"])
    there = {file.stem for file in (folder / "train").glob("*.tif")}
    if lost := sorted(labels.keys() - there):
        raise DataError(f"{path}: no image train/{lost[0]}.tif for its id ({len(lost)} such ids)")
    if extra := sorted(there - labels.keys()):
        raise DataError(f"{folder / 'train' / extra[0]}.tif: no row in {LABELS} ({len(extra)} such images)")
    if rows and "wsi" in rows[0]:
        return labels, {row["id"]: row["wsi"] for row in table.read(path, ("id", "wsi"))}
    for name in SLIDES:
        if (folder / name).is_file():
            slides = {row["id"]: row["wsi"] for row in table.read(folder / name, ("id", "wsi"))}
            if lost := sorted(labels.keys() - slides.keys()):
                raise DataError(f"{folder / name}: no slide for id {lost[0]} ({len(lost)} such ids)")
            return labels, slides
    return labels, None
