"""Batches of patches in an order that depends only on (seed, epoch)."""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from histoedge.data import Split
from histoedge.progress import Progress, silent

READERS = 2  # prefetch threads: one waits for the disk while the other copies
READ_AHEAD = 8  # batches


def order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return a permutation of ``range(count)``, the same for the same seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def draw_subset(split: Split, count: int | None, *, seed: int) -> Split:
    """Return ``count`` random patches of the split, or the split itself if it has no more."""
    total = len(split.labels)
    if count is None or count >= total:
        return split
    return split.subset(np.sort(order(total, seed=seed, epoch=0)[:count]))


def dataset(
    keras: Any,
    rows: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    *,
    batch: int,
    seed: int,
    epoch: int,
    readers: int = 0,
    multiple: int = 1,
    part: slice = slice(None),
) -> Any:
    """Return a ``PyDataset`` of (inputs from ``rows``, labels float32 (n, 1)) for one epoch.

    The attribute ``fault`` of the dataset is the error that ``rows`` raised; Keras wraps it in an error of its own.

    Args:
        keras: Keras 3.
        rows: function from sorted patch indices int (n,) to the network's inputs; called from several threads.
        labels: (N,), of all patches.
        batch: batch size; the last batch of an epoch may be smaller.
        seed: seed of the order.
        epoch: epoch number, which also determines the order.
        readers: number of prefetch threads, which run until ``close``; with 0, a batch is read on request.
        multiple: the size of each batch is a multiple of this; patches left over at the end of the epoch are dropped.
        part: shares of a batch, of ``multiple`` equal ones, that this process trains on.
    """
    indices = order(len(labels), seed=seed, epoch=epoch)
    indices = indices[: len(indices) // multiple * multiple]

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        selection = np.sort(indices[number * batch : (number + 1) * batch])
        selection = selection.reshape(multiple, -1)[part].reshape(-1)
        return rows(selection), labels[selection, None].astype(np.float32)

    class Batches(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
        """Prefetches with its own threads: Keras' queue drops the batch it inspects before training (JAX, 3.15)."""

        fault: Exception | None = None

        def __init__(self) -> None:
            super().__init__()
            self._threads = ThreadPoolExecutor(readers) if readers else None
            self._pending: dict[int, Future[tuple[np.ndarray, np.ndarray]]] = {}

        def __len__(self) -> int:
            return math.ceil(len(indices) / batch)

        def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
            try:
                if self._threads is None:
                    return read(number)
                for ahead in range(number, min(number + READ_AHEAD, len(self))):
                    if ahead not in self._pending:
                        self._pending[ahead] = self._threads.submit(read, ahead)
                return self._pending.pop(number).result()
            except Exception as fault:
                self.fault = fault
                raise

        def close(self) -> None:
            """Stop the prefetch threads."""
            if self._threads is not None:
                self._threads.shutdown(cancel_futures=True)

    return Batches()


def logits_in_batches(
    predict: Callable[[np.ndarray], Any],
    split: Split,
    *,
    batch: int = 256,
    progress: Progress = silent,
    label: str = "",
) -> np.ndarray:
    """Return the logits of a split, float32 (N,).

    Args:
        predict: function from float32 pixels (n, 96, 96, 3) in 0..1 to n logits.
        split: the patches.
        batch: patches per call.
        progress: called after each batch.
        label: name of the work for ``progress``, for example ``train edge, valid patches``.
    """
    parts = []
    count = len(split.labels)
    for start in range(0, count, batch):
        pixels = split.patches[start : start + batch].astype(np.float32) / 255.0
        parts.append(np.asarray(predict(pixels)).reshape(len(pixels)))
        progress(label, start + len(pixels), count)
    return np.concatenate(parts).astype(np.float32)
