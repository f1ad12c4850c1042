"""Check a data set before training: counts, duplicates, leaks between splits, hashes."""

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoedge.data import sources
from histoedge.data.geometry import Geometry
from histoedge.data.layouts import kaggle
from histoedge.data.split import Split
from histoedge.progress import Progress, silent

SHA1 = re.compile(r"[0-9a-f]{40}")


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
    """The result of ``check``: layout, geometry, one report per split, and notes about what is assumed or not used."""

    source: str
    layout: str
    geometry: Geometry
    splits: tuple[SplitReport, ...]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return dataclasses.asdict(self)

    def summary(self) -> str:
        """Return layout and geometry in one line."""
        geometry = self.geometry
        negative, positive = geometry.classes
        label = "whole patch" if geometry.label_px == geometry.patch_px else f"centre {geometry.label_px} px"
        size = f"{geometry.patch_px} px, label of the {label}, {geometry.um_per_px:g} um per px"
        return f"layout {self.layout}: patches of {size}, {negative} / {positive}"

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
        source: a folder in one of ``sources.layouts``, or the word ``synthetic``.
        seed: seed of the splits that are drawn and of synthetic patches.
        cache: whether the cache of DATA is read and written.
        progress: called with the patches hashed, and after each split.

    Raises:
        DataError: not a data set, or a faulty one; the message names the place.
    """
    data_set = sources.open_data_set(source, seed=seed, cache=cache, progress=progress)
    splits = list(data_set.splits.values())
    for done, split in enumerate(splits, start=1):
        progress("read, splits", done, len(splits), f"{split.name}: {len(split.digests)} patches")
    reports = tuple(_report(split, [other for other in splits if other is not split]) for split in splits)
    notes = data_set.notes + (_unlabelled(Path(source)) if data_set.layout == "kaggle" else ())
    return DataReport(source, data_set.layout, splits[0].geometry, reports, notes)


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


def _unlabelled(folder: Path) -> tuple[str, ...]:
    unlabelled = kaggle.unlabelled(folder / "test")
    if not unlabelled:
        return ()
    return (
        f"{folder / 'test'}: {unlabelled} images without labels, not used; to predict them: "
        f"histoedge predict MODEL {folder / 'test'} --csv submission.csv",
    )
