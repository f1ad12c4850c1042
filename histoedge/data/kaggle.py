"""The layout of the Kaggle competition "Histopathologic Cancer Detection": ``train/*.tif`` and ``train_labels.csv``.

There is no official split, so one is made: 80/10/10, stratified and seeded, by slide where slides are known, and
never with the same pixels in two splits.
"""

import os
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histoedge.data import cache_folder, image, pack, table
from histoedge.data.rows import Chosen
from histoedge.data.split import SPLITS, Split, read_rows
from histoedge.edge.errors import DataError
from histoedge.edge.patches import PATCH_PX
from histoedge.progress import Progress, silent

LABELS = "train_labels.csv"
SUFFIX = ".tif"
SLIDES = ("patch_id_wsi_full.csv", "patch_id_wsi.csv")
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
SHA1 = re.compile(r"[0-9a-f]{40}")


def load_kaggle(
    folder: Path, *, splits: Sequence[str] = SPLITS, seed: int = 0, cached: bool = True, progress: Progress = silent
) -> dict[str, Split]:
    """The seeded splits of the folder, read from its pack, which is made first where there is none.

    Without ``cached``, or where no cache can be written, every image is decoded to find equal ones, and again when it
    is asked for.

    Raises:
        DataError: a row without image or the reverse, a label other than 0 and 1, an image that is not a patch,
            too few patches for two classes in every split.
        WriteError: no room for the pack.
    """
    there = pack.listed(folder / "train", suffix=SUFFIX) if (folder / "train").is_dir() else None
    labels, slides = _table(folder, [] if there is None else there.names)
    ids = sorted(labels)
    images = _in_order(there, ids)
    packed = pack.open_pack(images, cache_folder.cache_folders(folder), progress=progress) if cached else None
    patches = TiffPatches([folder / "train" / name for name in images.names]) if packed is None else packed.patches
    digests = pack.unpacked(images, progress=progress) if packed is None else packed.digests
    y = np.array([labels[name] for name in ids], np.uint8)
    known = [slides[name] for name in ids] if slides is not None else None
    groups: Sequence[Hashable] = digests if known is None else _joined(known, digests)
    parts = assign(y, groups, seed=seed)
    for number, name in enumerate(SPLITS):
        if len(np.unique(y[parts == number])) < 2:
            raise DataError(
                f"{folder}: {len(y)} patches in {len(set(groups))} groups (slides, or patches that are not equal) "
                f"leave the {name} split without one of the classes; add patches"
            )
    sizes = np.array(images.sizes, np.int64)
    chosen = {}
    for name in splits:
        rows = np.flatnonzero(parts == SPLITS.index(name))
        indices = rows.tolist()
        chosen[name] = Split(
            name,
            Chosen(patches, rows),
            y[rows],
            [ids[index] for index in indices],
            None if known is None else [known[index] for index in indices],
            int(sizes[rows].sum()),
            tuple(digests[index] for index in indices),
        )
    return chosen


def unlabelled(folder: Path) -> int:
    """How many images lie in a folder, as in ``test`` of the competition."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.name.endswith(SUFFIX) for entry in entries)
    except OSError:
        return 0


def _in_order(there: pack.Images | None, ids: Sequence[str]) -> pack.Images:
    """The images of these ids; every one is there."""
    if there is None:
        return pack.Images(Path(), (), (), ())
    rows = {name: row for row, name in enumerate(there.names)}
    return there.take([rows[f"{name}{SUFFIX}"] for name in ids])


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
    truth = labels.tolist()
    wished = [[max(SHARES[name] * truth.count(label), 1e-9) for label in (0, 1)] for name in SPLITS]
    held = [[0.0, 0.0] for _ in SPLITS]
    parts = [0] * len(truth)
    for indices in order:  # plain numbers: arrays of two take ten times as long, and there can be 220,025 groups
        positives = sum(map(truth.__getitem__, indices))
        more = (len(indices) - positives, positives)
        # how much the sum of held^2 / wished would rise: least where the group fills what is emptiest
        rise = [
            ((no + more[0]) * (no + more[0]) - no * no) / wished_no
            + ((yes + more[1]) * (yes + more[1]) - yes * yes) / wished_yes
            for (no, yes), (wished_no, wished_yes) in zip(held, wished, strict=True)
        ]
        part = rise.index(min(rise))
        held[part][0] += more[0]
        held[part][1] += more[1]
        for index in indices:
            parts[index] = part
    return np.array(parts, int)


def _joined(slides: Sequence[str], digests: Sequence[bytes]) -> list[Hashable]:
    """Slides that share a patch are one group."""
    parent: dict[str, str] = {slide: slide for slide in slides}

    def root(slide: str) -> str:
        while parent[slide] != slide:
            parent[slide] = slide = parent[parent[slide]]
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


def _table(folder: Path, images: Iterable[str]) -> tuple[dict[str, int], dict[str, str] | None]:
    """Label and, where known, slide of every id; every id has one of the images and the reverse."""
    path = folder / LABELS
    if not path.is_file():
        raise DataError(f"{path}: no such file; the competition's folder has train/*.tif and {LABELS}")
    rows = table.read_table(path, ("id", "label"))
    labels: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        if row["label"] not in ("0", "1"):
            raise DataError(f"{path}: label {row['label']!r} in line {number}, expected 0 or 1")
        if row["id"] in labels:
            raise DataError(f"{path}: id {row['id']} twice, the second time in line {number}")
        labels[row["id"]] = int(row["label"])
    there = {name.removesuffix(SUFFIX) for name in images}
    if lost := sorted(labels.keys() - there):
        raise DataError(f"{path}: no image train/{lost[0]}.tif for its id ({len(lost)} such ids)")
    if extra := sorted(there - labels.keys()):
        raise DataError(f"{folder / 'train' / extra[0]}.tif: no row in {LABELS} ({len(extra)} such images)")
    if rows and "wsi" in rows[0]:
        return labels, {row["id"]: row["wsi"] for row in table.read_table(path, ("id", "wsi"))}
    for name in SLIDES:
        if (folder / name).is_file():
            slides = {row["id"]: row["wsi"] for row in table.read_table(folder / name, ("id", "wsi"))}
            if lost := sorted(labels.keys() - slides.keys()):
                raise DataError(f"{folder / name}: no slide for id {lost[0]} ({len(lost)} such ids)")
            return labels, slides
    return labels, None
