"""What the training patches of a run look like: ``RUN/appearance.json``, which goes into its manifests."""

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


def keep_appearance(run: Path, train: Split) -> None:
    """Write the statistics of a seeded sample of the training split, unless they are there."""
    path = run / NAME
    if path.is_file() and _read(path).get("data") == train.content_hash:
        return
    n_patches = min(SAMPLE, len(train.labels))
    files.write_json(path, {"data": train.content_hash, "n_patches": n_patches, "statistics": describe(train)})


def describe(train: Split) -> dict[str, dict[str, float]]:
    """``drift.describe`` of a seeded sample of the training split."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(train.labels))[:SAMPLE])
    return drift.describe(train.patches[chosen])


def read_appearance(run: Path, content_hash: str) -> dict[str, dict[str, float]]:
    """The statistics of the training split with that hash.

    Raises:
        ModelError: missing, unreadable or of other data.
    """
    path = run / NAME
    found = _read(path) if path.is_file() else {}
    if found.get("data") != content_hash:
        what = "of other training data" if found else "missing"
        raise ModelError(f"{path}: {what}; histoedge compress {run} --data DATA, with the run's own data, writes it")
    statistics: dict[str, dict[str, float]] = found["statistics"]
    return statistics


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"{path}: not a JSON document ({error}); delete it and compress again") from error
    if not isinstance(found, dict) or not isinstance(found.get("statistics"), dict):
        raise ModelError(f"{path}: not the statistics of a run's pixels; delete it and compress again")
    return found
