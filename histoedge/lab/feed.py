"""Input of the compiled training step: patches stored on the device, or prefetched from disk.

On the device there is a single uint8 copy: an empty array is filled block by block, and the step receives patch
indices. From disk, the step receives pixels that several threads prefetched. Both have the same order of patches and
the same integers.
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
    """The source of a training step's patches.

    Attributes:
        inputs: symbolic tensor of the step's inputs.
        pixels: symbolic tensor uint8 (n, 96, 96, 3), computed from ``inputs``.
        rows: function from patch indices int (n,) to the step's inputs.
        readers: number of prefetch threads that call ``rows``; 0 for none.
    """

    inputs: Any
    pixels: Any
    rows: Callable[[np.ndarray], np.ndarray]
    readers: int


def from_disk(keras: Any, split: Split) -> Feed:
    """Return a feed that reads patches from disk, batch by batch, during the previous step."""
    patches = keras.Input(split.patches.shape[1:], dtype="uint8")
    return Feed(patches, patches, lambda indices: split.patches[indices], batches.READERS)


def on_device(keras: Any, split: Split, *, devices: Devices, progress: Progress = silent) -> Feed:
    """Return a feed with one copy of the patches where Keras computes; with several devices, each stores a part.

    ``placement.DEVICE_STORAGE`` lists the supported backends and devices.
    """
    indices = keras.Input((), dtype="int32")
    layer = patches_layer(keras, split, devices=devices, progress=progress)
    return Feed(indices, layer(indices), lambda selection: selection.astype(np.int32), 0)


def patches_layer(keras: Any, split: Split, *, devices: Devices, progress: Progress = silent) -> Any:
    """Return a layer that stores all patches of the split as uint8: indices int32 (n,) -> pixels (n, 96, 96, 3)."""
    backend = keras.backend.backend()
    filled = _FILL[backend](split, devices, progress)

    class Patches(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name="patches", trainable=False)
            self.patches = keras.Variable(
                filled, dtype="uint8", trainable=False, name="patches", layout=devices.split_layout(len(filled.shape))
            )

        def call(self, indices: Any) -> Any:
            if backend == "tensorflow":  # keras.ops.take would copy a variable that was filled in place
                import tensorflow

                return tensorflow.gather(self.patches.value, indices)
            return keras.ops.take(self.patches, indices, axis=0)

    return Patches()


def _blocks(split: Split, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    for row in range(start, stop, CHUNK_PATCHES):
        yield row, np.asarray(split.patches[row : min(row + CHUNK_PATCHES, stop)])


def _fill_tensorflow(split: Split, devices: Devices, progress: Progress) -> Any:
    import tensorflow as tf

    shape = split.patches.shape
    variable = tf.Variable(tf.raw_ops.Empty(shape=shape, dtype=tf.uint8, init=False), trainable=False)
    for row, block in _blocks(split, 0, shape[0]):
        rows = np.arange(row, row + len(block), dtype=np.int32)
        tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=block)
        progress("read training patches", row + len(block), shape[0])
    return variable


def _fill_jax(split: Split, devices: Devices, progress: Progress) -> Any:
    """Return an array with one part of the patches per device of this process; zeros pad the last part."""
    import jax

    count, *rest = split.patches.shape
    share = -(-count // devices.count)
    sharding = devices.split_layout(4)
    local = jax.local_devices() if devices.count > 1 else jax.local_devices()[:1]
    write = jax.jit(
        lambda array, block, row: jax.lax.dynamic_update_slice(array, block, (row, 0, 0, 0)), donate_argnums=0
    )
    parts = []
    for device in local:
        first = share * jax.devices().index(device)
        part = jax.device_put(jax.numpy.zeros((share, *rest), np.uint8, device=device), device)
        for row, block in _blocks(split, first, min(first + share, count)):
            part = write(part, block, row - first)
            progress("read training patches", row + len(block), count)
        parts.append(part)
    if sharding is None:
        return parts[0]
    return jax.make_array_from_single_device_arrays((share * devices.count, *rest), sharding.backend_layout, parts)


_FILL: dict[str, Callable[[Split, Devices, Progress], Any]] = {"tensorflow": _fill_tensorflow, "jax": _fill_jax}
