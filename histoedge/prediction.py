"""Predict the positive class' probability of image files; only one batch of images is in memory at a time."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histoedge import edge, files
from histoedge.data import image
from histoedge.edge import manifest as manifests

BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """The prediction of one image. ``positive`` is the verdict at the chosen threshold or operating point."""

    path: Path
    logit: float
    probability: float
    positive: bool

    @property
    def id(self) -> str:
        """The file name without its suffix, which is the id in the Kaggle competition."""
        return self.path.stem


def images(places: Sequence[Path]) -> list[Path]:
    """Return the image files: files in the order given, folders sorted by file name (subfolders are ignored).

    Raises:
        DataError: a place that does not exist, or a folder without images.
    """
    return files.expand(places, _images_in, kind="image", suffixes=image.SUFFIXES)


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in image.SUFFIXES)


def predict(
    model: Path, paths: Sequence[Path], *, at: str | None = None, runtime: str | None = None, threads: int = 1
) -> Iterator[Prediction]:
    """Yield the prediction of each image, in the order of ``paths``; one batch is in memory at a time.

    ``at`` is the operating point for the verdict, such as ``specificity 0.95``; by default the manifest's threshold.

    Raises:
        ConfigError: the manifest has no operating point of that name.
        ModelError, RuntimeUnavailable: the model cannot be opened.
        DataError: an image is not an RGB patch of the manifest's size; the message contains its path.
    """
    manifest = manifests.read(model)
    threshold = manifest.threshold if at is None else manifest.operating_point(at).threshold
    runner = edge.load(model, runtime=runtime, threads=threads)
    for start in range(0, len(paths), BATCH):
        group = paths[start : start + BATCH]
        patches = np.stack([image.read_patch(path, patch_px=manifest.patch_px) for path in group])
        logits = runner.predict(patches).reshape(-1)
        probabilities = manifest.probability(logits)
        for path, logit, probability in zip(group, logits, probabilities, strict=True):
            positive = bool(probability >= threshold)
            yield Prediction(path, float(logit), float(probability), positive)


def write_csv(path: Path, predictions: Iterable[Prediction]) -> int:
    """Write the competition's columns ``id,label`` (label: the probability); return the number of rows."""
    rows = 0
    with files.replacing(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "label"))
        for prediction in predictions:
            table.writerow((prediction.id, f"{prediction.probability:.9g}"))
            rows += 1
    return rows
