"""Batches of patches in an order that (seed, epoch) alone decides."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from histoedge.data import Split


def order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """A permutation of ``range(count)``, the same for the same seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def drawn(split: Split, count: int | None, *, seed: int) -> Split:
    """``count`` patches of the split, drawn by the seed and read into memory; the split itself where that is all."""
    total = len(split.labels)
    if count is None or count >= total:
        return split
    chosen = np.sort(order(total, seed=seed, epoch=0)[:count])
    return Split(split.name, split.patches[chosen], split.labels[chosen], [split.ids[row] for row in chosen])


def dataset(keras: Any, split: Split, *, batch: int, seed: int, epoch: int) -> Any:
    """A ``PyDataset`` of (uint8 (n, 96, 96, 3), float32 (n, 1)) over one epoch; read from disk batch by batch."""
    indices = order(len(split.labels), seed=seed, epoch=epoch)

    class Batches(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return math.ceil(len(indices) / batch)

        def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
            chosen = np.sort(indices[number * batch : (number + 1) * batch])
            return split.patches[chosen], split.labels[chosen, None].astype(np.float32)

    return Batches()


def numbered(keras: Any, targets: np.ndarray, *, batch: int, seed: int, epoch: int) -> Any:
    """A ``PyDataset`` of (patch number int32 (n,), target float32 (n, 1)) over one epoch, for patches on the device."""
    indices = order(len(targets), seed=seed, epoch=epoch).astype(np.int32)

    class Numbered(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return math.ceil(len(indices) / batch)

        def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
            chosen = np.sort(indices[number * batch : (number + 1) * batch])
            return chosen, targets[chosen, None].astype(np.float32)

    return Numbered()


def logits(answer: Callable[[np.ndarray], Any], split: Split, *, batch: int = 256) -> np.ndarray:
    """The logits, float32 (N,), that a function of float32 pixels (n, 96, 96, 3) in 0..1 gives over a whole split."""
    parts = []
    for start in range(0, len(split.labels), batch):
        pixels = split.patches[start : start + batch].astype(np.float32) / 255.0
        parts.append(np.asarray(answer(pixels)).reshape(len(pixels)))
    return np.concatenate(parts).astype(np.float32)
