"""Explanations as files: a picture of each image, a contact sheet of a split, and the evidence of both."""

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
    """The result of ``explain``: ``images`` are rows of ``Explanation.as_json`` with the path of their ``picture``.

    ``temperature`` is that of all probabilities in the rows and pictures.
    """

    images: tuple[dict[str, Any], ...]
    evidence: tuple[Evidence, ...]
    contact_sheet: Path | None
    temperature: float


def explain(
    model: Model, paths: Sequence[Path], split: Split | None, out: Path, *, progress: Progress = silent
) -> Explained:
    """Explain and draw each image; of a split, draw a contact sheet of the most confident patches.

    Args:
        model: see ``open_model``.
        paths: images, each an RGB patch of the model's size.
        split: the valid split, never test, because the results may influence the next training.
        out: folder of the pictures, ``<id>.explained.png`` and ``contact_sheet.png``.
        progress: called after each image and each chunk of patches.

    Raises:
        ConfigError, DataError: see ``images``.
        WriteError: ``out`` cannot be written.
    """
    rows: list[dict[str, Any]] = []
    evidence: list[Evidence] = []
    sheet = None
    for explained in attribution.images(model, paths, progress=progress):
        picture = out / f"{explained.id}.explained.png"  # the name differs from that of any explained image
        draw.explanation(explained, picture, model=model.name)
        rows.append({**explained.as_json(), "picture": str(picture)})
    if rows:
        evidence += attribution.evidence_of_images(model, rows)
    if split is not None:
        probabilities = attribution.probabilities(model, split, progress=progress)
        kinds = attribution.most_confident(split.labels, probabilities, model.threshold)
        sheet = out / "contact_sheet.png"
        draw.contact_sheet(split, kinds, probabilities, sheet, model=model)
        evidence += attribution.evidence_of_split(model, split, progress=progress)
    return Explained(images=tuple(rows), evidence=tuple(evidence), contact_sheet=sheet, temperature=model.temperature)
