"""Pixel statistics of a run's training patches: ``RUN/appearance.json``, copied into the manifests."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from histoedge import files
from histoedge.data import Split
from histoedge.edge import drift
from histoedge.edge.errors import ModelError

NAME = "appearance.json"
SAMPLE = 4_000  # patches


def write_appearance(run: Path, train: Split) -> None:
    """Write the statistics of a seeded sample of the training split, unless the file has them already."""
    path = run / NAME
    if path.is_file() and _read(path).get("data") == train.content_hash:
        return
    n_patches = min(SAMPLE, len(train.labels))
    files.write_json(path, {"data": train.content_hash, "n_patches": n_patches, "statistics": describe(train)})


def describe(train: Split) -> dict[str, dict[str, float]]:
    """Return ``drift.describe`` of a seeded sample of the training split."""
    rows = np.sort(np.random.default_rng(0).permutation(len(train.labels))[:SAMPLE])
    return drift.describe(train.patches[rows])


def read_appearance(run: Path, content_hash: str) -> dict[str, dict[str, float]]:
    """Return the statistics of the training split with this hash.

    Raises:
        ModelError: the file is missing, unreadable or describes other data.
    """
    path = run / NAME
    document = _read(path) if path.is_file() else {}
    if document.get("data") != content_hash:
        problem = "describes other training data" if document else "missing"
        raise ModelError(
            f"{path}: {problem}; write it with histoedge compress {run} --data DATA, with the data of the training"
        )
    statistics: dict[str, dict[str, float]] = document["statistics"]
    return statistics


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelError(
            f"{path}: not a JSON document ({error}); delete it and run histoedge compress again"
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("statistics"), dict):
        raise ModelError(f"{path}: contains no pixel statistics; delete it and run histoedge compress again")
    return document
