"""Explanations drawn: a picture of each image, a contact sheet of a split, and the evidence of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoedge.data import Split
from histoedge.explanation import attribution, draw
from histoedge.explanation.attribution import Evidence, Model
from histoedge.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What was found and drawn: ``images`` are rows of ``Explanation.as_json`` with the path of their ``picture``."""

    images: tuple[dict[str, Any], ...]
    evidence: tuple[Evidence, ...]
    contact_sheet: Path | None


def explain(
    model: Model, paths: Sequence[Path], split: Split | None, out: Path, *, progress: Progress = silent
) -> Explained:
    """Explain and draw each image, and of a split a contact sheet of the patches that the model is surest of.

    Args:
        model: see ``exported`` and ``from_weights``.
        paths: images, each a 96 x 96 RGB patch.
        split: the valid split, never test: what is learnt here may change what is trained next.
        out: folder of the pictures, ``<id>.explained.png`` and ``contact_sheet.png``.
        progress: called as each image and chunk of patches is done.

    Raises:
        ConfigError, DataError: as ``images``.
        WriteError: ``out`` cannot be written.
    """
    rows: list[dict[str, Any]] = []
    found: list[Evidence] = []
    sheet = None
    for made in attribution.images(model, paths, progress=progress):
        picture = out / f"{made.id}.explained.png"  # never the name of an image that is explained
        draw.explanation(made, picture, model=model.name)
        rows.append({**made.as_json(), "picture": str(picture)})
    if rows:
        found += attribution.of_images(model, rows)
    if split is not None:
        answers = attribution.probabilities(model, split, progress=progress)
        kinds = attribution.most_confident(split.labels, answers, model.threshold)
        sheet = out / "contact_sheet.png"
        draw.contact_sheet(split, kinds, answers, sheet, model=model.name)
        found += attribution.of_split(model, split, progress=progress)
    return Explained(images=tuple(rows), evidence=tuple(found), contact_sheet=sheet)
