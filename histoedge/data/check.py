"""What a data set holds, before anything is trained on it: counts, duplicates, leaks, hashes."""

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
    """One split: every patch was read and hashed.

    ``positives`` patches have label 1. ``slides`` and ``slides_across`` (slides that another split holds too) are None
    where slides are not known. ``duplicates_inside`` patches repeat the pixels of an earlier one of this split;
    ``duplicates_across`` patches have pixels that another split holds too. ``ids_wrong`` patches have an id that looks
    like a SHA-1 and is not that of their pixels, ``first_wrong_id`` among them; None where ids are no SHA-1.
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
    """What ``check`` found, split by split; ``notes`` say what else lies there."""

    source: str
    splits: tuple[SplitReport, ...]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return dataclasses.asdict(self)

    def rows(self) -> list[dict[str, Any]]:
        """One row per split for a table: what is not known of any split is left out, the hash is shortened."""
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
        known = [name for name in (rows[0] if rows else ()) if any(row[name] is not None for row in rows)]
        return [{name: row[name] for name in known} for row in rows]


def check(source: str, *, seed: int = 0, cache: bool = True, progress: Progress = silent) -> DataReport:
    """Say what is in DATA: every patch is read once, or was before, where the cache of DATA has its digest.

    Args:
        source: a folder in PatchCamelyon's or the Kaggle layout, or the word ``synthetic``.
        seed: of the split of a Kaggle folder, and of synthetic patches.
        cache: whether the cache of DATA is read and written.
        progress: told of patches hashed, and of every split.

    Raises:
        DataError: not a data set, or one with a fault, also one found while reading; the message says where.
    """
    splits = list(sources.load(source, seed=seed, cache=cache, progress=progress).values())
    for done, split in enumerate(splits, start=1):
        progress("read, splits", done, len(splits), f"{split.name}: {len(split.digests)} patches")
    found = tuple(_report(split, [other for other in splits if other is not split]) for split in splits)
    return DataReport(source, found, _notes(Path(source)))


def _notes(folder: Path) -> tuple[str, ...]:
    unlabelled = kaggle.unlabelled(folder / "test")
    if not unlabelled:
        return ()
    return (
        f"{folder / 'test'}: {unlabelled} images without labels, not used; to predict them: "
        f"histoedge predict MODEL {folder / 'test'} --csv submission.csv",
    )


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
