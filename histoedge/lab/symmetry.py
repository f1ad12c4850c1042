"""Networks that answer alike however the slide lies on the glass: the eight orientations built in.

Tissue has no up. A group-equivariant network (Cohen and Welling 2016; for this data Veeling et al. 2018) holds one
kernel for each eighth of a layer's channels and applies it in the eight orientations of the square. Here it is trained
in that form, with an eighth of the parameters, and deployed as the plain convolutions it stands for: nothing after
training knows of it. Channels come in eight blocks of c, one for each orientation: channel ``g * c + i`` is feature i
as orientation g sees it, and the kernel of block 0 decides all others.
"""

from typing import Any

import numpy as np

from histoedge.edge.errors import ConfigError
from histoedge.lab import weights as keras_weights
from histoedge.lab.architecture import PATCH_PX, Network, Row
from histoedge.lab.weights import Arrays

ORIENTATIONS = 8


def _turned(ops: Any, orientation: int, square: Any) -> Any:
    """A square (side, side, ...) in one of the eight orientations: mirrored for the last four, then turned."""
    mirrored, quarters = divmod(orientation, 4)
    if mirrored:
        square = ops.flip(square, axis=1)
    if quarters % 2:
        square = ops.swapaxes(square, 0, 1)
    if quarters in (1, 2):
        square = ops.flip(square, axis=0)
    return ops.flip(square, axis=1) if quarters in (2, 3) else square


def _orders() -> np.ndarray:
    """For each orientation g which block of input channels each block of its kernel meets: h -> g^-1 h, (8, 8)."""
    grid = np.arange(9).reshape(3, 3)
    seen = {_turned(np, g, grid).tobytes(): g for g in range(ORIENTATIONS)}

    def product(a: int, b: int) -> int:
        return seen[_turned(np, a, _turned(np, b, grid)).tobytes()]

    inverse = [next(b for b in range(ORIENTATIONS) if product(a, b) == 0) for a in range(ORIENTATIONS)]
    return np.array([[product(inverse[g], h) for h in range(ORIENTATIONS)] for g in range(ORIENTATIONS)])


ORDERS = _orders()


def kernel(ops: Any, shared: Any, *, lifts: bool) -> Any:
    """The plain kernel (k, k, in, 8 c) that a shared one (k, k, in, c) stands for.

    Args:
        ops: ``numpy`` or ``keras.ops``.
        shared: the kernel of block 0.
        lifts: whether the input is the image, whose channels have no orientation.
    """
    side, _, channels, features = shared.shape
    blocks = ops.reshape(shared, (side, side, -1, channels if lifts else channels // ORIENTATIONS, features))
    turned = []
    for g in range(ORIENTATIONS):
        met = blocks if lifts else ops.take(blocks, ORDERS[g], axis=2)
        turned.append(_turned(ops, g, ops.reshape(met, shared.shape)))
    return ops.concatenate(turned, axis=-1)


def head_kernel(ops: Any, shared: Any) -> Any:
    """The plain head kernel (k, k, 8 c, 1), whose answer no orientation changes, of a shared one (k, k, c, 1)."""
    return ops.concatenate([_turned(ops, g, shared) for g in range(ORIENTATIONS)], axis=2)


def require(network: Network) -> None:
    """Pass a network that can hold the eight orientations.

    Raises:
        ConfigError: a row that cannot, and why.
    """
    size = PATCH_PX
    for name, row in network.layers:
        where = f"network {network.name}, layer {name}: symmetric training"
        if (size - row.kernel) % row.stride:
            raise ConfigError(
                f"{where} needs windows that reach both edges; {row.kernel} px windows {row.stride} px apart leave "
                f"{(size - row.kernel) % row.stride} of {size} px over; choose another kernel or stride"
            )
        if row.kind == "conv" and row.channels % ORIENTATIONS:
            raise ConfigError(f"{where} needs a multiple of {ORIENTATIONS} channels, found {row.channels}")
        if row.kind == "conv" and row.bias:
            raise ConfigError(f"{where} has no bias before a batch norm; leave it out")
        size = (size - row.kernel) // row.stride + 1


def expanded(network: Network, arrays: Arrays) -> Arrays:
    """The weights of the plain network, from those of its symmetric form."""
    plain: Arrays = {}
    for name, row in network.layers:
        for key in (key for key in arrays if key.startswith((f"{name}/", f"{name}_norm/"))):
            value = arrays[key]
            if key == f"{name}/kernel":
                value = head_kernel(np, value) if row.kind == "head" else kernel(np, value, lifts=name == "stem")
            elif row.kind == "conv":
                value = np.tile(value, ORIENTATIONS)
            plain[key] = np.ascontiguousarray(value)
    return plain


def shared(network: Network, arrays: Arrays) -> Arrays:
    """The weights of the symmetric form, from those of the plain network that ``expanded`` gave: block 0."""
    first: Arrays = {}
    for name, row in network.layers:
        for key in (key for key in arrays if key.startswith((f"{name}/", f"{name}_norm/"))):
            value = arrays[key]
            if row.kind == "conv":
                value = value[..., : value.shape[-1] // ORIENTATIONS]
            elif key == f"{name}/kernel":
                value = value[:, :, : value.shape[2] // ORIENTATIONS]
            first[key] = np.ascontiguousarray(value)
    return first


def alike(ranking: Arrays) -> Arrays:
    """A ranking of channels in which a feature counts alike in all orientations, so that all or none are kept."""
    return {
        name: np.tile(value.reshape(ORIENTATIONS, -1).mean(axis=0), ORIENTATIONS) for name, value in ranking.items()
    }


def build(keras: Any, network: Network) -> Any:
    """A Keras 3 model of the network in its symmetric form, to be trained: input and output as ``network.build``.

    Raises:
        ConfigError: a row that cannot hold the eight orientations.
    """
    require(network)
    return keras_weights.build(
        keras, network, convolution=lambda row, name: _convolution(keras, row, name), blocks=ORIENTATIONS
    )


def _convolution(keras: Any, row: Row, name: str) -> Any:
    """The layer of a ``conv`` or ``head`` row with a shared kernel."""
    ops = keras.ops

    class Convolution(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name=name, **({"dtype": "float32"} if row.kind == "head" else {}))

        def build(self, shape: tuple[int, ...]) -> None:
            inputs, outputs, fans = shape[-1], row.channels // ORIENTATIONS, shape[-1]
            if row.kind == "head":
                inputs, outputs = inputs // ORIENTATIONS, 1
                self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")
            spread = (2 / (row.kernel**2 * fans)) ** 0.5  # He et al. 2015, over what the plain kernel sums
            start = keras.initializers.RandomNormal(stddev=spread)
            self.kernel = self.add_weight(
                shape=(row.kernel, row.kernel, inputs, outputs), initializer=start, name="kernel"
            )

        def call(self, tensor: Any) -> Any:
            weights = ops.cast(self.kernel, tensor.dtype)
            if row.kind == "head":
                return ops.conv(tensor, head_kernel(ops, weights), row.stride, "valid") + self.bias
            return ops.conv(tensor, kernel(ops, weights, lifts=name == "stem"), row.stride, "valid")

    return Convolution()
