"""Symmetric networks: the same logit for the eight orientations (four turns, mirrored or not) of a patch.

Tissue has no preferred orientation. A group-equivariant network (Cohen and Welling 2016; for this data Veeling et al.
2018) applies each kernel in the eight orientations of the square. It is trained in this form, with an eighth of the
parameters, and deployed as the equivalent plain convolutions: compression and export see an ordinary network. The
channels form eight blocks of c, one per orientation: channel ``g * c + i`` is feature i in orientation g. The kernel
of block 0 determines the kernels of all blocks.
"""

from typing import Any

import numpy as np

from histoedge.edge.errors import ConfigError
from histoedge.lab import graph
from histoedge.lab import weights as keras_weights
from histoedge.lab.architecture import Network
from histoedge.lab.graph import Node, Row
from histoedge.lab.weights import Arrays

ORIENTATIONS = 8


def _orient(ops: Any, orientation: int, square: Any) -> Any:
    """Return a square (side, side, ...) in one of the eight orientations: mirrored for 4..7, then turned."""
    mirror, quarters = divmod(orientation, 4)
    if mirror:
        square = ops.flip(square, axis=1)
    if quarters % 2:
        square = ops.swapaxes(square, 0, 1)
    if quarters in (1, 2):
        square = ops.flip(square, axis=0)
    return ops.flip(square, axis=1) if quarters in (2, 3) else square


def _input_orders() -> np.ndarray:
    """Return, for each orientation g, the order g^-1 h of the input channel blocks h: int (8, 8)."""
    grid = np.arange(9).reshape(3, 3)
    numbers = {_orient(np, g, grid).tobytes(): g for g in range(ORIENTATIONS)}

    def product(a: int, b: int) -> int:
        return numbers[_orient(np, a, _orient(np, b, grid)).tobytes()]

    inverse = [next(b for b in range(ORIENTATIONS) if product(a, b) == 0) for a in range(ORIENTATIONS)]
    return np.array([[product(inverse[g], h) for h in range(ORIENTATIONS)] for g in range(ORIENTATIONS)])


INPUT_ORDERS = _input_orders()


def plain_kernel(ops: Any, shared: Any, *, on_pixels: bool) -> Any:
    """Return the plain kernel (k, k, in, 8 c) equivalent to a shared kernel (k, k, in, c).

    Args:
        ops: ``numpy`` or ``keras.ops``.
        shared: the kernel of block 0.
        on_pixels: the input is the image, whose channels have no orientation.
    """
    side, _, channels, features = shared.shape
    blocks = ops.reshape(shared, (side, side, -1, channels if on_pixels else channels // ORIENTATIONS, features))
    kernels = []
    for g in range(ORIENTATIONS):
        ordered = blocks if on_pixels else ops.take(blocks, INPUT_ORDERS[g], axis=2)
        kernels.append(_orient(ops, g, ops.reshape(ordered, shared.shape)))
    return ops.concatenate(kernels, axis=-1)


def plain_head_kernel(ops: Any, shared: Any) -> Any:
    """Return the plain head kernel (k, k, 8 c, 1), invariant to orientation, of a shared kernel (k, k, c, 1)."""
    return ops.concatenate([_orient(ops, g, shared) for g in range(ORIENTATIONS)], axis=2)


def check_network(network: Network) -> None:
    """Check that the network can be trained in symmetric form.

    Raises:
        ConfigError: a row does not fit; the message states the layer and the reason.
    """
    size, previous = network.patch_px, graph.PIXELS
    for node in network.nodes:
        name, row = node.name, node.row
        where = f"network {network.name}, layer {name}: symmetric training"
        if (reason := _not_plain(node, previous)) is not None:
            raise ConfigError(
                f"{where} requires a chain of valid convolutions with batch norm and ReLU, and of max-pools; this "
                f"{row.kind} {reason}; change the layer, or remove symmetric = true"
            )
        previous = name
        if (size - row.kernel) % row.stride:
            raise ConfigError(
                f"{where} requires windows that reach both edges; kernel {row.kernel} with stride {row.stride} leaves "
                f"{(size - row.kernel) % row.stride} of {size} px unused; choose another kernel or stride"
            )
        if row.kind == "conv" and row.channels % ORIENTATIONS:
            raise ConfigError(f"{where} requires a multiple of {ORIENTATIONS} channels, got {row.channels}")
        if row.kind == "conv" and row.bias:
            raise ConfigError(f"{where} does not support a bias before batch norm; remove bias = true")
        size = (size - row.kernel) // row.stride + 1


def _not_plain(node: Node, previous: str) -> str | None:
    """Return what a layer has or is that the orientations of a symmetric network do not have, or None."""
    row = node.row
    if row.kind not in ("conv", "maxpool", "head"):
        return "is another layer"
    if node.inputs != (previous,):
        return f"reads {', '.join(node.inputs)} instead of {previous}"
    if row.padding != "valid" or row.dilation > 1:
        return "has padding or dilation"
    if row.kind == "conv" and not row.norm:
        return "has no batch norm"
    if row.kind == "conv" and row.activated_by != "relu":
        return f"has the activation {row.activated_by}"
    return None


def expand(network: Network, arrays: Arrays) -> Arrays:
    """Return the weights of the plain network from those of the symmetric form."""
    plain: Arrays = {}
    for name, row in network.layers:
        for key in (key for key in arrays if key.startswith((f"{name}/", f"{name}_norm/"))):
            value = arrays[key]
            if key == f"{name}/kernel":
                if row.kind == "head":
                    value = plain_head_kernel(np, value)
                else:
                    value = plain_kernel(np, value, on_pixels=name == network.nodes[0].name)
            elif row.kind == "conv":
                value = np.tile(value, ORIENTATIONS)
            plain[key] = np.ascontiguousarray(value)
    return plain


def first_block(network: Network, arrays: Arrays) -> Arrays:
    """Return the weights of the symmetric form, block 0, from those of the plain network: inverse of ``expand``."""
    shared: Arrays = {}
    for name, row in network.layers:
        for key in (key for key in arrays if key.startswith((f"{name}/", f"{name}_norm/"))):
            value = arrays[key]
            if row.kind == "conv":
                value = value[..., : value.shape[-1] // ORIENTATIONS]
            elif key == f"{name}/kernel":
                value = value[:, :, : value.shape[2] // ORIENTATIONS]
            shared[key] = np.ascontiguousarray(value)
    return shared


def average_orientations(ranking: Arrays) -> Arrays:
    """Return the ranking averaged over orientations: slimming then keeps all channels of a feature or none."""
    return {
        name: np.tile(value.reshape(ORIENTATIONS, -1).mean(axis=0), ORIENTATIONS) for name, value in ranking.items()
    }


def build(keras: Any, network: Network) -> Any:
    """Return a Keras 3 model of the network in symmetric form for training; inputs and outputs as ``weights.build``.

    Raises:
        ConfigError: see ``check_network``.
    """
    check_network(network)
    first = network.nodes[0].name
    return keras_weights.build(
        keras,
        network,
        convolution=lambda row, name: _convolution(keras, row, name, on_pixels=name == first),
        blocks=ORIENTATIONS,
    )


def _convolution(keras: Any, row: Row, name: str, *, on_pixels: bool) -> Any:
    """Return the layer of a ``conv`` or ``head`` row with a shared kernel."""
    ops = keras.ops

    class Convolution(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name=name, **({"dtype": "float32"} if row.kind == "head" else {}))

        def build(self, shape: tuple[int, ...]) -> None:
            inputs, outputs, fan_in = shape[-1], row.channels // ORIENTATIONS, shape[-1]
            if row.kind == "head":
                inputs, outputs = inputs // ORIENTATIONS, 1
                self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")
            deviation = (2 / (row.kernel**2 * fan_in)) ** 0.5  # He et al. 2015, with the fan-in of the plain kernel
            initializer = keras.initializers.RandomNormal(stddev=deviation)
            self.kernel = self.add_weight(
                shape=(row.kernel, row.kernel, inputs, outputs), initializer=initializer, name="kernel"
            )

        def call(self, tensor: Any) -> Any:
            weights = ops.cast(self.kernel, tensor.dtype)
            if row.kind == "head":
                return ops.conv(tensor, plain_head_kernel(ops, weights), row.stride, "valid") + self.bias
            return ops.conv(tensor, plain_kernel(ops, weights, on_pixels=on_pixels), row.stride, "valid")

    return Convolution()
