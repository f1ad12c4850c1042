"""The layout of the Kaggle competition "Histopathologic Cancer Detection": ``train/*.tif`` and ``train_labels.csv``.

The competition has no official split. ``load_kaggle`` splits the patches 80/10/10, stratified and seeded, by slide if
slides are known. Patches with the same pixels are always in the same split.
"""

import os
import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from histoedge.data import cache_folder, image, pack, table
from histoedge.data.rows import PatchView
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
    """Return the seeded splits of the folder, read from its pack, which is written on first use.

    Without ``cached``, or if no cache can be written, every image is decoded to compare pixels, and again when its
    patch is indexed.

    Raises:
        DataError: a row without image or the reverse, a label other than 0 and 1, an image that is not a patch,
            too few patches for both classes in every split.
        WriteError: not enough disk space for the pack.
    """
    on_disk = pack.listed(folder / "train", suffix=SUFFIX) if (folder / "train").is_dir() else None
    labels, slides = _table(folder, [] if on_disk is None else on_disk.names)
    ids = sorted(labels)
    images = _images_of(on_disk, ids)
    packed = pack.open_pack(images, cache_folder.cache_folders(folder), progress=progress) if cached else None
    patches = TiffPatches([folder / "train" / name for name in images.names]) if packed is None else packed.patches
    digests = pack.hash_images(images, progress=progress) if packed is None else packed.digests
    y = np.array([labels[name] for name in ids], np.uint8)
    slide_of = [slides[name] for name in ids] if slides is not None else None
    groups: Sequence[Hashable] = digests if slide_of is None else _joined(slide_of, digests)
    parts = assign(y, groups, seed=seed)
    for number, name in enumerate(SPLITS):
        if len(np.unique(y[parts == number])) < 2:
            raise DataError(
                f"{folder}: {len(y)} patches in {len(set(groups))} groups (slides or different patches), "
                f"too few for both classes in the {name} split; add patches"
            )
    sizes = np.array(images.sizes, np.int64)
    parts_by_name = {}
    for name in splits:
        rows = np.flatnonzero(parts == SPLITS.index(name))
        indices = rows.tolist()
        parts_by_name[name] = Split(
            name,
            PatchView(patches, rows),
            y[rows],
            [ids[index] for index in indices],
            None if slide_of is None else [slide_of[index] for index in indices],
            int(sizes[rows].sum()),
            tuple(digests[index] for index in indices),
        )
    return parts_by_name


def unlabelled(folder: Path) -> int:
    """Return the number of images in a folder, such as ``test`` of the competition."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.name.endswith(SUFFIX) for entry in entries)
    except OSError:
        return 0


def _table(folder: Path, images: Iterable[str]) -> tuple[dict[str, int], dict[str, str] | None]:
    """Return label and, if known, slide of every id, after checking that ids and images match.

    Raises:
        DataError: see ``load_kaggle``.
    """
    path = folder / LABELS
    if not path.is_file():
        raise DataError(f"{path}: no such file; the competition's folder has train/*.tif and {LABELS}")
    rows = table.read_table(path, ("id", "label"))
    labels: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        if row["label"] not in ("0", "1"):
            raise DataError(f"{path}: label {row['label']!r} in line {number}, expected 0 or 1")
        if row["id"] in labels:
            raise DataError(f"{path}: duplicate id {row['id']} in line {number}")
        labels[row["id"]] = int(row["label"])
    on_disk = {name.removesuffix(SUFFIX) for name in images}
    if missing := sorted(labels.keys() - on_disk):
        raise DataError(f"{path}: no image train/{missing[0]}.tif for its id ({len(missing)} such ids)")
    if extra := sorted(on_disk - labels.keys()):
        raise DataError(f"{folder / 'train' / extra[0]}.tif: no row in {LABELS} ({len(extra)} such images)")
    if rows and "wsi" in rows[0]:
        return labels, {row["id"]: row["wsi"] for row in table.read_table(path, ("id", "wsi"))}
    for name in SLIDES:
        if (folder / name).is_file():
            slides = {row["id"]: row["wsi"] for row in table.read_table(folder / name, ("id", "wsi"))}
            if missing := sorted(labels.keys() - slides.keys()):
                raise DataError(f"{folder / name}: no slide for id {missing[0]} ({len(missing)} such ids)")
            return labels, slides
    return labels, None


def _images_of(on_disk: pack.Images | None, ids: Sequence[str]) -> pack.Images:
    """Return the images of these ids, in their order; ``_table`` has checked that all of them exist."""
    if on_disk is None:
        return pack.Images(Path(), (), (), ())
    rows = {name: row for row, name in enumerate(on_disk.names)}
    return on_disk.take([rows[f"{name}{SUFFIX}"] for name in ids])


class TiffPatches:
    """Image files indexed like an array; each is decoded when it is indexed."""

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


def _joined(slides: Sequence[str], digests: Sequence[bytes]) -> list[Hashable]:
    """Return the group of each patch: its slide, merged with slides that share a patch."""
    parent: dict[str, str] = {slide: slide for slide in slides}

    def root(slide: str) -> str:
        while parent[slide] != slide:
            parent[slide] = slide = parent[parent[slide]]
        return slide

    first: dict[bytes, str] = {}
    for slide, digest in zip(slides, digests, strict=True):
        parent[root(slide)] = root(first.setdefault(digest, slide))
    return [root(slide) for slide in slides]


def assign(labels: np.ndarray, groups: Sequence[Hashable], *, seed: int) -> np.ndarray:
    """Return the split number of every patch, int (N,): whole groups, close to 80/10/10 in both classes.

    The groups are shuffled with the seed and sorted by size, largest first. Each is assigned to the split that keeps
    the sizes per class, relative to their targets, closest to 80/10/10.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    order = list(members.values())
    order = [order[position] for position in np.random.default_rng(seed).permutation(len(order))]
    order.sort(key=len, reverse=True)
    truth = labels.tolist()
    target = [[max(SHARES[name] * truth.count(label), 1e-9) for label in (0, 1)] for name in SPLITS]
    filled = [[0.0, 0.0] for _ in SPLITS]
    parts = [0] * len(truth)
    for indices in order:  # Python numbers: numpy arrays of two take ten times as long, with up to 220,025 groups
        positives = sum(map(truth.__getitem__, indices))
        more = (len(indices) - positives, positives)
        # increase of the sum of filled^2 / target: smallest for the emptiest split
        rise = [
            ((no + more[0]) * (no + more[0]) - no * no) / target_no
            + ((yes + more[1]) * (yes + more[1]) - yes * yes) / target_yes
            for (no, yes), (target_no, target_yes) in zip(filled, target, strict=True)
        ]
        part = rise.index(min(rise))
        filled[part][0] += more[0]
        filled[part][1] += more[1]
        for index in indices:
            parts[index] = part
    return np.array(parts, int)
