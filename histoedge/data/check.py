"""Check a data set before training: counts, duplicates, leaks between splits, hashes."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoedge.data import kaggle, sources
from histoedge.data.kaggle import SHA1
from histoedge.data.split import Split
from histoedge.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """One split, all patches read and hashed.

    ``positives`` counts label 1. ``slides`` and ``slides_across`` (slides that are in another split too) are None if
    the slides are unknown. ``duplicates_inside`` counts patches with the pixels of an earlier patch of this split,
    ``duplicates_across`` patches whose pixels are in another split too. ``ids_wrong`` counts ids that look like a
    SHA-1 but are not the one of their pixels, ``first_wrong_id`` is the first of them; None if ids are not SHA-1.
    """

    split: str
    patches: int
    positives: int
    slides: int | None
    slides_across: int | None
    size_bytes: int
    duplicates_inside: int
    duplicates_across: int
    ids_wrong: int | None
    first_wrong_id: str | None
    content_hash: str


@dataclass(frozen=True)
class DataReport:
    """The result of ``check``: one report per split, and notes about files that are not used."""

    source: str
    splits: tuple[SplitReport, ...]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return dataclasses.asdict(self)

    def rows(self) -> list[dict[str, Any]]:
        """Return one table row per split; columns without any value are omitted, the hash is shortened."""
        rows = []
        for split in self.splits:
            row = {
                "split": split.split,
                "patches": split.patches,
                "positives": split.positives,
                "slides": split.slides,
                "slides across": split.slides_across,
                "MB": round(split.size_bytes / 1e6, 1),
                "duplicates inside": split.duplicates_inside,
                "across": split.duplicates_across,
                "ids wrong": split.ids_wrong,
                "first wrong id": split.first_wrong_id,
                "content hash": split.content_hash[:12],
            }
            rows.append(row)
        columns = [name for name in (rows[0] if rows else ()) if any(row[name] is not None for row in rows)]
        return [{name: row[name] for name in columns} for row in rows]


def check(source: str, *, seed: int = 0, cache: bool = True, progress: Progress = silent) -> DataReport:
    """Check DATA: every patch is read once, unless its digest is in the cache of DATA.

    Args:
        source: a folder in PatchCamelyon's or the Kaggle layout, or the word ``synthetic``.
        seed: seed of the split of a Kaggle folder and of synthetic patches.
        cache: whether the cache of DATA is read and written.
        progress: called with the patches hashed, and after each split.

    Raises:
        DataError: not a data set, or a faulty one; the message names the place.
    """
    splits = list(sources.load(source, seed=seed, cache=cache, progress=progress).values())
    for done, split in enumerate(splits, start=1):
        progress("read, splits", done, len(splits), f"{split.name}: {len(split.digests)} patches")
    reports = tuple(_report(split, [other for other in splits if other is not split]) for split in splits)
    return DataReport(source, reports, _notes(Path(source)))


def _report(split: Split, others: list[Split]) -> SplitReport:
    elsewhere = {digest for other in others for digest in other.digests}
    hashed = [(name, digest) for name, digest in zip(split.ids, split.digests, strict=True) if SHA1.fullmatch(name)]
    wrong = [name for name, digest in hashed if name != digest.hex()]
    slides = set(split.slides) if split.slides is not None else None
    slides_elsewhere = {slide for other in others for slide in other.slides or ()}
    return SplitReport(
        split=split.name,
        patches=len(split.labels),
        positives=int(split.labels.sum()),
        slides=None if slides is None else len(slides),
        slides_across=None if slides is None else len(slides & slides_elsewhere),
        size_bytes=split.size_bytes,
        duplicates_inside=sum(count - 1 for count in Counter(split.digests).values()),
        duplicates_across=sum(digest in elsewhere for digest in split.digests),
        ids_wrong=len(wrong) if hashed else None,
        first_wrong_id=wrong[0] if wrong else None,
        content_hash=split.content_hash,
    )


def _notes(folder: Path) -> tuple[str, ...]:
    unlabelled = kaggle.unlabelled(folder / "test")
    if not unlabelled:
        return ()
    return (
        f"{folder / 'test'}: {unlabelled} images without labels, not used; to predict them: "
        f"histoedge predict MODEL {folder / 'test'} --csv submission.csv",
    )
