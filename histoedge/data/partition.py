"""Which patch is in which split: the official splits where there are any, whole groups drawn with a seed elsewhere.

A group is a slide, with all slides that share a patch with it, or without slides the patches with the same pixels.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

from histoedge.data.split import SPLITS
from histoedge.edge.errors import DataError

SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
NAMES = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
"""Names of splits in files and folders, in lower case."""


def divide(
    labels: np.ndarray,
    official: Sequence[str] | None,
    slides: Sequence[str] | None,
    digests: Sequence[bytes],
    *,
    seed: int,
    where: Path,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the split number of every patch, int (N,), by its place in ``SPLITS``, and the splits that were drawn.

    Official splits stay as they are. Without a valid or test split, it is drawn from train.

    Args:
        labels: uint8 (N,) of 0 and 1.
        official: the split of each patch, None if the data set has no splits.
        slides: the slide of each patch, None if unknown.
        digests: the digest of each patch.
        seed: of the drawn splits.
        where: the folder, for errors.

    Raises:
        DataError: too few groups for both classes in a drawn split, or a slide in two official splits.
    """
    if official is None:
        parts = np.zeros(len(labels), int)
        drawn: tuple[str, ...] = SPLITS
    else:
        parts = np.fromiter(map(SPLITS.index, official), int, len(labels))
        if slides is not None:
            _check_slides(parts, slides, where)
        present = {SPLITS[number] for number in np.unique(parts)}
        drawn = tuple(name for name in SPLITS if name not in present) if "train" in present else ()
    if not drawn:
        return parts, ()
    rows = np.flatnonzero(parts == 0)
    to = tuple(name for name in SPLITS if name == "train" or name in drawn)
    mine = [digests[row] for row in rows.tolist()]
    groups: Sequence[Hashable] = mine if slides is None else joined([slides[row] for row in rows.tolist()], mine)
    numbers = assign(labels[rows], groups, seed=seed, splits=to)
    for number, name in enumerate(to):
        if len(np.unique(labels[rows[numbers == number]])) < 2:
            raise DataError(
                f"{where}: {len(rows)} patches in {len(set(groups))} groups (slides or different patches), "
                f"too few for both classes in the {name} split; add patches"
            )
    parts[rows] = np.array([SPLITS.index(name) for name in to])[numbers]
    return parts, drawn


def _check_slides(parts: np.ndarray, slides: Sequence[str], where: Path) -> None:
    first: dict[str, int] = {}
    for slide, part in zip(slides, parts.tolist(), strict=True):
        if first.setdefault(slide, part) != part:
            raise DataError(
                f"{where}: slide {slide} is in {SPLITS[first[slide]]} and in {SPLITS[part]}; give all patches of a "
                "slide one split"
            )


def joined(slides: Sequence[str], digests: Sequence[bytes]) -> list[Hashable]:
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


def assign(labels: np.ndarray, groups: Sequence[Hashable], *, seed: int, splits: Sequence[str] = SPLITS) -> np.ndarray:
    """Return the number in ``splits`` of every patch, int (N,): whole groups, close to ``SHARES`` in both classes.

    The groups are shuffled with the seed and sorted by size, largest first. Each is assigned to the split that keeps
    the sizes per class, relative to their targets, closest to the shares.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    order = list(members.values())
    order = [order[position] for position in np.random.default_rng(seed).permutation(len(order))]
    order.sort(key=len, reverse=True)
    truth = labels.tolist()
    target = [[max(SHARES[name] * truth.count(label), 1e-9) for label in (0, 1)] for name in splits]
    filled = [[0.0, 0.0] for _ in splits]
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
