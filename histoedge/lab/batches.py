"""Batches of patches in an order that (seed, epoch) alone decides."""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from histoedge.data import Split
from histoedge.progress import Progress, silent

READERS = 2  # threads that read ahead: one waits for the disk while the other copies
READ_AHEAD = 8  # batches


def order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """A permutation of ``range(count)``, the same for the same seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def drawn(split: Split, count: int | None, *, seed: int) -> Split:
    """``count`` patches of the split, drawn by the seed; the split itself where that is all."""
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
    """A ``PyDataset`` of (what ``rows`` gives, label float32 (n, 1)) over one epoch.

    Args:
        keras: Keras 3.
        rows: given sorted patch numbers int (n,), what the network takes for them; called by several threads.
        labels: (N,) of all patches.
        batch: patches a step; the last batch of an epoch is what is left.
        seed: of the order.
        epoch: of the order.
        readers: threads that read ahead, until ``close``; with 0 each batch is read when it is asked for.
        multiple: every batch has a multiple of so many patches; the last few, which make none, are left out.
        part: which of ``multiple`` equal shares of a batch this process takes.

    The dataset's ``fault`` is the error that ``rows`` raised: Keras hides it in one of its own.
    """
    indices = order(len(labels), seed=seed, epoch=epoch)
    indices = indices[: len(indices) // multiple * multiple]

    def read(number: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.sort(indices[number * batch : (number + 1) * batch])
        chosen = chosen.reshape(multiple, -1)[part].reshape(-1)
        return rows(chosen), labels[chosen, None].astype(np.float32)

    class Batches(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
        """Reads ahead itself: Keras' own queue loses the batch that it looks at before training (JAX, 3.15)."""

        fault: Exception | None = None

        def __init__(self) -> None:
            super().__init__()
            self._threads = ThreadPoolExecutor(readers) if readers else None
            self._waiting: dict[int, Future[tuple[np.ndarray, np.ndarray]]] = {}

        def __len__(self) -> int:
            return math.ceil(len(indices) / batch)

        def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
            try:
                if self._threads is None:
                    return read(number)
                for ahead in range(number, min(number + READ_AHEAD, len(self))):
                    if ahead not in self._waiting:
                        self._waiting[ahead] = self._threads.submit(read, ahead)
                return self._waiting.pop(number).result()
            except Exception as fault:
                self.fault = fault
                raise

        def close(self) -> None:
            """End the threads that read ahead."""
            if self._threads is not None:
                self._threads.shutdown(cancel_futures=True)

    return Batches()


def logits_in_batches(
    answer: Callable[[np.ndarray], Any],
    split: Split,
    *,
    batch: int = 256,
    progress: Progress = silent,
    what: str = "",
) -> np.ndarray:
    """The logits, float32 (N,), that a function of float32 pixels (n, 96, 96, 3) in 0..1 gives over a whole split.

    Args:
        answer: the function.
        split: whose patches it answers.
        batch: patches a call.
        progress: called after each batch, as ``what``.
        what: is done, such as ``train edge, valid patches``.
    """
    parts = []
    count = len(split.labels)
    for start in range(0, count, batch):
        pixels = split.patches[start : start + batch].astype(np.float32) / 255.0
        parts.append(np.asarray(answer(pixels)).reshape(len(pixels)))
        progress(what, start + len(pixels), count)
    return np.concatenate(parts).astype(np.float32)
