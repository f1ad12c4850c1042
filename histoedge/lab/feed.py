"""How training patches reach the compiled step: held where Keras computes, or read ahead from disk.

Held, they are there once, as uint8: the array is made empty and filled block by block, and a step is given numbers.
Streamed, a step is given pixels that several threads have read ahead. The order of patches is the same, and the network
sees the same integers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from histoedge.data import CHUNK_PATCHES, Split
from histoedge.lab import batches
from histoedge.lab.backend import Devices
from histoedge.progress import Progress, silent


@dataclass(frozen=True)
class Feed:
    """Where a network that is trained takes its patches from.

    ``inputs`` is a symbolic tensor of what a step is given, ``pixels`` the uint8 (n, 96, 96, 3) that come of it.
    ``rows`` gives of patch numbers int (n,) what a step is given; ``readers`` threads read it ahead, where not 0.
    """

    inputs: Any
    pixels: Any
    rows: Callable[[np.ndarray], np.ndarray]
    readers: int


def streamed(keras: Any, split: Split) -> Feed:
    """Patches are read from disk, batch by batch, while the step before them is computed."""
    patches = keras.Input(split.patches.shape[1:], dtype="uint8")
    return Feed(patches, patches, lambda numbers: split.patches[numbers], batches.READERS)


def held(keras: Any, split: Split, *, devices: Devices, progress: Progress = silent) -> Feed:
    """Patches lie where Keras computes, one copy of them; of several devices each holds its part.

    ``placement.HOLDING`` says with which backend and device.
    """
    numbers = keras.Input((), dtype="int32")
    layer = layer_of(keras, split, devices=devices, progress=progress)
    return Feed(numbers, layer(numbers), lambda chosen: chosen.astype(np.int32), 0)


def layer_of(keras: Any, split: Split, *, devices: Devices, progress: Progress = silent) -> Any:
    """A layer that holds all patches of the split as uint8: numbers int32 (n,) -> (n, 96, 96, 3)."""
    backend = keras.backend.backend()
    filled = _FILLED[backend](split, devices, progress)

    class Held(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name="patches", trainable=False)
            self.patches = keras.Variable(
                filled, dtype="uint8", trainable=False, name="patches", layout=devices.split_layout(len(filled.shape))
            )

        def call(self, numbers: Any) -> Any:
            if backend == "tensorflow":  # reading a variable that was filled in its place would copy all of it
                import tensorflow

                return tensorflow.gather(self.patches.value, numbers)
            return keras.ops.take(self.patches, numbers, axis=0)

    return Held()


def _blocks(split: Split, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    for row in range(start, stop, CHUNK_PATCHES):
        yield row, np.asarray(split.patches[row : min(row + CHUNK_PATCHES, stop)])


def _filled_tensorflow(split: Split, devices: Devices, progress: Progress) -> Any:
    import tensorflow as tf

    shape = split.patches.shape
    variable = tf.Variable(tf.raw_ops.Empty(shape=shape, dtype=tf.uint8, init=False), trainable=False)
    for row, block in _blocks(split, 0, shape[0]):
        rows = np.arange(row, row + len(block), dtype=np.int32)
        tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=block)
        progress("read the training patches", row + len(block), shape[0])
    return variable


def _filled_jax(split: Split, devices: Devices, progress: Progress) -> Any:
    """On each device of this process its part of the patches; the last part is filled up with zeros."""
    import jax

    count, *rest = split.patches.shape
    share = -(-count // devices.count)
    sharding = devices.split_layout(4)
    here = jax.local_devices() if devices.count > 1 else jax.local_devices()[:1]
    write = jax.jit(
        lambda array, block, row: jax.lax.dynamic_update_slice(array, block, (row, 0, 0, 0)), donate_argnums=0
    )
    parts = []
    for device in here:
        first = share * jax.devices().index(device)
        part = jax.device_put(jax.numpy.zeros((share, *rest), np.uint8, device=device), device)
        for row, block in _blocks(split, first, min(first + share, count)):
            part = write(part, block, row - first)
            progress("read the training patches", row + len(block), count)
        parts.append(part)
    if sharding is None:
        return parts[0]
    return jax.make_array_from_single_device_arrays((share * devices.count, *rest), sharding.backend_layout, parts)


_FILLED: dict[str, Callable[[Split, Devices, Progress], Any]] = {"tensorflow": _filled_tensorflow, "jax": _filled_jax}
